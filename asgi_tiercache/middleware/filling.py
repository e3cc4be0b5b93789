"""The way of a request that no stored response answers as it is: a response of another fill, or of its own."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence

from starlette.types import Message, Scope

from asgi_tiercache.engine.core import Found
from asgi_tiercache.engine.fill import Fill
from asgi_tiercache.http.conditional import PARTIAL_AND_CONDITIONAL
from asgi_tiercache.http.reuse import Use
from asgi_tiercache.invalidation.knowledge import Verdict
from asgi_tiercache.keys.withhold import NOBODYS_ADDRESS
from asgi_tiercache.middleware.answer import ConditionalSend
from asgi_tiercache.middleware.asking import Asking, LateResponseError
from asgi_tiercache.middleware.exchange import Exchange
from asgi_tiercache.middleware.relay import ResponseFill
from asgi_tiercache.middleware.request import recall
from asgi_tiercache.middleware.stream import Stream
from asgi_tiercache.signals import Refreshed
from asgi_tiercache.stampede import Flight
from asgi_tiercache.tiers.leases import WITHOUT, Lease
from asgi_tiercache.types import MARKER, Entry

FOLLOW_SECONDS = 30.0
"""How long a request waits for another's response before it asks the handler itself."""
UNPROVEN_SECONDS = 0.5
"""The same on a route of which no response could be stored yet. Real time both: it is clients who wait."""
_MADE = "made"


