/* configs: a record finds the configuration it was made under, or none; never another one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include "collector/configs.h"

static struct board board;

static struct config *
make(uint32_t serial)
{
	struct config *config = calloc(1, sizeof(*config));

	assert_non_null(config);
	config->serial = serial;
	return config;
}

static void
run_with(size_t slot, uint32_t serial)
{
	atomic_store(&board.workers[slot].pid, serial != 0);
	atomic_store(&board.workers[slot].config, serial);
}

static void
found_by_serial_or_empty(void **state)
{
	struct config *first = make(1);
	struct configs *configs = configs_new(first, &board, NULL, NULL);

	(void)state;
	configs_add(configs, make(2));
	configs_add(configs, make(2)); /* twice: the second is freed */
	assert_int_equal(configs_of(configs, 1)->serial, 1);
	assert_int_equal(configs_of(configs, 2)->serial, 2);
	assert_int_equal(configs_of(configs, 3)->serial, 0);
	assert_int_equal(configs_of(configs, 3)->upstream_count, 0);
	configs_free(configs);
	free(first);
}

static void
the_oldest_goes_that_nobody_needs(void **state)
{
	struct config *first = make(1);
	struct configs *configs = configs_new(first, &board, NULL, NULL);

	(void)state;
	run_with(0, 3); /* still drains */
	for (uint32_t serial = 2; serial <= CONFIGS_MAX; serial++)
		configs_add(configs, make(serial));
	configs_pin(configs, configs_of(configs, 2));
	assert_int_equal(configs_of(configs, 1)->serial, 1);
	configs_add(configs, make(CONFIGS_MAX + 1)); /* one past the maximum */
	assert_int_equal(configs_of(configs, 1)->serial, 0);
	configs_add(configs, make(CONFIGS_MAX + 2));
	assert_int_equal(configs_of(configs, 2)->serial, 2);
	assert_int_equal(configs_of(configs, 3)->serial, 3);
	assert_int_equal(configs_of(configs, 4)->serial, 0);
	for (uint32_t serial = CONFIGS_MAX + 3; serial < 100; serial++)
		configs_add(configs, make(serial));
	assert_int_equal(configs_of(configs, 2)->serial, 2);
	assert_int_equal(configs_of(configs, 3)->serial, 3);
	assert_int_equal(configs_of(configs, 99)->serial, 99);
	run_with(0, 0);
	configs_free(configs);
	free(first);
}

static void
more(void *arg)
{
	configs_add(*(struct configs **)arg, make(7));
}

static void
asks_for_more_before_it_gives_up(void **state)
{
	struct config *first = make(1);
	struct configs *configs;

	(void)state;
	configs = configs_new(first, &board, more, &configs);
	assert_int_equal(configs_of(configs, 7)->serial, 7);
	assert_int_equal(configs_of(configs, 8)->serial, 0);
	configs_free(configs);
	free(first);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(found_by_serial_or_empty),
	    cmocka_unit_test(the_oldest_goes_that_nobody_needs),
	    cmocka_unit_test(asks_for_more_before_it_gives_up),
	};

	return cmocka_run_group_tests_name("configs", tests, NULL, NULL);
}
