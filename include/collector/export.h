/* One exchange with its profile in the formats other tools read. Query thread only, but for
 * export_format(). */
#ifndef TAILRACE_COLLECTOR_EXPORT_H
#define TAILRACE_COLLECTOR_EXPORT_H

#include <jansson.h>
#include "model/text.h"

enum export_format {
	EXPORT_JSON,
	EXPORT_SPEEDSCOPE,
	EXPORT_COLLAPSED,
	EXPORT_CHROME,
	EXPORT_FORMATS
};

/* By name; json where it is null, EXPORT_FORMATS where there is none of this name. */
enum export_format export_format(const char *name);

/* Its media type. Static storage. */
const char *export_type(enum export_format format);

/* Appends the exchange (as the API shows it, with its detail where there is any). Returns null, or why
 * this exchange cannot be exported so. */
const char *export_profile(const json_t *exchange, enum export_format format, struct text *out);

#endif