class Filling:
    """One request that needs the handler.

    1. A key that lately could not be shared, or whose response each request has to validate for itself: the handler
       answers, and the tee watches.
    2. Somebody else is filling: wait, and judge what comes; but not where that fill waits for this request.
    3. Otherwise: fill, here or, as the lease says, on another worker, and relay.

    Where something valid is stored, the handler is only asked whether it still holds; and where that may be used stale,
    it is the answer if the handler fails, or takes too long.

    Args:
        exchange: The request.
        found: What is stored for it, valid and yet not to be used as it is.
        others: Stored responses of other variants, which the handler may find just as good.
    """

    __slots__ = ("_asking", "_exchange")

    def __init__(self, exchange: Exchange, found: Found | None = None, others: Sequence[Entry] = ()) -> None:
        self._exchange = exchange
        self._asking = Asking(exchange, found, others)

    async def follow_or_fill(self, flight: Flight[Entry] | None = None) -> None:
        """Answer the request with a new response; `flight` is known to be under way for it."""
        exchange, engine = self._exchange, self._exchange.engine
        for _ in range(2):
            if exchange.request.demands.directives.no_store or self._is_for_nobody_else():
                break
            if flight is None:
                entry = self._recalled()
                if entry is not None:
                    return await exchange.answer(entry, "L1")  # a fill has landed since this request looked
                flight = engine.joinable(exchange.fill_key)
            if flight is None:
                return await self._lead()
            if not engine.may_wait(flight):
                break
            key = exchange.fill_key
            if await self._follow(flight):
                return
            self._asking.waited = True
            if has_failed(flight) or (not flight.landed and exchange.fill_key == key):
                break  # who waits for the next one would only wait in turn
            flight = None
        await self.watch()

    def _recalled(self) -> Entry | None:
        exchange, engine = self._exchange, self._exchange.engine
        if exchange.route.policy.verify:
            return None
        request = exchange.request
        return recall(engine, exchange.route, request.key, request.scope, engine.clock.monotonic())

    def _is_for_nobody_else(self) -> bool:
        """Whether nobody need wait for the response: it may not be shared, or not without asking the handler again."""
        found = self._asking.found
        return self._could_not_be_shared() or (found is not None and found.entry.lifetime <= 0)

    def _could_not_be_shared(self) -> bool:
        exchange = self._exchange
        name = exchange.request.demands.shared_name(exchange.fill_key)
        return exchange.engine.unshareable.holds(name, exchange.engine.clock.monotonic())

    # ---- somebody else's fill ----

    async def _follow(self, flight: Flight[Entry]) -> bool:
        """Answer with what the flight brings, if this request may be given it (rule I6)."""
        exchange = self._exchange
        soft = None if self._asking.found is None else self._soft_seconds(flight.owner)
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
            return self._fail_like(error)
        if entry is not None and entry.ends <= 0 and has_failed(flight):
            return self._err_like(entry)
        return self._use(flight, entry)

    async def _fail_like(self, error: Exception) -> bool:
        """Raise what the leader's handler has raised, if nothing may stand in for it."""
        exchange = self._exchange
        if isinstance(error, LateResponseError):
            if not await self._stand_in(collapsed=True):
                await exchange.gateway_timeout("too-late")
            return True
        if exchange.route.runs_dependencies:
            return False  # what a dependency makes of the leader's request says nothing of this one
        if not await self._stand_in(collapsed=True):
            raise error
        return True

    async def _err_like(self, error: Entry) -> bool:
        """Answer with the error that the leader was given, if nothing may stand in for it."""
        if not self._is_for_this_request(error):
            return False
        if not await self._stand_in(collapsed=True):
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
        return await self._stand_in()

    def _soft_seconds(self, owner: object) -> float | None:
        """Seconds for which this request still waits before it takes what is stale; None: it has nothing to take."""
        exchange, found = self._exchange, self._asking.found
        soft = exchange.route.policy.soft_timeout
        if soft is None or found is None or not isinstance(owner, Fill) or exchange.route.runs_dependencies:
            return None
        if not exchange.may_stand_in(found.entry):
            return None
        return max(0.0, owner.begun + soft - exchange.engine.clock.monotonic())

    async def _stand_in(self, *, collapsed: bool = False) -> bool:
        """Answer with what was found, if it may stand in for a response that fails or takes too long."""
        exchange, found, forwarded = self._exchange, self._asking.found, self._asking.forwarded()
        if found is None or not exchange.may_stand_in(found.entry):
            return False
        stale, tier = forwarded == "stale", "flight" if collapsed else found.tier
        await exchange.answer(found.entry, tier, fresh=False, stale=stale, collapsed=forwarded if collapsed else "")
        return True

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

    # ---- its own ----

    async def _lead(self) -> None:
        exchange, engine, asking = self._exchange, self._exchange.engine, self._asking
        policy, scope = exchange.route.policy, exchange.handler_scope()
        fill = engine.begin(exchange.fill_key)
        response = ResponseFill(
            engine,
            fill,
            scope,
            exchange.receive_again(),
            body=exchange.body,
            alone_counts=not exchange.route.explicit,
            finish=policy.finish,
        )

        async def here(lease: Lease) -> Found | None:
            app, tee = asking.begin(fill, scope, lease=lease)
            await response.run(app, tee)
            await asking.let_go(tee)
            if tee.entry is None:
                return None
            if not response.came_too_late:  # else the answer in its place was counted
                exchange.route.asked_for(exchange.key_of(tee.entry))
            self.anticipate(tee.entry)
            return Found(tee.entry, _MADE)

        async def work(flight: Flight[Entry]) -> None:
            engine.variable.set(fill)
            try:
                made = await self._once(here)
                if made is not None and made.tier != _MADE:
                    response.found = made
                    fill.failed = made.stale
                    flight.land(made.entry)
            finally:
                response.close()

        response.led_by(engine.fills.lead(exchange.fill_key, work, owner=fill))
        await self._relay(response, fill, scope)

    async def _relay(self, response: ResponseFill, fill: Fill, scope: Scope) -> None:
        """Answer with the response that this request has set off, or with what takes its place."""
        exchange = self._exchange
        send = ConditionalSend.around(exchange.request.scope, exchange.send, exchange.engine.clock.time)

        async def relay(message: Message) -> None:
            exchange.show(scope)
            await send(message)

        try:
            with exchange.engine.waiting(fill):
                if await self._stands_in_early(response, fill):
                    return
                await response.relay(relay)
        except LateResponseError:
            response.came_too_late = True
            return await exchange.gateway_timeout("too-late")
        finally:
            response.leave()
            exchange.show(scope)
            if response.tee is not None and response.found is None:
                self._asking.learn(response.tee, late=response.came_too_late)
        found = response.found
        if found is not None:
            await exchange.answer(found.entry, found.tier, fresh=not found.stale, stale=found.stale)
            if not found.stale:
                self.anticipate(found.entry)

    async def _stands_in_early(self, response: ResponseFill, fill: Fill) -> bool:
        """Answer with what may stand in for the response, where that does not begin soon enough."""
        soft = self._soft_seconds(fill)
        if soft is None or await response.begins_within(soft):
            return False
        response.flight.detached = True
        response.came_too_late = await self._stand_in()
        return response.came_too_late

    async def _once(self, here: Callable[[Lease], Awaitable[Found | None]]) -> Found | None:
        """What this worker makes, or another one; without a lease where nothing may come of it that could be shared."""
        exchange, found = self._exchange, self._asking.found
        if not exchange.route.proven:
            return await here(WITHOUT)
        stale = found if found is not None and exchange.may_stand_in(found.entry) else None
        place, key = exchange.route.place, exchange.fill_key
        made = await exchange.engine.once(
            place, key, exchange.request.key.canonical, here, look=self._look_below, stale=stale
        )
        if made is None or made is not stale:
            return made
        if not exchange.may_stand_in(made.entry):  # invalidated while others were waited for
            return await here(WITHOUT)
        return made._replace(stale=True)

    async def _look_below(self) -> Found | None:
        """What another worker has stored meanwhile for this request."""
        exchange, place = self._exchange, self._exchange.route.place
        key = exchange.request.key
        found = await exchange.engine.look_below(place, key.text, key.canonical)
        if found is not None and found.entry.status == MARKER:
            chosen = exchange.choose(found.entry)
            found = await exchange.engine.look_below(place, chosen.text, chosen.canonical)
        if found is None or not exchange.request.demands.met_by(found.entry, exchange.started):
            return None
        return found

    def refresh(self) -> None:
        """Make what was found anew, behind the back of the client that is given it."""
        exchange, engine, asking = self._exchange, self._exchange.engine, self._asking
        asked, found = exchange.request.scope, asking.found
        if asked["method"] == "HEAD" or found is None or not engine.may_refresh(exchange.fill_key):
            return
        # Middleware above goes on using its own, and may yet put what it finds there into this client's answer.
        own = {name: _copy_of(asked[name]) for name in ("session", "state") if name in asked}
        request = exchange.request._replace(scope={**asked, **own})
        scope = exchange.route.keys.withhold(request.scope, request.key)
        fill = engine.begin(exchange.fill_key)
        response = ResponseFill(engine, fill, scope, exchange.receive, body=exchange.body, unattended=True)
        ended = "failed"

        async def here(lease: Lease) -> Found | None:
            nonlocal ended
            app, tee = asking.begin(fill, scope, request=request, lease=lease, stand_in=False)
            if not await response.run_unattended(app, tee):
                return found  # which is still the best there is
            await asking.let_go(tee)
            ended = tee.refusal or "stored"
            if tee.entry is None:
                return None
            self.anticipate(tee.entry)
            return Found(tee.entry, _MADE)

        async def work(flight: Flight[Entry]) -> None:
            response.led_by(flight)
            place, key = exchange.route.place, exchange.fill_key
            renewal = await engine.renew(place, key, found.entry.canonical, found.entry, here)
            if renewal == "found" and (theirs := place.bucket.held.get(key)) is not None:
                self.anticipate(theirs)
            outcome = renewal if renewal in ("found", "elsewhere") else ended
            engine.signals.emit(Refreshed(exchange.route.name, outcome))

        place = exchange.route.place
        if not engine.refresh(exchange.fill_key, work, owner=fill, place=place, entry=found.entry):
            engine.signals.emit(Refreshed(exchange.route.name, "dropped"))

    def anticipate(self, entry: Entry) -> None:
        """Have `entry` made anew before it is asked for again, where the policy wants that.

        The handler is given then what it is given now, which is what the key holds; but never the client's address.
        """
        exchange = self._exchange
        if not exchange.route.policy.refresh_ahead:
            return
        scope: Scope = {**exchange.handler_scope(), "client": NOBODYS_ADDRESS}
        own = {name: _copy_of(scope[name]) for name in ("session", "state") if name in scope}
        request = exchange.request._replace(scope={**scope, **own})
        nobody = Exchange(exchange.engine, exchange.app, exchange.route, request, _gone, _nowhere, body=exchange.body)
        nobody.fill_key = exchange.key_of(entry)

        def renew(held: Entry) -> None:
            Filling(nobody, Found(held, "L1")).refresh()

        exchange.engine.watch(exchange.route.place, nobody.fill_key, entry, renew)

    async def watch(self, *, partial: bool = False, beside_part: bool = False) -> None:
        """Run the handler in the request's own task: nobody is to wait for it. What may be stored is stored.

        Of a key that could not be shared, conditions reach the handler: it alone can answer them, and what it answers
        is for whoever asked. So does the range of a request for a part.

        Args:
            partial: The request asks for a part.
            beside_part: A part is stored, and does not hold all that it asks for.
        """
        exchange, asking = self._exchange, self._asking
        scope = exchange.handler_scope()
        asked = [line for line in exchange.request.scope["headers"] if line[0] in PARTIAL_AND_CONDITIONAL]
        as_it_came = bool(asked) and (partial or self._could_not_be_shared())
        to_client = ConditionalSend.around(exchange.request.scope, exchange.send, exchange.engine.clock.time)
        if as_it_came:
            if not exchange.route.runs_dependencies:  # to those the request comes as it is
                scope["headers"] = [*scope["headers"], *asked]
            to_client = exchange.send
        fill = exchange.engine.begin(exchange.fill_key)
        forwarded = "partial" if beside_part else ""
        asks = not (partial or as_it_came)
        app, tee = asking.begin(fill, scope, forwarded=forwarded, partial=partial, asks=asks)
        if as_it_came and not partial:
            tee.abandon("conditional")
        late = False

        async def send(message: Message) -> None:
            message = await tee.see(message)
            exchange.show(scope)
            await to_client(message)

        try:
            with exchange.engine.running(fill):
                await app(scope, exchange.receive_again(), send)
            await asking.let_go(tee)
        except LateResponseError:
            late = True
            await exchange.gateway_timeout("too-late")
        finally:
            tee.abandon()
            exchange.show(scope)
            asking.learn(tee, late=late)


def has_failed(flight: Flight[Entry]) -> bool:
    """Whether what the flight brought stands in for an error."""
    return isinstance(flight.owner, Fill) and flight.owner.failed


async def _gone() -> Message:
    return {"type": "http.disconnect"}


async def _nowhere(_: Message) -> None:
    pass


def _copy_of(value: object) -> object:
    """A copy of a session or of the state, with the notes that a session takes of its own use: copying is none."""
    own = copy.copy(value)
    if hasattr(own, "__dict__"):
        vars(own).clear()
        vars(own).update(vars(value))
    return own
