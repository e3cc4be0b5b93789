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
_RESPONSE = "tiercache_response"
_Running = ContextVar[Fill | None]
_PreparedFor = Callable[[dict[str, Any]], Response | None]


class Prepared(IdleFill):
    """What runs in the handler's place on a hit: nothing, as `skipped` tells once the dependencies have let it pass."""

    __slots__ = ("entry", "skipped")

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry.stamp)
        self.entry = entry
        self.skipped = False

    def response(self, of_dependencies: Response | None) -> Response:
        """Stands for the stored response on its way out of the app; the middleware sends the stored one itself.

        What dependencies have set on theirs goes along.
        """
        self.skipped = True
        response = Response(status_code=self.entry.status)
        if of_dependencies is not None:
            response.raw_headers.extend(of_dependencies.raw_headers)
        return response


def install(dependant: Any, running: _Running) -> None:
    """Put the gate before the endpoint that `dependant` calls; once is enough for one cache."""
    if getattr(dependant.call, _GATED, None) is running:
        return
    # FastAPI hands the endpoint the response that dependencies may set headers on, if it asks for it by this name.
    name = dependant.response_param_name
    if name is None:
        dependant.response_param_name = _RESPONSE
    dependant.call = _gate(dependant.call, running, name or _RESPONSE)


def _gate(endpoint: Callable[..., Any], running: _Running, name: str) -> Callable[..., Any]:
    def prepared(values: dict[str, Any]) -> Response | None:
        of_dependencies = values.pop(name, None) if name == _RESPONSE else values.get(name)
        fill = running.get()
        if isinstance(fill, Fill):
            fill.reached = True
        return fill.response(of_dependencies) if isinstance(fill, Prepared) else None

    gated = _async_gate(endpoint, prepared) if _is_async(endpoint) else _sync_gate(endpoint, prepared)
    setattr(gated, _GATED, running)
    return gated


def _async_gate(endpoint: Callable[..., Any], prepared: _PreparedFor) -> Callable[..., Any]:
    @functools.wraps(endpoint)
    async def gate(*args: Any, **kwargs: Any) -> Any:
        response = prepared(kwargs)
        return response if response is not None else await endpoint(*args, **kwargs)

    return gate


def _sync_gate(endpoint: Callable[..., Any], prepared: _PreparedFor) -> Callable[..., Any]:
    @functools.wraps(endpoint)
    def gate(*args: Any, **kwargs: Any) -> Any:
        response = prepared(kwargs)
        return response if response is not None else endpoint(*args, **kwargs)

    return gate


def _is_async(endpoint: Callable[..., Any]) -> bool:
    while isinstance(endpoint, functools.partial):
        endpoint = endpoint.func
    endpoint = inspect.unwrap(endpoint)
    return inspect.iscoroutinefunction(endpoint) or inspect.iscoroutinefunction(type(endpoint).__call__)
