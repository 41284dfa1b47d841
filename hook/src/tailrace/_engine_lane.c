/* Lanes: the tasks that work for a request, found by the task's address, and what a step does to
 * their path. */
#include "_engine_detail.h"

/* Task address → lane; open addressing, grown at half full. Entries go when the task ends or its
 * request closes. */
static struct lane **slots;
static uint32_t slot_count, lanes_known;

static uint32_t
slot_of(const void *task)
{
	uint64_t x = (uintptr_t)task >> 4;
	x *= UINT64_C(0x9e3779b97f4a7c15);
	return (uint32_t)(x >> 32) & (slot_count - 1);
}

struct lane *
lane_find(const void *task)
{
	if (lanes_known == 0)
		return NULL;
	for (uint32_t i = slot_of(task); slots[i] != NULL; i = (i + 1) & (slot_count - 1))
		if (slots[i]->task == task)
			return slots[i];
	return NULL;
}

static void
slot_put(struct lane *lane)
{
	uint32_t i = slot_of(lane->task);
	while (slots[i] != NULL)
		i = (i + 1) & (slot_count - 1);
	slots[i] = lane;
}

static bool
slots_reserve(void)
{
	if ((lanes_known + 1) * 2 <= slot_count)
		return true;
	struct lane **old = slots;
	uint32_t old_count = slot_count;
	uint32_t count = old_count == 0 ? 256 : old_count * 2;
	struct lane **grown = calloc(count, sizeof(struct lane *));
	if (grown == NULL) {
		engine_failed("memory");
		return false;
	}
	slots = grown;
	slot_count = count;
	for (uint32_t i = 0; i < old_count; i++)
		if (old[i] != NULL)
			slot_put(old[i]);
	free(old);
	return true;
}

static void
slot_remove(const struct lane *lane)
{
	uint32_t mask = slot_count - 1, i = slot_of(lane->task);
	while (slots[i] != lane)
		i = (i + 1) & mask;
	slots[i] = NULL;
	lanes_known--;
	for (uint32_t j = (i + 1) & mask; slots[j] != NULL; j = (j + 1) & mask) {
		struct lane *moved = slots[j];
		slots[j] = NULL;
		slot_put(moved);
	}
}

void
lane_unref(struct lane *lane)
{
	if (lane != NULL && --lane->refs == 0)
		free(lane);
}

static void
leave_request(struct lane *lane)
{
	lane->request->lane_count--;
	*lane->link = lane->next;
	if (lane->next != NULL)
		lane->next->link = lane->link;
	lane->request = NULL;
	path_set(&lane->path, NULL);
	path_set(&lane->job_path, NULL);
}

/* A new reference; NULL at the cap (the request is then marked) or without memory. Takes the
 * path's reference. */
struct lane *
lane_new(struct request *request, struct loop *loop, PyObject *task, struct node *path)
{
	struct lane *old = lane_find(task);
	if (old != NULL)
		lane_detach(old);
	struct lane *lane = NULL;
	if (request->lane_count < REQUEST_LANES_MAX && slots_reserve())
		if ((lane = calloc(1, sizeof(*lane))) == NULL)
			engine_failed("memory");
	if (lane == NULL) {
		request->truncated = true;
		engine.lanes_over++;
		path_unref(path);
		return NULL;
	}
	*lane = (struct lane){.request = request,
	                      .task = task,
	                      .loop = loop,
	                      .path = path,
	                      .refs = 2,
	                      .first_stack = STACK_LANE,
	                      .made_at = STACK_NONE,
	                      .next = request->lanes,
	                      .link = &request->lanes};
	lane->paused_ns = path != NULL ? path->end_ns : 0;
	if (request->lanes != NULL)
		request->lanes->link = &lane->next;
	request->lanes = lane;
	request->lane_count++;
	slot_put(lane);
	lanes_known++;
	PyCodeObject *code = walk_task_code(task);
	int32_t name = STACK_NONE;
	if (code != NULL) {
		const struct code_info *info = code_intern(code);
		name = info != NULL ? stack_of_code(code) : STACK_NONE;
		if (info != NULL && code_in_app(info))
			lane->first_stack = name;
	}
	const struct running *running = loop->running;
	uint16_t parent = running != NULL && running->request == request && running->lane != NULL
	                      ? running->lane->number
	                      : 0;
	lane->number = detail_lane(request, parent, LANE_TASK, name, lane->paused_ns);
	return lane;
}

