/* group: addresses that come and go, ejection and its way back, health by rise and fall, names. */
#include "pool_kit.h"

#include "proxy/health.h"
#include "proxy/resolver.h"

#define NOW (1000 * NS_PER_S)

static enum board_server_state
state_of(const struct kit *kit, size_t endpoint)
{
	return (enum board_server_state)atomic_load(&kit->board.endpoints[endpoint].state);
}

static void
fail_connects(struct kit *kit, size_t endpoint, unsigned times, uint64_t now_ns)
{
	while (times-- > 0)
		group_connect_failed(&kit->group, endpoint, now_ns);
}

/* Takes `times` slots, which are given back; returns how many were at `server`. */
static unsigned
share_of(struct kit *kit, int server, unsigned times, uint64_t now_ns)
{
	struct waiter waiter;
	unsigned count = 0;

	for (unsigned i = 0; i < times; i++) {
		int number = take(kit, &waiter, now_ns);

		assert_true(number >= 0);
		count += number == server;
		pool_return_slot(&kit->pools[0].servers[number], now_ns);
	}
	return count;
}

/* --- ejection ------------------------------------------------------------ */

static void
test_ejected_after_failures_in_a_row(void **state)
{
	struct kit *kit = kit_new(2, 100);

	(void)state;
	kit_start(kit, 1, kit_no_wake);
	fail_connects(kit, 0, EJECT_FAILURES - 1, NOW);
	group_connected(&kit->group, 0);
	fail_connects(kit, 0, EJECT_FAILURES - 1, NOW);
	assert_int_equal(state_of(kit, 0), BOARD_SERVER_UP);
	assert_int_equal(share_of(kit, 0, 10, NOW), 5);
	fail_connects(kit, 0, 1, NOW);
	assert_int_equal(state_of(kit, 0), BOARD_SERVER_EJECTED);
	assert_int_equal(kit->board.servers[0].ejections, 1);
	assert_int_equal(share_of(kit, 0, 10, NOW), 0);
	assert_int_equal(share_of(kit, 0, 10, NOW + EJECT_MIN_NS - 1), 0);
	kit_free(kit);
}

/* When its time is over one exchange tries; it fails: twice as long; it does not: all come back. */
static void
test_way_back(void **state)
{
	struct kit *kit = kit_new(2, 100);
	uint64_t now_ns = NOW, pause_ns = EJECT_MIN_NS;

	(void)state;
	kit_start(kit, 1, kit_no_wake);
	fail_connects(kit, 0, EJECT_FAILURES, now_ns);
	for (int round = 0; round < 8; round++) {
		assert_int_equal(share_of(kit, 0, 20, now_ns + pause_ns - 1), 0);
		now_ns += pause_ns;
		assert_int_equal(share_of(kit, 0, 20, now_ns), 1);
		fail_connects(kit, 0, 1, now_ns);
		pause_ns = pause_ns * 2 < EJECT_MAX_NS ? pause_ns * 2 : EJECT_MAX_NS;
	}
	assert_int_equal(kit->board.servers[0].ejections, 1);
	assert_int_equal(share_of(kit, 0, 20, now_ns + pause_ns), 1);
	group_connected(&kit->group, 0);
	assert_int_equal(state_of(kit, 0), BOARD_SERVER_UP);
	assert_int_equal(share_of(kit, 0, 20, now_ns + pause_ns), 10);
	fail_connects(kit, 0, EJECT_FAILURES, now_ns);
	assert_int_equal(share_of(kit, 0, 20, now_ns + EJECT_MIN_NS), 1);
	kit_free(kit);
}

static void
test_an_only_server_is_never_ejected(void **state)
{
	struct kit *kit = kit_new(1, 100);

	(void)state;
	kit_start(kit, 1, kit_no_wake);
	fail_connects(kit, 0, 100, NOW);
	assert_int_equal(state_of(kit, 0), BOARD_SERVER_UP);
	assert_int_equal(share_of(kit, 0, 10, NOW), 10);
	kit_free(kit);
}

/* Better a server that may be dead than none. */
static void
test_all_ejected(void **state)
{
	struct kit *kit = kit_new(2, 100);

	(void)state;
	kit_start(kit, 1, kit_no_wake);
	fail_connects(kit, 0, EJECT_FAILURES, NOW);
	fail_connects(kit, 1, EJECT_FAILURES, NOW);
	assert_int_equal(share_of(kit, 0, 10, NOW), 5);
	kit_free(kit);
}

/* --- health -------------------------------------------------------------- */

