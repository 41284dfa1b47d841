/* Upstreams in /metrics: queue, refusals, retries, look-ups; per server connections and health. */
#include "collector/metrics_upstream.h"

#include <stdio.h>
#include "collector/metrics_text.h"

#define LABELS_SIZE 600 /* both names escaped */

/* What /metrics says of one server, its addresses together. */
struct server_sums {
	uint64_t in_flight, connections, idle, tunnels;
	uint64_t addresses[BOARD_SERVER_DOWN + 1]; /* by enum board_server_state */
	uint64_t connects, connect_failures, ejections, checks_passed, checks_failed;
};

struct upstream_sums {
	uint64_t waiting, queued, refused_full, refused_late, refused_down, left, retries;
	uint64_t lookups, lookup_failures, addresses_dropped;
	struct server_sums servers[BOARD_SERVERS_MAX];
};

/* Servers of all upstreams in one row, cut at METRICS_SERVERS_MAX. */
struct row {
	char labels[LABELS_SIZE];
	struct server_sums sums;
};

static uint64_t
load(const _Atomic uint64_t *value)
{
	return atomic_load_explicit(value, memory_order_relaxed);
}

static void
add_endpoints(struct upstream_sums *sums, const struct board_upstream *board)
{
	for (size_t i = 0; i < BOARD_ENDPOINTS_MAX; i++) {
		const struct board_endpoint *endpoint = &board->endpoints[i];
		uint32_t state = atomic_load(&endpoint->state),
		         server = atomic_load(&endpoint->server);
		uint64_t in_flight = load(&endpoint->in_flight);
		uint64_t tunnels = load(&endpoint->tunnels);
		uint64_t connections = load(&endpoint->connections);
		struct server_sums *own;

		if (server >= BOARD_SERVERS_MAX || state > BOARD_SERVER_DOWN)
			continue;
		own = &sums->servers[server];
		own->addresses[state]++;
		own->in_flight += in_flight;
		own->connections += connections;
		own->tunnels += tunnels;
		/* Every exchange in flight has a connection, or is about to. */
		if (connections > in_flight + tunnels)
			own->idle += connections - in_flight - tunnels;
	}
}

static void
add_counters(struct upstream_sums *sums, const struct board_upstream *board)
{
	sums->queued += load(&board->queued);
	sums->refused_full += load(&board->refused_full);
	sums->refused_late += load(&board->refused_late);
	sums->refused_down += load(&board->refused_down);
	sums->left += load(&board->left);
	sums->retries += load(&board->retries);
	sums->lookups += load(&board->lookups);
	sums->lookup_failures += load(&board->lookup_failures);
	sums->addresses_dropped += load(&board->addresses_dropped);
	for (size_t i = 0; i < BOARD_SERVERS_MAX; i++) {
		struct server_sums *own = &sums->servers[i];

		own->connects += load(&board->servers[i].connects);
		own->connect_failures += load(&board->servers[i].connect_failures);
		own->ejections += load(&board->servers[i].ejections);
		own->checks_passed += load(&board->servers[i].checks_passed);
		own->checks_failed += load(&board->servers[i].checks_failed);
	}
}

/* One upstream of one generation. */
static void
add_upstream(struct upstream_sums *sums, const struct board_upstream *own, bool lives)
{
	add_counters(sums, own);
	if (!lives)
		return;
	sums->waiting += load(&own->waiting);
	add_endpoints(sums, own);
}

static void
sum_up(const struct board *board, uint64_t key, struct upstream_sums *sums)
{
	*sums = (struct upstream_sums){0};
	for (size_t g = 0; g < BOARD_GENERATIONS_MAX; g++) {
		uint32_t state = atomic_load(&board->workers[g].state);
		bool lives = state == BOARD_RUNNING || state == BOARD_DRAINING;

		for (size_t i = 0; i < BOARD_UPSTREAMS_MAX; i++)
			if (load(&board->upstream_keys[g][i]) == key)
				add_upstream(sums, &board->upstreams[g][i], lives);
	}
}

