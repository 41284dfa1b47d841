/* What a busy client is late with, and when to look. */
#include "proxy/client_watch.h"

#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include "proxy/client.h"
#include "proxy/exchange.h"
#include "proxy/proxy.h"

/* What the kernel still holds for the client: it may go on sending for long while it takes nothing
 * from us. */
static uint32_t
kernel_holds(const struct client *client)
{
	int held = 0;

	return ioctl(client->stream.fd, SIOCOUTQ, &held) == 0 && held > 0 ? (uint32_t)held : 0;
}

void
client_watch_kernel(struct client *client, bool begun)
{
	client->kernel_now = kernel_holds(client);
	if (!begun)
		return;
	client->write_from_ns = client->loop->now_ns;
	client->write_taken = 0;
	client->kernel_from = client->kernel_now;
}

static void
nearer(uint64_t *due_ns, uint64_t candidate_ns)
{
	if (*due_ns == 0 || candidate_ns < *due_ns)
		*due_ns = candidate_ns;
}

static uint64_t
head_due_ns(const struct exchange *exchange)
{
	return exchange->marks.at_ns[MARK_START] +
	       exchange->loop->config->limits.head_timeout_ms * NS_PER_MS;
}

static uint64_t
idle_ns(const struct client *client)
{
	return client->exchange->bounds->body_idle_timeout_ms * NS_PER_MS;
}

/* Not while the client waits for 100 (Continue): then it is the app's turn. */
static bool
waits_for_body(const struct client *client)
{
	return client->exchange->request_state == DIRECTION_BODY && client->stream.reading &&
	       client->exchange->continue_from_ns == 0;
}

static uint64_t
body_due_ns(const struct client *client)
{
	uint64_t due_ns = client->read_ns + idle_ns(client);
	uint64_t slow_ns = exchange_body_due_ns(client->exchange);

	if (slow_ns)
		nearer(&due_ns, slow_ns);
	return due_ns;
}

/* The rate counts what reached the client: what we gave the kernel, and what it has sent since of
 * what it held. */
static uint64_t
slow_reader_due_ns(const struct client *client)
{
	uint64_t rate = client->loop->config->limits.body_min_bytes_per_s;
	uint64_t taken = client->write_taken + client->kernel_from;

	taken = taken > client->kernel_now ? taken - client->kernel_now : 0;
	return rate ? client->write_from_ns + rate_allows_ns(taken, rate) : UINT64_MAX;
}

static uint64_t
write_due_ns(const struct client *client)
{
	uint64_t due_ns = client->write_ns + idle_ns(client);

	nearer(&due_ns, slow_reader_due_ns(client));
	return due_ns;
}

void
client_watch(struct client *client, uint64_t now_ns)
{
	struct exchange *exchange = client->exchange;
	uint64_t due_ns = 0;

	if (!exchange)
		return;
	if (exchange->step == STEP_TUNNEL) {
		timer_set(&client->loop->wheel, &client->timer, tunnel_due_ns(exchange), now_ns);
		return;
	}
	if (exchange->step == STEP_READ_HEAD)
		due_ns = head_due_ns(exchange);
	else if (waits_for_body(client))
		due_ns = body_due_ns(client);
	if (client->out.bytes > 0)
		nearer(&due_ns, write_due_ns(client));
	if (!client->stream.reading)
		nearer(&due_ns, now_ns + PAUSED_CHECK_NS);
	if (due_ns)
		timer_set(&client->loop->wheel, &client->timer, due_ns, now_ns);
	else
		timer_off(&client->timer);
}

static bool
hung_up(const struct client *client)
{
	short sought = client->listener->half_close ? 0 : POLLRDHUP;
	struct pollfd poll_fd = {.fd = client->stream.fd, .events = sought};

	return poll(&poll_fd, 1, 0) > 0 && (poll_fd.revents & (sought | POLLERR | POLLHUP));
}

/* The client takes the answer too slowly, or not at all. The kernel is asked first: it may have
 * sent from what it holds. */
static enum close_reason
write_late(struct client *client, uint64_t now_ns)
{
	uint32_t held_before = client->kernel_now;

	client->kernel_now = kernel_holds(client);
	if (client->kernel_now < held_before)
		client->write_ns = now_ns;
	if (now_ns >= client->write_ns + idle_ns(client))
		return CLOSE_CLIENT_WRITE_TIMEOUT;
	return now_ns >= slow_reader_due_ns(client) ? CLOSE_CLIENT_TOO_SLOW : CLOSE_NONE;
}

static enum close_reason
late_reason(struct client *client, uint64_t now_ns)
{
	struct exchange *exchange = client->exchange;

	if (exchange->step == STEP_TUNNEL)
		return now_ns >= tunnel_due_ns(exchange) ? CLOSE_TUNNEL_IDLE : CLOSE_NONE;
	if (exchange->step == STEP_READ_HEAD) {
		if (now_ns >= head_due_ns(exchange))
			return CLOSE_HEAD_TIMEOUT;
	} else if (waits_for_body(client) && now_ns >= body_due_ns(client)) {
		return now_ns >= client->read_ns + idle_ns(client) ? CLOSE_BODY_TIMEOUT
		                                                   : CLOSE_BODY_TOO_SLOW;
	}
	if (client->out.bytes > 0 && now_ns >= write_due_ns(client))
		return write_late(client, now_ns);
	return CLOSE_NONE;
}

void
client_watch_late(struct client *client, uint64_t now_ns)
{
	enum close_reason why = late_reason(client, now_ns);

	if (why != CLOSE_NONE) {
		proxy_fail(client->exchange, why);
		return;
	}
	if (client->exchange->step != STEP_TUNNEL && !client->stream.reading && !client->saw_fin &&
	    hung_up(client)) {
		client_hung(client, true);
		return;
	}
	client_watch(client, now_ns);
}
