/* pool: slots and the queue for them, with real threads too; balance and weights. */
#include "pool_kit.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <time.h>

#define NOW (1000 * NS_PER_S)

static struct waiter *
serve(struct kit *kit)
{
	struct server *server;

	return pool_serve(&kit->pools[0], NOW, &server);
}

static void
give_back(struct kit *kit, size_t server)
{
	pool_return_slot(&kit->pools[0].servers[server], NOW);
}

/* --- queue --------------------------------------------------------------- */

static void
test_slots_at_the_maximum_and_one_past(void **state)
{
	struct kit *kit = kit_new(2, 2);
	struct waiter waiters[5];

	(void)state;
	kit_start(kit, 1, kit_no_wake);
	for (size_t i = 0; i < 4; i++)
		assert_true(take(kit, &waiters[i], NOW) >= 0);
	assert_int_equal(in_flight(kit, 0), 2);
	assert_int_equal(in_flight(kit, 1), 2);
	assert_int_equal(take(kit, &waiters[4], NOW), -1);
	assert_int_equal(kit->board.waiting, 1);
	assert_int_equal(kit->board.queued, 1);
	assert_null(serve(kit));
	give_back(kit, 1);
	assert_ptr_equal(serve(kit), &waiters[4]);
	assert_int_equal(waiters[4].granted, 1);
	assert_int_equal(in_flight(kit, 1), 2);
	assert_int_equal(kit->board.waiting, 0);
	kit_free(kit);
}

static void
test_queue_at_the_maximum_and_one_past(void **state)
{
	struct kit *kit = kit_new(1, 1);
	struct waiter waiters[5];

	(void)state;
	kit->config.queue_max = 3;
	kit_start(kit, 1, kit_no_wake);
	assert_int_equal(take(kit, &waiters[0], NOW), 0);
	for (size_t i = 1; i < 4; i++)
		assert_int_equal(take(kit, &waiters[i], NOW), -1);
	assert_int_equal(take(kit, &waiters[4], NOW), -2);
	assert_int_equal(kit->board.refused_full, 1);
	pool_leave(&kit->pools[0], &waiters[2], NOW);
	assert_int_equal(take(kit, &waiters[4], NOW), -1);
	kit_free(kit);
}

static void
test_no_queue(void **state)
{
	struct kit *kit = kit_new(1, 1);
	struct waiter waiters[2];

	(void)state;
	kit->config.queue_max = 0;
	kit_start(kit, 1, kit_no_wake);
	assert_int_equal(take(kit, &waiters[0], NOW), 0);
	assert_int_equal(take(kit, &waiters[1], NOW), -2);
	give_back(kit, 0);
	assert_int_equal(take(kit, &waiters[1], NOW), 0);
	kit_free(kit);
}

/* First come, first served; who comes while others wait does not overtake them; who leaves is
 * passed over. */
static void
test_queue_is_fair(void **state)
{
	struct kit *kit = kit_new(1, 1);
	struct waiter waiters[7];

	(void)state;
	kit_start(kit, 1, kit_no_wake);
	take(kit, &waiters[0], NOW);
	for (size_t i = 1; i < 6; i++)
		assert_int_equal(take(kit, &waiters[i], NOW), -1);
	pool_leave(&kit->pools[0], &waiters[3], NOW);
	pool_leave(&kit->pools[0], &waiters[1], NOW);
	give_back(kit, 0);
	assert_int_equal(take(kit, &waiters[6], NOW), -1);
	assert_ptr_equal(serve(kit), &waiters[2]);
	assert_null(serve(kit));
	for (size_t i = 4; i < 7; i++) {
		give_back(kit, 0);
		assert_ptr_equal(serve(kit), &waiters[i]);
	}
	give_back(kit, 0);
	assert_null(serve(kit));
	assert_int_equal(in_flight(kit, 0), 0);
	kit_free(kit);
}

/* Who leaves between the grant and the news of it gives the slot to the next. */
static void
test_leaving_after_the_grant(void **state)
{
	struct kit *kit = kit_new(1, 1);
	struct waiter waiters[3];

	(void)state;
	kit_start(kit, 1, kit_no_wake);
	for (size_t i = 0; i < 3; i++)
		take(kit, &waiters[i], NOW);
	give_back(kit, 0);
	assert_int_equal(waiters[1].state, WAITER_GRANTED);
	pool_leave(&kit->pools[0], &waiters[1], NOW);
	assert_ptr_equal(serve(kit), &waiters[2]);
	give_back(kit, 0);
	assert_int_equal(in_flight(kit, 0), 0);
	kit_free(kit);
}

