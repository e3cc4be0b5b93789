"""The statistics as a small ASGI app: `GET /stats`, aggregates for everyone, single routes for those who may."""

from __future__ import annotations

import hmac
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from asgi_tiercache.errors import ConfigError

logger = logging.getLogger("asgi_tiercache")

Snapshot: TypeAlias = Callable[[bool], Mapping[str, Any]]
"""Returns the statistics, ready for JSON; its argument says whether single routes are part of them."""
Authorize: TypeAlias = Callable[[Request], bool | Awaitable[bool]]
"""Says whether a request may see single routes."""

_NO_STORE = {"Cache-Control": "no-store"}
_CHALLENGE = 'Bearer realm="asgi_tiercache", error="invalid_token"'


def make_stats_app(snapshot: Snapshot, *, token: str | None = None, authorize: Authorize | None = None) -> ASGIApp:
    """An app that answers `GET /stats` with JSON; mount it, or serve it alone.

    Everyone sees aggregates. Single routes are added for a request with `Authorization: Bearer <token>`, and for one
    that `authorize` lets pass. Where a token is set and a request brings another one, the answer is 401: whoever
    sends a token expects more than aggregates. Without `token=` a bearer token is not ours to judge and changes
    nothing.

        app.mount("/cache", make_stats_app(lambda routes: stats.snapshot(routes=routes), token="..."))

    Args:
        snapshot: Takes whether single routes are wanted, returns the statistics.
        token: The bearer token; it can be sent in a header, so it holds neither blanks nor control characters.
        authorize: Takes the request, returns True where it may see single routes; may be async, and must not block
            where it is not. Anything else than True means no, and so does an exception, which is logged.

    Raises:
        ConfigError: `token` is empty or cannot be sent, or `authorize` is not callable.
    """
    if authorize is not None and not callable(authorize):
        raise ConfigError("authorize", f"must be callable, not {authorize!r}")
    endpoint = _StatsEndpoint(snapshot, _token_bytes(token), authorize)
    app = Starlette(routes=[Route("/stats", endpoint.respond, methods=["GET"])])
    app.router.redirect_slashes = False
    return app


class _StatsEndpoint:
    def __init__(self, snapshot: Snapshot, token: bytes | None, authorize: Authorize | None) -> None:
        self._snapshot = snapshot
        self._token = token
        self._authorize = authorize

    async def respond(self, request: Request) -> Response:
        sent = _bearer(request) if self._token is not None else None
        allowed = self._is_ours(sent) or await self._is_authorized(request)
        if sent is not None and not allowed:
            return PlainTextResponse("wrong token", 401, {**_NO_STORE, "WWW-Authenticate": _CHALLENGE})
        body = orjson.dumps(dict(self._snapshot(allowed)))
        return Response(body, headers=_NO_STORE, media_type="application/json")

    def _is_ours(self, sent: bytes | None) -> bool:
        return sent is not None and self._token is not None and hmac.compare_digest(sent, self._token)

    async def _is_authorized(self, request: Request) -> bool:
        if self._authorize is None:
            return False
        try:
            verdict = self._authorize(request)
            if inspect.isawaitable(verdict):
                verdict = await verdict
        except Exception:
            logger.exception("authorize %r of the stats app failed; it counts as a refusal", self._authorize)
            return False
        # Not merely true: a response object, or a coroutine that nobody awaited, is no permission.
        return verdict is True


def _bearer(request: Request) -> bytes | None:
    """The bearer token that came with `request`, as sent (RFC 6750, section 2.1); None where none came."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip(" ").encode("latin-1") if scheme.lower() == "bearer" else None


def _token_bytes(token: str | None) -> bytes | None:
    if token is None:
        return None
    if not isinstance(token, str) or not token:
        raise ConfigError("token", "must be a text that is not empty; None where there is no token")
    if " " in token or not token.isprintable():
        # The token itself stays out of the message. A line end, read from a file with it, is the usual case.
        raise ConfigError("token", "must not hold blanks, line ends or control characters: no client could send them")
    return token.encode("utf-8")
