"""One request, the app that can answer it, and the way back to its client."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_tiercache.engine.core import Engine
from asgi_tiercache.engine.entries import Found
from asgi_tiercache.http import cache_status, reuse
from asgi_tiercache.http.reuse import NO_DIRECTIVES, Use
from asgi_tiercache.invalidation.knowledge import Verdict
from asgi_tiercache.invalidation.lease import Trust
from asgi_tiercache.middleware.answer import ConditionalSend, ThroughDependencies, render, send_stored
from asgi_tiercache.middleware.body import before, replay
from asgi_tiercache.middleware.request import Request
from asgi_tiercache.middleware.route import Route
from asgi_tiercache.middleware.stream import Stream
from asgi_tiercache.middleware.tee import CACHE_STATUS
from asgi_tiercache.middleware.variants import VariantKey
from asgi_tiercache.signals import Answered
from asgi_tiercache.types import Entry, Flag

_KEPT_FROM_OUTSIDE = frozenset({"headers", "query_string", "session", "user", "auth", "client"})
"""What a handler's scope has of ours: middleware above finds there what it put there."""


class Exchange:
    """What each step of answering one request needs.

    Args:
        engine: Looks up, judges, fills and stores.
        app: The app below the middleware.
        route: The route that was chosen.
        request: The request.
        receive: The client's own.
        send: Takes the answer to the client.
        body: The request body, where it has been read to be keyed.
    """

    __slots__ = (
        "_first",
        "app",
        "arrived",
        "body",
        "engine",
        "fill_key",
        "receive",
        "request",
        "route",
        "send",
        "started",
        "trust",
    )

    def __init__(
        self, engine: Engine, app: ASGIApp, route: Route, request: Request, receive: Receive, send: Send, *, body: bytes
    ) -> None:
        self.engine = engine
        self.app = app
        self.route = route
        self.request = request
        self.receive = receive
        self.send = send
        self.body = body
        self._first: Message | None = None
        """What the client has sent first, where that has been read."""
        self.started = engine.clock.monotonic()
        """Monotonic clock at which the request arrived."""
        self.arrived = engine.fills.begun
        """How many flights had begun by then: later ones are young (rule I6)."""
        self.trust = Trust.VERIFIED
        self.fill_key = request.key.text
        """Where the response will be stored, as far as is known: below it, if the response turns out to vary."""

    # ---- what may be done with what is stored ----

    def choose(self, varying: Entry) -> VariantKey:
        """The variant that answers the request."""
        chosen = self.route.variants.choose(self.request.key, varying.vary, self.request.scope)
        self.fill_key = chosen.text
        return chosen

    def key_of(self, entry: Entry) -> str:
        """Where `entry`, which answers the request, is stored."""
        key = self.request.key
        return key.text if not entry.vary else self.route.variants.choose(key, entry.vary, self.request.scope).text

    def use_of(self, found: Found, now: float) -> Use:
        """What the request may have of a valid stored response; `now` is the monotonic clock.

        Who invalidates softly allows the use of what is fresh otherwise, while it is made anew behind the client's
        back: that takes a request whose credentials do not matter.
        """
        entry, directives = found.entry, self.request.demands.directives
        age = now - entry.born
        if age < entry.lifetime and directives is NO_DIRECTIVES and not found.stale:
            return Use.FRESH  # most often; the rest would be felt in a hit
        use = reuse.judge(
            directives,
            age=age,
            lifetime=entry.lifetime,
            stale_while_revalidate=entry.stale_while_revalidate,
            must_revalidate=bool(entry.flags & Flag.MUST_REVALIDATE),
        )
        if found.stale and use is not Use.VALIDATE:
            use = Use.WHILE_REVALIDATED
        if use is Use.WHILE_REVALIDATED and not self.may_refresh:
            return Use.VALIDATE
        return use

    @property
    def may_refresh(self) -> bool:
        """Whether the handler may run for nobody: not as somebody whom the key does not name, nor to store nothing."""
        demands = self.request.demands
        if self.route.runs_dependencies or demands.credentialed or demands.directives.no_store:
            return False
        return self.route.explicit or not _is_somebody(self.request.scope)

    def still_holds(self, entry: Entry) -> bool:
        """Whether `entry`, which was valid when it was found, is so now: the request may have waited since.

        To be asked in the same breath as a fill begins, whose stamp would make the entry good again.
        """
        return self.engine.invalidation.current(entry)

    def may_stand_in(self, entry: Entry, status: int | None = None) -> bool:
        """Whether `entry` may be the answer where the handler fails, with that status code or an exception."""
        if self.engine.invalidation.judge_here(entry) not in (Verdict.FRESH, Verdict.STALE):
            return False  # invalidated while the handler ran (rule I10)
        return reuse.may_stand_in(
            self.request.demands.directives,
            age=self.engine.clock.monotonic() - entry.born,
            lifetime=entry.lifetime,
            stale_if_error=entry.stale_if_error,
            must_revalidate=bool(entry.flags & Flag.MUST_REVALIDATE),
            status=status,
        )

    # ---- answering ----

    async def answer(
        self, entry: Entry, tier: str, *, fresh: bool = True, stale: bool = False, collapsed: str = ""
    ) -> None:
        """Answer with `entry`.

        Args:
            entry: A stored response that the request may be given.
            tier: Where it was found.
            fresh: Whether it was judged fresh, for the tags that an outer fill takes over (rule I2).
            stale: It is used though it is stale.
            collapsed: Why the request would have gone to the handler, had it not waited for another one's response.
        """
        engine = self.engine
        if engine.variable.get() is not None:
            engine.inherit(entry.tags, entry.stamp, fresh=fresh)
        told = f"{tier}-stale" if stale else tier if self.trust is Trust.VERIFIED else f"{tier}-unverified"
        headers = render(entry, max(0, int(engine.clock.monotonic() - entry.born)), told, collapsed=collapsed)
        scope = self.request.scope
        if not self.route.runs_dependencies and not self.request.key.selective and scope["method"] != "HEAD":
            await self.send({"type": "http.response.start", "status": entry.status, "headers": headers})
            await self.send({"type": "http.response.body", "body": entry.body})
        elif self.route.runs_dependencies:
            through = ThroughDependencies(entry, headers, scope, self.send)
            if not await through.run(self.app, self.receive_again(), self.engine):
                return self.report("pass", "dependencies")
        else:
            await send_stored(entry, headers, scope, self.send)
        self.route.hit_below(tier, self.started, self.fill_key)

    async def answer_from(self, stream: Stream, *, collapsed: str) -> None:
        """Answer with a response while it is being produced; `collapsed` as for `answer`."""
        engine, begun = self.engine, stream.preview
        assert begun is not None, "what nobody may follow"
        told = "flight" if self.trust is Trust.VERIFIED else "flight-unverified"
        headers = render(begun, max(0, int(engine.clock.monotonic() - begun.born)), told, collapsed=collapsed)
        send = ConditionalSend.around(self.request.scope, self.send, engine.clock.time)

        async def relay(message: Message) -> None:
            start = message["type"] == "http.response.start"
            await send({**message, "headers": headers} if start else message)

        await stream.relay(relay)
        self.route.hit_below("flight", self.started, self.fill_key)

    async def gateway_timeout(self, reason: str) -> None:
        """Answer 504: nothing is stored that the client would take (RFC 9111, 5.2.1.7), or the handler is too slow."""
        headers = [(b"content-length", b"0")]  # and no `Cache-Status`, as nothing stored is in it (RFC 9211, section 2)
        await self.send({"type": "http.response.start", "status": 504, "headers": headers})
        await self.send({"type": "http.response.body", "body": b""})
        self.report("pass", reason)

    async def pass_by(self, reason: str, *, forward: str = "bypass") -> None:
        """Let the handler answer the request as it came; `Cache-Status` says why."""
        self.route.passed_by(reason)
        self.report("pass", reason)
        scope = self.request.scope
        await pass_by(self.engine, self.app, scope, self.receive_again(), self.send, reason, forward)

    # ---- running the handler ----

    async def has_body(self) -> bool:
        """Whether a body follows that is no part of the key; no header need have announced it (HTTP/2)."""
        if self.route.policy.body:
            return False
        first = await self.receive()
        while first["type"] == "http.request" and not first.get("body") and first.get("more_body", False):
            first = await self.receive()  # some clients say last what they could have said first
        self._first = first
        return first["type"] == "http.request" and bool(first.get("body"))

    def receive_again(self) -> Receive:
        """The request's body, also where it has been read."""
        if self._first is not None:
            return before(self._first, self.receive)
        return replay(self.body, self.receive) if self.route.policy.body else self.receive

    def handler_scope(self) -> Scope:
        """What a handler is given that may make a response for others."""
        if self.route.runs_dependencies:
            return dict(self.request.scope)
        return self.route.keys.withhold(self.request.scope, self.request.key)

    def show(self, scope: Scope) -> None:
        """Let middleware above find what the router and the handler have put into their scope: `route`, `state`..."""
        theirs = self.request.scope
        for name, value in scope.items():
            if name not in _KEPT_FROM_OUTSIDE and theirs.get(name) is not value:
                theirs[name] = value

    def report(self, outcome: str, detail: str) -> None:
        """Tell how the request was answered; that takes no time where the cache stood aside."""
        seconds = 0.0 if outcome == "pass" else self.engine.clock.monotonic() - self.started
        self.engine.signals.emit(Answered(self.route.name, outcome, detail, seconds))


def _is_somebody(scope: Scope) -> bool:
    """Whether the request says who asks, even where that is no obstacle to sharing the response."""
    return bool(scope.get("session")) or any(name == b"cookie" for name, _ in scope["headers"])


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
