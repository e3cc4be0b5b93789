"""What one request asks of a stored response, and what L1 can answer it with at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from starlette.types import Scope

from asgi_tiercache.engine.core import Engine
from asgi_tiercache.http.reuse import NO_DIRECTIVES, RequestDirectives
from asgi_tiercache.keys.escape import frame
from asgi_tiercache.keys.request import RequestKey
from asgi_tiercache.middleware.route import Route
from asgi_tiercache.types import MARKER, WHOLE, Entry, Flag

WHOLE_OR_MARKER = WHOLE | {MARKER}
"""What stands under the key of a request: a response, or the marker of its variants. Under theirs is no marker."""


class Demands(NamedTuple):
    """What a request in HTTP mode demands of a stored response."""

    credentialed: bool = False
    directives: RequestDirectives = NO_DIRECTIVES

    def shared_name(self, key: str) -> str:
        """What it is remembered under that a response for `key` may not be shared: of a request with credentials,
        that says nothing of those without.
        """
        return f"{key}\0credentialed" if self.credentialed else key

    def may_see(self, entry: Entry) -> bool:
        """Whether the request may be given `entry` in spite of its credentials.

        A response that does not say that it may be shared is not for requests with any (RFC 9111, section 3.5; for
        cookies that is our own rule).
        """
        return not self.credentialed or bool(entry.flags & Flag.SHARED)

    def met_by(self, entry: Entry, now: float) -> bool:
        """Whether the request may be given `entry`, which is valid and fresh; `now` is the monotonic clock."""
        if not self.may_see(entry):
            return False
        directives = self.directives
        return directives is NO_DIRECTIVES or directives.accepts(age=now - entry.born, lifetime=entry.lifetime)


NO_DEMANDS = Demands()


class Request(NamedTuple):
    """One request that may be answered from the cache."""

    scope: Scope
    key: RequestKey
    path_params: Mapping[str, object]
    demands: Demands


def part_of(key: RequestKey) -> RequestKey:
    """The key of a part of the response that `key` stands for: a partial response is stored beside a whole one."""
    return key._replace(text=f"{key.text}:part", canonical=frame(key.canonical, b"part"))


def demands_of(route: Route, scope: Scope) -> Demands:
    """What the request in `scope`, in HTTP mode, demands."""
    for name, _ in scope["headers"]:
        if name in route.speaking:
            break
    else:
        tls = "tls" in (scope.get("extensions") or ())
        if not (tls or "user" in scope or "session" in scope or "auth" in scope):
            return NO_DEMANDS
    directives = RequestDirectives.parse(scope["headers"]) if route.honours_requests else NO_DIRECTIVES
    return Demands(route.keys.credentialed(scope), directives)


def recall(engine: Engine, route: Route, key: RequestKey, scope: Scope, now: float) -> Entry | None:
    """What L1 can answer the request with at once, among variants too; `now` is the monotonic clock."""
    entry = engine.recall(route.bucket, key.text, key.canonical, now)
    if entry is None:
        return None
    if entry.status == MARKER:
        chosen = route.variants.choose(key, entry.vary, scope)
        entry = engine.recall(route.bucket, chosen.text, chosen.canonical, now)
    if entry is None or route.explicit or demands_of(route, scope).met_by(entry, now):
        return entry
    return None
