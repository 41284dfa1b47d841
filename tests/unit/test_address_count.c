/* address_count: connections of one address, at the limit and past it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/xmem.h"
#include "proxy/address_count.h"

static struct net_address
address_of(const char *text)
{
	struct net_address address;
	const char *why;

	assert_int_equal(net_address_parse(text, &address, &why), 0);
	return address;
}

static void
at_the_limit_and_past_it(void **state)
{
	struct net_address one = address_of("10.0.0.1:1"), other_port = address_of("10.0.0.1:2");
	struct net_address mapped = address_of("[::ffff:10.0.0.1]:3");
	struct net_address two = address_of("10.0.0.2:1");

	(void)state;
	assert_true(address_enter(&one, 2));
	assert_true(address_enter(&other_port, 2));
	assert_false(address_enter(&one, 2));
	assert_false(address_enter(&mapped, 2));
	assert_true(address_enter(&two, 2));
	assert_int_equal(address_count(), 2);
	address_leave(&other_port);
	assert_true(address_enter(&mapped, 2));
	address_leave(&one);
	address_leave(&mapped);
	address_leave(&two);
	assert_int_equal(address_count(), 0);
}

static void
one_network_of_ipv6_is_one(void **state)
{
	struct net_address one = address_of("[2001:db8::1]:1");
	struct net_address same = address_of("[2001:db8::ffff:1]:1");
	struct net_address other = address_of("[2001:db8:0:1::1]:1");
	struct net_address local = address_of("unix:/tmp/x");

	(void)state;
	assert_true(address_enter(&one, 1));
	assert_false(address_enter(&same, 1));
	assert_true(address_enter(&other, 1));
	assert_true(address_enter(&local, 1));
	assert_true(address_enter(&local, 1));
	address_leave(&local);
	address_leave(&local);
	address_leave(&one);
	address_leave(&other);
	assert_int_equal(address_count(), 0);
}

static void
short_of_memory(void **state)
{
	struct net_address one = address_of("10.0.0.1:1");

	(void)state;
	xmem_fail_after(1, 0);
	assert_false(address_enter(&one, 1));
	assert_int_equal(address_count(), 0);
	assert_true(address_enter(&one, 1));
	address_leave(&one);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(at_the_limit_and_past_it),
	    cmocka_unit_test(one_network_of_ipv6_is_one),
	    cmocka_unit_test(short_of_memory),
	};

	return cmocka_run_group_tests_name("address_count", tests, NULL, NULL);
}
