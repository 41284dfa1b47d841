/* detector_edges, detector_evidence: edges where the effect says, gains that are the likelihood
 * ratios, W of a CUSUM and of a twin. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>
#include "detector_kit.h"

#define NEAR 1e-12

static void
test_edges_move_by_the_effect(void **state)
{
	static struct detector_edges edges;
	double baseline[DETECTOR_BUCKETS] = {0};
	unsigned at = detector_bucket(1000), q;

	(void)state;
	baseline[at] = 100000; /* all at one second: every quantile's edge is the same */
	detector_edges_place(&edges, 3, baseline, 100000, 0.10, 5);
	for (q = 0; q < DETECTOR_QUANTILES; q++) {
		assert_int_equal(edges.slower[3][q], at + 5); /* 32 log2(1.1) = 4.4 */
		assert_int_equal(edges.back[3][q], at + 3);   /* 32 log2(1.05) = 2.25 */
		assert_int_equal(edges.faster[3][q], at - 5);
		assert_float_equal(edges.share[3][q], 0, 0);
	}
	/* 5 ms are more than 10 % of 4 ms. */
	memset(baseline, 0, sizeof(baseline));
	at = detector_bucket(4);
	baseline[at] = 100000;
	detector_edges_place(&edges, 0, baseline, 100000, 0.10, 5);
	assert_true(detector_edge_ms(edges.slower[0][0]) >= 9);
	assert_true(detector_edge_ms(edges.slower[0][0] - 1u) < 9);
	assert_true(detector_edge_ms(edges.back[0][0]) >= 6.5);
	assert_true(detector_edge_ms(edges.back[0][0] - 1u) < 6.5);
	assert_int_equal(edges.faster[0][0], 0); /* there is nothing 5 ms below 4 ms */
	detector_edges_copy(&edges, 9, 0);
	assert_int_equal(edges.slower[9][2], edges.slower[0][2]);
	/* The last bucket is the last. */
	memset(baseline, 0, sizeof(baseline));
	baseline[DETECTOR_BUCKETS - 1] = 7;
	detector_edges_place(&edges, 0, baseline, 7, 0.10, 5);
	assert_int_equal(edges.slower[0][0], DETECTOR_BUCKETS - 1);
}

static void
test_edge_is_the_smallest_that_reaches_the_quantile(void **state)
{
	static struct detector_edges edges;
	double baseline[DETECTOR_BUCKETS] = {0};

	(void)state;
	for (unsigned i = 300; i < 400; i++)
		baseline[i] = 100;
	detector_edges_place(&edges, 0, baseline, 10000, 0, 0);
	assert_int_equal(edges.slower[0][0], 349); /* exactly half is reached there */
	assert_int_equal(edges.slower[0][1], 374);
	assert_int_equal(edges.slower[0][2], 394);
	assert_int_equal(edges.slower[0][3], 398);
	assert_float_equal(edges.share[0][0], 0.5, NEAR);
	assert_float_equal(edges.share[0][3], 0.01, NEAR);
}

/* The gains against the formula of docs/detector.md, written out for one process. */
static void
test_gains_are_likelihood_ratios(void **state)
{
	static struct detector_edges edges;
	const unsigned q = 2, process = q * DETECTOR_ODDS + 1;
	const double p = 0.05, n = 40000, phi = 3;

	(void)state;
	for (unsigned h = 0; h < DETECTOR_HOURS; h++) {
		edges.requests[h] = n;
		for (unsigned i = 0; i < DETECTOR_QUANTILES; i++)
			edges.share[h][i] = p;
	}
	for (unsigned i = 0; i < DETECTOR_QUANTILES; i++)
		edges.phi[i] = phi;
	edges.weighed = -1;
	detector_edges_weigh(&edges, 5);
	for (int up = 0; up <= 1; up++) {
		const struct detector_gains *gains = up ? &edges.up : &edges.down;
		double off = 2 * sqrt(p * (1 - p) / n) + 1 / n, p0 = up ? p + off : p - off;
		double odds = (up ? 1.6 : 1 / 1.6) * p0 / (1 - p0), p1 = odds / (1 + odds);
		double k = 7, all = 90;
		double expected = (k * log(p1 / p0) + (all - k) * log((1 - p1) / (1 - p0))) / phi;

		assert_float_equal(k * gains->per_slow[process] + all * gains->per_request[process],
		                   expected, NEAR);
	}
	/* A share that few requests know is clipped, never 0 or 1. */
	edges.share[0][0] = 0;
	edges.share[0][1] = 1;
	edges.requests[0] = 3;
	detector_edges_weigh(&edges, 0);
	for (unsigned i = 0; i < DETECTOR_PROCESSES; i++)
		assert_true(isfinite(edges.up.per_slow[i]) && isfinite(edges.down.per_slow[i]));
	assert_int_equal(edges.weighed, 0);
}

