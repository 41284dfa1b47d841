/* sessions: open, used, idle, over, ended, of another token; at the limits and one past them; how
 * often an address may try. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <arpa/inet.h>
#include <cmocka.h>
#include "collector/sessions.h"

#define T0 (1000 * NS_PER_S)

static const uint8_t token[SESSION_DIGEST_SIZE] = {1}, other[SESSION_DIGEST_SIZE] = {2};

static struct net_address
address(const char *text)
{
	struct net_address from = {0};
	const char *why;
	assert_int_equal(net_address_parse(text, &from, &why), 0);
	return from;
}

static void
test_life(void **state)
{
	struct sessions *sessions = sessions_new();
	char id[SESSION_ID_SIZE], again[SESSION_ID_SIZE];
	uint64_t left_s = 0, at = T0;
	(void)state;
	sessions_open(sessions, token, T0, id);
	sessions_open(sessions, token, T0, again);
	assert_int_equal(strlen(id), SESSION_ID_SIZE - 1);
	assert_string_not_equal(id, again);
	assert_true(sessions_use(sessions, id, token, T0, &left_s));
	assert_int_equal(left_s, SESSION_LIFE_S);
	assert_false(sessions_use(sessions, id, other, T0, NULL)); /* the token was changed */
	assert_false(sessions_use(sessions, "", token, T0, NULL));
	assert_false(sessions_use(sessions, "0000", token, T0, NULL));
	for (int i = 0; i < 11; i++) { /* used once an hour it lives on ... */
		at += 3600 * NS_PER_S;
		assert_true(sessions_use(sessions, id, token, at, &left_s));
	}
	assert_int_equal(left_s, 3600);
	assert_false(sessions_use(sessions, again, token, at, NULL)); /* ... idle it does not */
	at = T0 + SESSION_LIFE_S * NS_PER_S;
	assert_true(sessions_use(sessions, id, token, at - 1, NULL));
	assert_false(sessions_use(sessions, id, token, at, NULL)); /* and never for longer */
	assert_false(sessions_use(sessions, again, token, at, NULL));
	sessions_free(sessions);
}

static void
test_idle(void **state)
{
	struct sessions *sessions = sessions_new();
	char id[SESSION_ID_SIZE];
	(void)state;
	sessions_open(sessions, token, T0, id);
	assert_true(sessions_use(sessions, id, token, T0 + SESSION_IDLE_S * NS_PER_S - 1, NULL));
	assert_false(sessions_use(sessions, id, token, T0 + 2 * SESSION_IDLE_S * NS_PER_S, NULL));
	sessions_open(sessions, token, T0, id); /* looked at, it is as idle as before */
	assert_true(sessions_lives(sessions, id, token, T0 + SESSION_IDLE_S * NS_PER_S - 1));
	assert_false(sessions_lives(sessions, id, token, T0 + SESSION_IDLE_S * NS_PER_S));
	assert_false(sessions_lives(sessions, id, other, T0));
	sessions_free(sessions);
}

static void
test_end(void **state)
{
	struct sessions *sessions = sessions_new();
	char id[SESSION_ID_SIZE];
	(void)state;
	sessions_open(sessions, token, T0, id);
	sessions_end(sessions, "no such");
	assert_true(sessions_use(sessions, id, token, T0, NULL));
	sessions_end(sessions, id);
	assert_false(sessions_use(sessions, id, token, T0, NULL));
	sessions_free(sessions);
}

static void
test_limit(void **state)
{
	struct sessions *sessions = sessions_new();
	char ids[SESSIONS_MAX + 1][SESSION_ID_SIZE];
	(void)state;
	for (size_t i = 0; i < SESSIONS_MAX; i++)
		sessions_open(sessions, token, T0 + i, ids[i]);
	for (size_t i = 0; i < SESSIONS_MAX; i++)
		assert_true(sessions_lives(sessions, ids[i], token, T0 + 1000));
	assert_true(sessions_use(sessions, ids[0], token, T0 + 1000, NULL));
	sessions_open(sessions, token, T0 + 1001, ids[SESSIONS_MAX]);
	for (size_t i = 2; i < SESSIONS_MAX; i++)
		assert_true(sessions_lives(sessions, ids[i], token, T0 + 1001));
	assert_true(sessions_use(sessions, ids[0], token, T0 + 1001, NULL));
	assert_false(
	    sessions_use(sessions, ids[1], token, T0 + 1001, NULL)); /* used least recently */
	assert_true(sessions_use(sessions, ids[SESSIONS_MAX], token, T0 + 1001, NULL));
	sessions_free(sessions);
}

