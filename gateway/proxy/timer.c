/* Timing wheel with lazy deadlines. */
#include "proxy/timer.h"

#include <event2/event.h>
#include "base/clock.h"

static void
wheel_arm(struct wheel *wheel, uint64_t tick, uint64_t now_ns)
{
	uint64_t due_ns = (tick + 1) * WHEEL_TICK_NS;
	uint64_t wait_ns = due_ns > now_ns ? due_ns - now_ns : 1;
	struct timeval tv = {.tv_sec = (time_t)(wait_ns / NS_PER_S),
	                     .tv_usec = (suseconds_t)(wait_ns % NS_PER_S / NS_PER_US)};

	wheel->armed = tick;
	if (wheel->event)
		evtimer_add(wheel->event, &tv);
}

static void
on_tick(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	wheel_advance(arg, clock_now_ns());
}

int
wheel_init(struct wheel *wheel, struct event_base *base, uint64_t now_ns)
{
	*wheel = (struct wheel){.tick = now_ns / WHEEL_TICK_NS};
	if (!base)
		return 0;
	wheel->event = evtimer_new(base, on_tick, wheel);
	return wheel->event ? 0 : -1;
}

void
wheel_free(struct wheel *wheel)
{
	if (wheel->event)
		event_free(wheel->event);
	wheel->event = NULL;
}

static void
unlink_timer(struct timer *timer)
{
	*timer->link = timer->next;
	if (timer->next)
		timer->next->link = timer->link;
	timer->link = NULL;
	timer->next = NULL;
}

/* Where a deadline belongs, as seen from the wheel's position. */
static void
link_timer(struct wheel *wheel, struct timer *timer)
{
	uint64_t tick = timer->due_ns / WHEEL_TICK_NS;
	uint64_t round = tick / WHEEL_SLOTS;
	uint64_t last = wheel->tick / WHEEL_SLOTS + WHEEL_ROUNDS - 1;
	struct timer **slot = &wheel->slots[tick % WHEEL_SLOTS];

	if (tick < wheel->tick) {
		tick = wheel->tick;
		slot = &wheel->slots[tick % WHEEL_SLOTS];
	} else if (tick >= wheel->tick + WHEEL_SLOTS) {
		round = round < last ? round : last;
		tick = round * WHEEL_SLOTS;
		slot = &wheel->rounds[round % WHEEL_ROUNDS];
	}
	wheel->count++;
	timer->tick = tick;
	timer->next = *slot;
	timer->link = slot;
	if (*slot)
		(*slot)->link = &timer->next;
	*slot = timer;
}

void
timer_remove(struct wheel *wheel, struct timer *timer)
{
	timer->due_ns = 0;
	if (timer->link) {
		unlink_timer(timer);
		wheel->count--;
	}
}

void
timer_set(struct wheel *wheel, struct timer *timer, uint64_t due_ns, uint64_t now_ns)
{
	timer->due_ns = due_ns;
	if (timer->link) {
		if (due_ns / WHEEL_TICK_NS >= timer->tick)
			return; /* looked at again when its slot comes */
		unlink_timer(timer);
		wheel->count--;
	}
	if (wheel->count == 0 && wheel->armed == 0)
		wheel->tick = now_ns / WHEEL_TICK_NS;
	link_timer(wheel, timer);
	if (wheel->armed == 0 || timer->tick < wheel->armed)
		wheel_arm(wheel, timer->tick, now_ns);
}

/* Empties a slot: fires what is due, puts the rest where it belongs now, which is another. */
static void
wheel_slot(struct wheel *wheel, struct timer **slot, uint64_t now_ns)
{
	struct timer *timer;

	while ((timer = *slot) != NULL) {
		unlink_timer(timer);
		wheel->count--;
		if (timer->due_ns == 0)
			continue;
		if (timer->due_ns > now_ns) {
			link_timer(wheel, timer);
			continue;
		}
		timer->due_ns = 0;
		timer->fire(timer, now_ns);
	}
}

static struct timer **
round_of(struct wheel *wheel, uint64_t tick)
{
	return &wheel->rounds[tick / WHEEL_SLOTS % WHEEL_ROUNDS];
}

/* The first tick that has something to be looked at; there is one. */
static uint64_t
next_look(struct wheel *wheel)
{
	uint64_t tick = wheel->tick, end = wheel->tick + WHEEL_SLOTS;

	for (; tick < end; tick++)
		if (wheel->slots[tick % WHEEL_SLOTS] ||
		    (tick % WHEEL_SLOTS == 0 && *round_of(wheel, tick)))
			return tick;
	tick -= tick % WHEEL_SLOTS;
	while (!*round_of(wheel, tick))
		tick += WHEEL_SLOTS;
	return tick;
}

void
wheel_advance(struct wheel *wheel, uint64_t now_ns)
{
	uint64_t last = now_ns / WHEEL_TICK_NS;

	wheel->armed = last; /* timers set meanwhile arm nothing: it is done below */
	while (wheel->tick < last && wheel->count > 0) {
		uint64_t tick = wheel->tick;

		if (tick % WHEEL_SLOTS == 0)
			wheel_slot(wheel, round_of(wheel, tick), now_ns);
		wheel->tick++;
		if (wheel->slots[tick % WHEEL_SLOTS])
			wheel_slot(wheel, &wheel->slots[tick % WHEEL_SLOTS], now_ns);
	}
	if (wheel->tick < last)
		wheel->tick = last;
	wheel->armed = 0;
	if (wheel->count > 0)
		wheel_arm(wheel, next_look(wheel), now_ns);
}