/* 5 % of 10 000 lie at 100 ms, all else at 10. */
static int
differs(double n, double slow, double phi)
{
	double baseline[DETECTOR_BUCKETS] = {0}, now[DETECTOR_BUCKETS] = {0};
	unsigned at = detector_bucket(10), beyond = detector_bucket(100);

	baseline[at] = 9500;
	baseline[beyond] = 500;
	now[at] = n - slow;
	now[beyond] = slow;
	return detector_edges_differ(baseline, 10000, now, n, 2, phi);
}

static void
test_what_is_shown_as_certain(void **state)
{
	double flat[DETECTOR_BUCKETS] = {0}, now[DETECTOR_BUCKETS] = {0};

	(void)state;
	assert_int_equal(differs(1000, 50, 1), 0);
	assert_int_equal(differs(20, 2, 1), 0);    /* twice the share, of too few */
	assert_int_equal(differs(1000, 60, 1), 0); /* within what chance does */
	/* p0 = 0.05 + 2 sqrt(0.05 0.95 / 10000) + 1 / 10000 = 0.054459: 78 slow ones are 4.78 nats,
	 * 77 are 4.40. */
	assert_int_equal(differs(1000, 77, 1), 0);
	assert_int_equal(differs(1000, 78, 1), 1);
	assert_int_equal(differs(1000, 78, 2), 0); /* autocorrelated: they are worth half of it */
	assert_int_equal(differs(1000, 200, 2), 1);
	assert_int_equal(differs(1000, 10, 1), -1);
	assert_int_equal(differs(50, 0, 1), 0); /* 2.5 expected: none says nothing */
	/* A baseline without a tail: one slow request is none, three are. */
	flat[detector_bucket(10)] = 10000;
	now[detector_bucket(10)] = 297;
	now[detector_bucket(100)] = 1;
	assert_int_equal(detector_edges_differ(flat, 10000, now, 298, 2, 1), 0);
	now[detector_bucket(100)] = 3;
	assert_int_equal(detector_edges_differ(flat, 10000, now, 300, 2, 1), 1);
}

static void
test_cusum_starts_again_and_twin_does_not(void **state)
{
	struct detector_evidence cusum = {0}, twin = {0};
	double gain[DETECTOR_PROCESSES];

	(void)state;
	for (unsigned i = 0; i < DETECTOR_PROCESSES; i++)
		gain[i] = -1;
	for (int64_t t_s = 10; t_s <= 30; t_s += 10) {
		detector_evidence_add(&cusum, t_s, gain, true);
		detector_evidence_add(&twin, t_s, gain, false);
	}
	assert_float_equal(cusum.nats, -1, NEAR);
	assert_float_equal(twin.nats, -3, NEAR);
	for (unsigned i = 0; i < DETECTOR_PROCESSES; i++)
		gain[i] = i == 6 ? 2 : -5;
	detector_evidence_add(&cusum, 40, gain, true);
	detector_evidence_add(&cusum, 50, gain, true);
	detector_evidence_add(&twin, 40, gain, false);
	assert_float_equal(cusum.w[6], 4, NEAR);
	assert_float_equal(twin.w[6], -1, NEAR);
	assert_float_equal(cusum.nats, log((exp(4) + 15 * exp(-5)) / 16), NEAR);
	assert_int_equal(detector_evidence_since(&cusum), 40); /* its W was not positive before */
	assert_float_equal(detector_evidence_quantile(&cusum), 0.75, 0);
	assert_float_equal(detector_evidence_max(&cusum), 4, NEAR);
	detector_evidence_restart(&cusum);
	assert_float_equal(detector_evidence_max(&cusum), 0, 0);
	assert_int_equal(detector_evidence_since(&cusum), 40); /* still readable */
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_edges_move_by_the_effect),
	    cmocka_unit_test(test_edge_is_the_smallest_that_reaches_the_quantile),
	    cmocka_unit_test(test_gains_are_likelihood_ratios),
	    cmocka_unit_test(test_what_is_shown_as_certain),
	    cmocka_unit_test(test_cusum_starts_again_and_twin_does_not),
	};

	return cmocka_run_group_tests_name("detector_edges", tests, NULL, NULL);
}