/* Another attempt goes elsewhere where it can, and never loses its slot to those who wait. */
static void
test_next_slot(void **state)
{
	struct kit *kit = kit_new(2, 1);
	struct waiter waiters[3];
	struct server *server;

	(void)state;
	kit_start(kit, 1, kit_no_wake);
	assert_int_equal(take(kit, &waiters[0], NOW), 0);
	server = pool_next_slot(&kit->pools[0].servers[0], NOW);
	assert_int_equal(server->number, 1);
	assert_int_equal(in_flight(kit, 0), 0);
	assert_int_equal(take(kit, &waiters[1], NOW), 0);
	assert_int_equal(take(kit, &waiters[2], NOW), -1);
	assert_ptr_equal(pool_next_slot(server, NOW), server);
	assert_null(serve(kit));
	assert_int_equal(in_flight(kit, 1), 1);
	kit_free(kit);
}

/* --- balance ------------------------------------------------------------- */

static void
test_least_outstanding_by_weight(void **state)
{
	struct kit *kit = kit_new(3, 100);
	struct waiter waiter;

	(void)state;
	kit->servers[1].weight = 3;
	kit->servers[2].weight = 4;
	kit_start(kit, 1, kit_no_wake);
	for (size_t i = 0; i < 80; i++)
		take(kit, &waiter, NOW);
	assert_int_equal(in_flight(kit, 0), 10);
	assert_int_equal(in_flight(kit, 1), 30);
	assert_int_equal(in_flight(kit, 2), 40);
	for (size_t i = 0; i < 8; i++)
		give_back(kit, 0);
	for (size_t i = 0; i < 8; i++)
		assert_int_equal(take(kit, &waiter, NOW), 0);
	kit_free(kit);
}

/* Equal ones in turn: a server that answers at once is not the only one that is asked. */
static void
test_least_outstanding_turns(void **state)
{
	struct kit *kit = kit_new(3, 100);
	struct waiter waiter;

	(void)state;
	kit_start(kit, 1, kit_no_wake);
	for (int i = 0; i < 9; i++) {
		assert_int_equal(take(kit, &waiter, NOW), i % 3);
		give_back(kit, (size_t)i % 3);
	}
	kit_free(kit);
}

static void
test_round_robin_by_weight(void **state)
{
	static const int order[] = {0, 0, 1, 0, 2, 0, 0};
	struct kit *kit = kit_new(3, 100);
	struct waiter waiter;

	(void)state;
	kit->config.balance = CONFIG_ROUND_ROBIN;
	kit->servers[0].weight = 5;
	kit_start(kit, 1, kit_no_wake);
	for (size_t i = 0; i < 28; i++)
		assert_int_equal(take(kit, &waiter, NOW), order[i % 7]);
	kit_free(kit);
}

static void
test_round_robin_passes_over_full_ones(void **state)
{
	struct kit *kit = kit_new(2, 3);
	struct waiter waiter;

	(void)state;
	kit->config.balance = CONFIG_ROUND_ROBIN;
	kit->servers[0].weight = 9;
	kit_start(kit, 1, kit_no_wake);
	for (size_t i = 0; i < 6; i++)
		assert_true(take(kit, &waiter, NOW) >= 0);
	assert_int_equal(take(kit, &waiter, NOW), -1);
	kit_free(kit);
}

/* --- threads ------------------------------------------------------------- */

#define THREADS 4
#define TASKS 8 /* exchanges of one thread: more than there are slots */
#define STEPS 30000
#define LIMIT 3

enum task_state { IDLE, HOLDS, WAITS };

struct task {
	struct waiter waiter; /* first */
	enum task_state state;
	struct server *server;
};

struct runner {
	pthread_t thread;
	struct pool *pool;
	sem_t woken;
	unsigned seed;
	struct task tasks[TASKS];
	uint64_t granted, waited, left, stuck;
};

static struct runner runners[THREADS];
static struct kit *shared_kit;
static _Atomic uint32_t held[2], too_many;

static void
wake_runner(struct pool *pool, bool own)
{
	if (own)
		return; /* it looks after each step */
	sem_post(&runners[pool - shared_kit->pools].woken);
}

static void
hold(struct runner *own, struct task *task, struct server *server)
{
	task->state = HOLDS;
	task->server = server;
	own->granted++;
	if (atomic_fetch_add(&held[server->index], 1) + 1 > LIMIT)
		atomic_fetch_add(&too_many, 1);
}

static void
let_go(struct task *task)
{
	atomic_fetch_sub(&held[task->server->index], 1);
	pool_return_slot(task->server, NOW);
	task->state = IDLE;
}

