/* timer: never early, at most a tick late, lazily moved, safe to change while firing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "proxy/timer.h"

struct probe {
	struct timer timer;
	uint64_t fired_ns;
	unsigned count;
	struct probe *removes;
	uint64_t again_ns;
};

static struct wheel wheel;

static void
on_fire(struct timer *timer, uint64_t now_ns)
{
	struct probe *probe = (struct probe *)(void *)timer;

	probe->fired_ns = now_ns;
	probe->count++;
	if (probe->removes)
		timer_remove(&wheel, &probe->removes->timer);
	if (probe->again_ns)
		timer_set(&wheel, timer, now_ns + probe->again_ns, now_ns);
}

static int
begin(void **state)
{
	(void)state;
	return wheel_init(&wheel, NULL, NS_PER_S);
}

static void
set(struct probe *probe, uint64_t due_ns, uint64_t now_ns)
{
	probe->timer.fire = on_fire;
	timer_set(&wheel, &probe->timer, due_ns, now_ns);
}

static void
run_until(uint64_t from_ns, uint64_t to_ns)
{
	for (uint64_t now_ns = from_ns; now_ns <= to_ns; now_ns += NS_PER_MS)
		wheel_advance(&wheel, now_ns);
}

static void
fires_once_and_on_time(void **state)
{
	static const uint64_t waits_ms[] = {0,     1,     15,    16,     17,     500,
	                                    16000, 16384, 17000, 100000, 1100000};

	for (size_t i = 0; i < sizeof waits_ms / sizeof waits_ms[0]; i++) {
		struct probe probe = {0};
		uint64_t due_ns = NS_PER_S + waits_ms[i] * NS_PER_MS;

		begin(state);
		set(&probe, due_ns, NS_PER_S);
		run_until(NS_PER_S, due_ns + 100 * NS_PER_MS);
		assert_int_equal(probe.count, 1);
		assert_true(probe.fired_ns >= due_ns);
		assert_true(probe.fired_ns <= due_ns + WHEEL_TICK_NS + NS_PER_MS);
		assert_int_equal(wheel.count, 0);
	}
}

static void
moves_later_and_earlier(void **state)
{
	struct probe probe = {0};

	(void)state;
	set(&probe, NS_PER_S + 100 * NS_PER_MS, NS_PER_S);
	set(&probe, NS_PER_S + 300 * NS_PER_MS, NS_PER_S);
	run_until(NS_PER_S, NS_PER_S + 299 * NS_PER_MS);
	assert_int_equal(probe.count, 0);
	set(&probe, NS_PER_S + 5000 * NS_PER_MS, NS_PER_S + 299 * NS_PER_MS);
	set(&probe, NS_PER_S + 320 * NS_PER_MS, NS_PER_S + 299 * NS_PER_MS);
	run_until(NS_PER_S + 300 * NS_PER_MS, NS_PER_S + 340 * NS_PER_MS);
	assert_int_equal(probe.count, 1);
}

static void
off_and_removed_do_not_fire(void **state)
{
	struct probe off = {0}, removed = {0};

	(void)state;
	set(&off, NS_PER_S + 50 * NS_PER_MS, NS_PER_S);
	set(&removed, NS_PER_S + 50 * NS_PER_MS, NS_PER_S);
	timer_off(&off.timer);
	timer_remove(&wheel, &removed.timer);
	run_until(NS_PER_S, NS_PER_S + 200 * NS_PER_MS);
	assert_int_equal(off.count + removed.count, 0);
	assert_int_equal(wheel.count, 0);
}

/* All due in one slot; the first to fire takes the others off, or sets itself anew. */
static void
changes_while_firing(void **state)
{
	struct probe a = {0}, b = {0}, again = {.again_ns = 30 * NS_PER_MS};

	(void)state;
	a.removes = &b;
	b.removes = &a;
	set(&a, NS_PER_S + 50 * NS_PER_MS, NS_PER_S);
	set(&again, NS_PER_S + 50 * NS_PER_MS, NS_PER_S);
	set(&b, NS_PER_S + 50 * NS_PER_MS, NS_PER_S);
	run_until(NS_PER_S, NS_PER_S + 500 * NS_PER_MS);
	assert_int_equal(a.count + b.count, 1);
	assert_true(again.count >= 9 && again.count <= 15);
	timer_remove(&wheel, &again.timer);
}

static void
random_deadlines_hold(void **state)
{
	static struct probe probes[500];
	uint64_t due_ns[500], now_ns = NS_PER_S;

	(void)state;
	memset(probes, 0, sizeof probes);
	srandom(7);
	for (size_t i = 0; i < 500; i++) {
		due_ns[i] = now_ns + (uint64_t)random() % (60 * NS_PER_S);
		set(&probes[i], due_ns[i], now_ns);
	}
	for (int step = 0; step < 20000; step++) {
		size_t i = (size_t)random() % 500;

		now_ns += (uint64_t)random() % (8 * NS_PER_MS);
		if (probes[i].count == 0) {
			due_ns[i] = now_ns + (uint64_t)random() % (40 * NS_PER_S);
			set(&probes[i], due_ns[i], now_ns);
		}
		wheel_advance(&wheel, now_ns);
	}
	run_until(now_ns, now_ns + 45 * NS_PER_S);
	for (size_t i = 0; i < 500; i++) {
		assert_int_equal(probes[i].count, 1);
		assert_true(probes[i].fired_ns >= due_ns[i]);
		assert_true(probes[i].fired_ns <= due_ns[i] + WHEEL_TICK_NS + 9 * NS_PER_MS);
	}
}

/* What idles for minutes is not looked at every round. */
static void
far_ones_rest(void **state)
{
	struct probe probe = {0}, beyond = {0};
	uint64_t end_ns = NS_PER_S + 600 * NS_PER_S;
	unsigned moves = 0;

	(void)state;
	set(&probe, end_ns, NS_PER_S);
	set(&beyond, end_ns + 3600 * NS_PER_S, NS_PER_S);
	for (uint64_t now_ns = NS_PER_S; now_ns < end_ns; now_ns += WHEEL_TICK_NS) {
		struct timer **link = probe.timer.link;

		wheel_advance(&wheel, now_ns);
		moves += link != probe.timer.link;
	}
	assert_int_equal(probe.count, 0);
	assert_true(moves <= 1);
	run_until(end_ns, end_ns + 2 * WHEEL_TICK_NS);
	assert_int_equal(probe.count, 1);
	for (uint64_t now_ns = end_ns; beyond.count == 0; now_ns += WHEEL_TICK_NS) {
		assert_true(now_ns <= end_ns + 3600 * NS_PER_S + WHEEL_TICK_NS);
		wheel_advance(&wheel, now_ns);
	}
	assert_true(beyond.fired_ns >= end_ns + 3600 * NS_PER_S);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(fires_once_and_on_time, begin),
	    cmocka_unit_test_setup(moves_later_and_earlier, begin),
	    cmocka_unit_test_setup(off_and_removed_do_not_fire, begin),
	    cmocka_unit_test_setup(changes_while_firing, begin),
	    cmocka_unit_test_setup(random_deadlines_hold, begin),
	    cmocka_unit_test_setup(far_ones_rest, begin),
	};

	return cmocka_run_group_tests_name("timer", tests, NULL, NULL);
}
