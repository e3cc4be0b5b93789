"""One request's way through the cache, once L1 could not answer it at once."""

from __future__ import annotations

import asyncio
import copy

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_tiercache.engine.core import Engine, Found
from asgi_tiercache.http import cache_status
from asgi_tiercache.invalidation.knowledge import Verdict
from asgi_tiercache.invalidation.lease import Trust
from asgi_tiercache.keys.withhold import PARTIAL_AND_CONDITIONAL
from asgi_tiercache.middleware.answer import ConditionalSend, ThroughDependencies, render, send_stored
from asgi_tiercache.middleware.body import peek, replay
from asgi_tiercache.middleware.relay import ResponseFill
from asgi_tiercache.middleware.request import NO_DEMANDS, Request, recall
from asgi_tiercache.middleware.route import Route
from asgi_tiercache.middleware.tee import CACHE_STATUS, Tee
from asgi_tiercache.middleware.variants import MARKER, VariantKey
from asgi_tiercache.signals import Answered, Refreshed
from asgi_tiercache.stampede import Flight
from asgi_tiercache.types import Entry

FOLLOW_SECONDS = 30.0
"""How long a request waits for another's response before it asks the handler itself."""
UNPROVEN_SECONDS = 0.5
"""The same on a route of which no response could be stored yet. Real time both: it is clients who wait."""
_KEPT_FROM_OUTSIDE = frozenset({"headers", "query_string", "session", "user", "auth", "client"})
"""What a handler's scope has of ours: middleware above finds there what it put there."""


