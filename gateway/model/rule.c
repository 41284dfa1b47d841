/* Every metric is a share of bad requests: a p95 is above x where more than 5 % took longer. */
#include "model/rule.h"

#include <stdlib.h>
#include <string.h>

#include "base/xmem.h"

#define BURN_PART_S 60

static const struct {
	const char *name;
	double allowed;
} metrics[] = {
    {"p50", 0.5},       {"p75", 0.25},           {"p90", 0.1},    {"p95", 0.05}, {"p99", 0.01},
    {"error_ratio", 0}, {"missing_profiles", 0}, {"burn_rate", 0}};

/* An objective's budget of a month is gone in 2 days, or in 5. */
static const struct {
	double factor;
	unsigned long_parts, short_parts;
} burns[] = {{14.4, 60, 5}, {6, 360, 30}};

const char *
rule_metric_name(enum config_metric metric)
{
	return metrics[metric].name;
}

double
rule_allowed(const struct config_rule *rule)
{
	if (rule->metric == CONFIG_METRIC_BURN_RATE)
		return 1 - rule->objective;
	return rule->metric <= CONFIG_METRIC_P99 ? metrics[rule->metric].allowed : rule->above;
}

bool
rule_is_about(const struct config_rule *rule, const char *route)
{
	return rule->route == NULL || strcmp(rule->route, route) == 0;
}

void
rule_track_init(struct rule_track *track, const struct config_rule *rule, int64_t window_s)
{
	bool burn = rule->metric == CONFIG_METRIC_BURN_RATE;
	int64_t part_s = burn ? BURN_PART_S : rule->for_s / RULE_PARTS;

	*track = (struct rule_track){.rule = rule};
	/* Whole windows to a part, as many parts as cover for_s. */
	track->part_s = (part_s + window_s - 1) / window_s * window_s;
	if (track->part_s < window_s)
		track->part_s = window_s;
	track->count =
	    burn ? RULE_BURN_PARTS : (unsigned)((rule->for_s + track->part_s - 1) / track->part_s);
	track->parts = xcalloc(track->count + 1, sizeof(*track->parts));
}

void
rule_track_clear(struct rule_track *track)
{
	free(track->parts);
	track->parts = NULL;
}

static struct rule_part *
part_at(const struct rule_track *track, int64_t number)
{
	return &track->parts[(uint64_t)number % (track->count + 1)];
}

static void
turn(struct rule_track *track, int64_t t_s)
{
	int64_t part = t_s / track->part_s;

	if (part - track->part > (int64_t)track->count)
		memset(track->parts, 0, (track->count + 1) * sizeof(*track->parts));
	else
		for (int64_t i = track->part + 1; i <= part; i++)
			*part_at(track, i) = (struct rule_part){0};
	track->part = part;
}

static uint32_t
slower_than(const struct ticks_row *row, double ms)
{
	unsigned edge = detector_bucket(ms);
	uint64_t n = 0;

	for (size_t i = 0; i < row->cell_count; i++)
		if (row->cells[i].bucket > edge)
			n += row->cells[i].count;
	return (uint32_t)n;
}

static uint32_t
watched(const struct ticks_row *row)
{
	uint64_t n = 0;

	for (size_t i = 0; i < row->cell_count; i++)
		n += row->cells[i].count;
	return (uint32_t)n;
}

void
rule_track_add(struct rule_track *track, int64_t t_s, const struct ticks_row *row)
{
	const struct config_rule *rule = track->rule;
	struct rule_part *part;

	if (!track->started) {
		track->started = true;
		track->first_s = t_s;
		track->part = t_s / track->part_s;
		track->judged = track->part;
	}
	if (t_s / track->part_s > track->part)
		turn(track, t_s);
	part = part_at(track, t_s / track->part_s);
	switch (rule->metric) {
	case CONFIG_METRIC_ERROR_RATIO:
		part->n += row->requests;
		part->bad += row->errors;
		break;
	case CONFIG_METRIC_MISSING_PROFILES:
		part->n += row->sent;
		part->bad += row->sent > row->joined ? row->sent - row->joined : 0;
		break;
	case CONFIG_METRIC_BURN_RATE:
		part->n += row->requests;
		part->bad += row->errors;
		if (rule->above_ms > 0)
			part->bad += slower_than(row, rule->above_ms);
		break;
	default:
		part->n += watched(row);
		part->bad += slower_than(row, rule->above_ms);
	}
}

