/* What the collector's parts share: one struct, made by the collector program. The loop's thread
 * only; the store and query threads have their own (see there). */
#ifndef TAILRACE_COLLECTOR_SERVICE_H
#define TAILRACE_COLLECTOR_SERVICE_H

#include <stdbool.h>
#include <stdint.h>
#include "base/board.h"
#include "base/config.h"
#include "collector/configs.h"
#include "model/correlator.h"
#include "model/route.h"
#include "model/stacks.h"
#include "model/text.h"

enum service_counter {
#define SERVICE_COUNTER(ID, metric, labels, help) SERVICE_##ID,
#include "collector/service_counters.def"
#undef SERVICE_COUNTER
	SERVICE_COUNTER_COUNT
};

#define SERVICE_KEPT_MAX 16384

struct access_log;
struct aggregate;
struct deliver;
struct incidents;
struct deep_log;
struct hooks;
struct intake;
struct live;
struct query;
struct retention;
struct spans;
struct status;
struct store;
struct wants;
struct watch;

struct service {
	const struct config *config; /* the one in force; borrowed */
	struct configs *configs;     /* all of which records may come; owned */
	struct board *board;         /* mapped */
	struct routes *routes;       /* owned, like all below */
	struct stacks *stacks;
	struct correlator *correlator;
	struct aggregate *aggregate;
	struct intake *intake;
	struct store *store;
	struct access_log *access_log; /* null = none is wanted */
	struct query *query;
	struct spans *spans;
	struct retention *retention;
	struct wants *wants;
	struct watch *watch;
	struct incidents *incidents;
	struct deliver *deliver;
	struct deep_log *deep_log;
	struct live *live;
	struct hooks *hooks;
	struct status *status;
	struct profile_key kept[SERVICE_KEPT_MAX]; /* by hash: of exchanges put to the store */
	struct text rendered;                      /* scratch; owned */
	bool stopping;                             /* new batches are answered 503 */
	uint64_t counters[SERVICE_COUNTER_COUNT];
};

/* The configuration that a record's indices belong to. */
const struct config *service_config_of(const struct service *service,
                                       const struct exchange_record *record);

/* The name of an exchange's route as far as `profile` (or null) tells: ROUTE_NAME_MAX + 1 bytes. */
void service_route_name(const struct service *service, const struct exchange_record *record,
                        size_t size, const struct profile *profile, char *buf);

/* A final record's line of the access log, where there is one. */
void service_log_access(const struct service *service, const struct exchange_record *record,
                        size_t size);

/* The correlator's events: an exchange into aggregates and store. `arg` is the struct service. */
void service_on_exchange(void *arg, const struct exchange_record *record, size_t size,
                         const struct profile *profile, const struct join *join,
                         enum profile_missing missing);
void service_on_late(void *arg, const struct profile_key *key);
void service_on_tail(void *arg, const struct profile_key *key, uint64_t tail_ns);

#endif
