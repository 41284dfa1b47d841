/* Paths: chains of segments from the ASGI call to now, shared by reference between the lanes of
 * a request, so that a wakeup costs one pointer however long the path is. */
#include "_engine.h"

#ifdef TAILRACE_FAULTS
enum { SPARE_MAX = 1 }; /* so that most are made, which can fail */
#else
enum { SPARE_MAX = 4096 };
#endif

static struct node *spare; /* linked by parent */
static uint32_t spare_count;

static struct node *
node_new(void)
{
	struct node *node = spare;
	if (node == NULL) {
		node = malloc(sizeof(*node));
		if (node == NULL)
			engine_failed("memory");
		return node;
	}
	spare = node->parent;
	spare_count--;
	return node;
}

struct node *
path_new(int64_t at_ns)
{
	struct node *node = node_new();
	if (node != NULL)
		*node = (struct node){.end_ns = at_ns, .refs = 1, .stack = STACK_NONE, .exact = 1};
	return node;
}

void
path_unref(struct node *path)
{
	while (path != NULL && --path->refs == 0) {
		struct node *parent = path->parent;
		identity_unref(path->by);
		if (spare_count < SPARE_MAX) {
			path->parent = spare;
			spare = path;
			spare_count++;
		} else {
			free(path);
		}
		path = parent;
	}
}

/* Takes the reference to path and returns one to the longer path. A path that is full, lost for
 * want of memory or that already reaches end_ns stays as it is: what is missing then is
 * unattributed. */
struct node *
path_add(struct node *path, const struct segment *segment, int64_t end_ns)
{
	if (path == NULL || end_ns <= path->end_ns)
		return path;
	if (segment->continued && path->refs == 1 && path->kind == segment->kind &&
	    path->stack == segment->stack && path->exact && segment->exact &&
	    path->parent != NULL) {
		path->end_ns = end_ns; /* nobody else has seen it */
		return path;
	}
	if (path->depth >= PATH_SEGMENTS_MAX) {
		engine.segments_over++;
		return path;
	}
	struct node *node = node_new();
	if (node == NULL)
		return path;
	*node = (struct node){
	    .parent = path,
	    .by = identity_ref(segment->by),
	    .end_ns = end_ns,
	    .refs = 1,
	    .depth = path->depth + 1,
	    .stack = segment->stack,
	    .samples = segment->samples,
	    .kind = (uint8_t)segment->kind,
	    .cause = (uint8_t)segment->cause,
	    .exact = segment->exact,
	    .count = !segment->continued,
	};
	return node;
}

/* A run up to end_ns; where samples were taken in it, cut into one segment per sampled stack. */
struct node *
path_add_run(struct node *path, int64_t end_ns, int32_t stack, bool continued,
             enum segment_kind kind, struct sample_set *samples)
{
	struct segment segment = {
	    .kind = kind, .stack = stack, .exact = true, .continued = continued};
	if (path == NULL || samples == NULL || samples->len == 0 || end_ns <= path->end_ns)
		return path_add(path, &segment, end_ns);
	int64_t begin_ns = path->end_ns, total_ns = end_ns - begin_ns, weights_ns = 0, sum_ns = 0;
	/* The last sample speaks also for what came after. */
	if (end_ns > samples->last_ns)
		samples->items[samples->last].ns += end_ns - samples->last_ns;
	for (uint32_t i = 0; i < samples->len; i++)
		weights_ns += samples->items[i].ns;
	for (uint32_t i = 0; i < samples->len; i++) {
		sum_ns += samples->items[i].ns;
		segment.stack = samples->items[i].stack;
		segment.samples = samples->items[i].count;
		segment.exact = false;
		path = path_add(path, &segment,
		                i + 1 == samples->len
		                    ? end_ns
		                    : begin_ns + (int64_t)((double)total_ns * (double)sum_ns /
		                                           (double)weights_ns));
	}
	samples->len = 0;
	samples->last_ns = end_ns;
	return path;
}

static bool
is_job(const struct node *node)
{
	return node->kind == SEG_THREAD_RUN ||
	       (node->kind == SEG_THREAD_QUEUE && node->cause == CAUSE_EXECUTOR);
}

/* The same path (whose reference is taken), the thread's segments at its end shown under the
 * stack that awaited them. */
struct node *
path_prefix_jobs(struct node *path, int32_t outer)
{
	struct node *chain[SAMPLE_STACKS_MAX * 4];
	int len = 0;
	struct node *from = path;
	while (from != NULL && from->parent != NULL && is_job(from) &&
	       len < (int)(sizeof(chain) / sizeof(chain[0]))) {
		chain[len++] = from;
		from = from->parent;
	}
	if (len == 0 || outer < 0)
		return path;
	struct node *result = path_ref(from);
	while (len-- > 0) {
		const struct node *old = chain[len];
		struct segment segment = {.kind = old->kind,
		                          .cause = old->cause,
		                          .stack = stack_join(outer, old->stack),
		                          .samples = old->samples,
		                          .exact = old->exact,
		                          .continued = old->count == 0,
		                          .by = old->by};
		result = path_add(result, &segment, old->end_ns);
	}
	path_unref(path);
	return result;
}
