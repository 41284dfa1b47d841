/* Exchange and profile on one line of time. */
#include "model/join.h"
#include "model/profile_stalls.h"

bool
record_was_sent(const struct exchange_record *record)
{
	return record->attempts > 0 && record->died_in > PHASE_DISPATCH;
}

bool
record_was_answered(const struct exchange_record *record)
{
	return record->attempts > 0 && record->died_in > PHASE_WAIT;
}

bool
record_is_error(const struct exchange_record *record)
{
	return record->status >= 500 || record->status == 0 || record->died_in != PHASE_COUNT;
}

static uint64_t
clamp(uint64_t value, uint64_t low, uint64_t high)
{
	return value < low ? low : value > high ? high : value;
}

/* How much `later` lies before `earlier`. */
static uint64_t
disorder(uint64_t earlier, uint64_t later)
{
	return later < earlier ? earlier - later : 0;
}

static int
split_shared(const struct exchange_record *record, const struct profile *p, uint64_t app_end_ns,
             struct join *ret)
{
	uint64_t t4 = record->marks_ns[MARK_CONNECTED], t5 = record->marks_ns[MARK_SENT_FIRST];
	uint64_t t7 = record->marks_ns[MARK_READ_FIRST];
	bool answered = record_was_answered(record);
	uint64_t before = disorder(t4, p->enter_ns);
	/* Where the app sent no response start, uvicorn answers for it: nothing orders its end and
	 * t7. */
	uint64_t after = answered && p->has_start ? disorder(app_end_ns, t7) : 0;
	if (answered && (before > JOIN_SLACK_MAX_NS || after > JOIN_SLACK_MAX_NS))
		return -1;
	uint64_t enter = clamp(p->enter_ns, t5, t7), end = clamp(app_end_ns, enter, t7);
	ret->app_queue_ns = enter - t5;
	ret->app_ns = end - enter;
	ret->app_out_ns = t7 - end;
	ret->slack_ns = answered ? (before > after ? before : after) : 0;
	return 0;
}

/* Two clocks: only the durations count. The app's part lies somewhere within t5 to t7, after the
 * wait in the loop's queue that the hook knows of; what is left over is shown as slack and halved.
 */
static int
split_placed(const struct exchange_record *record, const struct profile *p, uint64_t app_ns,
             struct join *ret)
{
	uint64_t span = record->marks_ns[MARK_READ_FIRST] - record->marks_ns[MARK_SENT_FIRST];
	uint64_t fits = app_ns < span ? app_ns : span;
	if (record_was_answered(record) && p->has_start && app_ns - fits > JOIN_SLACK_MAX_NS)
		return -1;
	uint64_t room = span - fits;
	uint64_t queue = p->has_task_queue && p->task_queue_ns < room ? p->task_queue_ns
	                 : p->has_task_queue                          ? room
	                                                              : 0;
	ret->app_queue_ns = queue + (room - queue) / 2;
	ret->app_ns = fits;
	ret->app_out_ns = room - ret->app_queue_ns;
	ret->slack_ns = app_ns > fits ? app_ns - fits : room;
	return 0;
}

/* Takes up to `ns` from the rows of one kind (or of all others), first ones first. Returns what is
 * left. */
static uint64_t
rows_clip(struct profile_rows *rows, int kind, uint64_t ns)
{
	for (size_t i = 0; i < rows->count && ns > 0; i++) {
		struct profile_row *row = &rows->rows[i];
		bool picked = kind >= 0 ? row->kind == kind
		                        : row->kind != PROFILE_RUN && row->kind != PROFILE_READY;
		if (!picked || row->ns == 0)
			continue;
		uint64_t taken = row->ns < ns ? row->ns : ns;
		row->ns -= taken;
		row->exact = false;
		ns -= taken;
	}
	return ns;
}

static void
breakdown_clip(struct profile *p, uint64_t ns)
{
	uint64_t taken = p->unattributed_ns < ns ? p->unattributed_ns : ns;
	p->unattributed_ns -= taken;
	ns -= taken;
	ns = rows_clip(&p->breakdown, PROFILE_RUN, ns);
	ns = rows_clip(&p->breakdown, PROFILE_READY, ns);
	rows_clip(&p->breakdown, -1, ns);
}

int
join_split(const struct exchange_record *record, struct profile *p, bool shared, struct join *ret)
{
	struct join join = {.shared = shared};
	uint64_t app_end_ns = p->has_start ? p->start_ns : p->end_ns;
	uint64_t app_ns = app_end_ns - p->enter_ns;
	int result = shared ? split_shared(record, p, app_end_ns, &join)
	                    : split_placed(record, p, app_ns, &join);
	if (result != 0)
		return -1;
	join.clipped_ns = app_ns - join.app_ns;
	join.app_stream_ns = p->end_ns - app_end_ns;
	breakdown_clip(p, join.clipped_ns);
	/* By the hook's clock: the app's queue ends where the app was called. */
	uint64_t called_ns = shared && p->enter_ns < record->marks_ns[MARK_SENT_FIRST]
	                         ? record->marks_ns[MARK_SENT_FIRST]
	                         : p->enter_ns;
	profile_stalls_cut(p, called_ns - join.app_queue_ns, called_ns, shared);
	*ret = join;
	return 0;
}
