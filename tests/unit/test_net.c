/* net: addresses as text, CIDR blocks, listening (dead and live socket files) and connecting. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/net.h"

static void
assert_round_trip(const char *text)
{
	struct net_address address;
	char buf[NET_ADDRESS_TEXT_SIZE];
	const char *why;

	assert_int_equal(net_address_parse(text, &address, &why), 0);
	net_address_format(&address, buf, sizeof(buf));
	assert_string_equal(buf, text);
}

static void
test_text_and_back(void **state)
{
	(void)state;
	assert_round_trip("127.0.0.1:8000");
	assert_round_trip("0.0.0.0:0");
	assert_round_trip("255.255.255.255:65535");
	assert_round_trip("[::1]:8000");
	assert_round_trip("[2001:db8::1]:443");
	assert_round_trip("unix:/run/x.sock");
}

static void
test_malformed(void **state)
{
	static const char *const texts[] = {
	    "",
	    "8000",
	    "127.0.0.1",
	    "127.0.0.1:",
	    "127.0.0.1:65536",
	    ":80",
	    "::1:80",
	    "[::1]",
	    "[::1:80",
	    "127.0.0.1:80x",
	    "127.0.0.1:-1",
	    "name:80",
	    "[127.0.0.1",
	    "unix:",
	    "unix:relative",
	    "300.0.0.1:80",
	    "[]:80",
	    "127.0.0.1:99999999999999999999",
	    "[::1]x:80",
	};
	struct net_address address;

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		const char *why = NULL;

		if (net_address_parse(texts[i], &address, &why) != -1)
			fail_msg("accepted \"%s\"", texts[i]);
		assert_non_null(why);
	}
}

static void
test_unix_path_limit(void **state)
{
	char text[256] = "unix:/";
	struct net_address address;
	const char *why;

	(void)state;
	memset(text + 6, 'x', 106);
	assert_int_equal(net_address_parse(text, &address, &why), 0);
	text[6 + 106] = 'x';
	assert_int_equal(net_address_parse(text, &address, &why), -1);
}

static void
test_resolve(void **state)
{
	struct net_address address;
	char buf[NET_ADDRESS_TEXT_SIZE];
	const char *why;

	(void)state;
	assert_int_equal(net_address_resolve("localhost:81", &address, &why), 0);
	net_address_format(&address, buf, sizeof(buf));
	assert_true(strcmp(buf, "127.0.0.1:81") == 0 || strcmp(buf, "[::1]:81") == 0);
	assert_int_equal(net_address_resolve("no-such-name.invalid:81", &address, &why), -1);
	assert_int_equal(net_address_later("no-such-name.invalid:81", &address, &why), 0);
	assert_int_equal(address.length, 0);
	assert_int_equal(ntohs(address.in.sin_port), 81);
	assert_int_equal(net_address_later("no name:81", &address, &why), -1);
	assert_int_equal(net_address_later("name", &address, &why), -1);
}

static bool
matches(const char *block, const char *peer)
{
	struct net_address address;
	struct net_cidr cidr;
	const char *why;

	assert_int_equal(net_cidr_parse(block, &cidr), 0);
	assert_int_equal(net_address_parse(peer, &address, &why), 0);
	return net_cidr_match(&cidr, &address);
}

static void
test_blocks(void **state)
{
	(void)state;
	assert_true(matches("10.0.0.0/8", "10.255.0.1:1"));
	assert_false(matches("10.0.0.0/8", "11.0.0.1:1"));
	assert_true(matches("192.168.3.128/25", "192.168.3.129:1"));
	assert_false(matches("192.168.3.128/25", "192.168.3.127:1"));
	assert_true(matches("0.0.0.0/0", "8.8.8.8:1"));
	assert_true(matches("10.1.2.3", "10.1.2.3:1"));
	assert_false(matches("10.1.2.3", "10.1.2.2:1"));
	assert_true(matches("2001:db8::/33", "[2001:db8:7fff::1]:1"));
	assert_false(matches("2001:db8::/33", "[2001:db8:8000::1]:1"));
	assert_true(matches("::1", "[::1]:1"));
	assert_true(matches("10.0.0.0/8", "[::ffff:10.1.1.1]:1"));
	assert_false(matches("::/0", "10.1.1.1:1"));
	assert_false(matches("0.0.0.0/0", "[2001:db8::1]:1"));
	assert_false(matches("0.0.0.0/0", "unix:/x"));
}

static void
test_malformed_blocks(void **state)
{
	static const char *const texts[] = {"",           "10.0.0.0/33", "10.0.0/8",     "::/129",
	                                    "10.0.0.0/",  "10.0.0.0/x",  "10.0.0.0/08x", "/8",
	                                    "10.0.0.0/-1"};
	struct net_cidr cidr;

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (net_cidr_parse(texts[i], &cidr) != -1)
			fail_msg("accepted \"%s\"", texts[i]);
}

static void
test_loopback(void **state)
{
	static const struct {
		const char *text;
		bool is;
	} cases[] = {{"127.0.0.1:1", true},
	             {"127.255.3.4:1", true},
	             {"[::1]:1", true},
	             {"unix:/x", true},
	             {"[::ffff:127.0.0.1]:1", true},
	             {"0.0.0.0:1", false},
	             {"128.0.0.1:1", false},
	             {"[::]:1", false},
	             {"10.0.0.1:1", false}};
	struct net_address address;
	const char *why;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(net_address_parse(cases[i].text, &address, &why), 0);
		assert_int_equal(net_address_is_loopback(&address), cases[i].is);
	}
}

static void
test_tcp(void **state)
{
	struct net_address address;
	const char *why;
	bool connected;
	int listener, client;

	(void)state;
	assert_int_equal(net_address_parse("127.0.0.1:0", &address, &why), 0);
	listener = net_listen(&address, 16, 0, &why);
	assert_true(listener >= 0);
	assert_true(fcntl(listener, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(listener, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(getsockname(listener, &address.sa, &address.length), 0);
	assert_int_equal(net_listen(&address, 16, 0, &why), -1);
	assert_int_equal(errno, EADDRINUSE);
	client = net_connect(&address, &connected);
	assert_true(client >= 0);
	assert_int_equal(poll(&(struct pollfd){.fd = client, .events = POLLOUT}, 1, 2000), 1);
	close(client);
	close(listener);
}

/* What came before is accepted whole; what comes later waits, and is refused after the close. */
static void
test_refuse_new(void **state)
{
	struct net_address address;
	char byte = 0;
	const char *why;
	bool connected;
	int listener, early, late, accepted;
	socklen_t length = sizeof(address.storage);

	(void)state;
	assert_int_equal(net_address_parse("127.0.0.1:0", &address, &why), 0);
	listener = net_listen(&address, 16, 0, &why);
	assert_true(listener >= 0);
	assert_int_equal(getsockname(listener, &address.sa, &length), 0);
	early = net_connect(&address, &connected);
	assert_true(early >= 0);
	assert_int_equal(poll(&(struct pollfd){.fd = early, .events = POLLOUT}, 1, 1000), 1);
	assert_int_equal(net_refuse_new(listener), 0);
	late = net_connect(&address, &connected);
	assert_true(late >= 0);
	assert_false(connected);
	assert_int_equal(poll(&(struct pollfd){.fd = late, .events = POLLOUT}, 1, 100), 0);
	accepted = accept(listener, NULL, NULL);
	assert_true(accepted >= 0);
	assert_int_equal(accept(listener, NULL, NULL), -1);
	assert_int_equal(errno, EAGAIN);
	close(listener);
	assert_int_equal(write(early, "x", 1), 1);
	assert_int_equal(read(accepted, &byte, 1), 1);
	assert_int_equal(byte, 'x');
	/* Its SYN comes again after a second. */
	assert_int_equal(poll(&(struct pollfd){.fd = late, .events = POLLOUT}, 1, 5000), 1);
	assert_int_equal(write(late, "x", 1), -1);
	assert_int_equal(errno, ECONNREFUSED);
	close(early);
	close(late);
	close(accepted);
}

