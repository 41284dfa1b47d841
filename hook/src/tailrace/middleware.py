"""The hook: a pure ASGI class that lets the engine time the requests the gateway asks about.

Without the header ``x-tailrace`` a request passes through untouched.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import re
import site
import sys
import sysconfig
import threading
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from types import CoroutineType
from typing import Any

from tailrace import deep, frameworks, sender

try:
    from tailrace import _engine, trio_tasks
except ImportError:  # no compiler at install, or a build the extension does not support
    from tailrace import _totals as _engine  # type: ignore[no-redef]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ROUTES_MAX = 4096  # names kept; an app that makes up more routes gets null for the rest
MOUNTS_MAX = 16  # one inside the other
METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
)  # others name a route only where it declares them
SELF_TEST_STEPS = 1
STEPS, DRIVE, TOTALS = "steps", "drive", "totals"  # how requests are timed: docs/protocol.md

log = logging.getLogger("tailrace")

_in_app: set[str] = set()
_routes: dict[tuple[Any, ...], str] = {}
_names: dict[str | None, str] = {}  # one string per route: the engine knows it by identity
_kept: list[Any] = []  # the objects whose identity is a key of _routes
# by identity of what has routes: it, how many it had, those that lead to others
_mounts_known: dict[int, tuple[Any, int, list[tuple[Any, re.Pattern[str] | None, str]]]] = {}
_totals_said = False
_prepared = False


class Hook:
    """ASGI middleware. Put it outermost: ``app = tailrace.wrap(app)``.

    callback, token: where profiles go, see ``tailrace.wrap``.
    in_app: module prefixes that count as the app's own code wherever they are installed.
    """

    def __init__(
        self,
        app: App,
        *,
        callback: str | None = None,
        token: str | None = None,
        in_app: Sequence[str] = (),
        version: str | None = None,
    ) -> None:
        self.app = app
        self._active = sender.configure(callback, token, version)
        if self._active:
            try:
                prepare((*in_app, *_top_packages(app)))
            except Exception as error:
                self._active = False
                _report("prepare", error)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call; what the app raises passes untouched."""
        if not self._active:
            if sender.unheard:
                sender.hear(scope.get("headers", ()))
            await self.app(scope, receive, send)
            return
        if scope["type"] == "lifespan":
            await prepare_loop()
            sender.greet()
            await self.app(scope, receive, _flush_at_shutdown(send))
            return
        request = _engine.begin(scope, send, False)
        if request is False:
            mode = await prepare_loop()
            if mode == STEPS:
                await asyncio.sleep(0)  # the task goes on in a step the engine knows
            request = _engine.begin(scope, send, True)
            if mode == DRIVE and request is not None:
                await self._drive(scope, receive, request)
                return
        if request is None:
            await self.app(scope, receive, send)
            return
        if sender.process is None or not sender.process.running:
            sender.ensure_started()
        try:
            await self.app(scope, receive, request)
        except BaseException as error:
            request.fail(isinstance(error, _CANCELLED))
            raise
        request.leave()

    async def _drive(self, scope: Scope, receive: Receive, request: Any) -> None:
        """The same where the loop's steps cannot be watched."""
        sender.ensure_started()
        driven = self.app(scope, receive, request)
        task = None
        try:
            if isinstance(driven, CoroutineType):
                driven = _engine.drive(driven, request)
                task = trio_tasks.enter(driven)
            await driven
        except BaseException as error:
            request.fail(isinstance(error, _CANCELLED) or _is_trio_cancelled(error))
            raise
        finally:
            trio_tasks.leave(task)
        request.leave()


_CANCELLED = (asyncio.CancelledError, GeneratorExit)


def _is_trio_cancelled(error: BaseException) -> bool:
    trio = sys.modules.get("trio")
    return trio is not None and isinstance(error, trio.Cancelled)


