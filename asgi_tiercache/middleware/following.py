"""The way of a request that waits for another one's response."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from asgi_tiercache.engine.entries import Found
from asgi_tiercache.engine.fill import Fill
from asgi_tiercache.http.reuse import Use
from asgi_tiercache.invalidation.knowledge import Verdict
from asgi_tiercache.middleware.asking import Asking, LateResponseError
from asgi_tiercache.middleware.exchange import Exchange
from asgi_tiercache.middleware.stream import Stream
from asgi_tiercache.stampede import Flight
from asgi_tiercache.types import Entry

FOLLOW_SECONDS = 30.0
"""How long a request waits for another's response before it asks the handler itself."""
UNPROVEN_SECONDS = 0.5
"""The same on a route of which no response could be stored yet. Real time both: it is clients who wait."""


class Following:
    """One request, and the flights of others that may answer it.

    Args:
        exchange: The request.
        asking: What it knows; what a flight has brought that does not suffice is put there.
    """

    __slots__ = ("_asking", "_exchange")

    def __init__(self, exchange: Exchange, asking: Asking) -> None:
        self._exchange = exchange
        self._asking = asking

    async def follow(self, flight: Flight[Entry]) -> bool:
        """Answer with what the flight brings, if this request may be given it (rule I6)."""
        exchange = self._exchange
        soft = None if self._asking.found is None else self._asking.soft_seconds(flight.owner)
        if soft is not None and await self._answered_early(flight, soft):
            return True
        await self._wait_for(flight)
        stream = flight.stream
        if not flight.landed and isinstance(stream, Stream):
            if self._may_follow(flight, stream):
                await exchange.answer_from(stream, collapsed=self._asking.forwarded())
                return True
            if not self._suits(stream):
                return False
            await self._wait_for(flight, whole=True)
        return flight.landed and await self._take(flight)

    async def _wait_for(self, flight: Flight[Entry], *, whole: bool = False) -> None:
        """Return once the flight has brought something, all of it if `whole`; or has taken too long."""
        exchange = self._exchange
        turn = flight.turn(FOLLOW_SECONDS if exchange.route.proven else UNPROVEN_SECONDS, whole=whole)
        if turn is None:
            return
        try:
            if exchange.engine.variable.get() is None:  # most often; a thousand may come here at once
                await turn
            else:
                with exchange.engine.waiting(flight.owner):
                    await turn
        except asyncio.CancelledError:
            self._leave(flight)
            raise
        self._note_patience(flight)

    def _take(self, flight: Flight[Entry]) -> Awaitable[bool]:
        """Answer with the outcome of the flight."""
        try:
            entry = flight.result()
        except Exception as error:
            return self._fail_like(error, begun=flight.stream is not None)
        if entry is not None and entry.ends <= 0 and has_failed(flight):
            return self._err_like(entry)
        return self._use(flight, entry)

    async def _fail_like(self, error: Exception, *, begun: bool) -> bool:
        """Raise what the leader's handler has raised, if nothing may stand in for it.

        Not if its response had `begun`: that was no error but an answer, which broke off before this request had any of
        it. Nor in the HTTP modes: what the leader has sent and no key tells may be what the handler could not bear.
        """
        exchange = self._exchange
        if isinstance(error, LateResponseError):
            if not await self._asking.stand_in(collapsed=True):
                await exchange.gateway_timeout("too-late")
            return True
        if exchange.route.runs_dependencies:
            return False  # what a dependency makes of the leader's request says nothing of this one
        if await self._asking.stand_in(collapsed=True):
            return True
        if begun or not exchange.route.explicit:
            return False
        raise error

    async def _err_like(self, error: Entry) -> bool:
        """Answer with the error that the leader was given, if nothing may stand in for it."""
        if not self._is_for_this_request(error):
            return False
        if not await self._asking.stand_in(collapsed=True):
            await self._exchange.answer(error, "flight", fresh=False, collapsed=self._asking.forwarded())
        return True

    async def _use(self, flight: Flight[Entry], entry: Entry | None) -> bool:
        """Answer with what the flight has brought, if it is good enough."""
        if entry is None or not self._is_for_this_request(entry):
            return False
        exchange, failed = self._exchange, has_failed(flight)
        verdict = Verdict.UNKNOWN  # nobody need judge a young flight's
        if flight.number <= exchange.arrived or failed:
            verdict = await self._judged(entry)
            if verdict is Verdict.INVALID:
                return False
        found = Found(entry, "flight", stale=verdict is Verdict.STALE)
        # As if it had been there when the request arrived; but its age is never less than 0, not even if it was not.
        use = exchange.use_of(found, max(exchange.started, entry.born))
        if use is Use.VALIDATE and not (failed and exchange.may_stand_in(entry)):
            self._asking.found = found
            return False
        fresh, stale = verdict is Verdict.FRESH, use is not Use.FRESH
        await exchange.answer(entry, "flight", fresh=fresh, stale=stale, collapsed=self._asking.forwarded())
        return True

    async def _judged(self, entry: Entry) -> Verdict:
        invalidation, strict = self._exchange.engine.invalidation, self._exchange.route.policy.verify
        if not strict and invalidation.current(entry):
            return Verdict.FRESH
        return await invalidation.judge(entry, strict=strict)

    def _leave(self, flight: Flight[Entry]) -> None:
        if not self._exchange.route.policy.finish:
            flight.abandon()

    def _note_patience(self, flight: Flight[Entry]) -> None:
        """Where the flight brought nothing for so long, nobody need wait for its like."""
        exchange = self._exchange
        if not flight.landed and flight.stream is None and exchange.route.proven:
            name = exchange.request.demands.shared_name(exchange.fill_key)
            exchange.engine.unshareable.remember(name, exchange.engine.clock.monotonic())

    async def _answered_early(self, flight: Flight[Entry], soft: float) -> bool:
        """Answer with what may stand in for it, where the flight takes longer than that."""
        exchange = self._exchange
        try:
            with exchange.engine.waiting(flight.owner):
                if await flight.lands_within(soft, exchange.engine.clock):
                    return False
        except asyncio.CancelledError:
            self._leave(flight)
            raise
        flight.detached = True
        return await self._asking.stand_in()

    def _suits(self, stream: Stream) -> bool:
        """Whether the response may be for this request, as far as its beginning tells."""
        exchange, begun = self._exchange, stream.preview
        if begun is None or not self._is_for_this_request(begun):
            return False
        return exchange.use_of(Found(begun, "flight"), max(exchange.started, begun.born)) is Use.FRESH

    def _may_follow(self, flight: Flight[Entry], stream: Stream) -> bool:
        """Whether this request can take the response while it is being produced.

        What the handler will still say of it, such as a tag, is not known yet; so nothing may have been invalidated
        since the flight began, if this request came later, and no other fill may be made of it. Dependencies come
        before any answer. Who has something stale that may stand in for a response that breaks off waits for the whole,
        unless time counts more.
        """
        exchange, begun, found = self._exchange, stream.preview, self._asking.found
        if found is not None and exchange.route.policy.soft_timeout is None and exchange.may_stand_in(found.entry):
            return False
        if begun is None or not stream.joinable or exchange.route.runs_dependencies:
            return False
        if exchange.engine.variable.get() is not None:
            return False
        old = flight.number <= exchange.arrived
        if old and (exchange.route.policy.verify or exchange.engine.invalidation.stamp() != begun.stamp):
            return False
        return self._suits(stream)

    def _is_for_this_request(self, entry: Entry) -> bool:
        exchange = self._exchange
        answered = exchange.request.key.canonical if not entry.vary else exchange.choose(entry).canonical
        return entry.canonical == answered and exchange.request.demands.may_see(entry)


def has_failed(flight: Flight[Entry]) -> bool:
    """Whether what the flight brought stands in for an error."""
    return isinstance(flight.owner, Fill) and flight.owner.failed
