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

static void
link_timer(struct wheel *wheel, struct timer *timer, uint64_t tick)
{
	struct timer **slot = &wheel->slots[tick % WHEEL_SLOTS];

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

/* The slot a deadline belongs in, as seen from the wheel's position. */
static uint64_t
slot_of(const struct wheel *wheel, uint64_t due_ns)
{
	uint64_t tick = due_ns / WHEEL_TICK_NS;

	if (tick < wheel->tick)
		return wheel->tick;
	if (tick > wheel->tick + WHEEL_SLOTS - 1)
		return wheel->tick + WHEEL_SLOTS - 1;
	return tick;
}

void
timer_set(struct wheel *wheel, struct timer *timer, uint64_t due_ns, uint64_t now_ns)
{
	uint64_t tick;

	timer->due_ns = due_ns;
	if (timer->link) {
		if (due_ns / WHEEL_TICK_NS >= timer->tick)
			return; /* looked at again when its slot comes */
		unlink_timer(timer);
		wheel->count--;
	}
	if (wheel->count == 0 && wheel->armed == 0)
		wheel->tick = now_ns / WHEEL_TICK_NS;
	tick = slot_of(wheel, due_ns);
	link_timer(wheel, timer, tick);
	wheel->count++;
	if (wheel->armed == 0 || tick < wheel->armed)
		wheel_arm(wheel, tick, now_ns);
}

/* Empties one slot: fires what is due, puts the rest where it belongs now. */
static void
wheel_slot(struct wheel *wheel, uint64_t tick, uint64_t now_ns)
{
	struct timer *list = wheel->slots[tick % WHEEL_SLOTS];

	wheel->slots[tick % WHEEL_SLOTS] = NULL;
	if (list)
		list->link = &list;
	while (list) {
		struct timer *timer = list;

		unlink_timer(timer);
		wheel->count--;
		if (timer->due_ns == 0)
			continue;
		if (timer->due_ns > now_ns) {
			link_timer(wheel, timer, slot_of(wheel, timer->due_ns));
			wheel->count++;
			continue;
		}
		timer->due_ns = 0;
		timer->fire(timer, now_ns);
	}
}

void
wheel_advance(struct wheel *wheel, uint64_t now_ns)
{
	uint64_t last = now_ns / WHEEL_TICK_NS;

	wheel->armed = last; /* timers set meanwhile arm nothing: it is done below */
	while (wheel->tick < last && wheel->count > 0) {
		uint64_t tick = wheel->tick++;

		if (wheel->slots[tick % WHEEL_SLOTS])
			wheel_slot(wheel, tick, now_ns);
	}
	if (wheel->tick < last)
		wheel->tick = last;
	wheel->armed = 0;
	if (wheel->count == 0)
		return;
	for (uint64_t tick = wheel->tick; tick < wheel->tick + WHEEL_SLOTS; tick++)
		if (wheel->slots[tick % WHEEL_SLOTS]) {
			wheel_arm(wheel, tick, now_ns);
			return;
		}
}