def _flush_at_shutdown(send: Send) -> Send:
    """uvicorn ends by the signal that stopped it, past atexit: what is left goes out before.

    Blocks the loop, at most a second, when the app has shut down and serves nobody any more.
    """

    async def send_and_flush(message: Message) -> None:
        if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
            sender.flush()
        await send(message)

    return send_and_flush


async def _send_last(sending: Awaitable[None], request: Any) -> None:
    """The last body message, where the server's `send` gives no coroutine: it is sent when that is
    through."""
    await sending
    request.sent_last()


# --- what is in the app's own code, and what is not --------------------------------------------


def prepare(in_app: Sequence[str] = ()) -> None:
    """Tells the engine which code is the app's own: what is neither in the standard library nor
    in site-packages, and the modules named in `in_app`."""
    global _prepared
    if not _prepared:
        _prepared = True
        atexit.register(_engine.stop)
    frameworks.prepare()
    _in_app.update(in_app)
    _engine.bind(_send_last, name_route, _report, deep.allow)
    _engine.bind_guard(_say_stage)
    _engine.configure(in_app=sorted(_in_app), library_prefixes=_library_prefixes())


def _library_prefixes() -> list[str]:
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths.update(site.getsitepackages() if hasattr(site, "getsitepackages") else ())
    if site.ENABLE_USER_SITE:
        paths.add(site.getusersitepackages())
    paths.update(p for p in sys.path if p.endswith(("site-packages", "dist-packages")))
    paths.add(os.path.dirname(os.path.abspath(__file__)))
    paths.add(os.path.dirname(os.path.abspath(os.__file__)))
    return sorted({os.path.join(os.path.normpath(p), "") for p in paths if p})


_FRAMEWORKS = frozenset(
    {"fastapi", "starlette", "litestar", "quart", "django", "falcon", "blacksheep", "sanic"}
)


def _top_packages(app: Any) -> set[str]:
    """The top packages of the ASGI app and of its routes, which count as the app's own code even
    where they are installed; frameworks and the standard library never do."""
    modules = {getattr(app, "__module__", None) if hasattr(app, "__code__") else None}
    modules.add(type(app).__module__)
    for route in getattr(app, "routes", None) or ():
        modules.add(getattr(getattr(route, "endpoint", None), "__module__", None))
    tops = {str(module).split(".")[0] for module in modules if module}
    return tops - _FRAMEWORKS - sys.stdlib_module_names - {"__main__", "tailrace", "anyio"}


def _report(where: str, error: Any) -> None:
    log.error("tailrace: an error in the hook (%s): %r; requests pass without it", where, error)


_STAGES = {
    "full": "everything is measured again",
    "coarse": "waits under 1 ms have no stack",
    "no_stacks": "waits have no stacks",
    "totals": "requests have totals only",
}


def _say_stage(stage: str, percent: int) -> None:
    """The overhead guard has changed what the engine does."""
    log.warning("tailrace: the hook takes %d %% of the loop's time: %s", percent, _STAGES[stage])


# --- the loop ----------------------------------------------------------------------------------


class _Prepared(threading.local):
    """What this thread's loop was found to be, where that is not kept on the loop itself."""

    loop: Any = ...
    mode = TOTALS


_prepared_loop = _Prepared()


async def prepare_loop() -> str:
    """Puts the engine on the running loop, once, and tests that a task's step passes through it.

    Returns how requests are timed here: STEPS; DRIVE, where steps do not pass; TOTALS, where
    neither works, which is said once. Raises nothing of its own.
    """
    if hasattr(_engine, "WITHOUT_EXTENSION"):
        return _use_totals(
            _loop_name(_running_loop()),
            "the C extension is not there (was there no compiler when tailrace was installed?)",
        )
    try:
        return await _prepare_loop()
    except Exception as error:
        return _use_totals("unknown", f"an error while preparing it: {error!r}")


async def _prepare_loop() -> str:
    loop = _running_loop()
    if loop is _prepared_loop.loop:
        return _prepared_loop.mode
    mode, name = await _try_steps(loop), _loop_name(loop)
    if mode == STEPS:
        _engine.use(name, STEPS)
        return STEPS
    if mode == DRIVE:
        mode = await _try_drive(loop, name)
    _prepared_loop.loop, _prepared_loop.mode = loop, mode
    return mode