static void
begin(struct runner *own, struct task *task)
{
	struct server *server;

	switch (pool_take_slot(own->pool, &task->waiter, NOW, &server)) {
	case POOL_GRANTED:
		hold(own, task, server);
		break;
	case POOL_QUEUED:
		task->state = WAITS;
		own->waited++;
		break;
	default:
		break;
	}
}

static void
take_granted(struct runner *own)
{
	struct waiter *waiter;
	struct server *server;

	if (!atomic_load(&own->pool->serve_wanted))
		return;
	while ((waiter = pool_serve(own->pool, NOW, &server)) != NULL)
		hold(own, (struct task *)(void *)waiter, server);
}

/* With nothing but waiting exchanges, a wake-up must come: others give slots back. */
static void
wait_if_idle(struct runner *own)
{
	struct timespec due;

	for (size_t i = 0; i < TASKS; i++)
		if (own->tasks[i].state != WAITS)
			return;
	clock_gettime(CLOCK_REALTIME, &due);
	due.tv_sec += 20;
	while (!atomic_load(&own->pool->serve_wanted))
		if (sem_timedwait(&own->woken, &due) < 0 && errno == ETIMEDOUT) {
			own->stuck++;
			return;
		}
}

static void
step(struct runner *own, struct task *task, bool begins)
{
	if (task->state == HOLDS) {
		let_go(task);
	} else if (task->state == WAITS && rand_r(&own->seed) % 8 == 0) {
		pool_leave(own->pool, &task->waiter, NOW);
		task->state = IDLE;
		own->left++;
	} else if (task->state == IDLE && begins) {
		begin(own, task);
	}
}

static void *
run(void *arg)
{
	struct runner *own = arg;

	for (size_t i = 0; i < STEPS && own->stuck == 0; i++) {
		step(own, &own->tasks[(size_t)rand_r(&own->seed) % TASKS], true);
		take_granted(own);
		wait_if_idle(own);
	}
	for (bool busy = true; busy && own->stuck == 0;) {
		busy = false;
		for (size_t i = 0; i < TASKS; i++) {
			step(own, &own->tasks[i], false);
			busy |= own->tasks[i].state != IDLE;
		}
		take_granted(own);
	}
	return NULL;
}

/* Chaos over two servers: never a slot too many, none lost, no one forgotten in the queue, and the
 * addresses change meanwhile. */
static void
test_threads(void **state)
{
	uint64_t granted = 0, waited = 0, left = 0;
	struct net_address addresses[] = {address_of(1), address_of(2)};

	(void)state;
	shared_kit = kit_new(2, LIMIT);
	kit_start(shared_kit, THREADS, wake_runner);
	for (unsigned i = 0; i < THREADS; i++) {
		runners[i].pool = &shared_kit->pools[i];
		runners[i].seed = i + 1;
		sem_init(&runners[i].woken, 0, 0);
	}
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&runners[i].thread, NULL, run, &runners[i]), 0);
	for (int i = 0; i < 50; i++) {
		struct timespec pause = {.tv_nsec = 1000000};

		group_set_addresses(&shared_kit->group, 1, addresses, 1);
		group_connect_failed(&shared_kit->group, 0, NOW);
		nanosleep(&pause, NULL);
		group_connected(&shared_kit->group, 0);
	}
	for (size_t i = 0; i < THREADS; i++) {
		pthread_join(runners[i].thread, NULL);
		assert_int_equal(runners[i].stuck, 0);
		granted += runners[i].granted;
		waited += runners[i].waited;
		left += runners[i].left;
		sem_destroy(&runners[i].woken);
	}
	assert_int_equal(too_many, 0);
	assert_int_equal(in_flight(shared_kit, 0) + in_flight(shared_kit, 1), 0);
	assert_int_equal(shared_kit->board.waiting, 0);
	assert_true(granted > STEPS / 10 && waited > 100 && left > 100);
	kit_free(shared_kit);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_slots_at_the_maximum_and_one_past),
	    cmocka_unit_test(test_queue_at_the_maximum_and_one_past),
	    cmocka_unit_test(test_no_queue),
	    cmocka_unit_test(test_queue_is_fair),
	    cmocka_unit_test(test_leaving_after_the_grant),
	    cmocka_unit_test(test_next_slot),
	    cmocka_unit_test(test_least_outstanding_by_weight),
	    cmocka_unit_test(test_least_outstanding_turns),
	    cmocka_unit_test(test_round_robin_by_weight),
	    cmocka_unit_test(test_round_robin_passes_over_full_ones),
	    cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
