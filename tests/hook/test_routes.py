"""The route's name: from templates only, whatever clients send."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import APIRouter, FastAPI
from hook_support import LOOPS, hook, plain, profiles_of, request, run, take
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router
from tailrace import _engine, middleware

pytestmark = pytest.mark.parametrize("loop", LOOPS)


def test_route_templates(loop):
    api, inner, router = FastAPI(), FastAPI(), APIRouter(prefix="/users")

    @api.get("/items/{id}")
    async def item(id: int):
        return id

    @router.post("/{user}/posts/{post}")
    async def post(user: str, post: str):
        return post

    @inner.get("/deep/{z}")
    async def deep(z: int):
        return z

    api.include_router(router, prefix="/v1")
    api.mount("/sub", inner)

    def star(request):
        return PlainTextResponse("ok")

    api.mount("/star/{tenant}", Starlette(routes=[Route("/in/{q}", star)]))

    async def post_app(scope, receive, send):
        scope["method"] = "POST" if "posts" in scope["path"] else "GET"
        await api(scope, receive, send)

    paths = ["/items/1", "/items/2", "/v1/users/a/posts/b", "/sub/deep/7", "/star/acme/in/3"]
    found, _, _ = profiles_of(loop, post_app, *paths, "/nowhere")
    assert [p.route for p in found] == [
        "GET /items/{id}",
        "GET /items/{id}",
        "POST /v1/users/{user}/posts/{post}",
        "GET /sub/deep/{z}",
        "GET /star/{tenant}/in/{q}",
        None,
    ]


def test_root_path_of_the_server_is_not_part_of_the_route(loop):
    app = Starlette(routes=[Mount("/m", routes=[Route("/x", lambda r: PlainTextResponse("ok"))])])

    async def main():
        return await request(hook(app), "/api/m/x", root_path="/api")

    take()
    key = run(loop, main)
    (p,) = take()[0]
    assert p.key == key and p.route == "GET /m/x"


def test_strange_route_is_escaped(loop):
    class Odd:
        path_format = '/a"b\\c\n{é}'

    async def app(scope, receive, send):
        scope["route"] = Odd
        await plain(lambda: asyncio.sleep(0))(scope, receive, send)

    (p,), _, _ = profiles_of(loop, app, "/")
    assert p.route == 'GET /a"b\\c\n{é}'


def test_route_that_is_no_text(loop):
    """It is a request without a route, and no end of the hook."""

    class Odd:
        path_format = "/\udc80"

    async def app(scope, receive, send):
        scope["route"] = Odd
        await plain(lambda: asyncio.sleep(0))(scope, receive, send)

    (p,), _, _ = profiles_of(loop, app, "/")
    assert p.route is None
    assert not _engine.is_disabled()


def answer(request):
    return PlainTextResponse("ok")


@pytest.fixture
def names(monkeypatch):
    """The names made in this test alone."""
    for table in ("_names", "_routes", "_mounts_known"):
        monkeypatch.setattr(middleware, table, {})
    return middleware._names


@pytest.mark.parametrize(
    ("mount", "template"),
    [
        ("/{tenant}", "/{tenant}"),
        ("/{number:int}", "/{number}"),
        ("/at/{where:path}/of", "/at/{where}/of"),
        ("/{one}-{two}", "/{one}-{two}"),
        ("/same/{same}", "/same/{same}"),
    ],
)
def test_a_mount_with_parameters_makes_one_name(loop, names, mount, template):
    """Whatever clients put there: a value that looks like a part of the path, a path, numbers
    written in many ways."""
    wrapped = Starlette(routes=[Route("/in/{q}", answer)])
    wrapped.add_middleware(BaseHTTPMiddleware, dispatch=lambda r, call_next: call_next(r))
    inner = Mount("/sub", routes=[Mount("/{deep}", app=BodyOf(wrapped))])
    app = Starlette(routes=[Route("/first", answer), Mount(mount, routes=[inner])])
    paths = []
    for i in range(20):
        value = {"number": f"{i:0{i + 1}}", "where": f"x/{i}/of/in", "one": f"a{i}-b-"}
        at = mount
        for name in ("tenant", "number:int", "where:path", "one", "two", "same"):
            text = value.get(name.split(":")[0], f"sub{i}")
            at = at.replace("{" + name + "}", "same" if name == "same" and i == 0 else text)
        paths.append(f"{at}/sub/in{i}/in/{i}")
    found, _, _ = profiles_of(loop, app, *paths)
    assert {p.route for p in found} == {f"GET {template}/sub/{{deep}}/in/{{q}}"}
    assert len(names) == 1


class BodyOf:
    """A middleware that has no routes to show, only the app inside."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


def test_mounts_of_hosts_and_of_included_routers(loop, names):
    deep = Starlette(routes=[Route("/in/{q}", answer)])
    api, router = FastAPI(), APIRouter(prefix="/v1")
    router.mount("/{tenant}", deep)
    api.include_router(router, prefix="/all")
    api.router.routes.append(Host("{sub}", app=Router([Mount("/hosted/{name}", app=deep)])))
    paths = [f"/hosted/n{i}/in/{i}" for i in range(5)]
    included = [f"/all/t{i}/in/{i}" for i in range(5)]
    found, _, _ = profiles_of(loop, api, *paths, *included)
    assert {p.route for p in found[:5]} == {"GET /hosted/{name}/in/{q}"}
    (name,) = {p.route for p in found[5:]}  # FastAPI does not show the mounted app's own route
    assert name.startswith("GET /all/{tenant}/")
    assert len(names) == 2


def test_root_paths_and_methods_that_clients_make_up_are_no_names(loop, names):
    """A dispatcher before the app's router, methods no route has declared."""
    inner = FastAPI()

    @inner.api_route("/items/{id}", methods=["GET", "PURGE"])
    async def item(id: int):
        return id

    async def app(scope, receive, send):
        tenant, _, rest = scope["path"][1:].partition("/")
        scope.update(root_path=f"/{tenant}", method=rest.partition("/")[2].upper())
        scope["path"] = f"/{tenant}/items/1"
        await inner(scope, receive, send)

    paths = [f"/tenant{i}/items/{how}" for i in range(3) for how in ("get", "purge", f"odd{i}")]
    found, _, _ = profiles_of(loop, app, *paths)
    assert {p.route for p in found} == {"GET /items/{id}", "PURGE /items/{id}", None}
    assert len(names) == 2
