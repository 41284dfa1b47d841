/* Stamped reads, held records, TCP_INFO. */
#include "proxy/overlay.h"

#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"
#include "proxy/client.h"
#include "proxy/exchange.h"
#include "proxy/kernel_time.h"

struct ack_wait {
	struct client *client;
	const struct exchange *exchange; /* null once its record is held */
	struct timer timer;
	uint64_t wall_ns; /* newest stamp */
	uint64_t end_ns;  /* t11 */
	size_t size;      /* of the record; 0 = none is held yet */
	_Alignas(8) char record[RECORD_SIZE_MAX];
};

static bool
is_clear_tcp(const struct client *client)
{
	return client->stream.tls == NULL && client->peer.sa.sa_family != AF_UNIX;
}

void
overlay_accepted(struct client *client)
{
	const struct config *config = client->loop->config;

	client->stamped = config->overlays.kernel_in && !client->listener->tls.on &&
	                  client->peer.sa.sa_family != AF_UNIX;
	client->overlays = client->stamped || config->overlays.client_ack_one_in > 0;
}

/* --- kernel_in --------------------------------------------------------------------------- */

ssize_t
overlay_read(struct client *client, void *to, size_t room)
{
	uint64_t stamp_ns, wall_ns;
	ssize_t n = kernel_time_recv(client->stream.fd, to, room, &stamp_ns);

	client->kernel_in_ns = UINT64_MAX;
	if (n <= 0 || stamp_ns == 0)
		return n;
	/* Both of one clock: what lies between is a duration, unless it was set just then. */
	wall_ns = clock_wall_ns();
	if (stamp_ns <= wall_ns && wall_ns - stamp_ns <= OVERLAY_KERNEL_MAX_NS)
		client->kernel_in_ns = wall_ns - stamp_ns;
	return n;
}

static void
sample_ack(struct client *client, struct exchange *exchange)
{
	struct loop *loop = client->loop;
	uint32_t one_in = loop->config->overlays.client_ack_one_in;
	struct ack_wait *wait;

	if (one_in == 0 || ++loop->ack_turn % one_in != 0 || !is_clear_tcp(client) ||
	    loop->ack_count >= OVERLAY_ACKS_MAX)
		return;
	wait = xmem_try(sizeof *wait);
	if (!wait)
		return;
	memset(wait, 0, offsetof(struct ack_wait, record));
	wait->client = client;
	wait->exchange = exchange;
	if (kernel_time_acks(client->stream.fd, client->stamped) < 0) {
		free(wait);
		return;
	}
	client->ack = wait;
	loop->ack_count++;
}

void
overlay_begin(struct client *client, struct exchange *exchange)
{
	if (client->stamped && client->kernel_in_ns != UINT64_MAX) {
		exchange->kernel_in_ns = client->kernel_in_ns;
		exchange->flags |= RECORD_HAS_KERNEL_IN;
	}
	client->kernel_in_ns = UINT64_MAX;
	if (client->ack)
		overlay_event(client);
	overlay_release(client);
	sample_ack(client, exchange);
}

/* --- client_ack -------------------------------------------------------------------------- */

static void
send_held(struct ack_wait *wait, bool acknowledged)
{
	struct exchange_record *record = (struct exchange_record *)wait->record;
	struct loop *loop = wait->client->loop;
	uint64_t offset_ns = clock_wall_ns() - clock_now_ns();
	void *place;

	if (acknowledged) {
		uint64_t acked_ns = wait->wall_ns - offset_ns;

		record->flags |= RECORD_HAS_CLIENT_ACK;
		record->client_ack_ns = acked_ns > wait->end_ns ? acked_ns - wait->end_ns : 0;
	}
	place = ring_reserve(loop->ring, wait->size);
	if (!place)
		return; /* counted by the ring */
	memcpy(place, wait->record, wait->size);
	ring_commit(loop->ring);
}

static void
end_wait(struct client *client, bool acknowledged)
{
	struct ack_wait *wait = client->ack;
	struct loop *loop = client->loop;

	if (wait->size > 0)
		send_held(wait, acknowledged);
	timer_remove(&loop->wheel, &wait->timer);
	kernel_time_receipts(client->stream.fd, client->stamped);
	loop->ack_count--;
	client->ack = NULL;
	free(wait);
}

void
overlay_event(struct client *client)
{
	struct ack_wait *wait = client->ack;
	bool all = kernel_time_ack(client->stream.fd, &wait->wall_ns);

	if (all && wait->size > 0)
		end_wait(client, true);
}

void
overlay_release(struct client *client)
{
	if (client->ack)
		end_wait(client, false);
}

static void
on_late(struct timer *timer, uint64_t now_ns)
{
	struct ack_wait *wait =
	    (struct ack_wait *)(void *)((char *)timer - offsetof(struct ack_wait, timer));

	(void)now_ns;
	end_wait(wait->client, false);
}

void *
overlay_hold(struct exchange *exchange, size_t size, uint64_t end_ns)
{
	struct client *client = exchange->client;
	struct ack_wait *wait = client->ack;

	if (!wait || wait->exchange != exchange || exchange->status == 0)
		return NULL;
	wait->exchange = NULL;
	wait->end_ns = end_ns;
	wait->size = size;
	wait->timer.fire = on_late;
	timer_set(&client->loop->wheel, &wait->timer, client->loop->now_ns + OVERLAY_ACK_NS,
	          client->loop->now_ns);
	return wait->record;
}

/* --- TCP_INFO ---------------------------------------------------------------------------- */

bool
overlay_tcp(const struct client *client, struct record_tcp *ret)
{
	return client->stream.fd != -1 && kernel_time_info(client->stream.fd, ret) == 0;
}
