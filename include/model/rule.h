/* A fixed threshold of the configuration over one route: whether it has been passed long enough,
 * and whether that is over. docs/alerts.md. Pure; one thread. */
#ifndef TAILRACE_MODEL_RULE_H
#define TAILRACE_MODEL_RULE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/config.h"
#include "model/ticks.h"

#define RULE_PARTS 5        /* of for_s; the threshold must be passed in each */
#define RULE_BURN_PARTS 360 /* minutes */

struct rule_part {
	uint32_t n, bad;
};

enum rule_change { RULE_SAME, RULE_FIRED, RULE_ENDED };

struct rule_track {
	const struct config_rule *rule; /* borrowed */
	int64_t part_s;
	unsigned count;          /* of parts */
	struct rule_part *parts; /* owned ring: part `number` lies at number modulo count */
	int64_t part, judged;    /* number of the running part; the part that was last judged at */
	int64_t first_s;         /* of the first window */
	bool started, firing;
	int64_t since_s;   /* firing: when it began to hold */
	double value;      /* what was compared last: ms-free share of bad requests, or burn */
	unsigned burn_s;   /* burn_rate: the longer of the two windows that were passed */
	uint64_t requests; /* in the time that was looked at */
};

void rule_track_init(struct rule_track *track, const struct config_rule *rule, int64_t window_s);
void rule_track_clear(struct rule_track *track);

/* Whether the rule is about this route. */
bool rule_is_about(const struct config_rule *rule, const char *route);

/* One window of the route, in order of time. */
void rule_track_add(struct rule_track *track, int64_t t_s, const struct ticks_row *row);

/* Time has come to t_s. */
enum rule_change rule_track_judge(struct rule_track *track, int64_t t_s);

/* The share of requests that a metric allows to be bad: 0.05 for p95, `above` for ratios. */
double rule_allowed(const struct config_rule *rule);

const char *rule_metric_name(enum config_metric metric);

#endif
