"""`dependencies="always"`: the endpoint of a FastAPI route steps aside where a stored response is prepared.

FastAPI resolves a route's dependencies and then calls `dependant.call`. The gate stands there: on a hit it returns a
response in the handler's place, so that the dependencies have run, against the real request, and only the handler has
not.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from starlette.responses import Response

from asgi_tiercache.engine.fill import Fill, IdleFill
from asgi_tiercache.types import Entry

_GATED = "__tiercache_gated__"
_Running = ContextVar[Fill | None]


class Prepared(IdleFill):
    """What runs in the handler's place on a hit: nothing, as `skipped` tells once the dependencies have let it pass."""

    __slots__ = ("entry", "skipped")

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry.stamp)
        self.entry = entry
        self.skipped = False

    def response(self) -> Response:
        """Stands for the stored response on its way out of the app; the middleware sends the stored one itself."""
        self.skipped = True
        return Response(status_code=self.entry.status)


def install(dependant: Any, running: _Running) -> None:
    """Put the gate before the endpoint that `dependant` calls; once is enough for one cache."""
    if getattr(dependant.call, _GATED, None) is not running:
        dependant.call = _gate(dependant.call, running)


def _gate(endpoint: Callable[..., Any], running: _Running) -> Callable[..., Any]:
    gated = _async_gate(endpoint, running) if _is_async(endpoint) else _sync_gate(endpoint, running)
    setattr(gated, _GATED, running)
    return gated


def _async_gate(endpoint: Callable[..., Any], running: _Running) -> Callable[..., Any]:
    @functools.wraps(endpoint)
    async def gate(*args: Any, **kwargs: Any) -> Any:
        fill = running.get()
        return fill.response() if isinstance(fill, Prepared) else await endpoint(*args, **kwargs)

    return gate


def _sync_gate(endpoint: Callable[..., Any], running: _Running) -> Callable[..., Any]:
    @functools.wraps(endpoint)
    def gate(*args: Any, **kwargs: Any) -> Any:
        fill = running.get()
        return fill.response() if isinstance(fill, Prepared) else endpoint(*args, **kwargs)

    return gate


def _is_async(endpoint: Callable[..., Any]) -> bool:
    while isinstance(endpoint, functools.partial):
        endpoint = endpoint.func
    endpoint = inspect.unwrap(endpoint)
    return inspect.iscoroutinefunction(endpoint) or inspect.iscoroutinefunction(type(endpoint).__call__)
