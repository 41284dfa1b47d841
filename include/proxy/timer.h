/* Lazy deadlines of many connections on one timing wheel and one libevent timer. Moving a deadline later is
 * a store; the entry is looked at again when its old place comes round. Accuracy: one tick late at
 * most. One wheel per loop thread. */
#ifndef TAILRACE_PROXY_TIMER_H
#define TAILRACE_PROXY_TIMER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WHEEL_TICK_NS (16ull * 1000 * 1000)
#define WHEEL_SLOTS 1024u /* a round: 16 s */
#define WHEEL_ROUNDS 64u  /* 17 minutes; later deadlines wait in the last and are looked at again */

struct event;
struct event_base;

/* Embedded in its owner. Zero-initialise, then set `fire`. */
struct timer {
	struct timer *next, **link; /* link null = not on the wheel */
	uint64_t due_ns;            /* 0 = off */
	uint64_t tick;              /* when it is looked at */
	void (*fire)(struct timer *timer, uint64_t now_ns);
};

struct wheel {
	struct timer *slots[WHEEL_SLOTS];   /* a tick each, of the WHEEL_SLOTS from `tick` on */
	struct timer *rounds[WHEEL_ROUNDS]; /* later ones; put in slots as their round begins */
	uint64_t tick;                      /* every slot before it has been looked at */
	uint64_t armed;                     /* tick the libevent timer stands at; 0 = off */
	size_t count;                       /* timers on the wheel */
	struct event *event;
};

int wheel_init(struct wheel *wheel, struct event_base *base, uint64_t now_ns);
void wheel_free(struct wheel *wheel);

/* Sets or moves the deadline (CLOCK_MONOTONIC). Fires once, on the loop's thread. */
void timer_set(struct wheel *wheel, struct timer *timer, uint64_t due_ns, uint64_t now_ns);

/* Turns it off; it may stay on the wheel. timer_remove() takes it off: before its owner is freed. */
static inline void
timer_off(struct timer *timer)
{
	timer->due_ns = 0;
}
void timer_remove(struct wheel *wheel, struct timer *timer);

/* Fires what is due. The wheel's own event calls it; unit tests do. */
void wheel_advance(struct wheel *wheel, uint64_t now_ns);

#endif
