"""What happens to a request, from the top."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Mapping
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_tiercache.config import Policy, check_of_responses
from asgi_tiercache.engine.core import Engine
from asgi_tiercache.errors import ConfigError
from asgi_tiercache.http import cache_status
from asgi_tiercache.http.conditional import PARTIAL_AND_CONDITIONAL
from asgi_tiercache.http.unsafe import is_safe
from asgi_tiercache.keys.request import Pass, RequestKey
from asgi_tiercache.middleware import gate
from asgi_tiercache.middleware.answer import render, send_stored
from asgi_tiercache.middleware.body import read_body, replay
from asgi_tiercache.middleware.exchange import pass_by
from asgi_tiercache.middleware.purging import PurgingApp
from asgi_tiercache.middleware.request import NO_DEMANDS, Request, demands_of, recall
from asgi_tiercache.middleware.responder import Responder
from asgi_tiercache.middleware.route import Route
from asgi_tiercache.middleware.tee import CACHE_STATUS
from asgi_tiercache.middleware.unsafe import PostAnswer, UnsafeRequest
from asgi_tiercache.outbox import Outboxes
from asgi_tiercache.routes import Choice, RouteTable, Target
from asgi_tiercache.signals import Answered

logger = logging.getLogger("asgi_tiercache")

DEFAULT = Policy.http()
_STATE = Pass("state")
_NOTHING_TO_STORE = (CACHE_STATUS, cache_status.forward("uri-miss", detail="no-freshness"))


class Cache(Protocol):
    """What the middleware needs of a `TierCache`."""

    @property
    def engine(self) -> Engine:
        """Looks up, judges, fills and stores."""

    @property
    def outboxes(self) -> Outboxes:
        """Where requests put what they have changed."""

    @property
    def namespace(self) -> str:
        """Stands before every key."""

    @property
    def disabled(self) -> bool:
        """Whether everything passes by (`TIERCACHE_DISABLED=1`)."""

    def policy_of(self, endpoint: object) -> Policy | None:
        """The policy that `@cache.response` has put on `endpoint`."""

    def serve(self) -> None:
        """A middleware serves this cache."""

    async def start(self) -> None:
        """Make ready on the running loop."""

    async def aclose(self) -> None:
        """Flush what is queued, and let go of what belongs to the running loop."""


class TierCacheMiddleware:
    """Serves responses from memory, then from lower tiers, else from the app below, once for all who wait.

    Example:
        `app.add_middleware(TierCacheMiddleware, cache=cache, routes={"/config": STATIC})`

    Args:
        app: The app below.
        cache: Holds the tiers.
        routes: Policies by exact path (`"/config"`), path template (`"/videos/{id}"`) or prefix (`"/static/*"`);
            None: never cached. Beside them, endpoints carry the policies of `@cache.response`.
        default: The policy of every other route; `Policy.http()` caches what the response itself lets it.

    Raises:
        ConfigError: a key of `routes` is malformed. What needs the app's route table raises it at start.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        cache: Cache,
        routes: Mapping[str, Policy | None] | None = None,
        default: Policy | None = DEFAULT,
    ) -> None:
        if not hasattr(cache, "engine"):
            raise ConfigError("cache", f"must be a TierCache, not {cache!r}")
        if default is not None and not isinstance(default, Policy):
            raise ConfigError("default", f"must be a Policy or None, not {default!r}")
        self.app = app
        self._below = PurgingApp(app, cache.outboxes)
        self._cache = cache
        self._engine = cache.engine
        self._policies = dict(routes or {})
        self._default = default
        self._table = RouteTable(None, self._policies, default, mark=cache.policy_of)
        self._table_app: object = None
        self._routes: dict[Target, Route] = {}
        self._generation = 0
        self._state: frozenset[str] = frozenset()
        for policy in (*self._policies.values(), default):
            if policy is not None:
                region = check_of_responses(policy).region
                cache.engine.memory.bucket(region)  # two policies may not draw one region's bounds
        cache.serve()
        cache.engine.reporters.append(self._report)

    def __repr__(self) -> str:
        return f"<TierCacheMiddleware {self._cache!r} routes={len(self._policies)}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD") or self._cache.disabled:
            await self._elsewhere(scope, receive, send)
            return
        if scope.get("app", self.app) is not self._table_app:
            self._read_routes(scope)
        choice = self._table.choose(scope)
        route = self._routes.get(choice.target) or self._route(choice.target)
        if route is None or (scope["method"] == "HEAD" and not self._table.takes(choice.target, "HEAD")):
            await self._stand_aside(scope, receive, send)
        elif route.idle and not _speaks_of_caching(scope):
            await self._glance(route, scope, receive, send)
        elif route.policy.body:
            await self._serve_by_body(route, choice, scope, receive, send)
        else:
            guarded = route.guards_state and scope.get("state") and not self._knows_state(scope)
            key = _STATE if guarded else route.keys.of(scope)
            if isinstance(key, Pass):
                await self._pass_by(route, key.reason, scope, receive, send)
                return
            engine = self._engine
            now = engine.clock.monotonic()
            at_once = now < engine.lease.attention_at and route.answers_at_once
            entry = recall(engine, route, key, scope, now) if at_once else None
            if entry is None:
                await self._respond(route, choice, key, scope, receive, send)
                return
            headers = render(entry, int(now - entry.born), "L1")
            if engine.variable.get() is not None:
                engine.inherit(entry.tags, entry.stamp, fresh=True)
            if key.selective or scope["method"] == "HEAD":
                await send_stored(entry, headers, scope, send)
            else:  # the same, without a call that would be felt here
                await send({"type": "http.response.start", "status": entry.status, "headers": headers})
                await send({"type": "http.response.body", "body": entry.body})
            route.hit(now, key.text)

    def _respond(
        self,
        route: Route,
        choice: Choice,
        key: RequestKey,
        scope: Scope,
        receive: Receive,
        send: Send,
        body: bytes = b"",
    ) -> Awaitable[None]:
        if not _on_asyncio():
            return self._pass_by(
                route, "event-loop", scope, replay(body, receive) if route.policy.body else receive, send
            )
        # Under an explicit policy the key has said all there is to say.
        demands = NO_DEMANDS if route.explicit else demands_of(route, scope)
        request = Request(scope, key, choice.path_params, demands)
        return Responder(self._engine, self._below, route, request, receive, send, body=body).respond()

    # ---- ways past the cache ----

    async def _elsewhere(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] == "http" and not self._cache.disabled and _on_asyncio():
            await self._by_other_method(scope, receive, send)
        elif scope["type"] == "http":
            await self._stand_aside(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _by_other_method(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A method other than GET and HEAD: POST and QUERY where a policy caches them; what is unsafe invalidates."""
        if scope.get("app", self.app) is not self._table_app:
            self._read_routes(scope)
        method = scope["method"]
        if method in self._table.methods:
            choice = self._table.choose(scope)
            route = self._routes.get(choice.target) or self._route(choice.target)
            if route is not None:
                await self._ask(route, choice, scope, receive, send)
                return
        if is_safe(method):
            await self._stand_aside(scope, receive, send)
        else:
            may_store = self._table.may_store(scope)
            answer = self._answer_to_post(scope) if method == "POST" and may_store else None
            request = UnsafeRequest(self._engine, self._below, scope, may_store=may_store, answer=answer)
            await request.run(receive, send)

    async def _ask(self, route: Route, choice: Choice, scope: Scope, receive: Receive, send: Send) -> None:
        """A POST or a QUERY that is a question.

        Conditions and ranges are the handler's to judge: only of GET and HEAD a stored response says how (RFC 9110,
        sections 13.1.2 and 14.2).
        """
        for name, _ in scope["headers"]:
            if name in PARTIAL_AND_CONDITIONAL:
                reason = "range" if name in (b"range", b"if-range") else "conditional"
                await self._pass_by(route, reason, scope, receive, send)
                return
        await self._serve_by_body(route, choice, scope, receive, send)

    def _answer_to_post(self, scope: Scope) -> PostAnswer | None:
        choice = self._table.choose({**scope, "method": "GET"})
        route = self._routes.get(choice.target) or self._route(choice.target)
        return None if route is None else PostAnswer.expected(self._engine, route, choice, scope)

    async def _stand_aside(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._engine.standing_aside():
            await self._below(scope, receive, send)

    async def _pass_by(self, route: Route, reason: str, scope: Scope, receive: Receive, send: Send) -> None:
        route.passed_by(reason)
        self._engine.signals.emit(Answered(route.name, "pass", reason, 0.0))
        await pass_by(self._engine, self._below, scope, receive, send, reason)

    async def _glance(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass by on a route whose responses never say that they may be stored; the first that does ends that."""

        fill = self._engine.begin("")

        async def look(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                if message["status"] >= 500:
                    route.saw_failure()
                if fill.ttl:
                    route.saw_storable()
                for name, _ in headers:
                    if name.lower() in route.telling:
                        route.saw_storable()
                message = {**message, "headers": [*headers, _NOTHING_TO_STORE]}
            await send(message)

        try:
            with self._engine.running(fill):
                await self._below(scope, receive, look)
        except Exception:
            route.saw_failure()
            raise
        finally:
            if self._engine.variable.get() is not None:
                self._engine.inherit(tuple(fill.tags), fill.stamp, fresh=False)
            route.glanced_at()

    async def _serve_by_body(self, route: Route, choice: Choice, scope: Scope, receive: Receive, send: Send) -> None:
        body, complete = await read_body(receive, route.policy.max_body)
        if not complete or len(body) > route.policy.max_body:
            await self._pass_by(route, "body", scope, replay(body, receive, complete=complete), send)
            return
        guarded = route.guards_state and not self._knows_state(scope)
        key = _STATE if guarded else route.keys.of(scope, body_digest=hashlib.sha256(body).digest() if body else b"")
        if isinstance(key, Pass):
            await self._pass_by(route, key.reason, scope, replay(body, receive), send)
        else:
            await self._respond(route, choice, key, scope, receive, send, body)

    def _knows_state(self, scope: Scope) -> bool:
        """Whether `request.state` holds only what the app's lifespan has put there, the same for every request."""
        state = scope.get("state")
        return not state or self._state.issuperset(state)

    # ---- routes ----

    def _read_routes(self, scope: Scope) -> None:
        """Build the route table of the app that this runs in, and check what needs it.

        Raises:
            ConfigError: two policies for one route, an unkeyed security dependency, ...
        """
        app = scope.get("app", self.app)
        table = RouteTable(app, self._policies, self._default, mark=self._cache.policy_of)
        for warning in table.check():
            logger.warning(warning)
        self._report()
        self._table, self._table_app = table, app
        self._routes.clear()

    def _report(self) -> None:
        """Tell of the answers that no signal has told of yet."""
        for route in list(self._routes.values()):
            route.report()

    def _route(self, target: Target) -> Route | None:
        """The route of a target that is met for the first time; None where it is never cached."""
        if target.policy is None:
            return None
        if self._generation != self._table.generation:
            self._report()
            self._routes.clear()
            self._generation = self._table.generation
        route = Route(self._engine, target, namespace=self._cache.namespace)
        if route.runs_dependencies:
            for dependant in self._table.dependants(target):
                gate.install(dependant, self._engine.variable)
        self._routes[target] = route
        return route

    # ---- lifespan ----

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._cache.disabled or not _on_asyncio():
            await self.app(scope, receive, send)
            return
        started = False

        async def with_cache(message: Message) -> None:
            nonlocal started
            if message["type"] == "lifespan.startup.complete":
                # A ConfigError is the app's own failure to start: it closes what it has opened, and says so.
                self._read_routes(scope)
                self._state = frozenset(scope.get("state") or ())
                started = True
                await self._cache.start()
            elif started:
                started = False
                await self._cache.aclose()
            await send(message)

        try:
            await self.app(scope, receive, with_cache)
        finally:
            if started:
                await self._cache.aclose()


def _on_asyncio() -> bool:
    """Whether an asyncio loop runs here; under Trio requests pass by."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _speaks_of_caching(scope: Scope) -> bool:
    for name, _ in scope["headers"]:  # noqa: SIM110 - a generator would double what passing by costs
        if name == b"cache-control":
            return True
    return False