/* --- judging ------------------------------------------------------------------ */

/* The newest `count` parts that have ended. */
static struct rule_part
sum_of(const struct rule_track *track, unsigned count)
{
	struct rule_part sum = {0};

	for (unsigned i = 1; i <= count; i++) {
		const struct rule_part *part = part_at(track, track->part - i);

		sum.n += part->n;
		sum.bad += part->bad;
	}
	return sum;
}

static bool
passes(struct rule_part part, double share)
{
	return part.n > 0 && part.bad > share * part.n;
}

/* In how many parts with requests the threshold is passed, and how many have requests. */
static unsigned
parts_passed(const struct rule_track *track, unsigned *ret_busy)
{
	unsigned passed = 0;

	*ret_busy = 0;
	for (unsigned i = 1; i <= track->count; i++) {
		struct rule_part part = *part_at(track, track->part - i);

		*ret_busy += part.n > 0;
		passed += passes(part, rule_allowed(track->rule));
	}
	return passed;
}

static bool
threshold_holds(struct rule_track *track, bool *ret_over)
{
	struct rule_part sum = sum_of(track, track->count);
	unsigned busy, passed = parts_passed(track, &busy);

	*ret_over = busy > 0 && passed == 0 && sum.n >= track->rule->min_requests;
	track->requests = sum.n;
	if (sum.n > 0)
		track->value = (double)sum.bad / sum.n;
	return sum.n >= track->rule->min_requests && busy == passed &&
	       part_at(track, track->part - 1)->n > 0 &&
	       (track->part - track->count) * track->part_s + track->part_s > track->first_s;
}

static bool
burns_now(struct rule_track *track, bool *ret_over)
{
	double allowed = rule_allowed(track->rule);
	bool burning = false;

	*ret_over = true;
	for (size_t i = 0; i < sizeof(burns) / sizeof(burns[0]); i++) {
		struct rule_part all = sum_of(track, burns[i].long_parts);
		struct rule_part newest = sum_of(track, burns[i].short_parts);

		if (!passes(newest, burns[i].factor * allowed))
			continue;
		*ret_over = false;
		if (burning || newest.n < track->rule->min_requests ||
		    !passes(all, burns[i].factor * allowed))
			continue;
		burning = true;
		track->burn_s = burns[i].long_parts * BURN_PART_S;
		track->value = (double)all.bad / all.n / allowed;
		track->requests = all.n;
	}
	return burning;
}

enum rule_change
rule_track_judge(struct rule_track *track, int64_t t_s)
{
	bool over = false, holds;

	if (!track->started)
		return RULE_SAME;
	if (t_s / track->part_s > track->part)
		turn(track, t_s);
	if (track->part == track->judged)
		return RULE_SAME;
	track->judged = track->part;
	if (track->rule->metric == CONFIG_METRIC_BURN_RATE)
		holds = burns_now(track, &over);
	else
		holds = threshold_holds(track, &over);
	if (!track->firing && holds) {
		track->firing = true;
		track->since_s = (track->part - (track->burn_s > 0 ? track->burn_s / BURN_PART_S
		                                                   : track->count)) *
		                 track->part_s;
		if (track->since_s < track->first_s)
			track->since_s = track->first_s;
		return RULE_FIRED;
	}
	if (track->firing && over) {
		track->firing = false;
		return RULE_ENDED;
	}
	return RULE_SAME;
}
