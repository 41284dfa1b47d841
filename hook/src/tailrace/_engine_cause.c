/* What a wait was for, told by the library function that waits. */
#include "_engine.h"

struct known {
	const char *path; /* a file where it ends in ".py", else a folder anywhere in the path */
	const char *name; /* NULL: every function in it */
	enum cause cause;
};

/* The first match counts. */
static const struct known KNOWN[] = {
    {"/asyncio/tasks.py", "sleep", CAUSE_SLEEP},
    {"/asyncio/tasks.py", "__sleep0", CAUSE_SLEEP},
    {"/asyncio/tasks.py", "wait_for", CAUSE_TASK},
    {"/asyncio/tasks.py", "wait", CAUSE_TASK},
    {"/asyncio/tasks.py", "_wait", CAUSE_TASK},
    {"/asyncio/tasks.py", "_wait_for_one", CAUSE_TASK},
    {"/asyncio/tasks.py", "_wrap_awaitable", CAUSE_TASK},
    {"/asyncio/tasks.py", "_cancel_and_wait", CAUSE_TASK},
    {"/asyncio/taskgroups.py", "__aexit__", CAUSE_TASK},
    {"/asyncio/taskgroups.py", "_aexit", CAUSE_TASK},
    {"/asyncio/threads.py", "to_thread", CAUSE_THREAD},
    {"/asyncio/locks.py", "acquire", CAUSE_LOCK},
    {"/asyncio/locks.py", "wait", CAUSE_EVENT},
    {"/asyncio/locks.py", "wait_for", CAUSE_EVENT},
    {"/asyncio/queues.py", NULL, CAUSE_QUEUE},
    {"/asyncio/streams.py", NULL, CAUSE_SOCKET},
    {"/asyncio/base_events.py", "sock_connect", CAUSE_SOCKET},
    {"/asyncio/base_events.py", "create_connection", CAUSE_SOCKET},
    {"/asyncio/base_events.py", "_connect_sock", CAUSE_SOCKET},
    {"/asyncio/base_events.py", "getaddrinfo", CAUSE_THREAD},
    {"/asyncio/selector_events.py", NULL, CAUSE_SOCKET},
    {"/anyio/_core/_eventloop.py", "sleep", CAUSE_SLEEP},
    {"/anyio/_core/_eventloop.py", "sleep_until", CAUSE_SLEEP},
    {"/anyio/_core/_eventloop.py", "sleep_forever", CAUSE_SLEEP},
    {"/anyio/_core/_synchronization.py", "acquire_on_behalf_of", CAUSE_LIMITER},
    {"/anyio/_core/_synchronization.py", "acquire", CAUSE_LOCK},
    {"/anyio/_core/_synchronization.py", "wait", CAUSE_EVENT},
    {"/anyio/_backends/_asyncio.py", "sleep", CAUSE_SLEEP},
    {"/anyio/_backends/_asyncio.py", "acquire_on_behalf_of", CAUSE_LIMITER},
    {"/anyio/_backends/_asyncio.py", "acquire", CAUSE_LOCK},
    {"/anyio/_backends/_asyncio.py", "wait", CAUSE_EVENT},
    {"/anyio/_backends/_asyncio.py", "run_sync_in_worker_thread", CAUSE_THREAD},
    {"/anyio/_backends/_asyncio.py", "__aexit__", CAUSE_TASK},
    {"/anyio/_backends/_asyncio.py", "receive", CAUSE_SOCKET},
    {"/anyio/_backends/_asyncio.py", "send", CAUSE_SOCKET},
    {"/anyio/_backends/_trio.py", "sleep", CAUSE_SLEEP},
    {"/anyio/_backends/_trio.py", "acquire_on_behalf_of", CAUSE_LIMITER},
    {"/anyio/_backends/_trio.py", "acquire", CAUSE_LOCK},
    {"/anyio/_backends/_trio.py", "wait", CAUSE_EVENT},
    {"/anyio/_backends/_trio.py", "run_sync_in_worker_thread", CAUSE_THREAD},
    {"/anyio/_backends/_trio.py", "__aexit__", CAUSE_TASK},
    {"/anyio/_backends/_trio.py", "receive", CAUSE_SOCKET},
    {"/anyio/_backends/_trio.py", "send", CAUSE_SOCKET},
    {"/trio/_timeouts.py", NULL, CAUSE_SLEEP},
    {"/trio/_sync.py", "acquire_on_behalf_of", CAUSE_LIMITER},
    {"/trio/_sync.py", "acquire", CAUSE_LOCK},
    {"/trio/_sync.py", "wait", CAUSE_EVENT},
    {"/trio/_channel.py", NULL, CAUSE_QUEUE},
    {"/trio/_threads.py", NULL, CAUSE_THREAD},
    {"/trio/_core/_run.py", "__aexit__", CAUSE_TASK},
    {"/trio/_core/_run.py", "_nested_child_finished", CAUSE_TASK},
    {"/trio/_socket.py", NULL, CAUSE_SOCKET},
    {"/trio/_highlevel_socket.py", NULL, CAUSE_SOCKET},
    {"/trio/_core/_io_epoll.py", NULL, CAUSE_SOCKET},
    {"/anyio/to_thread.py", NULL, CAUSE_THREAD},
    {"/anyio/streams/memory.py", NULL, CAUSE_QUEUE},
    {"/anyio/streams/", NULL, CAUSE_SOCKET},
    {"/anyio/_core/_sockets.py", NULL, CAUSE_SOCKET},
    {"/starlette/concurrency.py", NULL, CAUSE_THREAD},
    {"/starlette/background.py", NULL, CAUSE_NONE},
    {"/uvicorn/protocols/", "receive", CAUSE_CLIENT_RECEIVE},
    {"/uvicorn/protocols/", "asgi_receive", CAUSE_CLIENT_RECEIVE},
    {"/uvicorn/protocols/", "send", CAUSE_CLIENT_SEND},
    {"/uvicorn/protocols/", "asgi_send", CAUSE_CLIENT_SEND},
    {"/uvicorn/protocols/", "drain", CAUSE_CLIENT_SEND},
    {"/hypercorn/", "app_send", CAUSE_CLIENT_SEND},
    {"/hypercorn/", "drain", CAUSE_CLIENT_SEND},
    {"/asyncpg/pool.py", "acquire", CAUSE_POOL},
    {"/asyncpg/pool.py", "_acquire", CAUSE_POOL},
    {"/aiomysql/pool.py", "_acquire", CAUSE_POOL},
    {"/aiopg/pool.py", "_acquire", CAUSE_POOL},
    {"/psycopg_pool/", "getconn", CAUSE_POOL},
    {"/psycopg_pool/", "wait", CAUSE_POOL},
    {"/pymongo/asynchronous/pool.py", "_get_conn", CAUSE_POOL},
    {"/sqlalchemy/pool/", "_do_get", CAUSE_POOL},
    {"/sqlalchemy/util/queue.py", "get", CAUSE_POOL},
    {"/httpcore/_async/connection_pool.py", "wait_for_connection", CAUSE_POOL},
    {"/redis/asyncio/connection.py", "get_connection", CAUSE_POOL},
    {"/aiohttp/connector.py", "_wait_for_available_connection", CAUSE_POOL},
    {"/asyncpg/", NULL, CAUSE_DATABASE},
    {"/psycopg/", NULL, CAUSE_DATABASE},
    {"/psycopg_pool/", NULL, CAUSE_DATABASE},
    {"/sqlalchemy/", NULL, CAUSE_DATABASE},
    {"/aiosqlite/", NULL, CAUSE_DATABASE},
    {"/aiomysql/", NULL, CAUSE_DATABASE},
    {"/asyncmy/", NULL, CAUSE_DATABASE},
    {"/aiopg/", NULL, CAUSE_DATABASE},
    {"/databases/", NULL, CAUSE_DATABASE},
    {"/tortoise/", NULL, CAUSE_DATABASE},
    {"/motor/", NULL, CAUSE_DATABASE},
    {"/pymongo/", NULL, CAUSE_DATABASE},
    {"/elasticsearch/", NULL, CAUSE_DATABASE},
    {"/clickhouse_connect/", NULL, CAUSE_DATABASE},
    {"/redis/", NULL, CAUSE_CACHE},
    {"/valkey/", NULL, CAUSE_CACHE},
    {"/aioredis/", NULL, CAUSE_CACHE},
    {"/aiomcache/", NULL, CAUSE_CACHE},
    {"/aiocache/", NULL, CAUSE_CACHE},
    {"/httpx/", NULL, CAUSE_HTTP},
    {"/httpcore/", NULL, CAUSE_HTTP},
    {"/aiohttp/", NULL, CAUSE_HTTP},
    {"/niquests/", NULL, CAUSE_HTTP},
};

