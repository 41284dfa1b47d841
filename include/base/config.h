/* Configuration: JSON with // comments plus the environment -> one immutable, validated struct,
 * driven by config.def. Every default is filled in here, so readers never know whether a key was
 * written. Owned by the process, read from any thread. */
#ifndef TAILRACE_BASE_CONFIG_H
#define TAILRACE_BASE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/log.h"
#include "base/net.h"

#define CONFIG_LISTENERS_MAX 16
#define CONFIG_UPSTREAMS_MAX 64
#define CONFIG_SERVERS_MAX 64 /* per upstream */
#define CONFIG_ROUTES_MAX 256
#define CONFIG_THREADS_MAX 8
#define CONFIG_INHERIT UINT32_MAX  /* a route's key that was not written: the upstream's holds */
#define CONFIG_CIDRS_MAX 64        /* per list */
#define CONFIG_CERTIFICATES_MAX 64 /* per listener */
#define CONFIG_RULES_MAX 64
#define CONFIG_RECEIVERS_MAX 16
#define CONFIG_TRAILERS_MAX 32
#define CONFIG_ERROR_PAGES_MAX 32
#define CONFIG_ERROR_PAGE_BYTES_MAX 65536
#define CONFIG_BYTES_MAX (1u << 20)

/* never / always / only for peers in the list */
enum config_trust { CONFIG_NEVER, CONFIG_ALWAYS, CONFIG_LIST };
struct config_peers {
	enum config_trust mode;
	struct net_cidr *cidrs; /* owned; CONFIG_LIST only */
	size_t cidr_count;
};
bool config_peers_match(const struct config_peers *peers, const struct net_address *peer);

struct config_certificate {
	char *certificate_file, *key_file;
};

/* TLS of a listening socket. */
struct config_tls {
	bool on; /* first: whether the section is there */
	struct config_certificate *certificates;
	size_t certificate_count;
	char *client_ca_file; /* null = clients show none */
};

/* TLS towards servers. */
struct config_upstream_tls {
	bool on;       /* first: whether the section is there */
	char *ca_file; /* null = the system's authorities */
	char *name;    /* null = each server's own */
	bool verify;
};

enum config_access_format { CONFIG_ACCESS_JSON, CONFIG_ACCESS_COMBINED };

struct config_listener {
	char *text; /* as written */
	struct net_address address;
	struct config_peers trusted_proxies; /* never or list */
	bool half_close;
	bool proxy_protocol;
	struct config_tls tls;
	bool forwarded; /* tell the app by Forwarded too (RFC 7239) */
};

struct config_server {
	char *text;                 /* as written: names too */
	struct net_address address; /* of a name: the first it had when the supervisor started */
	uint32_t weight;
	char
	    *tls_name; /* of the certificate; where the upstream has TLS, never null once checked */
};

enum config_balance { CONFIG_LEAST_OUTSTANDING, CONFIG_ROUND_ROBIN };

struct config_health {
	char *path; /* null = servers are not asked */
	uint32_t interval_ms, timeout_ms;
	uint32_t rise, fall; /* answers in a row that change a server's state */
};

/* What bounds one exchange: of its route, else of its upstream. */
struct config_bounds {
	uint64_t body_bytes; /* longest request body; 0 = no limit */
	uint32_t body_idle_timeout_ms;
	uint32_t response_timeout_ms;
};

struct config_upstream {
	char *name;
	struct config_server *servers;
	size_t server_count;
	uint32_t max_connections; /* exchanges in flight per server */
	uint32_t connect_timeout_ms;
	uint32_t
	    response_timeout_ms; /* between two reads of a response; also until its first byte */
	uint32_t idle_timeout_ms;
	uint32_t retries;
	struct config_upstream_tls tls;
	uint32_t queue_max; /* exchanges that wait for a slot */
	uint32_t queue_timeout_ms;
	enum config_balance balance;
	uint32_t resolve_interval_ms; /* 0 = at start only */
	struct config_health health;
	struct config_bounds bounds; /* made of limits and the above */
};

struct config_route {
	char *name;                         /* owned; default: path_prefix */
	char *host;                         /* null = any; lower case, no port */
	char *path_prefix;                  /* "" = any */
	char **methods;                     /* null-terminated; null = any */
	size_t upstream;                    /* index into config->upstreams */
	uint32_t queue_timeout_ms, retries; /* CONFIG_INHERIT = the upstream's */
	bool alerts;
	struct config_bounds bounds;
};

struct config_limits {
	uint32_t request_line_bytes;
	uint32_t head_bytes;
	uint32_t headers;
	uint64_t body_bytes; /* 0 = no limit */
	uint32_t head_timeout_ms;
	uint32_t body_idle_timeout_ms;
	uint64_t body_min_bytes_per_s; /* 0 = any rate */
	uint32_t keepalive_timeout_ms;
	uint32_t connections;
	uint32_t connections_per_address; /* 0 = no limit */
	uint32_t requests_per_connection; /* 0 = no limit */
	uint32_t tls_handshakes;          /* under way, all threads of a worker together */
	uint32_t tunnels;
	uint32_t tunnel_idle_timeout_ms;
	char **trailers; /* names of trailer fields passed on; null-terminated; null = none */
};

/* A page that stands for local answers of one status, or of a class of them. */
struct config_error_page {
	char *name; /* "404", "4xx", "5xx" */
	char *file;
};

struct config_trace {
	struct config_peers trust;
	bool response_header;
	struct config_peers server_timing;
};