def _running_loop() -> Any:
    """The asyncio loop, else trio's token, else None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        trio = sys.modules.get("trio")
        return trio.lowlevel.current_trio_token() if trio is not None else None


async def _try_steps(loop: Any) -> str:
    """STEPS where a task's step passes through our methods on the loop, else what is left."""
    if not isinstance(loop, asyncio.AbstractEventLoop):
        return DRIVE
    try:
        if not _engine.install(loop):
            return STEPS
    except (AttributeError, TypeError):
        return DRIVE
    _watch_worker_threads("asyncio")
    try:
        before = _engine.steps_seen(loop)
        await loop.create_task(_nothing())
        passed = _engine.steps_seen(loop) - before >= SELF_TEST_STEPS
    except BaseException:
        _engine.uninstall(loop)
        raise
    if not passed:
        _engine.uninstall(loop)
    return STEPS if passed else DRIVE


async def _try_drive(loop: Any, name: str) -> str:
    """DRIVE where an awaitable of ours may stand round a coroutine, and children can be seen."""
    if loop is None:
        return _use_totals(name, "it is neither asyncio's nor trio's")
    if isinstance(loop, asyncio.AbstractEventLoop):
        loop.set_task_factory(_driving_factory(loop.get_task_factory()))
        _watch_worker_threads("asyncio")
    else:
        _watch_worker_threads("trio")
        trio_tasks.watch()
    _engine.use(name, DRIVE)
    log.info("tailrace: on this event loop (%s) coroutines are driven, its steps not seen", name)
    return DRIVE


def _driving_factory(before: Any) -> Any:
    """A task factory: tasks made while a request is driven are driven too."""

    def make_task(loop: Any, coro: Any, **options: Any) -> Any:
        coro = _engine.drive_child(coro)
        if before is not None:
            return before(loop, coro, **options)
        return asyncio.Task(coro, loop=loop, **options)

    return make_task


async def _nothing() -> None:
    pass


def _loop_name(loop: Any) -> str:
    module = type(loop).__module__.split(".")[0]
    return module if module in ("asyncio", "uvloop", "trio") else type(loop).__name__[:31]


def _use_totals(loop_name: str, reason: str) -> str:
    global _totals_said
    _engine.use(loop_name, TOTALS)
    if not _totals_said:
        _totals_said = True
        log.warning("tailrace: on this event loop (%s) only totals: %s", loop_name, reason)
    return TOTALS


def _watch_worker_threads(backend: str) -> None:
    """anyio's worker threads run `def` routes; each job is to be timed. The coroutine that waits
    for it stays anyio's own."""
    if "anyio" not in sys.modules:
        return
    try:
        if backend == "asyncio":
            from anyio._backends._asyncio import AsyncIOBackend as Backend
        else:
            from anyio._backends._trio import TrioBackend as Backend  # type: ignore[assignment]
        method = Backend.__dict__["run_sync_in_worker_thread"]
        function = method.__func__
        if isinstance(method, classmethod) and hasattr(function, "__code__"):
            wrapped: Any = classmethod(_engine.wrap_worker_call(function))
            setattr(Backend, method.__name__, wrapped)
    except (ImportError, KeyError, AttributeError) as error:
        log.warning("tailrace: jobs of anyio's worker threads are not seen: %s", error)


# --- the route ---------------------------------------------------------------------------------


