/* A ring of keys; the few of one instance are picked out of it. */
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/xmem.h"
#include "collector/wants.h"

struct want {
	struct profile_key key;
	uint8_t instance[PROFILE_INSTANCE_SIZE];
	uint64_t at_ns; /* 0 = told */
};

struct wants {
	struct want ring[WANTS_MAX];
	size_t first, count; /* the oldest; how many from there on */
};

struct wants *
wants_new(void)
{
	return xcalloc(1, sizeof(struct wants));
}

void
wants_free(struct wants *wants)
{
	free(wants);
}

/* Those told and those too old, at the ring's beginning. */
static void
shorten(struct wants *wants, uint64_t now_ns)
{
	while (wants->count > 0) {
		const struct want *want = &wants->ring[wants->first];
		/* Added later than `now_ns`, where the batch itself brought it. */
		if (want->at_ns != 0 && now_ns < want->at_ns + WANTS_AGE_S * NS_PER_S)
			return;
		wants->first = (wants->first + 1) % WANTS_MAX;
		wants->count--;
	}
}

void
wants_add(struct wants *wants, const struct profile *profile, uint64_t now_ns)
{
	shorten(wants, now_ns);
	if (wants->count == WANTS_MAX) {
		wants->first = (wants->first + 1) % WANTS_MAX;
		wants->count--;
	}
	struct want *want = &wants->ring[(wants->first + wants->count++) % WANTS_MAX];
	want->key = profile->key;
	want->at_ns = now_ns;
	memcpy(want->instance, profile->process->instance, PROFILE_INSTANCE_SIZE);
}

void
wants_write(struct wants *wants, const uint8_t instance[PROFILE_INSTANCE_SIZE], uint64_t now_ns,
            struct text *out)
{
	size_t told = 0;
	shorten(wants, now_ns);
	text_puts(out, "[");
	for (size_t i = 0; i < wants->count && told < WANTS_ANSWER_MAX; i++) {
		struct want *want = &wants->ring[(wants->first + i) % WANTS_MAX];
		if (want->at_ns == 0 ||
		    memcmp(want->instance, instance, PROFILE_INSTANCE_SIZE) != 0)
			continue;
		text_puts(out, told++ > 0 ? ",\"" : "\"");
		text_hex(out, want->key.trace_id, TRACE_ID_SIZE);
		text_puts(out, "-");
		text_hex(out, want->key.span_id, SPAN_ID_SIZE);
		text_puts(out, "\"");
		want->at_ns = 0;
	}
	text_puts(out, "]");
}