/* Another wrong token in place of `token`. */
static void
guess(struct sessions *sessions, const struct net_address *from, uint64_t now_ns)
{
	static uint64_t guesses;
	uint8_t wrong[SESSION_DIGEST_SIZE] = {0};
	guesses++;
	memcpy(wrong, &guesses, sizeof(guesses));
	sessions_failed(sessions, from, token, wrong, now_ns);
}

static void
test_tries(void **state)
{
	struct sessions *sessions = sessions_new();
	struct net_address one = address("10.0.0.1:1"), same = address("10.0.0.1:2"),
	                   mapped = address("[::ffff:10.0.0.1]:3"), two = address("10.0.0.2:1");
	uint64_t wait_s = 0;
	(void)state;
	for (size_t i = 0; i < TRIES_MAX; i++) {
		assert_true(sessions_may_try(sessions, &one, token, T0, &wait_s));
		guess(sessions, &one, T0);
	}
	assert_false(sessions_may_try(sessions, &one, token, T0, &wait_s));
	assert_int_equal(wait_s, TRY_AGAIN_NS / NS_PER_S);
	assert_false(sessions_may_try(sessions, &same, token, T0, &wait_s));
	assert_false(sessions_may_try(sessions, &mapped, token, T0, &wait_s));
	assert_true(sessions_may_try(sessions, &two, token, T0, &wait_s));
	assert_false(sessions_may_try(sessions, &one, token, T0 + TRY_AGAIN_NS - 1, &wait_s));
	assert_int_equal(wait_s, 1);
	assert_true(sessions_may_try(sessions, &one, token, T0 + TRY_AGAIN_NS, &wait_s));
	guess(sessions, &one, T0 + TRY_AGAIN_NS);
	assert_false(sessions_may_try(sessions, &one, token, T0 + TRY_AGAIN_NS, &wait_s));
	/* All of it is back after a minute of rest. */
	for (size_t i = 0; i < TRIES_MAX; i++) {
		uint64_t later = T0 + (TRIES_MAX + 1) * TRY_AGAIN_NS;
		assert_true(sessions_may_try(sessions, &one, token, later, &wait_s));
		guess(sessions, &one, later);
	}
	sessions_free(sessions);
}

static void
test_repeats_are_no_guesses(void **state)
{
	struct sessions *sessions = sessions_new();
	struct net_address from = address("10.0.0.1:1");
	uint64_t wait_s;
	(void)state;
	/* A hook with an old token keeps nobody out ... */
	for (size_t i = 0; i < 10 * TRIES_MAX; i++)
		sessions_failed(sessions, &from, token, other, T0);
	for (size_t i = 1; i < TRIES_MAX; i++) {
		assert_true(sessions_may_try(sessions, &from, token, T0, &wait_s));
		guess(sessions, &from, T0);
	}
	assert_false(sessions_may_try(sessions, &from, token, T0, &wait_s));
	/* ... and who guesses at one token may tell another. */
	assert_true(sessions_may_try(sessions, &from, other, T0, &wait_s));
	sessions_free(sessions);
}

static void
exhaust(struct sessions *sessions, const char *text, uint64_t now_ns)
{
	struct net_address from = address(text);
	for (size_t i = 0; i < TRIES_MAX; i++)
		guess(sessions, &from, now_ns);
}

static void
test_triers_limit(void **state)
{
	struct sessions *sessions = sessions_new();
	struct net_address from;
	char text[64];
	uint64_t wait_s;
	(void)state;
	for (unsigned i = 0; i < TRIERS_MAX; i++) {
		snprintf(text, sizeof(text), "10.1.%u.%u:1", i / 256, i % 256);
		exhaust(sessions, text, T0 + i);
	}
	from = address("10.1.0.0:1");
	assert_false(sessions_may_try(sessions, &from, token, T0 + 5000, &wait_s));
	exhaust(sessions, "[2001:db8::1]:1", T0 + 5000);
	from = address("[2001:db8::2]:1"); /* the same /64 */
	assert_false(sessions_may_try(sessions, &from, token, T0 + 5000, &wait_s));
	from = address("10.1.0.0:1"); /* was forgotten */
	assert_true(sessions_may_try(sessions, &from, token, T0 + 5000, &wait_s));
	from = address("10.1.0.1:1");
	assert_false(sessions_may_try(sessions, &from, token, T0 + 5000, &wait_s));
	sessions_free(sessions);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_life),
	    cmocka_unit_test(test_idle),
	    cmocka_unit_test(test_end),
	    cmocka_unit_test(test_limit),
	    cmocka_unit_test(test_tries),
	    cmocka_unit_test(test_triers_limit),
	    cmocka_unit_test(test_repeats_are_no_guesses),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
