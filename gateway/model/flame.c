/* Interned stacks: frames once each, stacks as lists of them. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"
#include "model/flame.h"
#include <uthash.h>

#define FRAMES_MAX 64 /* of a stack (docs/protocol.md, limits) */
#define RENEW_S 10 /* two releases that run beside each other differ in lines at every exchange */

struct frame {
	UT_hash_handle hh;
	uint64_t id;
	uint32_t references;
	bool in_app;                    /* of the newest, as `file` */
	char *module, *function, *file; /* owned */
};

struct place {
	struct frame *frame; /* ref */
	uint32_t line;
};

struct interned {
	UT_hash_handle hh;
	uint64_t id;
	uint64_t used_s, learned_s, saved_s; /* saved_s 0 = not yet */
	uint32_t form;                       /* of the newest text; 0 = not from one */
	uint16_t depth;
	struct place places[];
};

struct flame {
	struct frame *frames;    /* uthash head; owns */
	struct interned *stacks; /* uthash head; owns */
	size_t stacks_max, frames_max;
	uint64_t overflowed;
};

/* FNV-1a over both names, each with its end, then mixed (the finisher of MurmurHash3). */
uint64_t
flame_key(uint64_t parent, const char *module, const char *function)
{
	const char *const names[2] = {module, function};
	uint64_t hash = 0xcbf29ce484222325ull ^ parent;
	for (size_t i = 0; i < 2; i++) {
		const unsigned char *at = (const unsigned char *)names[i];
		do
			hash = (hash ^ *at) * 0x100000001b3ull;
		while (*at++ != '\0');
	}
	hash = (hash ^ hash >> 33) * 0xff51afd7ed558ccdull;
	hash = (hash ^ hash >> 33) * 0xc4ceb9fe1a85ec53ull;
	hash ^= hash >> 33;
	return hash != 0 ? hash : 1;
}

struct flame *
flame_new(size_t stacks_max, size_t frames_max)
{
	struct flame *f = xcalloc(1, sizeof(*f));
	f->stacks_max = stacks_max;
	f->frames_max = frames_max;
	return f;
}

/* --- frames --------------- */

static void
frame_unref(struct flame *f, struct frame *frame)
{
	if (--frame->references > 0)
		return;
	HASH_DEL(f->frames, frame);
	free(frame->module);
	free(frame->function);
	free(frame->file);
	free(frame);
}

static void
frame_renew(struct frame *frame, const struct flame_frame *from)
{
	frame->in_app = from->in_app;
	if (frame->file != NULL && strcmp(frame->file, from->file) == 0)
		return;
	free(frame->file);
	frame->file = xstrdup(from->file);
}

/* A reference, or null where there is no room (or two names share an ID). */
static struct frame *
frame_take(struct flame *f, const struct flame_frame *from, bool renew)
{
	uint64_t id = flame_key(0, from->module, from->function);
	struct frame *frame;
	HASH_FIND(hh, f->frames, &id, sizeof(id), frame);
	if (frame == NULL) {
		if (HASH_COUNT(f->frames) >= f->frames_max)
			return NULL;
		frame = xcalloc(1, sizeof(*frame));
		frame->id = id;
		frame->module = xstrdup(from->module);
		frame->function = xstrdup(from->function);
		HASH_ADD(hh, f->frames, id, sizeof(frame->id), frame);
		renew = true;
	} else if (strcmp(frame->module, from->module) != 0 ||
	           strcmp(frame->function, from->function) != 0) {
		return NULL;
	}
	if (renew)
		frame_renew(frame, from);
	frame->references++;
	return frame;
}

/* --- stacks --------------- */

static struct interned *
find(const struct flame *f, uint64_t id)
{
	struct interned *stack;
	HASH_FIND(hh, f->stacks, &id, sizeof(id), stack);
	return stack;
}

static void
forget(struct flame *f, struct interned *stack)
{
	HASH_DEL(f->stacks, stack);
	for (size_t i = 0; i < stack->depth; i++)
		frame_unref(f, stack->places[i].frame);
	free(stack);
}

void
flame_free(struct flame *f)
{
	struct interned *stack, *next;
	if (f == NULL)
		return;
	HASH_ITER(hh, f->stacks, stack, next)
	{
		forget(f, stack);
	}
	free(f);
}