static void
test_rise_and_fall(void **state)
{
	const struct config_health config = {.rise = 2, .fall = 3};
	struct verdict verdict = {0};

	(void)state;
	for (int i = 0; i < 2; i++)
		assert_false(verdict_add(&verdict, &config, false));
	assert_false(verdict_add(&verdict, &config, true));
	for (int i = 0; i < 2; i++)
		assert_false(verdict_add(&verdict, &config, false));
	assert_true(verdict_add(&verdict, &config, false));
	assert_true(verdict.down);
	assert_false(verdict_add(&verdict, &config, false));
	assert_false(verdict_add(&verdict, &config, true));
	assert_false(verdict_add(&verdict, &config, false));
	assert_false(verdict_add(&verdict, &config, true));
	assert_true(verdict_add(&verdict, &config, true));
	assert_false(verdict.down);
}

static void
test_down_servers_get_nothing(void **state)
{
	struct kit *kit = kit_new(2, 1);
	struct waiter waiters[3];
	struct server *server;

	(void)state;
	kit_start(kit, 1, kit_no_wake);
	group_set_down(&kit->group, 0, true);
	assert_int_equal(state_of(kit, 0), BOARD_SERVER_DOWN);
	assert_int_equal(share_of(kit, 0, 10, NOW), 0);
	assert_int_equal(take(kit, &waiters[0], NOW), 1);
	assert_int_equal(take(kit, &waiters[1], NOW), -1);
	/* One that comes up serves those who wait. */
	group_set_down(&kit->group, 0, false);
	assert_true(kit->pools[0].serve_wanted);
	assert_ptr_equal(pool_serve(&kit->pools[0], NOW, &server), &waiters[1]);
	assert_int_equal(server->number, 0);
	kit_free(kit);
}

static void
test_all_down(void **state)
{
	struct kit *kit = kit_new(2, 1);
	struct waiter waiter;

	(void)state;
	kit_start(kit, 1, kit_no_wake);
	group_set_down(&kit->group, 0, true);
	group_set_down(&kit->group, 1, true);
	assert_int_equal(take(kit, &waiter, NOW), -3);
	assert_int_equal(kit->board.refused_down, 1);
	group_set_down(&kit->group, 1, false);
	assert_int_equal(take(kit, &waiter, NOW), 1);
	kit_free(kit);
}

/* --- addresses ----------------------------------------------------------- */

static size_t
live_count(const struct kit *kit)
{
	size_t count = 0;

	for (size_t i = 0; i < BOARD_ENDPOINTS_MAX; i++)
		count += state_of(kit, i) != BOARD_SERVER_NONE;
	return count;
}

static void
test_addresses_come_and_go(void **state)
{
	struct kit *kit = kit_new(1, 2);
	struct net_address addresses[] = {address_of(0), address_of(7), address_of(8)};
	struct waiter waiters[8];

	(void)state;
	kit_start(kit, 1, kit_no_wake);
	assert_int_equal(take(kit, &waiters[0], NOW), 0);
	assert_true(group_set_addresses(&kit->group, 0, addresses, 3));
	assert_false(group_set_addresses(&kit->group, 0, addresses, 3));
	assert_int_equal(live_count(kit), 3);
	assert_int_equal(in_flight(kit, 0), 1); /* it kept its place */
	for (size_t i = 1; i < 6; i++)
		assert_int_equal(take(kit, &waiters[i], NOW), 0);
	assert_int_equal(take(kit, &waiters[6], NOW), -1);
	/* One goes while exchanges are in flight there: nothing new, and its place stays. */
	assert_true(group_set_addresses(&kit->group, 0, addresses, 2));
	pool_return_slot(&kit->pools[0].servers[2], NOW);
	assert_int_equal(waiters[6].state, WAITER_QUEUED);
	addresses[2] = address_of(9);
	assert_true(group_set_addresses(&kit->group, 0, addresses, 3));
	assert_int_equal(state_of(kit, 2), BOARD_SERVER_NONE);
	assert_int_equal(state_of(kit, 3), BOARD_SERVER_UP);
	assert_true(kit->pools[0].serve_wanted);
	kit_free(kit);
}

static void
test_addresses_at_the_maximum_and_one_past(void **state)
{
	struct kit *kit = kit_new(2, 1);
	struct net_address addresses[BOARD_ENDPOINTS_MAX];

	(void)state;
	for (unsigned i = 0; i < BOARD_ENDPOINTS_MAX; i++)
		addresses[i] = address_of(300 + i);
	kit_start(kit, 1, kit_no_wake);
	group_set_addresses(&kit->group, 1, addresses, BOARD_ENDPOINTS_MAX - 1);
	assert_int_equal(live_count(kit), BOARD_ENDPOINTS_MAX);
	assert_int_equal(kit->board.addresses_dropped, 0);
	group_set_addresses(&kit->group, 1, addresses, BOARD_ENDPOINTS_MAX);
	assert_int_equal(live_count(kit), BOARD_ENDPOINTS_MAX);
	assert_int_equal(kit->board.addresses_dropped, 1);
	/* Places without exchanges are used again, with the same address or another. */
	for (unsigned i = 0; i < 200; i++) {
		struct net_address one = address_of(1000 + i);

		group_set_addresses(&kit->group, 1, &one, 1);
		assert_int_equal(live_count(kit), 2);
	}
	kit_free(kit);
}

