"""Answering from a stored response."""

from __future__ import annotations

from contextvars import ContextVar

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_tiercache.http import cache_status
from asgi_tiercache.middleware.route import Route
from asgi_tiercache.types import Entry, Header

Answered = tuple[Entry, list[Header]]

prepared: ContextVar[Answered | None] = ContextVar("asgi_tiercache.prepared", default=None)
"""The stored response that takes the place of the handler, while a route's dependencies run on a hit."""


def render(entry: Entry, age: int, tier: str) -> list[Header]:
    """The field lines of an answer: the stored ones, `Age` (RFC 9111, section 5.1), `Cache-Status` (RFC 9211).

    Rendered once for each second of age; the caller owns the list.
    """
    if age != entry.rendered_at or tier != "L1":
        status = cache_status.hit(ttl=int(entry.lifetime - age), detail=tier)
        lines = [*entry.headers, (b"age", b"%d" % age), (b"cache-status", status)]
        if tier != "L1":
            return lines
        entry.rendered = lines
        entry.rendered_at = age
    return entry.rendered.copy()


async def answer(
    app: ASGIApp, route: Route, entry: Entry, tier: str, now: float, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer with `entry`, found in `tier`, running the route's dependencies first where its policy says so.

    `now` is the monotonic clock.
    """
    headers = render(entry, max(0, int(now - entry.born)), tier)
    if not route.runs_dependencies:
        return await send_stored(entry, headers, scope, send)
    token = prepared.set((entry, headers))
    try:
        await app(scope, receive, send)
    finally:
        prepared.reset(token)


async def send_stored(entry: Entry, headers: list[Header], scope: Scope, send: Send) -> None:
    """Two messages; no byte of the body is copied. HEAD is answered without it (RFC 9110, section 9.3.2)."""
    await send({"type": "http.response.start", "status": entry.status, "headers": headers})
    body = entry.body if scope["method"] != "HEAD" else b""
    await send({"type": "http.response.body", "body": body})


def stored_response() -> Response | None:
    """The response that takes the handler's place in this context, if there is one."""
    answered = prepared.get()
    if answered is None:
        return None
    entry, headers = answered
    response = Response(entry.body, status_code=entry.status)
    response.raw_headers = headers
    return response