/* Takes `depth` frames in; null where there is no room. */
static struct interned *
stack_add(struct flame *f, const struct flame_frame *frames, size_t depth)
{
	uint64_t id = 0;
	if (HASH_COUNT(f->stacks) >= f->stacks_max)
		return NULL;
	struct interned *stack = xcalloc(1, sizeof(*stack) + depth * sizeof(stack->places[0]));
	for (size_t i = 0; i < depth; i++) {
		id = flame_key(id, frames[i].module, frames[i].function);
		stack->places[i].line = frames[i].line;
		stack->places[i].frame = frame_take(f, &frames[i], true);
		if (stack->places[i].frame != NULL)
			continue;
		while (i > 0)
			frame_unref(f, stack->places[--i].frame);
		free(stack);
		return NULL;
	}
	stack->id = id;
	stack->depth = (uint16_t)depth;
	HASH_ADD(hh, f->stacks, id, sizeof(stack->id), stack);
	return stack;
}

/* The newest lines, files and in_app into a stack that is known. */
static void
stack_renew(struct interned *stack, const struct flame_frame *frames)
{
	for (size_t i = 0; i < stack->depth; i++) {
		stack->places[i].line = frames[i].line;
		frame_renew(stack->places[i].frame, &frames[i]);
	}
	stack->saved_s = 0;
}

/* Whether the stack has these frames: two keys may share an ID, however unlikely. */
static bool
stack_is(const struct interned *stack, const struct flame_frame *frames, size_t depth)
{
	for (size_t i = 0; i < depth && stack->depth == depth; i++)
		if (strcmp(stack->places[i].frame->module, frames[i].module) != 0 ||
		    strcmp(stack->places[i].frame->function, frames[i].function) != 0)
			return false;
	return stack->depth == depth;
}

static struct interned *
stack_take(struct flame *f, const struct flame_frame *frames, size_t depth)
{
	uint64_t id = 0;
	for (size_t i = 0; i < depth; i++)
		id = flame_key(id, frames[i].module, frames[i].function);
	struct interned *stack = depth > 0 ? find(f, id) : NULL;
	if (stack != NULL && stack_is(stack, frames, depth))
		stack_renew(stack, frames);
	else if (stack == NULL && depth > 0)
		stack = stack_add(f, frames, depth);
	else
		stack = NULL;
	f->overflowed += stack == NULL && depth > 0;
	return stack;
}

/* Frames of a JSON array. Returns the number, 0 where it is no such array. */
static size_t
read_frames(const json_t *array, struct flame_frame frames[FRAMES_MAX])
{
	size_t depth = json_array_size(array);
	if (depth > FRAMES_MAX)
		return 0;
	for (size_t i = 0; i < depth; i++) {
		const json_t *object = json_array_get(array, i);
		frames[i] = (struct flame_frame){
		    .module = json_string_value(json_object_get(object, "module")),
		    .function = json_string_value(json_object_get(object, "function")),
		    .file = json_string_value(json_object_get(object, "file")),
		    .line = (uint32_t)json_integer_value(json_object_get(object, "line")),
		    .in_app = json_is_true(json_object_get(object, "in_app")),
		};
		if (frames[i].module == NULL || frames[i].function == NULL ||
		    frames[i].file == NULL)
			return 0;
	}
	return depth;
}

static struct interned *
learn(struct flame *f, const char *json, size_t length, uint64_t now_s)
{
	struct flame_frame frames[FRAMES_MAX];
	json_t *array = json_loadb(json, length, 0, NULL);
	size_t depth = read_frames(array, frames);
	struct interned *stack = depth > 0 ? stack_take(f, frames, depth) : NULL;
	if (stack != NULL)
		stack->used_s = now_s;
	json_decref(array);
	return stack;
}

uint64_t
flame_learn(struct flame *f, const char *json, size_t length, uint64_t now_s)
{
	struct interned *stack = learn(f, json, length, now_s);
	return stack != NULL ? stack->id : 0;
}

