"""Django under ASGI with tailrace, a whole project in one file: ``uvicorn main:app``.

In a project of your own these two lines go to the end of its ``asgi.py``::

    import tailrace
    application = tailrace.wrap(application)
"""

from __future__ import annotations

import asyncio
import time

import tailrace
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="only for this example",
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
)


async def load(number: int, seconds: float = 0.02) -> int:
    await asyncio.sleep(seconds)
    return number


def render(number: int) -> str:
    time.sleep(0.03)
    return f"report {number}"


async def item(request: HttpRequest, number: int) -> JsonResponse:
    return JsonResponse({"item": await load(number)})


def report(request: HttpRequest, number: int) -> JsonResponse:
    return JsonResponse({"report": render(number)})


async def together(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"items": await asyncio.gather(load(1, 0.01), load(2, 0.03))})


urlpatterns = [
    path("items/<int:number>", item),
    path("report/<int:number>", report),
    path("together", together),
]
app = tailrace.wrap(get_asgi_application())
