"""Requests that may change something: what they make out of date, and what a POST leaves to answer a later GET.

Rules by RFC 9111, section 4.4, and RFC 9110, section 9.3.3; groups by RFC 9875.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import unquote

from starlette.types import Message, Receive, Scope, Send

from asgi_tiercache.engine.core import Engine
from asgi_tiercache.engine.fill import Fill
from asgi_tiercache.engine.tags import invalidated_group_tags, site_tags
from asgi_tiercache.http.unsafe import TargetURI, is_success, referred, represents_target
from asgi_tiercache.keys.form import missing_root, quoted, site_of
from asgi_tiercache.keys.request import Pass, RequestKey
from asgi_tiercache.keys.withhold import BODY_HEADERS
from asgi_tiercache.middleware.purging import PurgingApp
from asgi_tiercache.middleware.request import Request, demands_of
from asgi_tiercache.middleware.route import Route
from asgi_tiercache.middleware.tee import Tee
from asgi_tiercache.middleware.variants import Variants
from asgi_tiercache.outbox import Outbox
from asgi_tiercache.routes import Choice
from asgi_tiercache.tiers.leases import WITHOUT, Lease
from asgi_tiercache.types import Entry, Header, Stamp


class UnsafeRequest:
    """One request with a method that is not known to be safe, on its way past the cache.

    If its answer is a success, this invalidates before the answer leaves, and again once the app has returned:

    1. the target URI, with all its queries, if anything can be stored under its path;
    2. what `Location` and `Content-Location` name on the same origin;
    3. the groups in `Cache-Group-Invalidation`.

    Args:
        engine: Stamps, and asks the log.
        below: Runs the app, and purges.
        scope: The request.
        may_store: Whether something can be stored under its path.
        answer: Where to keep the answer for a later GET, if it turns out to be one.
    """

    __slots__ = ("_answer", "_below", "_engine", "_may_store", "_scope")

    def __init__(
        self, engine: Engine, below: PurgingApp, scope: Scope, *, may_store: bool, answer: PostAnswer | None
    ) -> None:
        self._engine = engine
        self._below = below
        self._scope = scope
        self._may_store = may_store
        self._answer = answer

    async def run(self, receive: Receive, send: Send) -> None:
        """Run the app, and purge what its answer makes out of date."""
        answer = self._answer
        if answer is None:
            with self._engine.standing_aside():
                await self._below.purging(self._scope, receive, send, self._outdated)
            return

        async def look(message: Message) -> None:
            await answer.see(message)
            await send(message)

        with self._engine.running(answer.fill):
            outbox = await self._below.purging(self._scope, receive, look, self._outdated)
        await answer.keep(outbox)

    def _outdated(self, start: Message) -> tuple[str, ...]:
        """The tags of what the answer that begins with `start` makes out of date."""
        if not is_success(start["status"]):
            return ()
        scope = self._scope
        headers: Sequence[Header] = list(start.get("headers", ()))
        site = _site(scope)
        tags: tuple[str, ...] = site_tags(site, _path(scope)) if self._may_store else ()
        if any(name.lower().endswith(b"location") for name, _ in headers):
            tags += tuple(tag for path in self._referred(headers) for tag in site_tags(site, path))
        return tuple(dict.fromkeys((*tags, *invalidated_group_tags(headers))))

    def _referred(self, headers: Sequence[Header]) -> list[str]:
        """The paths that the answer refers to, as they appear in keys.

        An app behind a proxy that strips the root path may leave that to the proxy to add, so both readings count.
        """
        root = self._scope.get("root_path", "")
        paths = [unquote(path) for path in referred(headers, target_uri(self._scope))]
        return [*paths, *(missing + path for path in paths if (missing := missing_root(root, path)))]


class PostAnswer:
    """The answer to a POST, kept for later GETs of its target URI where it says that it represents that (RFC 9110,
    section 9.3.3).

    An entry carries the position in the log up to which its maker knew everything, taken before it read anything (rule
    I2). But a POST invalidates its own path after that: by its own stamp, its answer would never be valid. So it is
    kept only after the last purge, under the position of that, and only where nothing can tell the two stamps apart:

    1. The app has returned without raising, so what the answer shows has been committed.
    2. Between the two positions the log holds this request's own purges alone, and all were durable: what others
       invalidate later stands behind the second.
    3. These purges name nothing that the answer is made of, neither a tag of what the handler has read through the
       cache nor the answer's own group; only the path, and for that the handler vouches, by calling its answer the
       present state of it. Purges of `@cache.emits` are taken to name what the answer is made of.

    In doubt it is not kept, which costs a miss.
    """

    __slots__ = ("_deferred", "_engine", "_key", "_route", "_scope", "_tee", "_uri", "_wanted", "fill")

    def __init__(self, engine: Engine, route: Route, request: Request) -> None:
        self.fill: Fill = engine.begin(f"POST {request.key.text}")
        self._engine = engine
        self._route = route
        self._scope = request.scope
        self._uri = target_uri(request.scope)
        self._key = request.key
        self._deferred = _Deferred(engine, route)
        self._wanted = False
        through = copy.copy(route)
        through.variants = self._deferred
        self._tee = Tee(engine, through, request, self.fill, request.scope)

    @classmethod
    def expected(cls, engine: Engine, route: Route, choice: Choice, scope: Scope) -> PostAnswer | None:
        """What may keep the answer to the POST in `scope`, whose path `route` answers for GET; None where it is not to.

        Not under an explicit policy, which says itself what is cached; nor where the handler of a GET would be told
        less than that of this POST is. Within the fill of another response this is a part of that.
        """
        if route.explicit or route.runs_dependencies or engine.variable.get() is not None:
            return None
        headers = [line for line in scope["headers"] if line[0] not in BODY_HEADERS]
        as_get = {**scope, "method": "GET", "headers": headers}
        key = route.keys.of(as_get)
        if isinstance(key, Pass):
            return None
        told = route.keys.withhold(as_get, key)
        if told["headers"] != headers or told["query_string"] != as_get["query_string"]:
            return None
        if any(told.get(name) is not as_get.get(name) for name in ("client", "session", "user", "auth", "extensions")):
            return None
        request = Request(as_get, key, choice.path_params, demands_of(route, as_get))
        return cls(engine, route, request)

    async def see(self, message: Message) -> None:
        """Take note of a message that is about to leave."""
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            now = self._engine.clock.time()
            self._wanted = represents_target(
                message["status"], headers, self._uri, request=self._scope["headers"], now=now
            )
        if self._wanted:
            await self._tee.see(message)

    async def keep(self, outbox: Outbox) -> None:
        """Keep the answer, if it may be kept, now that `outbox` has purged for the last time."""
        made = self._deferred.made
        if made is None or not self._is_untouched_by(outbox, made.entry):
            return
        stamp = made.entry.stamp
        positions = [position for position in outbox.positions if position is not None]
        if len(positions) < len(outbox.positions) or not positions:
            return
        if await self._engine.invalidation.holds_only(stamp, positions):
            made.entry.stamp = Stamp(stamp.epoch, positions[-1])
            self._deferred.release(made)
            self._route.saw_storable()

    def _is_untouched_by(self, outbox: Outbox, entry: Entry) -> bool:
        purged = {tag for order, _ in outbox.purges for tag in order.tags}
        path = {*site_tags(_site(self._scope), _path(self._scope))}
        vouched_for = len(outbox.purges) == 1 and purged.intersection(entry.tags) <= path
        return vouched_for and path.isdisjoint(self.fill.tags)


class _Made(NamedTuple):
    """A response that the tee has found fit to be stored."""

    entry: Entry
    key: RequestKey
    scope: Scope
    vary: Sequence[str]


class _Deferred(Variants):
    """Stands in for the variants of a route until what was made may be stored."""

    def __init__(self, engine: Engine, route: Route) -> None:
        super().__init__(engine, route.place, route.keys.varies)
        self.made: _Made | None = None

    def keep(
        self,
        entry: Entry,
        key: RequestKey,
        scope: Scope,
        vary: Sequence[str],
        *,
        lease: Lease = WITHOUT,
        fill: Fill | None = None,
    ) -> None:
        """Hold `entry` back."""
        self.made = _Made(entry, key, scope, vary)

    def release(self, made: _Made) -> None:
        """Store what was held back."""
        super().keep(*made)


def target_uri(scope: Scope) -> TargetURI:
    """The target URI of the request in `scope`, with the root path, as its client knows it (RFC 9110, section 7.1)."""
    path: str = scope["path"]
    raw_path: bytes = scope.get("raw_path") or quoted(path)
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    return TargetURI(
        scheme=scope.get("scheme", "http"),
        authority=hosts[0].decode("latin-1") if len(hosts) == 1 else "",
        path=(quoted(missing_root(scope.get("root_path", ""), path)) + raw_path).decode("latin-1"),
        query=scope["query_string"].decode("latin-1"),
    )


def _site(scope: Scope) -> str:
    """The host as it stands in implicit tags. Nothing is invalidated for another (RFC 9111, section 4.4)."""
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    return site_of(hosts[0] if hosts else tuple(scope.get("server") or ()), scope.get("scheme", "http"))


def _path(scope: Scope) -> str:
    """The path as the application sees it, which path tags are made of."""
    path: str = scope["path"]
    return missing_root(scope.get("root_path", ""), path) + path
