/* `tailrace show`: one request, waited for while its profile may still come. */
#include "client_commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/clock.h"
#include "commands.h"
#include "waterfall.h"

#define PROFILE_WAIT_MS 3000 /* a hook posts every 100 ms, so later means never */
#define DETAIL_WAIT_MS 600   /* and comes with a post after that */
#define POLL_MS 50

/* True while a profile may still come: the gateway gave no reason why there is none. */
static bool
is_pending(const json_t *exchange)
{
	const char *reason = json_string_value(json_object_get(exchange, "profile_missing"));

	return !json_is_object(json_object_get(exchange, "profile")) &&
	       (reason == NULL || strcmp(reason, "pending") == 0);
}

/* True where the profile came just now and its detail may follow. */
static bool
lacks_detail(const json_t *exchange)
{
	const json_t *profile = json_object_get(exchange, "profile");
	const char *detail = json_string_value(json_object_get(profile, "detail"));
	const char *engine = json_string_value(json_object_get(profile, "engine"));

	return detail != NULL && strcmp(detail, "absent") == 0 && engine != NULL &&
	       strcmp(engine, "totals") != 0;
}

/* Whether it began within the last seconds: else nothing more will come. */
static bool
is_recent(const json_t *exchange)
{
	const char *start = json_string_value(json_object_get(exchange, "start"));
	char from[32];

	clock_format(clock_wall_ns() - 5 * NS_PER_S, from, sizeof(from));
	return start != NULL && strcmp(start, from) > 0;
}

/* Asks until the exchange is there with its profile, or PROFILE_WAIT_MS are over. Returns the last
 * status with its answer, or -1. */
static int
ask_until_joined(const struct client_options *options, const char *path, struct control_answer *ret)
{
	uint64_t until_ns = clock_now_ns() + PROFILE_WAIT_MS * NS_PER_MS;
	bool waited = false; /* for detail: once, and only where the profile was waited for */
	struct timespec pause = {.tv_nsec = POLL_MS * (long)NS_PER_MS};

	for (;;) {
		int status = client_ask(options, path, ret);
		bool again = status == 404;

		if (status == 200) {
			json_t *root = json_loadb(ret->body, ret->length, 0, NULL);

			again = json_is_object(root) && is_pending(root);
			if (!again && !waited && json_is_object(root) && is_recent(root) &&
			    lacks_detail(root)) {
				waited = again = true;
				until_ns = clock_now_ns() + DETAIL_WAIT_MS * NS_PER_MS;
			} else if (!again && waited) {
				again = lacks_detail(root);
			}
			json_decref(root);
		}
		if (!again || clock_now_ns() >= until_ns)
			return status;
		control_answer_free(ret);
		nanosleep(&pause, NULL);
	}
}

static int
print_exchange(const struct client_options *options, const struct control_answer *answer)
{
	json_t *root = json_loadb(answer->body, answer->length, JSON_REJECT_DUPLICATES, NULL);
	struct term term;

	if (!json_is_object(root)) {
		fprintf(stderr, "tailrace: the answer is no JSON object\n");
		json_decref(root);
		return EXIT_FAILURE;
	}
	if (is_pending(root))
		fprintf(stderr,
		        "tailrace: no profile came within %d s: is the hook in the app, and "
		        "TAILRACE_CALLBACK in its environment this gateway's control address?\n",
		        PROFILE_WAIT_MS / 1000);
	if (options->json) {
		fwrite(answer->body, 1, answer->length, stdout);
		fputc('\n', stdout);
	} else {
		term_init(&term, stdout);
		waterfall_print(&term, root);
	}
	json_decref(root);
	return EXIT_SUCCESS;
}

int
client_show(const struct client_options *options)
{
	struct control_answer answer = {0};
	char path[CLIENT_PATH_BYTES_MAX], trace[33], span[17] = "";
	int status, result = EXIT_FAILURE;

	if (!client_take_hex(options->operands[0], 32, trace) ||
	    (options->span != NULL && !client_take_hex(options->span, 16, span))) {
		fprintf(stderr, "tailrace: a trace ID has 32 hexadecimal digits, a span ID 16\n");
		return EXIT_USAGE;
	}
	snprintf(path, sizeof(path), "/api/v1/requests/%s%s%s", trace,
	         options->span == NULL ? "" : "?span=", span);
	status = ask_until_joined(options, path, &answer);
	if (status == 200)
		result = print_exchange(options, &answer);
	else if (status == 404)
		fprintf(stderr,
		        "tailrace: no request with trace %s is kept (the gateway keeps a "
		        "bounded number of them; `tailrace requests` lists the latest)\n",
		        trace);
	else if (status != -1)
		client_complain(&answer);
	control_answer_free(&answer);
	return result;
}
