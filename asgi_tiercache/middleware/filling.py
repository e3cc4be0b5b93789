"""The way of a request that no stored response answers as it is: a response of another fill, or of its own."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Sequence

from starlette.types import Message, Scope

from asgi_tiercache.engine.core import Found
from asgi_tiercache.engine.fill import Fill
from asgi_tiercache.http.conditional import PARTIAL_AND_CONDITIONAL
from asgi_tiercache.http.reuse import Use
from asgi_tiercache.invalidation.knowledge import Verdict
from asgi_tiercache.middleware.answer import ConditionalSend
from asgi_tiercache.middleware.exchange import Exchange
from asgi_tiercache.middleware.relay import ResponseFill
from asgi_tiercache.middleware.request import part_of, recall
from asgi_tiercache.middleware.tee import Tee
from asgi_tiercache.middleware.validating import ValidatingApp
from asgi_tiercache.signals import Refreshed
from asgi_tiercache.stampede import Flight
from asgi_tiercache.types import Entry

FOLLOW_SECONDS = 30.0
"""How long a request waits for another's response before it asks the handler itself."""
UNPROVEN_SECONDS = 0.5
"""The same on a route of which no response could be stored yet. Real time both: it is clients who wait."""


class Filling:
    """One request that needs the handler.

    1. A key that lately could not be shared, or whose response each request has to validate for itself: the handler
       answers, and the tee watches.
    2. Somebody else is filling: wait, and judge what comes; but not where that fill waits for this request.
    3. Otherwise: fill, and relay.

    Where something valid is stored, the handler is only asked whether it still holds.

    Args:
        exchange: The request.
        found: What is stored for it, valid and yet not to be used as it is.
        others: Stored responses of other variants, which the handler may find just as good.
    """

    def __init__(self, exchange: Exchange, found: Found | None = None, others: Sequence[Entry] = ()) -> None:
        self._exchange = exchange
        self._found = found
        self._others = others
        self._waited = False

    async def follow_or_fill(self) -> None:
        """Answer the request with a new response."""
        exchange, engine = self._exchange, self._exchange.engine
        request = exchange.request
        for _ in range(2):
            if request.demands.directives.no_store or self._is_for_nobody_else():
                break
            now = engine.clock.monotonic()
            if not exchange.route.policy.verify:
                entry = recall(engine, exchange.route, request.key, request.scope, now)
                if entry is not None:
                    return await exchange.answer(entry, "L1")  # a fill has landed since this request looked
            flight = engine.fills.under_way(exchange.fill_key)
            if flight is None:
                return await self._lead()
            if not engine.may_wait(flight):
                break
            if await self._follow(flight):
                return
            self._waited = True
            if not flight.landed:
                break
        await self.watch()

    def _is_for_nobody_else(self) -> bool:
        """Whether nobody need wait for the response: it may not be shared, or not without asking the handler again."""
        return self._could_not_be_shared() or (self._found is not None and self._found.entry.lifetime <= 0)

    def _could_not_be_shared(self) -> bool:
        exchange = self._exchange
        name = exchange.request.demands.shared_name(exchange.fill_key)
        return exchange.engine.unshareable.holds(name, exchange.engine.clock.monotonic())

    # ---- somebody else's fill ----

    async def _follow(self, flight: Flight[Entry]) -> bool:
        """Answer with what the flight brings, if this request may be given it (rule I6)."""
        exchange, forwarded = self._exchange, self._forwarded()
        try:
            entry = await self._outcome(flight)
        except Exception:
            # The leader's response may have begun; of this one nothing has.
            if self._found is None or not exchange.may_stand_in(self._found.entry):
                raise
            stale = forwarded == "stale"
            await exchange.answer(self._found.entry, "flight", fresh=False, stale=stale, collapsed=forwarded)
            return True
        if entry is None or not self._is_answered_by(entry) or not exchange.request.demands.may_see(entry):
            return False
        verdict = Verdict.UNKNOWN  # nobody need judge a young flight's
        if flight.number <= exchange.arrived or has_failed(flight):
            verdict = await exchange.engine.invalidation.judge(entry, strict=exchange.route.policy.verify)
            if verdict is Verdict.INVALID:
                return False
        found = Found(entry, "flight", stale=verdict is Verdict.STALE)
        # As if it had been there when the request arrived; but its age is never less than 0, not even if it was not.
        use = exchange.use_of(found, max(exchange.started, entry.born))
        if use is Use.VALIDATE and not (has_failed(flight) and exchange.may_stand_in(entry)):
            self._found = found
            return False
        fresh, stale = verdict is Verdict.FRESH, use is not Use.FRESH
        await exchange.answer(entry, "flight", fresh=fresh, stale=stale, collapsed=forwarded)
        return True

    async def _outcome(self, flight: Flight[Entry]) -> Entry | None:
        exchange = self._exchange
        route = exchange.route
        try:
            with exchange.engine.waiting(flight.owner):
                async with asyncio.timeout(FOLLOW_SECONDS if route.proven else UNPROVEN_SECONDS):
                    return await flight.outcome()
        except TimeoutError:
            if flight.landed and not route.runs_dependencies:
                raise  # the handler's own
            if route.proven:
                name = exchange.request.demands.shared_name(exchange.fill_key)
                exchange.engine.unshareable.remember(name, exchange.engine.clock.monotonic())
            return None
        except Exception:
            if route.runs_dependencies:
                return None  # what a dependency makes of the leader's request says nothing of this one
            raise

    def _is_answered_by(self, entry: Entry) -> bool:
        if not entry.vary:
            return entry.canonical == self._exchange.request.key.canonical
        return entry.canonical == self._exchange.choose(entry).canonical

    # ---- its own ----

    async def _lead(self) -> None:
        exchange = self._exchange
        scope = exchange.handler_scope()
        validation = self._validation()
        tee = self._tee(scope, validation, forwarded=self._forwarded())
        fill = ResponseFill(
            exchange.engine,
            validation or exchange.app,
            scope,
            exchange.receive,
            tee,
            body=exchange.body,
            alone_counts=not exchange.route.explicit,
        )

        async def work(flight: Flight[Entry]) -> None:
            await fill.run(flight)
            await self._let_go(tee)

        fill.flight = exchange.engine.fills.lead(exchange.fill_key, work, owner=tee.fill)
        send = ConditionalSend.around(exchange.request.scope, exchange.send, exchange.engine.clock.time)

        async def relay(message: Message) -> None:
            exchange.show(scope)
            await send(message)

        try:
            with exchange.engine.waiting(tee.fill):
                await fill.relay(relay)
        finally:
            exchange.show(scope)
            self._learn(tee)

    def refresh(self) -> None:
        """Make what was found anew, behind the back of the client that is given it."""
        exchange = self._exchange
        engine = exchange.engine
        theirs = exchange.request.scope
        if theirs["method"] == "HEAD" or not engine.may_refresh(exchange.fill_key):
            return
        # Middleware above goes on using its own, and may yet put what it finds there into this client's answer.
        own = {name: _copy_of(theirs[name]) for name in ("session", "state") if name in theirs}
        request = exchange.request._replace(scope={**theirs, **own})
        scope = exchange.route.keys.withhold(request.scope, request.key)
        validation = self._validation(stand_in=False)
        tee = Tee(engine, exchange.route, request, engine.begin(exchange.fill_key), scope, validation=validation)
        fill = ResponseFill(engine, validation or exchange.app, scope, exchange.receive, tee, body=exchange.body)

        async def work(flight: Flight[Entry]) -> None:
            failed = not await fill.run_unattended(flight)
            if not failed:
                await self._let_go(tee)
            outcome = "failed" if failed else tee.refusal or "stored"
            engine.signals.emit(Refreshed(exchange.route.name, outcome))

        engine.refresh(exchange.fill_key, work, owner=tee.fill)

    async def watch(self, *, partial: bool = False, beside_part: bool = False) -> None:
        """Run the handler in the request's own task: nobody is to wait for it. What may be stored is stored.

        Of a key that could not be shared, conditions reach the handler: it alone can answer them, and what it answers
        is for whoever asked. So does the range of a request for a part.

        Args:
            partial: The request asks for a part.
            beside_part: A part is stored, and does not hold all that it asks for.
        """
        exchange = self._exchange
        scope = exchange.handler_scope()
        validation = None if partial else self._validation()
        forwarded = "partial" if beside_part else self._forwarded()
        tee = self._tee(scope, validation, forwarded=forwarded, partial=partial)
        to_client = ConditionalSend.around(exchange.request.scope, exchange.send, exchange.engine.clock.time)
        asked = [line for line in exchange.request.scope["headers"] if line[0] in PARTIAL_AND_CONDITIONAL]
        if asked and (partial or self._could_not_be_shared()):
            if not exchange.route.runs_dependencies:  # to those the request comes as it is
                scope["headers"] = [*scope["headers"], *asked]
            to_client = exchange.send
            if not partial:
                validation = None
                tee.abandon("conditional")

        async def send(message: Message) -> None:
            message = await tee.see(message)
            exchange.show(scope)
            await to_client(message)

        app = validation or exchange.app
        try:
            with exchange.engine.running(tee.fill):
                await app(scope, exchange.receive_again(), send)
            await self._let_go(tee)
        finally:
            tee.abandon()
            exchange.show(scope)
            self._learn(tee)

    async def _let_go(self, tee: Tee) -> None:
        """Drop what was found, where the handler had a full answer to give that may not take its place.

        What is not to be stored any more is not to be used any more (RFC 9111, section 4.3.3).
        """
        if self._found is not None and tee.supersedes:
            key = self._exchange.request.key
            keys = {self._exchange.fill_key, part_of(key).text}
            if self._found.entry.canonical == key.canonical:  # else a marker stands there, which other variants need
                keys.add(key.text)
            await self._exchange.engine.forget(*keys)

    def _validation(self, *, stand_in: bool = True) -> ValidatingApp | None:
        """The app, to be asked whether what is stored still holds; None where nothing is.

        What was invalidated is not asked about, be it softly: to whoever did that, it does not hold.
        """
        exchange, found = self._exchange, self._found
        stored = [found.entry] if found is not None and exchange.still_holds(found.entry) else []
        others = [entry for entry in self._others if exchange.still_holds(entry)]
        if not (stored or others) or exchange.route.runs_dependencies:
            return None

        def may_stand_in(entry: Entry, status: int | None) -> bool:
            return stand_in and entry in stored and exchange.may_stand_in(entry, status)

        return ValidatingApp(exchange.app, [*stored, *others], may_stand_in=may_stand_in, asks=exchange.route.validates)

    def _tee(self, scope: Scope, validation: ValidatingApp | None, *, forwarded: str, partial: bool = False) -> Tee:
        exchange = self._exchange
        return Tee(
            exchange.engine,
            exchange.route,
            exchange.request,
            exchange.engine.begin(exchange.fill_key),
            scope,
            forwarded=forwarded,
            collapsed=False if self._waited else None,
            validation=validation,
            partial=partial,
        )

    def _forwarded(self) -> str:
        """Why the request goes on to the handler (RFC 9211, section 2.2)."""
        exchange, found = self._exchange, self._found
        if found is None:
            return "uri-miss" if exchange.fill_key == exchange.request.key.text else "vary-miss"
        fresh = not found.stale and exchange.engine.clock.monotonic() < found.entry.born + found.entry.lifetime
        return "request" if fresh else "stale"

    def _learn(self, tee: Tee) -> None:
        exchange = self._exchange
        exchange.engine.inherit(tee.tags(), tee.fill.stamp, fresh=False)
        exchange.route.count()
        if tee.entry is not None:
            exchange.route.saw_storable()
        elif tee.status and not tee.is_passing and tee.stand_in is None:
            exchange.route.saw_unstorable()
        exchange.report("miss", tee.refusal or "")


def has_failed(flight: Flight[Entry]) -> bool:
    """Whether what the flight brought stands in for an error."""
    return isinstance(flight.owner, Fill) and flight.owner.failed


def _copy_of(value: object) -> object:
    """A copy of a session or of the state, with the notes that a session takes of its own use: copying is none."""
    own = copy.copy(value)
    if hasattr(own, "__dict__"):
        vars(own).clear()
        vars(own).update(vars(value))
    return own
