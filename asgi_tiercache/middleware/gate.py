"""`dependencies="always"`: the endpoint of a FastAPI route steps aside where a stored response is prepared.

FastAPI resolves a route's dependencies and then calls `dependant.call`. The gate stands there: on a hit it returns the
stored response, so that the dependencies have run, against the real request, and only the handler has not.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from asgi_tiercache.middleware.answer import stored_response

_GATED = "__tiercache_gated__"


def install(dependant: Any) -> None:
    """Put the gate before the endpoint that `dependant` calls; once is enough."""
    if not getattr(dependant.call, _GATED, False):
        dependant.call = _gate(dependant.call)


def _gate(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    gated = _async_gate(endpoint) if inspect.iscoroutinefunction(inspect.unwrap(endpoint)) else _sync_gate(endpoint)
    setattr(gated, _GATED, True)
    return gated


def _async_gate(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(endpoint)
    async def gate(*args: Any, **kwargs: Any) -> Any:
        response = stored_response()
        return response if response is not None else await endpoint(*args, **kwargs)

    return gate


def _sync_gate(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(endpoint)
    def gate(*args: Any, **kwargs: Any) -> Any:
        response = stored_response()
        return response if response is not None else endpoint(*args, **kwargs)

    return gate
