"""The kinds of requests: what each may cost in freshness, and what invalidates it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MAX_LAG = 1.0
MAX_UNVERIFIED = 3.0
HARD_TIMEOUT = 1.0
SLEEPY = 7
"""Of the timed items, each that this number divides takes longer than the hard timeout now and then."""

Binding = Literal["serve", "bypass", "verify", "never"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of route.

    Args:
        weight: How often it is asked for.
        ttl: Seconds for which a response is fresh.
        stale: Seconds past that for which the policy lets it be used stale; None: there is no such bound.
        binding: Which of the promises of `docs/consistency.md` counts: that of the default policy, of
            `unverified="bypass"`, of `verify=True`, or of what is never cached.
        slow: Seconds that its handler may take, which add to the age that is possible.
        size: Bytes of the body at the least.
    """

    weight: float
    ttl: float = 30.0
    stale: float | None = 0.0
    binding: Binding = "serve"
    slow: float = 0.0
    size: int = 0


KINDS: dict[str, Kind] = {
    "page": Kind(weight=14),
    "free": Kind(weight=8, ttl=3, stale=None),
    "vary": Kind(weight=8),
    "mine": Kind(weight=8),
    "cookie": Kind(weight=5),
    "user": Kind(weight=5),
    "swr": Kind(weight=6, ttl=1, stale=3),
    "sie": Kind(weight=5, ttl=1, stale=20),
    "timed": Kind(weight=4, ttl=1, stale=10, slow=2.5),
    "maybe": Kind(weight=4, ttl=2),
    "ask": Kind(weight=4),
    "stream": Kind(weight=4, slow=0.5),
    "large": Kind(weight=1, size=300_000),
    "huge": Kind(weight=0.3, size=1_200_000),
    "failing": Kind(weight=3, ttl=5),
    "slow": Kind(weight=2, ttl=10, slow=1.5),
    "never": Kind(weight=3, binding="never"),
    "early": Kind(weight=5, ttl=2),
    "ahead": Kind(weight=3, ttl=2),
    "nested": Kind(weight=6, ttl=20, stale=None, binding="bypass"),
    "direct": Kind(weight=5, ttl=20, stale=None),
    "verify": Kind(weight=4, binding="verify"),
    "bypass": Kind(weight=6, binding="bypass"),
}
EVERY = frozenset(KINDS) - {"never"}

WAYS: dict[str, tuple[float, frozenset[str]]] = {
    "tag": (30, EVERY),
    "tags": (4, EVERY),
    "settle": (2, EVERY),
    "event": (6, EVERY),
    "key": (6, frozenset({"nested"})),
    "pattern": (3, frozenset({"nested"})),
    "glob": (0.5, frozenset({"nested"})),
    "path": (6, frozenset({"page"})),
    "route": (1, frozenset({"vary"})),
    "user": (3, frozenset({"user"})),
    "clear": (0.2, EVERY),
    "soft": (6, frozenset()),
}
"""How things are invalidated: how often, and what kinds that binds; softly, none."""

USERS = ("ann", "ben", "cid", "dot", "eve")
LANGUAGES = ("en", "de")
ENCODINGS = ("gzip", "")