static bool
path_matches(const char *path, const char *wanted)
{
	size_t len = strlen(path), wanted_len = strlen(wanted);
	if (wanted[wanted_len - 1] != '/')
		return len >= wanted_len && strcmp(path + len - wanted_len, wanted) == 0;
	return strstr(path, wanted) != NULL;
}

enum cause
cause_of_code(const char *path, const char *name)
{
	for (size_t i = 0; i < sizeof(KNOWN) / sizeof(KNOWN[0]); i++)
		if ((KNOWN[i].name == NULL || strcmp(KNOWN[i].name, name) == 0) &&
		    path_matches(path, KNOWN[i].path))
			return KNOWN[i].cause;
	return CAUSE_NONE;
}

bool
cause_connects(const char *name)
{
	static const char *const NAMES[] = {
	    "connect",           "_connect",           "ensure_connection",
	    "create_connection", "_create_connection", "open_connection"};
	for (size_t i = 0; i < sizeof(NAMES) / sizeof(NAMES[0]); i++)
		if (strcmp(NAMES[i], name) == 0)
			return true;
	return false;
}

bool
cause_is_vague(enum cause cause)
{
	return cause == CAUSE_TASK || cause == CAUSE_THREAD;
}

const char *
cause_name(enum cause cause)
{
	static const char *const NAMES[] = {
	    [CAUSE_NONE] = "null",
	    [CAUSE_SLEEP] = "\"sleep\"",
	    [CAUSE_LOCK] = "\"lock\"",
	    [CAUSE_QUEUE] = "\"queue\"",
	    [CAUSE_EVENT] = "\"event\"",
	    [CAUSE_POOL] = "\"pool\"",
	    [CAUSE_TASK] = "\"task\"",
	    [CAUSE_THREAD] = "\"thread\"",
	    [CAUSE_LIMITER] = "\"limiter\"",
	    [CAUSE_EXECUTOR] = "\"executor\"",
	    [CAUSE_CLIENT_RECEIVE] = "\"client_receive\"",
	    [CAUSE_CLIENT_SEND] = "\"client_send\"",
	    [CAUSE_SOCKET] = "\"socket\"",
	    [CAUSE_HTTP] = "\"http\"",
	    [CAUSE_DATABASE] = "\"database\"",
	    [CAUSE_CACHE] = "\"cache\"",
	    [CAUSE_SHORT] = "\"short\"",
	    [CAUSE_UNKNOWN] = "\"unknown\"",
	};
	return NAMES[cause];
}
