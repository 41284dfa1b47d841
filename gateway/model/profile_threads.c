/* What thread jobs took, beside the profiles of a batch. */
#include <stdlib.h>
#include "base/xmem.h"
#include "model/profile_threads.h"

#define FIELDS 3
#define JOB_FIELDS 5

static bool
read_job(struct read_error *error, const struct place *at, struct profile_thread *ret)
{
	if (!read_row(error, at, JOB_FIELDS))
		return false;
	return profile_stack_id_read(error, at, 0, &ret->stack_id) &&
	       read_u64(error, at, 1, INT64_MAX, &ret->count) &&
	       read_u64(error, at, 2, INT64_MAX, &ret->queue_ns) &&
	       read_u64(error, at, 3, INT64_MAX, &ret->run_ns) &&
	       read_u64(error, at, 4, ret->run_ns, &ret->cpu_ns);
}

static bool
read_jobs(struct read_error *error, const struct place *at, struct profile *profile)
{
	struct profile_thread job;
	size_t count;
	if (!read_array(error, at, PROFILE_THREADS_MAX, &count))
		return false;
	bool wanted = profile != NULL && profile->threads == NULL && count > 0;
	if (wanted)
		profile->threads = xcalloc(count, sizeof(*profile->threads));
	for (size_t i = 0; i < count; i++) {
		struct place row = place_element(at, i);
		job = (struct profile_thread){0};
		if (!read_job(error, &row, &job))
			return false;
		if (!wanted)
			continue;
		profile->threads[profile->thread_count++] = job;
		profile->bytes += sizeof(job);
	}
	return true;
}

/* Jobs' results, in the order of the profile's jobs. */
static bool
read_returns(struct read_error *error, const struct place *at, struct profile *profile)
{
	size_t count;
	if (!read_array(error, at, PROFILE_THREADS_MAX, &count))
		return false;
	for (size_t i = 0; i < count; i++) {
		uint64_t ns;
		if (!read_u64(error, at, i, INT64_MAX, &ns))
			return false;
		if (profile == NULL || i >= profile->thread_count)
			continue;
		profile->threads[i].return_ns = ns;
		profile->threads[i].has_return = true;
	}
	return true;
}

typedef bool list_reader(struct read_error *error, const struct place *at, struct profile *profile);

/* A member of the batch whose rows are [key, part, list]. */
static bool
read_member(struct read_error *error, const struct place *top, struct profile_batch *batch,
            const char *name, list_reader *read_list)
{
	struct place at = place_member(top, name);
	size_t count, found_at = 0;
	if (at.value == NULL)
		return true;
	if (!read_array(error, &at, PROFILE_BATCH_MAX, &count))
		return false;
	for (size_t i = 0; i < count; i++) {
		struct place row = place_element(&at, i);
		struct profile_key key;
		uint64_t part;
		if (!read_row(error, &row, FIELDS))
			return false;
		struct place key_at = place_element(&row, 0), list = place_element(&row, 2);
		if (!profile_key_read(error, &key_at, &key) ||
		    !read_u64(error, &row, 1, INT32_MAX - 1, &part) ||
		    !read_list(error, &list, profile_batch_find(batch, &key, part, &found_at)))
			return false;
	}
	return true;
}

bool
profile_threads_read(struct read_error *error, const struct place *top, struct profile_batch *batch)
{
	return read_member(error, top, batch, "threads", read_jobs) &&
	       read_member(error, top, batch, "returns", read_returns);
}

/* One part's job into the profile put together. */
static void
add(struct profile *into, const struct profile_thread *job)
{
	for (size_t i = 0; i < into->thread_count; i++) {
		struct profile_thread *same = &into->threads[i];
		if (same->stack != job->stack)
			continue;
		same->count += job->count;
		same->queue_ns += job->queue_ns;
		same->run_ns += job->run_ns;
		same->cpu_ns += job->cpu_ns;
		same->return_ns += job->return_ns;
		same->has_return |= job->has_return;
		return;
	}
	if (into->thread_count == PROFILE_THREADS_MAX) {
		into->truncated = true;
		return;
	}
	into->threads = xrealloc(into->threads, into->thread_count + 1, sizeof(*into->threads));
	into->threads[into->thread_count] = *job;
	stack_ref(into->threads[into->thread_count++].stack);
	into->bytes += sizeof(*job);
}

void
profile_threads_append(struct profile *into, const struct profile *part)
{
	for (size_t i = 0; i < part->thread_count; i++)
		add(into, &part->threads[i]);
}

void
profile_threads_free(struct profile *profile)
{
	for (size_t i = 0; i < profile->thread_count; i++)
		stack_unref(profile->threads[i].stack);
	free(profile->threads);
}
