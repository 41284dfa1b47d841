/* The detector's time. Ticks run on a clock that never steps; hours of day follow the wall clock,
 * but only after it has said the same for 24 h, so that a wrong date for an afternoon does not mix
 * up the hours. Pure. */
#ifndef TAILRACE_MODEL_DETECTOR_CLOCK_H
#define TAILRACE_MODEL_DETECTOR_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define DETECTOR_CLOCK_AGREE_S 86400 /* how long a stepped wall clock must keep to its new time */
#define DETECTOR_CLOCK_SLACK_S 60    /* slewing and leap seconds are no step */

struct detector_clock {
	bool started;
	int64_t ahead_s;      /* detector time - boot time, fixed at the first reading */
	int64_t step_s;       /* by which the wall clock is ahead of detector time, as agreed */
	int64_t claimed_s;    /* by which it says to be now, since `claimed_at_s` */
	int64_t claimed_at_s; /* boot time */
};

/* Detector time, unix seconds, of boot_s (CLOCK_BOOTTIME) and wall_s (CLOCK_REALTIME). Rises with
 * boot_s. */
int64_t detector_clock_read(struct detector_clock *clock, int64_t boot_s, int64_t wall_s);

/* After a restart: go on from `detector_s`, the detector time last read, where the wall clock says
 * that time has passed since; else from there without a gap. `step_s` as it was. */
void detector_clock_resume(struct detector_clock *clock, int64_t detector_s, int64_t step_s,
                           int64_t boot_s, int64_t wall_s);

/* For detector_shift_hours(): whole hours by which the wall clock is ahead. */
int detector_clock_shift_hours(const struct detector_clock *clock);

#endif
