/* The file's minutes of routes: what the list of routes is read from. Old ones become hours. */
#include <string.h>
#include "collector/store_file.h"

/* Adds a row of STORE_MINUTE_SELECT or STORE_MINUTES_RANGE; one that cannot be read is skipped. */
static void
row_add(sqlite3_stmt *s, struct store_minute *sum)
{
	struct histogram stored;
	uint64_t phases_ns[PHASE_COUNT];
	if (sqlite3_column_bytes(s, 4) != (int)sizeof(phases_ns) ||
	    histogram_decode(sqlite3_column_blob(s, 5), (size_t)sqlite3_column_bytes(s, 5),
	                     &stored) != 0)
		return;
	memcpy(phases_ns, sqlite3_column_blob(s, 4), sizeof(phases_ns));
	sum->sums.requests += (uint64_t)sqlite3_column_int64(s, 0);
	sum->sums.errors += (uint64_t)sqlite3_column_int64(s, 1);
	sum->sums.sent += (uint64_t)sqlite3_column_int64(s, 2);
	sum->sums.joined += (uint64_t)sqlite3_column_int64(s, 3);
	for (size_t i = 0; i < PHASE_COUNT; i++)
		sum->sums.phases_ns[i] += phases_ns[i];
	histogram_merge(&sum->total, &stored);
}

static int
rows_add(sqlite3_stmt *s, struct store_minute *sum)
{
	int result;
	while ((result = sqlite3_step(s)) == SQLITE_ROW)
		row_add(s, sum);
	sqlite3_reset(s);
	return result == SQLITE_DONE ? SQLITE_OK : result;
}

static int
replace(struct store_file *file, int64_t route, const struct store_minute *sum)
{
	uint8_t encoded[HISTOGRAM_ENCODED_MAX];
	size_t length = histogram_encode(&sum->total, encoded);
	sqlite3_stmt *s = file->statements[STORE_MINUTE_REPLACE];
	sqlite3_bind_int64(s, 1, (int64_t)sum->sums.minute);
	sqlite3_bind_int64(s, 2, route);
	sqlite3_bind_int64(s, 3, (int64_t)sum->sums.requests);
	sqlite3_bind_int64(s, 4, (int64_t)sum->sums.errors);
	sqlite3_bind_int64(s, 5, (int64_t)sum->sums.sent);
	sqlite3_bind_int64(s, 6, (int64_t)sum->sums.joined);
	sqlite3_bind_blob(s, 7, sum->sums.phases_ns, sizeof(sum->sums.phases_ns), SQLITE_STATIC);
	sqlite3_bind_blob(s, 8, encoded, (int)length, SQLITE_STATIC);
	return store_file_run(s);
}

int
store_file_minute(struct store_file *file, const struct store_minute *minute)
{
	struct store_minute sum = *minute;
	int64_t route;
	int result = store_file_route(file, minute->sums.route, minute->sums.route_name, &route);
	if (result != SQLITE_OK)
		return result;
	sqlite3_stmt *s = file->statements[STORE_MINUTE_SELECT];
	sqlite3_bind_int64(s, 1, (int64_t)sum.sums.minute);
	sqlite3_bind_int64(s, 2, route);
	result = rows_add(s, &sum);
	return result == SQLITE_OK ? replace(file, route, &sum) : result;
}

static void
bind_hour(sqlite3_stmt *s, int64_t route, uint64_t hour)
{
	sqlite3_bind_int64(s, 1, (int64_t)(hour * 60));
	sqlite3_bind_int64(s, 2, (int64_t)(hour * 60 + 60));
	sqlite3_bind_int64(s, 3, route);
}

int
store_file_minutes_to_hour(struct store_file *file, int64_t route, uint64_t hour)
{
	struct store_minute sum = {.sums.minute = hour * 60};
	sqlite3_stmt *s = file->statements[STORE_MINUTES_RANGE];
	bind_hour(s, route, hour);
	int result = rows_add(s, &sum);
	if (result != SQLITE_OK || sum.sums.requests == 0)
		return result;
	store_file_aged(file, hour * 60 + 60);
	s = file->statements[STORE_MINUTES_DELETE];
	bind_hour(s, route, hour);
	result = store_file_run(s);
	return result == SQLITE_OK ? replace(file, route, &sum) : result;
}