/* --- output -------------------------------------------------------------- */

/* One family of upstreams: a field of struct upstream_sums. */
static void
family(struct metrics *out, const struct config *config, const struct upstream_sums *sums,
       size_t field, const char *metric, const char *type, const char *help)
{
	char label[128];

	metrics_head(out, metric, type, help);
	for (size_t i = 0; i < config->upstream_count; i++) {
		metrics_label(label, sizeof label, "upstream", config->upstreams[i].name);
		metrics_sample(out, metric, label,
		               *(const uint64_t *)(const void *)((const char *)&sums[i] + field));
	}
}

static void
refusals(struct metrics *out, const struct config *config, const struct upstream_sums *sums)
{
	static const char metric[] = "tailrace_upstream_refused_total";
	char label[128], labels[LABELS_SIZE];

	metrics_head(out, metric, "counter",
	             "Exchanges answered 503 because no server could be had, by why.");
	for (size_t i = 0; i < config->upstream_count; i++) {
		const struct {
			const char *reason;
			uint64_t count;
		} refused[] = {{"full", sums[i].refused_full},
		               {"timeout", sums[i].refused_late},
		               {"down", sums[i].refused_down}};

		metrics_label(label, sizeof label, "upstream", config->upstreams[i].name);
		for (size_t j = 0; j < sizeof refused / sizeof refused[0]; j++) {
			snprintf(labels, sizeof labels, "%s,reason=\"%s\"", label,
			         refused[j].reason);
			metrics_sample(out, metric, labels, refused[j].count);
		}
	}
}

/* One family of servers: a field of struct server_sums. */
static void
server_family(struct metrics *out, const struct row *rows, size_t count, size_t field,
              const char *metric, const char *type, const char *help)
{
	metrics_head(out, metric, type, help);
	for (size_t i = 0; i < count; i++)
		metrics_sample(
		    out, metric, rows[i].labels,
		    *(const uint64_t *)(const void *)((const char *)&rows[i].sums + field));
}

static void
server_states(struct metrics *out, const struct row *rows, size_t count)
{
	static const char metric[] = "tailrace_upstream_addresses";
	static const char *const names[] = {[BOARD_SERVER_UP] = "up",
	                                    [BOARD_SERVER_EJECTED] = "ejected",
	                                    [BOARD_SERVER_DOWN] = "down"};
	char labels[LABELS_SIZE + 32];

	metrics_head(out, metric, "gauge",
	             "Addresses of a server: that get exchanges, were ejected for failed connects, "
	             "or fail their health checks.");
	for (size_t i = 0; i < count; i++)
		for (size_t j = BOARD_SERVER_UP; j <= BOARD_SERVER_DOWN; j++) {
			snprintf(labels, sizeof labels, "%.599s,state=\"%s\"", rows[i].labels,
			         names[j]);
			metrics_sample(out, metric, labels, rows[i].sums.addresses[j]);
		}
}

static void
server_checks(struct metrics *out, const struct row *rows, size_t count)
{
	static const char metric[] = "tailrace_upstream_health_checks_total";
	char labels[LABELS_SIZE + 32];

	metrics_head(out, metric, "counter", "Health checks, by what they found.");
	for (size_t i = 0; i < count; i++) {
		snprintf(labels, sizeof labels, "%.599s,result=\"passed\"", rows[i].labels);
		metrics_sample(out, metric, labels, rows[i].sums.checks_passed);
		snprintf(labels, sizeof labels, "%.599s,result=\"failed\"", rows[i].labels);
		metrics_sample(out, metric, labels, rows[i].sums.checks_failed);
	}
}

#define SERVERS(field, metric, type, help) \
	server_family(out, rows, count, offsetof(struct server_sums, field), metric, type, help)

