/* The closed list of causes as tables (close_reasons.def). */
#include "model/close_reason.h"

struct reason {
	const char *name;
	const char *text;
	int status;
};

static const struct reason reasons[CLOSE_REASON_COUNT] = {
#define CLOSE_REASON(ID, name, status, text) [CLOSE_##ID] = {name, text, status},
#include "model/close_reasons.def"
#undef CLOSE_REASON
};

const char *
close_reason_name(enum close_reason reason)
{
	return (unsigned)reason < CLOSE_REASON_COUNT ? reasons[reason].name : "unknown";
}

const char *
close_reason_text(enum close_reason reason)
{
	return (unsigned)reason < CLOSE_REASON_COUNT ? reasons[reason].text : "unknown";
}

int
close_reason_status(enum close_reason reason)
{
	return (unsigned)reason < CLOSE_REASON_COUNT ? reasons[reason].status : 0;
}
