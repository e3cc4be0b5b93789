"""Answering from a stored response."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_tiercache.engine.core import Engine
from asgi_tiercache.http import cache_status
from asgi_tiercache.http.conditional import (
    CONDITIONAL_METHODS,
    NOT_MODIFIED,
    is_conditional,
    not_modified,
    not_modified_headers,
)
from asgi_tiercache.http.fields import octets_of
from asgi_tiercache.http.ranges import PARTIAL_CONTENT, Answer, render_parts, select, select_stored_part
from asgi_tiercache.keys.form import SELECTIVE
from asgi_tiercache.middleware.gate import Prepared
from asgi_tiercache.types import Entry, Header

_ASKED = SELECTIVE | {b"if-range"}
_CONTENT = frozenset({"http.response.body", "http.response.pathsend", "http.response.zerocopysend"})


def render(entry: Entry, age: int, tier: str, *, collapsed: str = "") -> list[Header]:
    """The field lines of an answer: the stored ones, `Age` (RFC 9111, section 5.1), `Cache-Status` (RFC 9211).

    Rendered once for each second of age; the caller owns the list. With `collapsed`, another request's response
    answers one that would have been forwarded for that reason.
    """
    if age != entry.rendered_at or tier != "L1":
        ttl = int(entry.lifetime - age)
        if tier.endswith("-stale"):
            ttl = min(ttl, 0)
        if collapsed:
            told = cache_status.forward(collapsed, ttl=ttl, collapsed=True, detail=tier)
        else:
            told = cache_status.hit(ttl=ttl, detail=tier)
        lines = [*entry.headers, (b"age", b"%d" % age), (b"cache-status", told)]
        if tier != "L1":
            return lines
        entry.rendered = lines
        entry.rendered_at = age
    return entry.rendered.copy()


async def send_stored(entry: Entry, headers: list[Header], scope: Scope, send: Send) -> None:
    """Two messages; no byte of the body is copied but those of a range. HEAD has none (RFC 9110, section 9.3.2).

    In place of the whole response goes what the request makes of it: 304, 206 or 416. A stored 206 is to be sent only
    where it covers the request.
    """
    status, body = entry.status, entry.body if scope["method"] != "HEAD" else b""
    asked = [line for line in scope["headers"] if line[0] in _ASKED]
    answer = _selected(entry, headers, scope["method"], asked) if asked else None
    assert answer or status != PARTIAL_CONTENT, "a partial response goes to whom it covers"
    if answer is not None:
        status, headers, body = answer
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def covers(entry: Entry, scope: Scope) -> bool:
    """Whether a stored response holds all that is asked for (RFC 9111, section 3.3): a 206 may not."""
    if entry.status != PARTIAL_CONTENT:
        return True
    size = len(entry.body)
    return (
        scope["method"] == "GET"
        and select_stored_part(scope["headers"], entry.headers, size, received=entry.created) is not None
    )


def _selected(entry: Entry, headers: list[Header], method: str, asked: list[Header]) -> Answer | None:
    """What conditions, then ranges make of the response (RFC 9110, section 13.2.2); None: they leave it as it is."""
    if entry.status not in (200, PARTIAL_CONTENT):
        return None
    stored, received = entry.headers, entry.created
    if method in CONDITIONAL_METHODS and not_modified(asked, entry.status, stored, now=received, received=received):
        return Answer(NOT_MODIFIED, not_modified_headers(headers), b"")
    if method != "GET":
        return None
    choose = select if entry.status != PARTIAL_CONTENT else select_stored_part
    selection = choose(asked, stored, len(entry.body), received=received)
    return None if selection is None else render_parts(selection, headers, entry.body)


class ConditionalSend:
    """A `send` that answers a condition which the handler was not told of: 304 where its 200 meets it.

    Ranges are not its business: what streams through has no length yet.
    """

    def __init__(self, scope: Scope, send: Send, now: Callable[[], float]) -> None:
        self._scope = scope
        self._send = send
        self._now = now
        self._met = False

    @classmethod
    def around(cls, scope: Scope, send: Send, now: Callable[[], float] = time.time) -> Send:
        """`send`, or one that answers the conditions in the request of `scope`; `now` is the wall clock."""
        conditional = scope["method"] in CONDITIONAL_METHODS and is_conditional(scope["headers"])
        return cls(scope, send, now) if conditional else send

    async def __call__(self, message: Message) -> None:
        """Send `message`, or what takes its place."""
        if message["type"] == "http.response.start":
            headers = octets_of(message.get("headers", ()))
            self._met = headers is not None and not_modified(
                self._scope["headers"], message["status"], headers, now=self._now()
            )
            if headers is not None and self._met:
                lines = not_modified_headers(headers)
                message = {**message, "status": NOT_MODIFIED, "headers": lines, "trailers": False}
        elif self._met:
            if message["type"] == "http.response.trailers":
                return
            if message["type"] in _CONTENT:
                if message.get("more_body", False):
                    return  # compressing middleware above would make content of an empty stream
                message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)


class ThroughDependencies:
    """Answers with a stored response once the route's dependencies have let the request pass.

    What they refuse, they refuse: their answer goes out. If they reach the endpoint, the stored response goes out in
    place of what the app makes of the empty one; of that only the fields count that the stored one has not, such as
    a cookie that a dependency sets.
    """

    def __init__(self, entry: Entry, headers: list[Header], scope: Scope, send: Send) -> None:
        self._prepared = Prepared(entry)
        self._headers = headers
        self._scope = scope
        self._send = send

    async def run(self, app: ASGIApp, receive: Receive, engine: Engine) -> bool:
        """Run the app on the request as it came; returns whether the dependencies let it pass."""
        with engine.running(self._prepared):
            await app(self._scope, receive, self._replace)
        return self._prepared.skipped

    async def _replace(self, message: Message) -> None:
        if not self._prepared.skipped:
            await self._send(message)
        elif message["type"] == "http.response.start":
            names = {name for name, _ in self._headers} | {b"content-length", b"content-encoding"}
            added = [line for line in message.get("headers", ()) if line[0].lower() not in names]
            await send_stored(self._prepared.entry, [*self._headers, *added], self._scope, self._send)
