"""The smallest apps: one endpoint that counts its calls, behind the middleware."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from tests.middleware.asgi import until

Respond = Callable[[Request], Response | Awaitable[Response]]


class Handler:
    """An endpoint that counts its calls; each of its answers differs, unless `respond` makes them."""

    def __init__(self, respond: Respond | None = None) -> None:
        self.requests: list[Request] = []
        """What it was asked."""
        self._respond = respond

    @property
    def calls(self) -> int:
        """How often it ran."""
        return len(self.requests)

    @property
    def seen(self) -> Request:
        """The last request that reached it."""
        return self.requests[-1]

    async def answer(self, request: Request) -> Response:
        """The endpoint itself."""
        self.requests.append(request)
        if self._respond is None:
            return PlainTextResponse(f"answer {self.calls}")
        response = self._respond(request)
        return response if isinstance(response, Response) else await response


class Gated:
    """A handler that answers when it is let, with what `read` gives it at the start."""

    def __init__(self, read: Callable[[], str] = lambda: "text", *, headers: Mapping[str, str] | None = None) -> None:
        self.open = asyncio.Event()
        self.handler = Handler(self._respond)
        self._read = read
        self._headers = headers

    async def _respond(self, _: Request) -> PlainTextResponse:
        text = self._read()
        await self.open.wait()
        return PlainTextResponse(text, headers=self._headers)

    async def entered(self, times: int = 1) -> None:
        """Wait until the handler has begun that many times."""
        await until(lambda: self.handler.calls >= times)


def app_of(
    handler: Handler,
    policy: Policy | None,
    *,
    cache: TierCache | None = None,
    path: str = "/",
    methods: Sequence[str] = ("GET",),
    above: Sequence[Middleware] = (),
    below: Sequence[Middleware] = (),
) -> Starlette:
    """`handler` at `path`, cached by `policy`, with more middleware `above` ours (nearer to the client) and `below`."""
    ours = Middleware(TierCacheMiddleware, cache=cache or TierCache(), routes={path: policy})
    return Starlette(
        routes=[Route(path, handler.answer, methods=list(methods))],
        middleware=[*above, ours, *below],
    )


def client_of(
    handler: Handler, policy: Policy | None, *, cache: TierCache | None = None, path: str = "/"
) -> TestClient:
    """A client of `app_of`, outside any lifespan: each request runs in an event loop of its own."""
    return TestClient(app_of(handler, policy, cache=cache, path=path))
