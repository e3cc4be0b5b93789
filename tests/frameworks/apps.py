"""FastAPI apps behind the middleware, as users put them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from email.utils import formatdate

from fastapi import FastAPI
from starlette.middleware import Middleware

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.testing import TickingClock

HTTP_MODES = [Policy.http(), Policy.rfc9111()]
"""What routes get by default, and the exact shared cache."""
ALL_MODES = [*HTTP_MODES, Policy(ttl=60)]
"""With an explicit policy beside them."""


def name_of(policy: Policy) -> str:
    """A policy's mode, to name a test by."""
    return policy.mode


def app_with(
    cache: TierCache | None = None,
    *,
    default: Policy | None = None,
    routes: Mapping[str, Policy | None] | None = None,
    above: Sequence[Middleware] = (),
    below: Sequence[Middleware] = (),
) -> FastAPI:
    """A FastAPI app without routes, with more middleware `above` ours (nearer to the client) and `below`."""
    ours = Middleware(TierCacheMiddleware, cache=cache or TierCache(), routes=routes, default=default or Policy.http())
    return FastAPI(middleware=[*above, ours, *below])


def at(seconds: float) -> str:
    """A time as field lines give it."""
    return formatdate(seconds, usegmt=True)


class Clocked:
    """A cache whose clock the test moves."""

    def __init__(self) -> None:
        self.clock = TickingClock()
        self.cache = TierCache(clock=self.clock)

    def tick(self, seconds: float) -> None:
        """Let `seconds` go by."""
        self.clock.tick(seconds)