uint64_t
flame_intern(struct flame *f, const struct stack *told, uint64_t now_s)
{
	struct interned *stack = told->key != 0 ? find(f, told->key) : NULL;
	if (told->key == 0)
		return 0;
	if (stack == NULL && HASH_COUNT(f->stacks) >= f->stacks_max) {
		f->overflowed++;
		return 0;
	}
	if (stack == NULL || (stack->form != told->form && now_s - stack->learned_s >= RENEW_S)) {
		struct text frames = {0};
		stack_write(told, &frames);
		stack = learn(f, frames.data, frames.length, now_s);
		text_free(&frames);
		if (stack == NULL)
			return 0;
		stack->form = told->form;
		stack->learned_s = now_s;
	}
	stack->used_s = now_s;
	return stack->id;
}

uint64_t
flame_parent(void *arg, uint64_t id)
{
	struct flame *f = arg;
	struct flame_frame frames[FRAMES_MAX];
	const struct interned *stack = find(f, id);
	if (stack == NULL || stack->depth <= 1)
		return 0;
	uint64_t parent = 0;
	for (size_t i = 0; i + 1 < stack->depth; i++) {
		frames[i] = flame_frame(f, id, i);
		parent = flame_key(parent, frames[i].module, frames[i].function);
	}
	struct interned *known = find(f, parent);
	if (known == NULL) {
		known = stack_add(f, frames, stack->depth - 1u);
		f->overflowed += known == NULL;
	}
	if (known == NULL)
		return 0;
	if (known->used_s < stack->used_s)
		known->used_s = stack->used_s;
	return known->id;
}

/* --- reading --------------- */

size_t
flame_depth(const struct flame *f, uint64_t id)
{
	const struct interned *stack = find(f, id);
	return stack != NULL ? stack->depth : 0;
}

struct flame_frame
flame_frame(const struct flame *f, uint64_t id, size_t at)
{
	const struct interned *stack = find(f, id);
	if (stack == NULL || at >= stack->depth)
		return (struct flame_frame){"", "", "", 0, false};
	const struct frame *frame = stack->places[at].frame;
	return (struct flame_frame){frame->module, frame->function, frame->file,
	                            stack->places[at].line, frame->in_app};
}

bool
flame_named(const struct flame *f, uint64_t id, struct flame_frame *ret)
{
	size_t depth = flame_depth(f, id);
	if (depth == 0)
		return false;
	for (size_t i = depth; i-- > 0;) {
		*ret = flame_frame(f, id, i);
		if (ret->in_app)
			return true;
	}
	*ret = flame_frame(f, id, depth - 1);
	return true;
}

void
flame_write(const struct flame *f, uint64_t id, struct text *out)
{
	size_t depth = flame_depth(f, id);
	text_puts(out, "[");
	for (size_t i = 0; i < depth; i++) {
		struct flame_frame frame = flame_frame(f, id, i);
		text_puts(out, i > 0 ? ",{\"module\":" : "{\"module\":");
		text_json_or_null(out, frame.module);
		text_puts(out, ",\"function\":");
		text_json_or_null(out, frame.function);
		text_puts(out, ",\"file\":");
		text_json_or_null(out, frame.file);
		text_printf(out, ",\"line\":%u,\"in_app\":%s}", frame.line,
		            frame.in_app ? "true" : "false");
	}
	text_puts(out, "]");
}

/* --- care --------------- */

void
flame_each_unsaved(struct flame *f, uint64_t now_s, uint64_t again_s,
                   bool (*each)(void *arg, uint64_t stack), void *arg)
{
	for (struct interned *stack = f->stacks; stack != NULL; stack = stack->hh.next) {
		if (stack->saved_s != 0 &&
		    (now_s - stack->saved_s < again_s || stack->used_s <= stack->saved_s))
			continue;
		stack->saved_s = now_s;
		if (!each(arg, stack->id))
			return;
	}
}

void
flame_prune(struct flame *f, uint64_t before_s)
{
	struct interned *stack, *next;
	HASH_ITER(hh, f->stacks, stack, next)
	{
		if (stack->used_s < before_s)
			forget(f, stack);
	}
}

size_t
flame_count(const struct flame *f)
{
	return HASH_COUNT(f->stacks);
}

uint64_t
flame_overflowed(const struct flame *f)
{
	return f->overflowed;
}
