/* SO_TIMESTAMPING and TCP_INFO. */
#include "proxy/kernel_time.h"

#include <errno.h>
#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include "base/clock.h"

#define RECEIPTS (SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE)
#define ACKS                                                                                 \
	(SOF_TIMESTAMPING_TX_ACK | SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_TSONLY | \
	 SOF_TIMESTAMPING_OPT_ID)
#define ERRORS_PER_CALL 64

static int
set_stamps(int fd, unsigned flags)
{
	return setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &flags, sizeof flags);
}

int
kernel_time_receipts(int fd, bool on)
{
	return set_stamps(fd, on ? RECEIPTS : 0);
}

int
kernel_time_acks(int fd, bool receipts_too)
{
	return set_stamps(fd, ACKS | (receipts_too ? RECEIPTS : 0));
}

/* The software stamp among the control messages, or 0. */
static uint64_t
stamp_of(struct msghdr *message)
{
	struct scm_timestamping stamps;

	for (struct cmsghdr *head = CMSG_FIRSTHDR(message); head;
	     head = CMSG_NXTHDR(message, head)) {
		if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_TIMESTAMPING)
			continue;
		memcpy(&stamps, CMSG_DATA(head), sizeof stamps);
		return (uint64_t)stamps.ts[0].tv_sec * NS_PER_S + (uint64_t)stamps.ts[0].tv_nsec;
	}
	return 0;
}

ssize_t
kernel_time_recv(int fd, void *buf, size_t size, uint64_t *ret_wall_ns)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(struct scm_timestamping)) + 64];
	} control;
	struct iovec iov = {.iov_base = buf, .iov_len = size};
	struct msghdr message = {.msg_iov = &iov,
	                         .msg_iovlen = 1,
	                         .msg_control = control.bytes,
	                         .msg_controllen = sizeof control.bytes};
	ssize_t n = recvmsg(fd, &message, 0);

	*ret_wall_ns = n > 0 ? stamp_of(&message) : 0;
	return n;
}

bool
kernel_time_ack(int fd, uint64_t *wall_ns)
{
	int unsent = 1;

	for (int i = 0; i < ERRORS_PER_CALL; i++) {
		union {
			struct cmsghdr align;
			char bytes[256];
		} control;
		struct msghdr message = {.msg_control = control.bytes,
		                         .msg_controllen = sizeof control.bytes};
		uint64_t stamp;

		if (recvmsg(fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
			break;
		stamp = stamp_of(&message);
		if (stamp > *wall_ns)
			*wall_ns = stamp;
	}
	return *wall_ns != 0 && ioctl(fd, SIOCOUTQ, &unsent) == 0 && unsent == 0;
}

int
kernel_time_info(int fd, struct record_tcp *ret)
{
	struct tcp_info info = {0};
	socklen_t length = sizeof info;

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) < 0)
		return -1;
	*ret = (struct record_tcp){.busy_us = info.tcpi_busy_time,
	                           .receiver_limited_us = info.tcpi_rwnd_limited,
	                           .buffer_limited_us = info.tcpi_sndbuf_limited,
	                           .rtt_us = info.tcpi_rtt,
	                           .min_rtt_us = info.tcpi_min_rtt,
	                           .retransmits = info.tcpi_total_retrans};
	return 0;
}
