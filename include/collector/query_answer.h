/* The answers that need SQL: from a read-only connection and what the loop knew to JSON. Query
 * thread only. */
#ifndef TAILRACE_COLLECTOR_QUERY_ANSWER_H
#define TAILRACE_COLLECTOR_QUERY_ANSWER_H

#include <jansson.h>
#include <sqlite3.h>
#include "collector/query.h"

/* Fills job->status and job->body. `db` is null where there is no store: then only what is pending
 * counts. Returns SQLITE_OK or the error of a statement (then the job has no answer yet). */
int query_answer(sqlite3 *db, struct query_job *job, uint64_t now_wall_ns);

/* GET /api/v1/routes; likewise. */
int query_answer_routes(sqlite3 *db, struct query_job *job, uint64_t now_wall_ns);

/* Puts an answer into the job. Takes `root` over. */
void query_answer_json(struct query_job *job, int status, json_t *root);

/* Sorts an array of objects and cuts it. `order` gets pointers to json_t pointers. */
void query_sort_and_cut(json_t *array, int (*order)(const void *, const void *), size_t limit);

/* Puts an error of the API's one shape into the job. */
void query_answer_error(struct query_job *job, int status, const char *code, const char *message);

#endif
