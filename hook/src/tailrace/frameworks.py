"""Route templates of frameworks that do not put their route into the ASGI scope as Starlette does.

Litestar tells ``path_template`` and ``route_handler``, which the engine reads. What Quart and
Django matched is seen where they say so, and put into the scope under keys of ours.
"""

from __future__ import annotations

import functools
import importlib
import re
import sys
from collections.abc import MutableMapping
from typing import Any

ROUTE, ENDPOINT = "tailrace.route", "tailrace.endpoint"
TEMPLATES_MAX = 4096

_templates: dict[str, Template] = {}
_PARAMETER = re.compile(r"<(?:[^<>]*:)?([^<>:]+)>")  # <number>, <int:number>, <any(a, b):which>
_REGEX = re.compile(r"[\^$(\\]")
_quart_receivers: list[Any] = []  # signals hold their receivers weakly


class Template:
    """A route by its template; one object per route, by whose identity answers are remembered."""

    __slots__ = ("path_format",)

    def __init__(self, path_format: str) -> None:
        self.path_format = path_format


def prepare() -> None:
    """Watches what is imported of Quart and Django; may be called again. Raises nothing."""
    for name, watch in (("quart", _watch_quart), ("django.core.handlers.base", _watch_django)):
        module = sys.modules.get(name)
        try:
            if module is not None:
                watch(module)
        except Exception:  # another version than those known: its routes have no names
            continue


def route_of(scope: MutableMapping[str, Any]) -> Any:
    """What the request's name is made of: an object with a ``path_format``, or None."""
    known = scope.get(ROUTE)
    if known is not None:
        return known
    route, template = scope.get("route"), scope.get("path_template")
    if isinstance(template, str) and (route is None or not hasattr(route, "methods")):
        return _template(template)
    return route


def _template(text: str) -> Template | None:
    """The template of a rule as its framework writes it."""
    found = _templates.get(text)
    if found is None and len(_templates) < TEMPLATES_MAX:
        made = _simplify(text) if _REGEX.search(text) and "django" in sys.modules else text
        found = Template("/" + _PARAMETER.sub(r"{\1}", made).lstrip("/"))
        _templates[text] = found
    return found


def _simplify(text: str) -> str:
    """A pattern of Django's re_path() as its own documentation of views shows it."""
    views: Any = importlib.import_module("django.contrib.admindocs.views")
    return str(views.simplify_regex(text))


def _tell(scope: Any, rule: Any, endpoint: Any) -> None:
    if isinstance(scope, MutableMapping) and isinstance(rule, str):
        template = _template(rule)
        if template is not None:
            scope[ROUTE] = template
            scope[ENDPOINT] = endpoint


def _watch_quart(quart: Any) -> None:
    if _quart_receivers:
        return

    async def tell(app: Any, **_: Any) -> None:
        try:
            request = quart.request if quart.has_request_context() else quart.websocket
            rule = request.url_rule
            if rule is not None:
                _tell(request.scope, rule.rule, app.view_functions.get(rule.endpoint))
        except Exception:  # a request without a name is no error of the app's
            return

    _quart_receivers.append(tell)
    quart.signals.request_started.connect(tell)
    quart.signals.websocket_started.connect(tell)


def _watch_django(base: Any) -> None:
    resolve = base.BaseHandler.resolve_request
    if hasattr(resolve, "__wrapped__") and resolve.__module__ == __name__:
        return

    @functools.wraps(resolve, assigned=("__name__", "__qualname__", "__doc__"))
    def resolve_request(self: Any, request: Any) -> Any:
        match = resolve(self, request)
        try:
            _tell(getattr(request, "scope", None), match.route, _django_view(match.func, request))
        except Exception:  # as above
            return match
        return match

    base.BaseHandler.resolve_request = resolve_request


def _django_view(view: Any, request: Any) -> Any:
    """The function itself; of a class-based view the method that will be called."""
    made_of = getattr(view, "view_class", None) or getattr(view, "cls", None)
    return getattr(made_of, str(request.method).lower(), None) or view