def name_route(scope: Scope, root_path: str | None) -> str | None:
    """``METHOD /template/{of}/route``, or None where the app named none. root_path: as it was
    when the hook was called.

    Made of templates only, never of what the client sent: else clients could make up names.
    """
    route = frameworks.route_of(scope)
    if route is None:
        return None
    context = None
    fastapi = scope.get("fastapi")
    if fastapi is not None:
        context = fastapi.get("effective_route_context")
    mounted = scope.get("root_path") or ""
    key = (id(route), id(context), mounted, scope.get("method"))
    try:
        return _routes[key]
    except KeyError:
        pass
    prefix = _mounts_template(scope, mounted, root_path or "")
    name = None if prefix is None else _make_name(scope, route, context, prefix)
    if name is None or name in _names:
        return _names.get(name)
    if len(_names) == ROUTES_MAX:
        return None
    _names[name] = name
    if "{" not in (prefix or ""):
        _kept.append((route, context))
        _routes[key] = name
    return name


def _make_name(scope: Scope, route: Any, context: Any, prefix: str) -> str | None:
    path = None
    for source in (context, getattr(context, "starlette_route", None), route):
        path = getattr(source, "path_format", None) or getattr(source, "path", None)
        if isinstance(path, str):
            break
    method = scope.get("method", "GET")
    if not isinstance(path, str):
        return None
    if method not in METHODS and method not in (getattr(route, "methods", None) or ()):
        return None
    if prefix and _is_mount(route):
        path = ""  # the mount itself matched last: its part is in the prefix already
    return f"{method} {prefix}{path or '/'}"


def _is_mount(route: Any) -> bool:
    return hasattr(route, "app") and not hasattr(route, "methods")


def _mounts_template(scope: Scope, mounted: str, root_path: str) -> str | None:
    """The templates of the mounts that led to the route, joined; None where they are not found.

    Starlette keeps only the last route: the ones before are found again, by what each took of
    the path. What stood before the app's first router (the server's own root path, a dispatcher's)
    is no template and left out.
    """
    if mounted == root_path:
        return ""
    start = scope.get("app_root_path", mounted)
    if not mounted.startswith(start):
        return None
    path = scope.get("path") or ""
    if not path.startswith(mounted):  # older Starlette takes what it mounted off the path
        path = mounted + path
    return _find_mounts(scope.get("router"), path[len(start) :], len(mounted) - len(start), 0)


def _find_mounts(owner: Any, path: str, length: int, depth: int) -> str | None:
    """The templates of mounts below owner that take the first `length` characters of the path."""
    if length == 0:
        return ""
    if length < 0 or depth == MOUNTS_MAX:
        return None
    for mount, regex, template in _mounts(owner):
        match = regex.match(path) if regex is not None else None
        if regex is not None and match is None:
            continue
        taken = match.start("path") - 1 if match is not None else 0
        rest = _find_mounts(mount, path[taken:], length - taken, depth + 1)
        if rest is not None:
            return template + rest
    return None


def _mounts(owner: Any) -> list[tuple[Any, re.Pattern[str] | None, str]]:
    """What among an app's or a mount's routes leads to other routes: (it, its pattern, its
    template); no pattern for what takes nothing of the path (a host, an included router)."""
    for _ in range(MOUNTS_MAX):  # through the middleware round a mounted app
        routes = _routes_of(owner)
        if routes or owner is None:
            break
        owner = getattr(owner, "app", None)
    known = _mounts_known.get(id(owner))
    if known is not None and known[1] == len(routes):
        return known[2]
    found: list[tuple[Any, re.Pattern[str] | None, str]] = []
    for route in routes:
        regex, template = getattr(route, "path_regex", None), getattr(route, "path_format", None)
        if regex is None and (hasattr(route, "app") or hasattr(route, "effective_route_contexts")):
            found.append((route, None, ""))
        elif regex is not None and "path" in regex.groupindex and _is_mount(route):
            found.append((route, regex, str(template).removesuffix("/{path}")))
    if len(_mounts_known) == ROUTES_MAX:
        _mounts_known.clear()
    _mounts_known[id(owner)] = (owner, len(routes), found)
    return found


def _routes_of(owner: Any) -> list[Any]:
    contexts = getattr(owner, "effective_route_contexts", None)
    if contexts is not None:  # FastAPI's included router: its routes with the prefix before them
        return [getattr(c, "starlette_route", None) or c for c in contexts()]
    return list(getattr(owner, "routes", None) or ())
