"""HEAD, answered by the handler: what that says of the stored response to GET (RFC 9111, section 4.3.5)."""

from __future__ import annotations

import dataclasses

from starlette.types import Message

from asgi_tiercache.engine.core import Found
from asgi_tiercache.http import cache_status
from asgi_tiercache.http.validation import freshened, head_agrees, own_headers
from asgi_tiercache.middleware.exchange import Exchange
from asgi_tiercache.middleware.tee import CACHE_STATUS, Tee
from asgi_tiercache.types import Header


class HeadExchange:
    """A HEAD request that the handler answers, while something valid is stored that might be updated.

    A 200 that agrees with the stored response makes it fresh as a 304 would; one that does not makes it stale.
    """

    def __init__(self, exchange: Exchange, found: Found) -> None:
        self._exchange = exchange
        self._found = found
        self._headers: list[Header] | None = None
        request, fill = exchange.request, exchange.engine.begin(exchange.fill_key)
        self._tee = Tee(exchange.engine, exchange.route, request, fill, request.scope)

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
                self._headers = [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
            line = (CACHE_STATUS, cache_status.forward("method", detail="head"))
            message = {**message, "headers": [*message.get("headers", ()), line]}
        elif not message.get("more_body", False) and self._headers is not None:
            await self._apply(self._headers)
        await self._exchange.send(message)

    async def _apply(self, headers: list[Header]) -> None:
        """Take over what the answer says, before the client has it."""
        stored, engine = self._found.entry, self._exchange.engine
        if not head_agrees(stored, headers):
            age = max(0.0, engine.clock.time() - stored.created)
            stale = dataclasses.replace(stored, lifetime=min(stored.lifetime, age))
            engine.keep(self._exchange.route.place, self._exchange.fill_key, stale)
            return
        self._tee.fill.inherit(stored.tags, self._tee.fill.stamp, fresh=True)
        updated = freshened(own_headers(stored), headers)
        await self._tee.see({"type": "http.response.start", "status": stored.status, "headers": updated})
        await self._tee.see({"type": "http.response.body", "body": stored.body})
