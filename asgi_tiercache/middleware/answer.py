"""Answering from a stored response."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_tiercache.engine.core import Engine
from asgi_tiercache.http import cache_status
from asgi_tiercache.http.conditional import NOT_MODIFIED, is_conditional, not_modified, not_modified_headers
from asgi_tiercache.middleware.gate import Prepared
from asgi_tiercache.types import Entry, Header


def render(entry: Entry, age: int, tier: str) -> list[Header]:
    """The field lines of an answer: the stored ones, `Age` (RFC 9111, section 5.1), `Cache-Status` (RFC 9211).

    Rendered once for each second of age; the caller owns the list.
    """
    if age != entry.rendered_at or tier != "L1":
        ttl = 0 if tier.endswith("-stale") else int(entry.lifetime - age)
        lines = [*entry.headers, (b"age", b"%d" % age), (b"cache-status", cache_status.hit(ttl=ttl, detail=tier))]
        if tier != "L1":
            return lines
        entry.rendered = lines
        entry.rendered_at = age
    return entry.rendered.copy()


async def send_stored(entry: Entry, headers: list[Header], scope: Scope, send: Send) -> None:
    """Two messages; no byte of the body is copied. HEAD is answered without it (RFC 9110, section 9.3.2).

    A condition that the stored response meets is answered with 304 (section 13).
    """
    if entry.validated and not_modified(scope["headers"], entry.status, entry.headers):
        await send({"type": "http.response.start", "status": NOT_MODIFIED, "headers": not_modified_headers(headers)})
        await send({"type": "http.response.body", "body": b""})
        return
    await send({"type": "http.response.start", "status": entry.status, "headers": headers})
    await send({"type": "http.response.body", "body": entry.body if scope["method"] != "HEAD" else b""})


class ConditionalSend:
    """A `send` that answers a condition which the handler was not told of: 304 where its 200 meets it."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._met = False

    @classmethod
    def around(cls, scope: Scope, send: Send) -> Send:
        """`send`, or one that answers the conditions in the request of `scope`."""
        return cls(scope, send) if is_conditional(scope["headers"]) else send

    async def __call__(self, message: Message) -> None:
        """Send `message`, or what takes its place."""
        if message["type"] == "http.response.start":
            headers = message["headers"]
            self._met = not_modified(self._scope["headers"], message["status"], headers)
            if self._met:
                message = {**message, "status": NOT_MODIFIED, "headers": not_modified_headers(headers)}
        elif self._met and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        elif self._met and message["type"] == "http.response.pathsend":
            message = {"type": "http.response.body", "body": b""}
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