class Responder:
    """Holds the state of one request.

    1. While Redis cannot confirm what is valid, and the policy does not serve on trust: pass by.
    2. A stored response that this request may be given: send it. One that was invalidated softly is made anew behind
       the client's back, if that can be done without this request's credentials; else it does not count.
    3. `only-if-cached`: 504. HEAD, or a body that nobody announced: the handler answers.
    4. A key that lately could not be shared: the handler answers, and the tee watches.
    5. Somebody else is filling: wait, and judge what comes; but not where that fill waits for this request.
    6. Otherwise: fill, and relay.
    """

    __slots__ = (
        "_app",
        "_arrived",
        "_body",
        "_engine",
        "_fill_key",
        "_receive",
        "_request",
        "_route",
        "_send",
        "_started",
        "_trust",
    )

    def __init__(
        self, engine: Engine, app: ASGIApp, route: Route, request: Request, receive: Receive, send: Send, *, body: bytes
    ) -> None:
        self._engine = engine
        self._app = app
        self._route = route
        self._request = request
        self._receive = receive
        self._send = send
        self._body = body
        self._started = engine.clock.monotonic()
        self._arrived = engine.fills.begun
        self._trust = Trust.VERIFIED
        self._fill_key = request.key.text
        """Where the response will be stored, as far as is known: below it, if the response turns out to vary."""

    async def respond(self) -> None:
        """Answer the request, one way or another."""
        if self._started >= self._engine.lease.attention_at:
            self._trust = await self._engine.trust(self._route.policy)
            if self._trust is Trust.LAPSED:
                return await self.pass_by("unverified")
        found = await self._look_up()
        if found is not None:
            if found.stale:
                self._refresh()
            return await self._answer(found.entry, found.tier, fresh=not found.stale, stale=found.stale)
        if self._request.demands.directives.only_if_cached:
            return await self._gateway_timeout()
        if self._request.scope["method"] == "HEAD":
            return await self.pass_by("head", forward="method")
        if not self._route.policy.body:
            has_body, self._receive = await peek(self._receive)
            if has_body:
                return await self.pass_by("body")
        await self._follow_or_fill()

    async def pass_by(self, reason: str, *, forward: str = "bypass") -> None:
        """Let the handler answer the request as it came; `Cache-Status` says why."""
        self._route.passed_by(reason)
        self._engine.signals.emit(Answered(self._route.name, "pass", reason, 0.0))
        scope = self._request.scope
        await pass_by(self._engine, self._app, scope, self._receive_again(), self._send, reason, forward)

    def _receive_again(self) -> Receive:
        """The request's body, also where it has been read to be keyed."""
        return replay(self._body, self._receive) if self._route.policy.body else self._receive

    # ---- looking up ----

    async def _look_up(self) -> Found | None:
        key = self._request.key
        found = await self._engine.fetch(self._route.place, key.text, key.canonical)
        if found is not None and found.entry.status == MARKER:
            chosen = self._choose(found.entry)
            found = await self._engine.fetch(self._route.place, chosen.text, chosen.canonical)
        if found is None:
            return None
        demands = self._request.demands
        if demands is not NO_DEMANDS and not demands.met_by(found.entry, self._engine.clock.monotonic()):
            return None
        return None if found.stale and not self._may_refresh() else found

    def _choose(self, varying: Entry) -> VariantKey:
        chosen = self._route.variants.choose(self._request.key, varying.vary, self._request.scope)
        self._fill_key = chosen.text
        return chosen

    # ---- answering ----

    async def _answer(self, entry: Entry, tier: str, *, fresh: bool = True, stale: bool = False) -> None:
        engine = self._engine
        if engine.variable.get() is not None:
            engine.inherit(entry.tags, entry.stamp, fresh=fresh)
        told = f"{tier}-stale" if stale else tier if self._trust is Trust.VERIFIED else f"{tier}-unverified"
        headers = render(entry, max(0, int(engine.clock.monotonic() - entry.born)), told)
        scope = self._request.scope
        if self._route.runs_dependencies:
            through = ThroughDependencies(entry, headers, scope, self._send)
            if not await through.run(self._app, self._receive_again(), self._engine):
                return self._report("pass", "dependencies")
        else:
            await send_stored(entry, headers, scope, self._send)
        self._route.hit_below(tier, self._started)

    async def _gateway_timeout(self) -> None:
        """RFC 9111, section 5.2.1.7."""
        status = cache_status.local(detail="only-if-cached")
        headers = [(b"content-length", b"0"), (CACHE_STATUS, status)]
        await self._send({"type": "http.response.start", "status": 504, "headers": headers})
        await self._send({"type": "http.response.body", "body": b""})
        self._report("pass", "only-if-cached")

    # ---- filling ----

    async def _follow_or_fill(self) -> None:
        for _ in range(2):
            request = self._request
            if request.demands.directives.no_store:
                break
            if self._could_not_be_shared():
                break
            now = self._engine.clock.monotonic()
            if not self._route.policy.verify:
                entry = recall(self._engine, self._route, request.key, request.scope, now)
                if entry is not None:
                    return await self._answer(entry, "L1")  # a fill has landed since this request looked
            flight = self._engine.fills.under_way(self._fill_key)
            if flight is None:
                return await self._lead()
            if not self._engine.may_wait(flight):
                break
            followed = await self._follow(flight)
            if followed is not None:
                entry, verdict = followed
                return await self._answer(entry, "flight", fresh=verdict is Verdict.FRESH)
            if not flight.landed:
                break
        await self._watch()

    def _could_not_be_shared(self) -> bool:
        name = self._request.demands.shared_name(self._fill_key)
        return self._engine.unshareable.holds(name, self._engine.clock.monotonic())

    async def _follow(self, flight: Flight[Entry]) -> tuple[Entry, Verdict] | None:
        """What the flight brought, if this request may be given it (rule I6); nobody need judge a young flight's."""
        try:
            with self._engine.waiting(flight.owner):
                async with asyncio.timeout(FOLLOW_SECONDS if self._route.proven else UNPROVEN_SECONDS):
                    entry = await flight.outcome()
        except TimeoutError:
            if flight.landed and not self._route.runs_dependencies:
                raise  # the handler's own
            if self._route.proven:
                name = self._request.demands.shared_name(self._fill_key)
                self._engine.unshareable.remember(name, self._engine.clock.monotonic())
            return None
        except Exception:
            if self._route.runs_dependencies:
                return None  # what a dependency makes of the leader's request says nothing of this one
            raise
        if entry is None or not self._is_answered_by(entry) or not self._request.demands.met_by(entry, self._started):
            return None
        if flight.number > self._arrived:
            return entry, Verdict.UNKNOWN
        verdict = await self._engine.invalidation.judge(entry, strict=self._route.policy.verify)
        return None if verdict is Verdict.INVALID else (entry, verdict)

    def _is_answered_by(self, entry: Entry) -> bool:
        if not entry.vary:
            return entry.canonical == self._request.key.canonical
        return entry.canonical == self._choose(entry).canonical

    async def _lead(self) -> None:
        scope = self._handler_scope()
        tee = self._tee(scope)
        alone_counts = not self._route.explicit
        fill = ResponseFill(
            self._engine, self._app, scope, self._receive, tee, body=self._body, alone_counts=alone_counts
        )
        fill.flight = self._engine.fills.lead(self._fill_key, fill.run, owner=tee.fill)
        send = ConditionalSend.around(self._request.scope, self._send)

        async def relay(message: Message) -> None:
            self._show(scope)
            await send(message)

        try:
            with self._engine.waiting(tee.fill):
                await fill.relay(relay)
        finally:
            self._show(scope)
            self._learn(tee)

    def _may_refresh(self) -> bool:
        """Whether the handler may run for nobody: not with a credential that is not keyed, nor to store nothing."""
        demands = self._request.demands
        return not (self._route.runs_dependencies or demands.credentialed or demands.directives.no_store)

    def _refresh(self) -> None:
        """Make a stale response anew, behind the back of the client that is given it."""
        if self._request.scope["method"] == "HEAD" or not self._engine.may_refresh(self._fill_key):
            return
        theirs = self._request.scope
        # Middleware above goes on using its own, and may yet put what it finds there into this client's answer.
        own = {name: copy.copy(theirs[name]) for name in ("session", "state") if name in theirs}
        request = self._request._replace(scope={**theirs, **own})
        scope = self._route.keys.withhold(request.scope, request.key)
        tee = Tee(self._engine, self._route, request, self._engine.begin(self._fill_key), scope)
        fill = ResponseFill(self._engine, self._app, scope, self._receive, tee, body=self._body)

        async def work(flight: Flight[Entry]) -> None:
            failed = not await fill.run_unattended(flight)
            if not failed and tee.entry is None:  # what is not to be stored any more is not to be served any more
                await self._engine.forget(self._request.key.text, self._fill_key)
            outcome = "failed" if failed else tee.refusal or "stored"
            self._engine.signals.emit(Refreshed(self._route.name, outcome))

        self._engine.refresh(self._fill_key, work, owner=tee.fill)

    async def _watch(self) -> None:
        """Run the handler in the request's own task: nobody is to wait for it. What may be stored is stored.

        Of a key that could not be shared, conditions reach the handler: it alone can answer them, and what it answers
        is for whoever asked.
        """
        scope = self._handler_scope()
        tee = self._tee(scope)
        to_client = ConditionalSend.around(self._request.scope, self._send)
        asked = [line for line in self._request.scope["headers"] if line[0] in PARTIAL_AND_CONDITIONAL]
        if asked and self._could_not_be_shared():
            scope["headers"] = [*scope["headers"], *asked]
            to_client = self._send
            tee.abandon("conditional")

        async def send(message: Message) -> None:
            message = await tee.see(message)
            self._show(scope)
            await to_client(message)

        try:
            with self._engine.running(tee.fill):
                await self._app(scope, self._receive_again(), send)
        finally:
            tee.abandon()
            self._show(scope)
            self._learn(tee)

    def _tee(self, scope: Scope) -> Tee:
        return Tee(self._engine, self._route, self._request, self._engine.begin(self._fill_key), scope)

    def _handler_scope(self) -> Scope:
        if self._route.runs_dependencies:
            return dict(self._request.scope)
        return self._route.keys.withhold(self._request.scope, self._request.key)

    def _show(self, scope: Scope) -> None:
        """Let middleware above find what the router and the handler have put into their scope: `route`, `state`..."""
        theirs = self._request.scope
        for name, value in scope.items():
            if name not in _KEPT_FROM_OUTSIDE and theirs.get(name) is not value:
                theirs[name] = value

    def _learn(self, tee: Tee) -> None:
        self._engine.inherit(tee.tags(), tee.fill.stamp, fresh=False)
        self._route.count()
        if tee.entry is not None:
            self._route.saw_storable()
        else:
            self._route.saw_unstorable()
        self._report("miss", tee.refusal or "")

    def _report(self, outcome: str, detail: str) -> None:
        seconds = self._engine.clock.monotonic() - self._started
        self._engine.signals.emit(Answered(self._route.name, outcome, detail, seconds))


async def pass_by(
    engine: Engine, app: ASGIApp, scope: Scope, receive: Receive, send: Send, reason: str, forward: str = "bypass"
) -> None:
    """Run the app on the request as it came, adding only a `Cache-Status` that says why."""
    line = (CACHE_STATUS, cache_status.forward(forward, detail=reason))

    async def say_why(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), line]}
        await send(message)

    with engine.standing_aside():
        await app(scope, receive, say_why)
