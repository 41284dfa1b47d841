/* One message with its descriptors, each way. */
#include "orders.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FDS_SIZE (sizeof(int) * ORDER_FDS_MAX)

union control {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(FDS_SIZE)];
};

int
order_send(int socket, const struct order *order)
{
	uint32_t words[3] = {order->kind, order->serial, order->fd_count};
	struct iovec iov = {.iov_base = words, .iov_len = sizeof(words)};
	union control control = {0};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	size_t size = sizeof(int) * order->fd_count;

	if (order->fd_count > 0) {
		struct cmsghdr *head;

		message.msg_control = control.bytes;
		message.msg_controllen = CMSG_SPACE(size);
		head = CMSG_FIRSTHDR(&message);
		head->cmsg_level = SOL_SOCKET;
		head->cmsg_type = SCM_RIGHTS;
		head->cmsg_len = CMSG_LEN(size);
		memcpy(CMSG_DATA(head), order->fds, size);
	}
	return sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == -1 ? -1 : 0;
}

static uint32_t
take_fds(struct msghdr *message, int *fds)
{
	uint32_t count = 0;

	for (struct cmsghdr *head = CMSG_FIRSTHDR(message); head != NULL;
	     head = CMSG_NXTHDR(message, head)) {
		if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
			continue;
		count = (uint32_t)((head->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(head), count * sizeof(int));
	}
	return count;
}

int
order_receive(int socket, struct order *ret)
{
	uint32_t words[3];
	struct iovec iov = {.iov_base = words, .iov_len = sizeof(words)};
	union control control;
	struct msghdr message = {.msg_iov = &iov,
	                         .msg_iovlen = 1,
	                         .msg_control = control.bytes,
	                         .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n == -1 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return -1;
	*ret = (struct order){0};
	ret->fd_count = take_fds(&message, ret->fds);
	if (n == (ssize_t)sizeof(words)) {
		ret->kind = words[0];
		ret->serial = words[1];
	}
	return 1;
}
