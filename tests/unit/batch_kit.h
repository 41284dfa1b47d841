/* A batch as a hook posts it, in parts, and what reading one must say. */
#ifndef TAILRACE_TESTS_BATCH_KIT_H
#define TAILRACE_TESTS_BATCH_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "model/profile_batch.h"

#define KEY "\"4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7\""
#define PROCESS                                                                               \
	"{\"instance\":\"c3b1a0f25e7d4c6f9a0b1c2d3e4f5061\",\"pid\":7,\"python\":\"3.11.7\"," \
	"\"loop\":\"uvloop\",\"engine\":\"steps\",\"hook_version\":\"0.1.0\","                \
	"\"boot_id\":\"c181387b-f975-4f1d-b700-466102bad21a\",\"time_namespace\":4026531834," \
	"\"dropped\":3}"
#define STACKS "[[0,[[\"app\",\"f\",\"app.py\",31,1],[\"lib\",\"g\",\"lib.py\",0,0]]]]"
#define ROW "[\"wait\",\"sleep\",0,101,10,1,0,null,null]"
/* enter 1000, start 1205, end 1300: breakdown 101 + 104 unattributed, stream 95 unattributed */
#define PROFILE \
	"[" KEY ",0,1,\"GET /a\",30,1000,1205,1300,null,\"response\",0,[" ROW "],104,[],95,[],null]"

/* Owned: profile_batch_free(). */
static inline struct profile_batch *
good(const char *text)
{
	struct profile_batch *result = NULL;
	struct read_error error;
	if (profile_batch_parse(text, strlen(text), &result, &error) != 0)
		fail_msg("%s at \"%s\" in %.200s", error.message, error.pointer, text);
	return result;
}

static inline void
bad_bytes(const char *text, size_t length, const char *pointer)
{
	struct profile_batch *result = NULL;
	struct read_error error;
	if (profile_batch_parse(text, length, &result, &error) == 0)
		fail_msg("taken: %.300s", text);
	assert_null(result);
	assert_true(error.message[0] != '\0');
	if (strcmp(error.pointer, pointer) != 0)
		fail_msg("pointer \"%s\", not \"%s\" (%s) in %.300s", error.pointer, pointer,
		         error.message, text);
}

static inline void
bad(const char *text, const char *pointer)
{
	bad_bytes(text, strlen(text), pointer);
}

#endif
