/* One question to a running gateway's control listener, over a Unix socket or TCP. Blocking, with a
 * deadline: for commands, never on a loop. */
#ifndef TAILRACE_CONTROL_CLIENT_H
#define TAILRACE_CONTROL_CLIENT_H

#include <stddef.h>

#define CONTROL_TIMEOUT_MS 5000u
#define CONTROL_ANSWER_BYTES_MAX (32u << 20)

struct control_answer {
	int status;
	char *body; /* owned, terminated; free with control_answer_free() */
	size_t length;
};

/* The address client commands use without --control: TAILRACE_CONTROL, else the default socket
 * (/run/tailrace/control.sock, or that under XDG_RUNTIME_DIR where only it is there). Static storage. */
const char *control_default_address(void);

/* GET `path`. `address` is "unix:/path" (also relative), "/path", "host:port" or, by TLS,
 * "https://host:port" (authorities: the file TAILRACE_CA names, else the system's); a token for TCP is read
 * from TAILRACE_TOKEN. Returns 0, or -1 with a sentence in `reterr`. */
int control_get(const char *address, const char *path, struct control_answer *ret, char *reterr,
                size_t reterr_size);

/* The same with POST and a JSON body. */
int control_post(const char *address, const char *path, const char *body,
                 struct control_answer *ret, char *reterr, size_t reterr_size);

/* Has `bytes` called with how much of an answer has come; null: nobody. */
void control_set_progress(void (*bytes)(size_t done));

/* How long a question may take, connection and all; CONTROL_TIMEOUT_MS unless it is set. */
void control_set_timeout(unsigned ms);

void control_answer_free(struct control_answer *answer);

#endif
