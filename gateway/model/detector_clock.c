/* Detector time from boot time, and the wall clock's agreed distance to it. */
#include "model/detector_clock.h"

#include <stdlib.h>

#define HOUR_S 3600

static void
start(struct detector_clock *clock, int64_t ahead_s, int64_t step_s, int64_t boot_s)
{
	*clock = (struct detector_clock){.started = true,
	                                 .ahead_s = ahead_s,
	                                 .step_s = step_s,
	                                 .claimed_s = step_s,
	                                 .claimed_at_s = boot_s};
}

int64_t
detector_clock_read(struct detector_clock *clock, int64_t boot_s, int64_t wall_s)
{
	int64_t claimed_s;

	if (!clock->started)
		start(clock, wall_s - boot_s, 0, boot_s);
	claimed_s = wall_s - (boot_s + clock->ahead_s);
	if (llabs(claimed_s - clock->claimed_s) > DETECTOR_CLOCK_SLACK_S) {
		clock->claimed_s = claimed_s;
		clock->claimed_at_s = boot_s;
	}
	if (llabs(clock->claimed_s - clock->step_s) <= DETECTOR_CLOCK_SLACK_S)
		clock->claimed_at_s = boot_s;
	else if (boot_s - clock->claimed_at_s >= DETECTOR_CLOCK_AGREE_S)
		clock->step_s = clock->claimed_s;
	return boot_s + clock->ahead_s;
}

void
detector_clock_resume(struct detector_clock *clock, int64_t detector_s, int64_t step_s,
                      int64_t boot_s, int64_t wall_s)
{
	int64_t now_s = wall_s - step_s;

	start(clock, (now_s > detector_s ? now_s : detector_s) - boot_s, step_s, boot_s);
}

int
detector_clock_shift_hours(const struct detector_clock *clock)
{
	int64_t half = clock->step_s < 0 ? -HOUR_S / 2 : HOUR_S / 2;

	return (int)((clock->step_s + half) / HOUR_S);
}