enum config_role { CONFIG_ROLE_INGEST, CONFIG_ROLE_ADMIN, CONFIG_ROLE_PROBE };
struct config_control_listener {
	char *text;
	struct net_address address;
	enum config_role role;
	char *token_file;   /* null on unix sockets that have none */
	uid_t *allow_users; /* owned; none = root, the supervisor's user and process.user */
	size_t allow_user_count;
	struct config_tls tls;
};

enum config_latency { CONFIG_LATENCY_SERVER, CONFIG_LATENCY_TOTAL, CONFIG_LATENCY_FIRST_BYTE };

enum config_metric {
	CONFIG_METRIC_P50,
	CONFIG_METRIC_P75,
	CONFIG_METRIC_P90,
	CONFIG_METRIC_P95,
	CONFIG_METRIC_P99,
	CONFIG_METRIC_ERROR_RATIO,
	CONFIG_METRIC_MISSING_PROFILES,
	CONFIG_METRIC_BURN_RATE
};

struct config_rule {
	char *name; /* owned, like all texts; made of the rest where none is given */
	enum config_metric metric;
	char *route;                       /* null = each */
	double above_ms, above, objective; /* which of them counts depends on the metric */
	uint32_t for_s;
	uint32_t min_requests;
	char **receivers; /* null-terminated names; null = all */
};

enum config_receiver_type {
	CONFIG_RECEIVER_WEBHOOK,
	CONFIG_RECEIVER_ALERTMANAGER,
	CONFIG_RECEIVER_SLACK,
	CONFIG_RECEIVER_LOG
};

struct config_receiver {
	char *name;
	enum config_receiver_type type;
	char *url, *url_file; /* one of them, but for log */
	char *token_file, *ca_file;
	uint32_t timeout_ms;
};

struct config_alerts {
	uint32_t window_ms, min_duration_s, reference_s, reference_gap_s;
	enum config_latency latency;
	double false_alarm_budget; /* a month */
	double min_effect;         /* 0.1 is 10 % */
	double min_effect_ms;
	char *dashboard_url; /* or null */
	struct config_rule *rules;
	size_t rule_count;
	struct config_receiver *receivers;
	size_t receiver_count;
};

struct config {
	uint32_t serial; /* 1 at start, one more with each reload; not a key, set by who loads it */
	struct config_listener *listeners;
	size_t listener_count;
	struct config_upstream *upstreams;
	size_t upstream_count;
	struct config_route *routes;
	size_t route_count;
	struct config_error_page *error_pages;
	size_t error_page_count;
	struct config_limits limits;
	struct config_trace trace;
	struct {
		bool kernel_in;
		uint32_t client_ack_one_in; /* 0 = none */
		uint32_t tcp_info_over_ms;  /* 0 = none */
	} overlays;
	struct {
		struct config_control_listener *listeners;
		size_t listener_count;
	} control;
	struct {
		uint32_t join_timeout_ms;
		uint32_t stall_threshold_us, wait_threshold_us; /* told to the hooks */
		struct {
			double rate; /* 0 to 1 */
			uint32_t max_per_minute;
			char *token_file; /* null = none */
		} deep;
	} profile;
	struct {
		char *path;
		uint64_t max_bytes;
		uint32_t max_age_hours;
		uint32_t keep_slowest, keep_random; /* of each route in 10 s */
	} store;
	struct {
		char *user, *group; /* null = keep */
		uid_t uid;          /* (uid_t)-1 = keep */
		gid_t gid;
	} process;
	struct {
		uint32_t threads;
		uint32_t shutdown_timeout_ms;
	} worker;
	struct {
		enum log_level level; /* log.error.level */
		char *error_path;     /* null = standard error */
		struct {
			char *path; /* null = no access log; "-" = standard output */
			enum config_access_format format;
		} access;
	} log;
	struct config_alerts alerts;
};

/* What was wrong: text lines ready to print, each "file:line:column: …" or "file: /pointer:
 * found …, allowed …". Zero-initialise; free with config_errors_free(). */
struct config_errors {
	char **lines;
	size_t count;
};

/* Reads the file and the environment (TAILRACE_CONF__SECTION__KEY). Returns 0 with *ret set and
 * *ret_bytes (owned, jansson-compact JSON with the overrides applied; what the children get), or
 * -1 with errs. */
int config_load_file(const char *path, struct config **ret, char **ret_bytes, size_t *ret_length,
                     struct config_errors *errs);

/* From the bytes a supervisor checked (or a test's text). `name` stands for the file in errors. */
int config_load_bytes(const char *name, const char *bytes, size_t length, struct config **ret,
                      struct config_errors *errs);

/* Whether upstreams and servers stand at the same indices in both. */
bool config_same_servers(const struct config *a, const struct config *b);

/* One error for each server of `config` that has a name and no address yet; where `before` is not null,
 * only if the same one had an address there. Returns how many. */
size_t config_check_names(const char *file, const struct config *config,
                          const struct config *before, struct config_errors *errs);

void config_free(struct config *config);
void config_errors_free(struct config_errors *errs);

/* The control socket without configuration, "unix:/path": root's below /run, others' below
 * XDG_RUNTIME_DIR. Returns 0, or -1 where there is no such place. */
int config_default_control(char *buf, size_t size);

/* Prints the draft-07 schema generated from config.def to `out`. */
void config_print_schema(void *out /* FILE * */);

/* Prints the manual page tailrace.json(5), mdoc, generated from config.def to `out`. */
void config_print_man(void *out /* FILE * */);

#endif