/* The lane works for its request no more: it ended, or the request did. Drops the table's
 * reference. */
void
lane_detach(struct lane *lane)
{
	if (lane->request == NULL && lane->who == NULL)
		return; /* not in the table */
	if (lane->request != NULL)
		leave_request(lane);
	slot_remove(lane);
	identity_unref(lane->who);
	lane->who = NULL;
	lane_unref(lane);
}

/* It stays in the table. */
void
lane_haunt(struct lane *lane, struct identity *who)
{
	if (lane->request == NULL)
		return;
	leave_request(lane);
	lane->who = identity_ref(who);
}

static void
learn_first_stack(struct lane *lane, int32_t stack)
{
	if (lane->first_stack == STACK_LANE)
		lane->first_stack = stack_first_in_app(stack);
}

/* Where a task of a library's coroutine (to_thread() in gather(), say) has no frame of the app,
 * those that made it stand before its own. */
static int32_t
whole_stack(const struct lane *lane, int32_t stack)
{
	return stack_has_in_app(stack) ? stack : stack_join(lane->made_at, stack);
}

static void
add_ready(struct lane *lane, int64_t until_ns, bool exact)
{
	struct segment ready = {.kind = SEG_READY, .stack = STACK_NONE, .exact = exact};
	lane->path = path_add(lane->path, &ready, until_ns);
}

/* Its own wait, from the end of its last step to due_ns. */
static void
add_wait(struct lane *lane, const struct step *step, int64_t due_ns)
{
	struct segment wait = {
	    .kind = SEG_WAIT, .cause = CAUSE_SHORT, .stack = STACK_NONE, .exact = true};
	if (due_ns <= lane->paused_ns)
		return;
	if (due_ns - lane->paused_ns >= engine.walk_min_ns) {
		if (engine.stage < STAGE_NO_STACKS)
			wait.stack = whole_stack(lane, walk_task(step->task, lane));
		wait.cause = stack_cause(wait.stack);
		learn_first_stack(lane, wait.stack);
		wait.stack = span_stack(lane->spans, wait.stack);
		if (wait.cause == CAUSE_LIMITER)
			wait.kind = SEG_THREAD_QUEUE;
	}
	if (step->source.request != NULL &&
	    (step->source.kind == SOURCE_LANE || step->source.kind == SOURCE_THREAD))
		wait.by = step->source.request->who;
	else
		wait.by = step->source.who;
	if (wait.cause == CAUSE_SHORT)
		wait.by = NULL;
	int64_t late_ns = 0;
	if (step->source.kind == SOURCE_IO)
		late_ns =
		    loop_recent_overlap(lane->loop, step->source.turn, lane->paused_ns, due_ns);
	lane->path = path_add(lane->path, &wait, due_ns - late_ns);
	add_ready(lane, due_ns, false);
	detail_add(lane->request, lane->number, wait.kind, wait.stack, 0, due_ns - late_ns);
}

/* The path led through whoever woke the lane: its own wait decided nothing. */
static void
take_path(struct lane *lane, const struct step *step, int64_t now_ns)
{
	struct node *path = path_ref(step->source.path);
	int32_t outer = STACK_NONE;
	if (now_ns - lane->paused_ns >= engine.walk_min_ns && engine.stage < STAGE_NO_STACKS) {
		outer = whole_stack(lane, walk_task(step->task, lane));
		learn_first_stack(lane, outer);
		if (step->source.kind == SOURCE_THREAD)
			path = path_prefix_jobs(path, outer);
	}
	path_set(&lane->path, path);
	detail_add(lane->request, lane->number, SEG_WAIT, outer, step->source.number,
	           step->source.due_ns < now_ns ? step->source.due_ns : now_ns);
}

/* A job's result, which the lane has come to wait for, has reached it: by how much later? A path
 * that is full does not tell the job's end. */
