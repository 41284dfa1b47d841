/* Pages of the dashboard: bytes that the assembler took in. */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <event2/buffer.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include "collector/pages.h"
#include "collector/reply.h"

/* Nothing but the page's own files, and never in another page's frame. */
#define POLICY                                                                            \
	"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " \
	"connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

/* speedscope makes its styles while it runs, in a sheet of its own; scripts are its own files here
 * too. It is opened in a window of its own, with nothing in it but one profile. */
#define SPEEDSCOPE "/speedscope/"
#define SPEEDSCOPE_POLICY                                                              \
	"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "    \
	"font-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; " \
	"form-action 'none'; frame-ancestors 'none'"

#define PAGE(path, type, symbol, etag) extern const char symbol[], symbol##_end[];
#include "collector/pages.inc"
#undef PAGE

static const struct page {
	const char *path, *type, *etag, *start, *end; /* gzipped */
} pages[] = {
#define PAGE(path, type, symbol, etag) {path, type, "\"" etag "\"", symbol, symbol##_end},
#include "collector/pages.inc"
#undef PAGE
    {NULL, NULL, NULL, NULL, NULL},
};

static const struct page *
find(const char *path)
{
	for (const struct page *page = pages; page->path != NULL; page++)
		if (strcmp(page->path, path) == 0)
			return page;
	return NULL;
}

bool
pages_have(const char *path)
{
	return strcmp(path, "/") == 0 || find(path) != NULL;
}

static void
headers(struct evhttp_request *request, const struct page *page)
{
	struct evkeyvalq *out = evhttp_request_get_output_headers(request);
	evhttp_add_header(out, "Content-Type", page->type);
	evhttp_add_header(out, "Content-Encoding", "gzip");
	evhttp_add_header(out, "ETag", page->etag);
	evhttp_add_header(out, "Cache-Control", "no-cache");
	bool speedscope = strncmp(page->path, SPEEDSCOPE, sizeof(SPEEDSCOPE) - 1) == 0;
	evhttp_add_header(out, "Content-Security-Policy", speedscope ? SPEEDSCOPE_POLICY : POLICY);
	evhttp_add_header(out, "X-Content-Type-Options", "nosniff");
	evhttp_add_header(out, "Referrer-Policy", "no-referrer");
	evhttp_add_header(out, "Cross-Origin-Opener-Policy", "same-origin");
}

void
pages_reply(struct evhttp_request *request, const char *path)
{
	const struct page *page = find(path);
	const char *known =
	    evhttp_find_header(evhttp_request_get_input_headers(request), "If-None-Match");
	if (page == NULL) {
		reply_error(request, 404, "no_dashboard",
		            "this build has no dashboard (make WEB=0); the API is at /api/v1/",
		            NULL);
		return;
	}
	headers(request, page);
	if (known != NULL && strcmp(known, page->etag) == 0) {
		evhttp_send_reply(request, 304, "Not Modified", NULL);
		return;
	}
	size_t size = (size_t)(page->end - page->start);
	if (evhttp_request_get_command(request) == EVHTTP_REQ_HEAD) {
		char length[24]; /* evhttp would send the body, and no length */
		snprintf(length, sizeof(length), "%zu", size);
		evhttp_add_header(evhttp_request_get_output_headers(request), "Content-Length",
		                  length);
		evhttp_send_reply(request, 200, "OK", NULL);
		return;
	}
	struct evbuffer *body = evbuffer_new();
	if (body == NULL || evbuffer_add_reference(body, page->start, size, NULL, NULL) != 0)
		evhttp_send_reply(request, 500, "Internal Server Error", NULL);
	else
		evhttp_send_reply(request, 200, "OK", body);
	if (body != NULL)
		evbuffer_free(body);
}