static void
server_families(struct metrics *out, const struct row *rows, size_t count)
{
	SERVERS(in_flight, "tailrace_upstream_in_flight", "gauge",
	        "Exchanges in flight at a server: max_connections at most, for each address.");
	SERVERS(connections, "tailrace_upstream_connections", "gauge",
	        "Connections to a server, idle ones included.");
	SERVERS(idle, "tailrace_upstream_connections_idle", "gauge",
	        "Idle connections to a server.");
	SERVERS(tunnels, "tailrace_upstream_tunnels", "gauge", "Tunnels open to a server.");
	server_states(out, rows, count);
	SERVERS(connects, "tailrace_upstream_connects_total", "counter",
	        "Connections made to a server.");
	SERVERS(connect_failures, "tailrace_upstream_connect_failures_total", "counter",
	        "Connections to a server that could not be made.");
	SERVERS(ejections, "tailrace_upstream_ejections_total", "counter",
	        "Times an address was left alone because it could not be connected to.");
	server_checks(out, rows, count);
}

static void
add_server(struct server_sums *to, const struct server_sums *from)
{
	uint64_t *sum = (uint64_t *)(void *)to;
	const uint64_t *part = (const uint64_t *)(const void *)from;

	for (size_t i = 0; i < sizeof *to / sizeof *sum; i++)
		sum[i] += part[i];
}

/* Rows for the servers of one upstream: own ones as long as there is room, one for the rest. */
static size_t
add_rows(struct row *rows, size_t count, const struct config_upstream *config,
         const struct upstream_sums *sums)
{
	char upstream[128], server[LABELS_SIZE - 128];
	struct row *other = NULL;

	metrics_label(upstream, sizeof upstream, "upstream", config->name);
	for (size_t i = 0; i < config->server_count; i++) {
		const char *name = count < METRICS_SERVERS_MAX ? config->servers[i].text : "other";

		if (other) {
			add_server(&other->sums, &sums->servers[i]);
			continue;
		}
		metrics_label(server, sizeof server, "server", name);
		snprintf(rows[count].labels, LABELS_SIZE, "%s,%s", upstream, server);
		rows[count].sums = sums->servers[i];
		if (count >= METRICS_SERVERS_MAX)
			other = &rows[count];
		count++;
	}
	return count;
}

#define UPSTREAMS(field, metric, type, help) \
	family(out, config, sums, offsetof(struct upstream_sums, field), metric, type, help)

void
metrics_upstreams(const struct service *service, struct metrics *out)
{
	static struct upstream_sums sums[CONFIG_UPSTREAMS_MAX];
	static struct row rows[METRICS_SERVERS_MAX + CONFIG_UPSTREAMS_MAX];
	const struct config *config = service->config;
	size_t count = 0;

	for (size_t i = 0; i < config->upstream_count; i++) {
		sum_up(service->board, board_upstream_key(&config->upstreams[i]), &sums[i]);
		count = add_rows(rows, count, &config->upstreams[i], &sums[i]);
	}
	UPSTREAMS(waiting, "tailrace_upstream_queue_length", "gauge",
	          "Exchanges that wait for a server.");
	UPSTREAMS(queued, "tailrace_upstream_queued_total", "counter",
	          "Exchanges that had to wait for a server.");
	refusals(out, config, sums);
	UPSTREAMS(left, "tailrace_upstream_queue_left_total", "counter",
	          "Exchanges whose client went while they waited for a server.");
	UPSTREAMS(retries, "tailrace_upstream_retries_total", "counter",
	          "Attempts beyond the first.");
	UPSTREAMS(lookups, "tailrace_upstream_lookups_total", "counter",
	          "Times a server's name was looked up.");
	UPSTREAMS(lookup_failures, "tailrace_upstream_lookup_failures_total", "counter",
	          "Times a server's name had no answer, and its last addresses stayed.");
	UPSTREAMS(addresses_dropped, "tailrace_upstream_addresses_dropped_total", "counter",
	          "Addresses of names for which an upstream had no room.");
	server_families(out, rows, count);
}
