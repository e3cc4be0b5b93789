"""HEAD, answered by the handler: what that says of the stored response to GET (RFC 9111, section 4.3.5)."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import Message

from asgi_tiercache.engine.entries import Found
from asgi_tiercache.http import cache_status
from asgi_tiercache.http.fields import octets_of
from asgi_tiercache.http.validation import freshened, head_agrees, own_headers, updated_by_one
from asgi_tiercache.middleware.exchange import Exchange
from asgi_tiercache.middleware.tee import CACHE_STATUS, Tee
from asgi_tiercache.types import Header

_VALIDATORS = frozenset({b"etag", b"last-modified"})


class HeadExchange:
    """A HEAD request that the handler answers, while something valid is stored that might be updated.

    A 200 that agrees with the stored response makes it fresh as a 304 would; one that does not makes it stale. By the
    letter a 200 without validators agrees, too, in its length or without one; who asks HEAD of what changes would keep
    it from ever doing so. So only the exact mode goes by that.
    """

    def __init__(self, exchange: Exchange, found: Found) -> None:
        self._exchange = exchange
        self._found = found
        self._headers: Sequence[Header] | None = None
        request, fill = exchange.request, exchange.engine.begin(exchange.fill_key)
        self._tee = Tee(exchange.engine, exchange.route, request, fill, request.scope, known=True)

    async def run(self) -> None:
        """Run the handler on the request as it came."""
        exchange = self._exchange
        exchange.route.passed_by("head")
        exchange.report("pass", "head")
        with exchange.engine.running(self._tee.fill):
            await exchange.app(exchange.request.scope, exchange.receive, self._send)

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if message["status"] == 200:
                self._headers = octets_of(message.get("headers", ()))
            line = (CACHE_STATUS, cache_status.forward("method", detail="head"))
            message = {**message, "headers": [*message.get("headers", ()), line]}
        elif not message.get("more_body", False) and self._headers is not None:
            await self._apply(self._headers)
        await self._exchange.send(message)

    async def _apply(self, headers: Sequence[Header]) -> None:
        """Take over what the answer says, before the client has it."""
        exchange, stored = self._exchange, self._found.entry
        if not self._is_stored():
            return
        if stored.status != 200 or not head_agrees(stored, headers):
            return await exchange.engine.make_stale(exchange.route.place, exchange.fill_key, stored)
        if exchange.route.policy.mode != "rfc9111" and not any(name in _VALIDATORS for name, _ in headers):
            return
        self._tee.fill.inherit(stored.tags, self._tee.fill.stamp, fresh=True)
        own = own_headers(stored)
        updated = freshened(own, headers)
        if exchange.route.minds_who_asks and exchange.request.demands.credentialed:
            updated = updated_by_one(own, updated)
        await self._tee.see({"type": "http.response.start", "status": stored.status, "headers": updated})
        await self._tee.see({"type": "http.response.body", "body": stored.body})
        if self._tee.supersedes:
            await exchange.engine.forget(exchange.fill_key)

    def _is_stored(self) -> bool:
        """Whether what was found is what is stored: the answer says nothing of what a fill has made meanwhile."""
        held = self._exchange.route.bucket.held.get(self._exchange.fill_key)
        return held is self._found.entry or (held is None and self._found.tier != "L1")
