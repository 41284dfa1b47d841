/* Parameters to jobs. */
#include <stdlib.h>
#include <string.h>
#include <event2/http.h>
#include "collector/api_tools.h"
#include "collector/reply.h"

#define WINDOW_DEFAULT_S 3600
#define WINDOW_MAX_S (31ull * 24 * 3600)

int
api_parameters(struct evhttp_request *request, struct evkeyvalq *ret)
{
	const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(request);
	const char *query = uri != NULL ? evhttp_uri_get_query(uri) : NULL;
	TAILQ_INIT(ret);
	if (query == NULL || query[0] == '\0' || evhttp_parse_query_str(query, ret) == 0)
		return 0;
	reply_error(request, 400, "bad_query", "the query string cannot be read", NULL);
	return -1;
}

void
api_submit(struct service *service, struct evhttp_request *request, struct query_job *job)
{
	job->arg = request;
	if (query_submit(service->query, job))
		return;
	query_job_free(job);
	evhttp_add_header(evhttp_request_get_output_headers(request), "Retry-After", "1");
	reply_error(request, 503, "busy", "too many queries wait", NULL);
}

int64_t
api_integer(const char *text, int64_t missing, int64_t min, int64_t max)
{
	char *end;
	if (text == NULL)
		return missing;
	long long value = strtoll(text, &end, 10);
	return *text < '0' || *text > '9' || *end != '\0' || value < min || value > max ? -1
	                                                                                : value;
}

uint64_t
api_window_s(const char *text)
{
	static const struct {
		const char *unit;
		uint64_t s;
	} units[] = {{"", 1}, {"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}};
	char *end;
	if (text == NULL)
		return WINDOW_DEFAULT_S;
	if (*text < '0' || *text > '9' || strlen(text) > 10)
		return 0;
	uint64_t value = strtoull(text, &end, 10);
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (strcmp(units[i].unit, end) == 0)
			return value * units[i].s <= WINDOW_MAX_S ? value * units[i].s : 0;
	return 0;
}
