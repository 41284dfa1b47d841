"""Litestar, Quart and Django in this process: names of routes, short routes' frames."""

from __future__ import annotations

import asyncio
import sys

import pytest
from hook_support import LOOPS, hook, profiles_of, request, run, take
from starlette.applications import Starlette
from starlette.routing import Mount
from tailrace import _engine, frameworks

pytestmark = pytest.mark.parametrize("loop", LOOPS)
quart_works = pytest.mark.skipif(
    sys.version_info[:3] == (3, 13, 0), reason="Quart hangs in 3.13.0, without the hook too"
)


def quart_app():
    from quart import Blueprint, Quart

    app, users = Quart("quart_routes"), Blueprint("users", "users")

    @app.get("/plain")
    async def plain_route():
        return "ok"

    @app.get("/any/<any(a, b):which>/<string(length=2):lang>")
    def any_route(which, lang):
        return "ok"

    @users.post("/<int:user>/posts/<path:rest>")
    async def post(user, rest):
        return "ok"

    app.register_blueprint(users, url_prefix="/users")
    return app


def litestar_app():
    from litestar import Controller, Litestar, Router, get
    from litestar.params import FromPath

    @get("/plain", sync_to_thread=False)
    def plain_route() -> str:
        return "ok"

    class Users(Controller):
        path = "/{user:int}"

        @get("/posts/{rest:path}")
        async def post(self, user: FromPath[int], rest: FromPath[str]) -> str:
            return "ok"

    return Litestar([plain_route, Router("/users", route_handlers=[Users])])


def django_app():
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import HttpResponse
    from django.urls import include, path, re_path
    from django.views import View

    async def plain_route(request):
        return HttpResponse("ok")

    class Post(View):
        async def get(self, request, user, rest):
            return HttpResponse("ok")

    users = [path("<int:user>/posts/<path:rest>", Post.as_view())]
    patterns = [
        path("plain", plain_route),
        path("users/", include(users)),
        re_path(r"^old/(?P<year>[0-9]{4})/$", plain_route),
    ]
    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="x", ROOT_URLCONF=tuple(patterns))
    return get_asgi_application()


def names(loop, app, *paths, **more):
    async def main():
        wrapped = hook(app)
        return [await request(wrapped, p, **more) for p in paths]

    take()
    keys = run(loop, main)
    found = {p.key: p for p in take()[0]}
    return [found[k] for k in keys]


@quart_works
def test_quart(loop):
    app = quart_app()
    found = names(loop, app, "/plain", "/any/a/en", "/any/b/de", "/plain", "/nowhere/1")
    assert [p.route for p in found] == [
        "GET /plain", "GET /any/{which}/{lang}", "GET /any/{which}/{lang}", "GET /plain", None,
    ]  # fmt: skip
    (p,) = names(loop, app, "/users/3/posts/a/b", method="POST")
    assert p.route == "POST /users/{user}/posts/{rest}"


def test_litestar(loop):
    found = names(loop, litestar_app(), "/plain", "/users/3/posts/a", "/users/4/posts/b", "/no/1")
    assert [p.route for p in found] == [
        "GET /plain", "GET /users/{user}/posts/{rest}", "GET /users/{user}/posts/{rest}", None,
    ]  # fmt: skip
    assert any("plain_route" in r.stack for r in found[0].breakdown), found[0].shown()


def test_django(loop):
    paths = ["/plain", "/users/3/posts/a/b", "/old/1999/", "/old/2001/", "/nowhere/1"]
    found = names(loop, django_app(), *paths)
    assert [p.route for p in found] == [
        "GET /plain",
        "GET /users/{user}/posts/{rest}",
        "GET /old/{year}/",
        "GET /old/{year}/",
        None,
    ]
    assert any("plain_route" in r.stack for r in found[0].breakdown), found[0].shown()


@pytest.mark.parametrize(
    "make", [pytest.param(quart_app, marks=quart_works), litestar_app, django_app]
)
def test_mounted_in_starlette(loop, make):
    outer = Starlette(routes=[Mount("/in/{tenant}", app=make())])
    found, _, _ = profiles_of(loop, outer, "/in/acme/plain", "/in/other/plain")
    assert [p.route for p in found] == ["GET /in/{tenant}/plain"] * 2


def test_other_versions_cost_only_the_name(loop):
    """Attributes that are not there, rules that are no text: no error, no name."""

    class Strange:
        pass

    class BaseHandler:
        def resolve_request(self, request):
            return Strange()

    class Module:
        pass

    Module.BaseHandler = BaseHandler
    frameworks._watch_django(Module)
    watched = BaseHandler.resolve_request
    frameworks._watch_django(Module)
    assert BaseHandler.resolve_request is watched is not None, "watched once"
    assert isinstance(BaseHandler().resolve_request(object()), Strange)

    async def app(scope, receive, send):
        scope["path_template"] = 7
        scope["route_handler"] = Strange()
        frameworks._tell(scope, None, None)
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    (p,) = names(loop, app, "/x")
    assert p.route is None
    assert not _engine.is_disabled()