static void
socket_path(char *text, size_t size, const char *folder)
{
	snprintf(text, size, "unix:%s/s", folder);
}

static void
test_socket_files(void **state)
{
	char folder[] = "/tmp/tailrace-unit-XXXXXX", text[64];
	struct net_address address;
	struct stat st;
	const char *why;
	bool connected;
	int listener, again;

	(void)state;
	assert_non_null(mkdtemp(folder));
	socket_path(text, sizeof(text), folder);
	assert_int_equal(net_address_parse(text, &address, &why), 0);
	assert_int_equal(net_connect(&address, &connected), -1);
	listener = net_listen(&address, 16, 0660, &why);
	assert_true(listener >= 0);
	assert_int_equal(stat(text + 5, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0660);
	/* A live one is another instance's. */
	assert_int_equal(net_listen(&address, 16, 0660, &why), -1);
	assert_int_equal(errno, EADDRINUSE);
	assert_string_equal(why, "another process serves this socket");
	/* A dead one is replaced. */
	close(listener);
	again = net_listen(&address, 16, 0666, &why);
	assert_true(again >= 0);
	assert_int_equal(stat(text + 5, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0666);
	close(again);
	/* What is no socket is never removed. */
	assert_int_equal(unlink(text + 5), 0);
	again = open(text + 5, O_CREAT | O_WRONLY, 0600);
	close(again);
	assert_int_equal(net_listen(&address, 16, 0660, &why), -1);
	assert_int_equal(errno, EEXIST);
	assert_int_equal(unlink(text + 5), 0);
	assert_int_equal(rmdir(folder), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_text_and_back),   cmocka_unit_test(test_malformed),
	    cmocka_unit_test(test_unix_path_limit), cmocka_unit_test(test_resolve),
	    cmocka_unit_test(test_blocks),          cmocka_unit_test(test_malformed_blocks),
	    cmocka_unit_test(test_loopback),        cmocka_unit_test(test_tcp),
	    cmocka_unit_test(test_socket_files),    cmocka_unit_test(test_refuse_new),
	};

	return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
