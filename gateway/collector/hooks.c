/* Instances in a table, the silent ones replaced first. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/xmem.h"
#include "collector/hooks.h"

#define WORD_SIZE 64

struct hook {
	uint8_t instance[PROFILE_INSTANCE_SIZE];
	uint32_t pid;
	char python[WORD_SIZE], loop[WORD_SIZE], engine[WORD_SIZE], hook_version[WORD_SIZE];
	char version[PROFILE_VERSION_MAX + 1]; /* of the app; "" = not told */
	uint64_t dropped, batches, profiles;
	uint64_t first_ns, last_ns; /* heard of */
};

struct hooks {
	struct hook hooks[HOOKS_MAX];
	size_t count;
};

struct hooks *
hooks_new(void)
{
	return xcalloc(1, sizeof(struct hooks));
}

void
hooks_free(struct hooks *hooks)
{
	free(hooks);
}

/* The instance's place, else a free one, else that of whom nobody has heard for longest. */
static struct hook *
place_of(struct hooks *hooks, const uint8_t *instance)
{
	struct hook *oldest = &hooks->hooks[0];
	for (size_t i = 0; i < hooks->count; i++) {
		struct hook *hook = &hooks->hooks[i];
		if (memcmp(hook->instance, instance, PROFILE_INSTANCE_SIZE) == 0)
			return hook;
		if (hook->last_ns < oldest->last_ns)
			oldest = hook;
	}
	if (hooks->count < HOOKS_MAX)
		oldest = &hooks->hooks[hooks->count++];
	memset(oldest, 0, sizeof(*oldest));
	memcpy(oldest->instance, instance, PROFILE_INSTANCE_SIZE);
	return oldest;
}

static void
word(char *to, size_t size, const char *from)
{
	snprintf(to, size, "%s", from != NULL ? from : "");
}

void
hooks_heard(struct hooks *hooks, const struct profile_process *process, uint64_t profiles,
            uint64_t now_ns)
{
	struct hook *hook = place_of(hooks, process->instance);
	if (hook->batches++ == 0)
		hook->first_ns = now_ns;
	hook->last_ns = now_ns;
	hook->profiles += profiles;
	hook->pid = process->pid;
	hook->dropped = process->dropped;
	word(hook->python, sizeof(hook->python), process->python);
	word(hook->loop, sizeof(hook->loop), process->loop);
	word(hook->engine, sizeof(hook->engine), process->engine);
	word(hook->hook_version, sizeof(hook->hook_version), process->hook_version);
	word(hook->version, sizeof(hook->version), process->version);
}

static int
latest_first(const void *a, const void *b)
{
	const struct hook *const *x = a, *const *y = b;
	return ((*x)->last_ns < (*y)->last_ns) - ((*x)->last_ns > (*y)->last_ns);
}

static void
string(struct text *out, const char *key, const char *value)
{
	text_printf(out, ",\"%s\":", key);
	text_json_or_null(out, value[0] != '\0' ? value : NULL);
}

static void
hook_write(const struct hook *hook, uint64_t now_ns, struct text *out)
{
	text_puts(out, "{\"instance\":\"");
	text_hex(out, hook->instance, PROFILE_INSTANCE_SIZE);
	text_printf(out, "\",\"pid\":%u", hook->pid);
	string(out, "hook_version", hook->hook_version);
	string(out, "python", hook->python);
	string(out, "loop", hook->loop);
	string(out, "engine", hook->engine);
	string(out, "version", hook->version);
	text_printf(out,
	            ",\"batches\":%llu,\"profiles\":%llu,\"dropped\":%llu,\"since_s\":%llu,"
	            "\"heard_s\":%llu}",
	            (unsigned long long)hook->batches, (unsigned long long)hook->profiles,
	            (unsigned long long)hook->dropped,
	            (unsigned long long)((now_ns - hook->first_ns) / NS_PER_S),
	            (unsigned long long)((now_ns - hook->last_ns) / NS_PER_S));
}

void
hooks_write(const struct hooks *hooks, uint64_t now_ns, struct text *out)
{
	const struct hook *heard[HOOKS_MAX];
	size_t count = 0;
	for (size_t i = 0; i < hooks->count; i++)
		if (now_ns - hooks->hooks[i].last_ns <= HOOKS_SILENT_NS)
			heard[count++] = &hooks->hooks[i];
	if (count > 1)
		qsort(heard, count, sizeof(*heard), latest_first);
	text_puts(out, "[");
	for (size_t i = 0; i < count; i++) {
		text_puts(out, i > 0 ? "," : "");
		hook_write(heard[i], now_ns, out);
	}
	text_puts(out, "]");
}
