/* What the kernel knows of a TCP connection's times: when bytes came in, when the peer acknowledged
 * the last one, and TCP_INFO. All of it costs system calls or cycles, so overlays ask for it, never
 * the plain data path. Linux; <linux/tcp.h>, for glibc's struct tcp_info lacks what is wanted. */
#ifndef TAILRACE_PROXY_KERNEL_TIME_H
#define TAILRACE_PROXY_KERNEL_TIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "model/record.h"

/* Stamps of received bytes, on a listening socket: accepted ones inherit it. Also what a connection
 * goes back to after kernel_time_acks(). Returns 0, or -1 with errno. */
int kernel_time_receipts(int fd, bool on);

/* recv() that also tells when the newest of the bytes came in (CLOCK_REALTIME; 0 = not told). */
ssize_t kernel_time_recv(int fd, void *buf, size_t size, uint64_t *ret_wall_ns);

/* Stamps of acknowledged writes from now on: each goes into the socket's error queue, which wakes
 * its reader until kernel_time_ack() has emptied it. */
int kernel_time_acks(int fd, bool receipts_too);

/* Empties the error queue. Returns true once nothing sent is unacknowledged, *wall_ns then holds
 * the newest stamp read so far (keep it between calls, 0 at first). */
bool kernel_time_ack(int fd, uint64_t *wall_ns);

/* Round trips, retransmissions and what held the sending side up so far. Returns 0, or -1 where the
 * socket is no TCP one. */
int kernel_time_info(int fd, struct record_tcp *ret);

#endif
