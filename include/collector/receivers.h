/* What each kind of receiver is sent: the one payload of docs/alerts.md in its own form. Any
 * thread. */
#ifndef TAILRACE_COLLECTOR_RECEIVERS_H
#define TAILRACE_COLLECTOR_RECEIVERS_H

#include <jansson.h>
#include "base/config.h"
#include "model/text.h"

/* The body to be posted. */
void receivers_body(enum config_receiver_type type, const json_t *payload, struct text *out);

/* Where it is posted: `url`, with the path of Alertmanager's API behind it where that is meant. */
void receivers_url(enum config_receiver_type type, const char *url, struct text *out);

const char *receivers_type_name(enum config_receiver_type type);

#endif
