/* Rings to correlator. */
#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"
#include "collector/intake.h"
#include "proxy/ring.h"

struct intake {
	char *memory;
	struct ring *rings[BOARD_RINGS_MAX]; /* null = holds no ring (yet) */
};

struct intake *
intake_new(void *rings)
{
	struct intake *intake = xcalloc(1, sizeof(*intake));
	intake->memory = rings;
	return intake;
}

void
intake_free(struct intake *intake)
{
	free(intake);
}

/* Copied out before it is looked at: the producer's process may go mad, its memory is not trusted
 * twice. */
static void
take_record(struct service *service, const void *data, size_t size, uint64_t now_ns)
{
	_Alignas(8) char copy[RECORD_SIZE_MAX];
	const struct exchange_record *record = (const struct exchange_record *)copy;
	const char *method, *path;
	if (size > sizeof(copy) || size < sizeof(*record)) {
		service->counters[SERVICE_RECORDS_BROKEN]++;
		return;
	}
	memcpy(copy, data, size);
	if (record_text(record, size, &method, &path) != 0) {
		service->counters[SERVICE_RECORDS_BROKEN]++;
		return;
	}
	for (size_t i = 1; i < MARK_COUNT; i++) {
		if (record->marks_ns[i] < record->marks_ns[i - 1]) {
			service->counters[SERVICE_RECORDS_BROKEN]++;
			return;
		}
	}
	service->counters[SERVICE_RECORDS_READ]++;
	service_log_access(service, record, size);
	correlator_record(service->correlator, record, size, now_ns);
}

static bool
poll_ring(struct ring *ring, struct service *service, uint64_t now_ns)
{
	for (size_t i = 0; i < INTAKE_RECORDS_MAX; i++) {
		size_t length;
		const void *data = ring_peek(ring, &length);
		if (data == NULL)
			return false;
		take_record(service, data, length, now_ns);
		ring_release(ring);
	}
	return true;
}

/* Workers make their rings when they start: only slots that have seen one are looked at. */
static struct ring *
ring_of(struct intake *intake, const struct board *board, size_t index)
{
	const struct board_process *worker = &board->workers[index / BOARD_THREADS_MAX];
	if (intake->rings[index] == NULL &&
	    atomic_load_explicit(&worker->state, memory_order_acquire) >= BOARD_RUNNING)
		intake->rings[index] = ring_attach(intake->memory + index * RING_BYTES);
	return intake->rings[index];
}

bool
intake_poll(struct intake *intake, struct service *service, uint64_t now_ns)
{
	bool more = false;
	for (size_t i = 0; i < BOARD_RINGS_MAX; i++) {
		struct ring *ring = ring_of(intake, service->board, i);
		if (ring != NULL && poll_ring(ring, service, now_ns))
			more = true;
	}
	return correlator_expire(service->correlator, now_ns, INTAKE_EXPIRE_MAX) || more;
}

unsigned
intake_pause_us(uint64_t records, uint64_t elapsed_us)
{
	if (records == 0 || elapsed_us >= INTAKE_PAUSE_MAX_US * records / INTAKE_RECORDS_AIM)
		return INTAKE_PAUSE_MAX_US;
	uint64_t pause_us = elapsed_us * INTAKE_RECORDS_AIM / records;
	return pause_us > INTAKE_PAUSE_MIN_US ? (unsigned)pause_us : INTAKE_PAUSE_MIN_US;
}

uint64_t
intake_dropped(const struct intake *intake)
{
	uint64_t dropped = 0;
	for (size_t i = 0; i < BOARD_RINGS_MAX; i++)
		if (intake->rings[i] != NULL)
			dropped += ring_dropped(intake->rings[i]);
	return dropped;
}