/* --- names --------------------------------------------------------------- */

static int answer; /* addresses the name has; -1 = it does not resolve */
static unsigned first;

static int
fake_lookup(const char *text, struct net_address *ret, size_t max, const char **reterr)
{
	assert_string_equal(text, "s0:80");
	*reterr = "no answer";
	for (unsigned i = 0; answer > 0 && i < (unsigned)answer && i < max; i++)
		ret[i] = address_of(first + i);
	return answer;
}

static void
test_names_are_looked_up_again(void **state)
{
	struct kit *kit = kit_new(2, 1);
	struct resolver_group own = {.group = &kit->group};

	(void)state;
	snprintf(kit->texts[1], sizeof kit->texts[1],
	         "127.0.0.1:80"); /* no name: never looked up */
	kit->config.resolve_interval_ms = 500;
	kit_start(kit, 1, kit_no_wake);
	answer = 3;
	first = 20;
	resolver_look(&own, fake_lookup, NOW);
	assert_int_equal(own.due_ns, NOW + 500 * NS_PER_MS);
	assert_int_equal(live_count(kit), 4);
	answer = -1;
	resolver_look(&own, fake_lookup, NOW);
	assert_int_equal(live_count(kit), 4);
	assert_int_equal(kit->board.lookups, 2);
	assert_int_equal(kit->board.lookup_failures, 1);
	answer = 1;
	resolver_look(&own, fake_lookup, NOW);
	assert_int_equal(live_count(kit), 2);
	answer = BOARD_ENDPOINTS_MAX + 5;
	resolver_look(&own, fake_lookup, NOW);
	assert_int_equal(live_count(kit), BOARD_ENDPOINTS_MAX);
	assert_int_equal(kit->board.addresses_dropped, 6);
	kit_free(kit);
}

static void
test_names_at_start_only(void **state)
{
	struct kit *kit = kit_new(1, 1);
	struct resolver_group own = {.group = &kit->group};

	(void)state;
	kit->config.resolve_interval_ms = 0;
	kit_start(kit, 1, kit_no_wake);
	answer = -1;
	resolver_look(&own, fake_lookup, NOW);
	assert_int_equal(own.due_ns, NOW + RESOLVER_RETRY_NS);
	answer = 2;
	resolver_look(&own, fake_lookup, NOW);
	assert_int_equal(own.due_ns, UINT64_MAX);
	assert_int_equal(live_count(kit), 2);
	kit_free(kit);
}

/* A reloaded configuration counts anew where the board's place is another upstream's now. */
static void
test_board_knows_its_upstream(void **state)
{
	struct kit *kit = kit_new(1, 1);
	uint64_t key = board_upstream_key(&kit->config);

	(void)state;
	kit_start(kit, 1, kit_no_wake);
	kit->board.retries = 5;
	kit->board.endpoints[0].in_flight = 3; /* of a worker that died */
	group_free(&kit->group);
	group_init(&kit->group, &kit->config, &kit->board, kit_no_wake);
	assert_int_equal(kit->board.retries, 5);
	assert_int_equal(in_flight(kit, 0), 0);
	kit->texts[0][0] = 't';
	assert_int_not_equal(board_upstream_key(&kit->config), key);
	group_free(&kit->group);
	group_init(&kit->group, &kit->config, &kit->board, kit_no_wake);
	assert_int_equal(kit->board.retries, 0);
	kit_free(kit);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_ejected_after_failures_in_a_row),
	    cmocka_unit_test(test_way_back),
	    cmocka_unit_test(test_an_only_server_is_never_ejected),
	    cmocka_unit_test(test_all_ejected),
	    cmocka_unit_test(test_rise_and_fall),
	    cmocka_unit_test(test_down_servers_get_nothing),
	    cmocka_unit_test(test_all_down),
	    cmocka_unit_test(test_addresses_come_and_go),
	    cmocka_unit_test(test_addresses_at_the_maximum_and_one_past),
	    cmocka_unit_test(test_names_are_looked_up_again),
	    cmocka_unit_test(test_names_at_start_only),
	    cmocka_unit_test(test_board_knows_its_upstream),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