static void
note_return(const struct lane *lane, const struct source *source, int64_t now_ns)
{
	const struct node *path = source->path;
	int64_t from_ns =
	    path != NULL && path->depth < PATH_SEGMENTS_MAX ? path->end_ns : source->due_ns;
	if (from_ns < lane->paused_ns)
		from_ns = lane->paused_ns;
	if (from_ns < now_ns)
		jobs_returned(lane->request, source->job, now_ns - from_ns);
}

void
lane_resume(struct lane *lane, const struct step *step, int64_t now_ns)
{
	const struct source *source = &step->source;
	bool ours =
	    source->request != NULL && source->request == lane->request && source->lane != lane;
	if (ours && source->job != 0)
		note_return(lane, source, now_ns);
	if (!lane->started)
		lane->started = true;
	else if (ours && source->due_ns > lane->paused_ns && /* else its own run decided */
	         (source->kind == SOURCE_LANE || source->kind == SOURCE_THREAD))
		take_path(lane, step, now_ns);
	else if (source->lane != lane)
		add_wait(lane, step, source->due_ns < now_ns ? source->due_ns : now_ns);
	add_ready(lane, now_ns, true);
	detail_add(lane->request, lane->number, SEG_READY, STACK_NONE, 0, now_ns);
	lane->running = true;
	lane->run_counted = false;
}

/* For the log of stalls: where a long step spent its time, else where it ended. */
static void
note_stack(struct running *running, int32_t stack)
{
	int32_t sampled = sample_top(running->samples);
	if (sampled != STACK_NONE)
		running->stack = sampled;
	else if (running->stack == STACK_NONE)
		running->stack = stack;
}

/* The stacks of what ran with the frames of the spans that are open. */
static int32_t
name_spans(const struct lane *lane, const struct running *running, int32_t stack)
{
	struct sample_set *samples = running->samples;
	if (lane->spans == NULL)
		return stack;
	for (uint32_t i = 0; samples != NULL && i < samples->len; i++)
		samples->items[i].stack = span_stack(lane->spans, samples->items[i].stack);
	return span_stack(lane->spans, detail_stack(lane->request, stack));
}

/* Does its run get a stack? */
static bool
is_long(const struct running *running, int64_t now_ns)
{
	return now_ns - running->begin_ns >= RUN_STACK_MIN_NS && engine.stage < STAGE_NO_STACKS;
}

struct node *
lane_path_at(struct lane *lane, int64_t now_ns)
{
	struct running *running = loop_running(lane->loop);
	if (!lane->running || running == NULL || running->lane != lane)
		return path_ref(lane->path);
	int32_t stack = lane->first_stack;
	if (is_long(running, now_ns)) {
		int held = frames_hold(); /* a job of its asks, perhaps */
		PyFrameObject *frame = PyThreadState_GetFrame(lane->loop->thread);
		int32_t now =
		    walk_frames(frame, lane->loop->base_code, walk_task_code(running->task));
		Py_XDECREF(frame);
		frames_release(held);
		learn_first_stack(lane, now);
		if (stack_has_in_app(now))
			stack = now;
		else
			stack = lane->first_stack;
	}
	struct node *before = lane->path;
	stack = name_spans(lane, running, stack);
	note_stack(running, stack);
	lane->path =
	    path_add_run(lane->path, now_ns, stack, lane->run_counted, SEG_RUN, running->samples);
	lane->run_counted |= lane->path != before;
	return path_ref(lane->path);
}

void
lane_pause(struct lane *lane, struct running *running, int64_t now_ns)
{
	int32_t stack = lane->first_stack;
	bool done = walk_task_done(running->task);
	if (!done && is_long(running, now_ns)) {
		int32_t where = walk_task(running->task, NULL);
		learn_first_stack(lane, where);
		stack = where >= 0 ? where : lane->first_stack;
	}
	stack = name_spans(lane, running, stack);
	note_stack(running, stack);
	lane->path =
	    path_add_run(lane->path, now_ns, stack, lane->run_counted, SEG_RUN, running->samples);
	detail_add(lane->request, lane->number, SEG_RUN, stack, 0, now_ns);
	lane->paused_ns = now_ns;
	lane->running = false;
	if (done) {
		detail_lane_end(lane->request, lane->number);
		lane_detach(lane);
	}
}
