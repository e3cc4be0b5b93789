"""May a stored response answer a request, be it fresh or stale (RFC 9111, sections 4 and 5.2.1; RFC 5861)."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass

from asgi_tiercache.http.directives import Directives, delta_seconds
from asgi_tiercache.http.fields import elements
from asgi_tiercache.types import Header

ERRORS = frozenset({500, 502, 503, 504})
"""The status codes in whose place a stale response may be used (RFC 5861, section 4)."""

LONGEST = 1_024
"""Bytes of all a request says to caches; it takes longer to read more than to ask the handler."""

_FIELDS = frozenset({b"cache-control", b"pragma"})


@dataclass(frozen=True, slots=True)
class RequestDirectives:
    """What a request asks of a cache.

    `no-transform` is not among them: nothing that is stored is ever transformed.

    Attributes:
        no_cache: It wants no answer that was not validated.
        no_store: Neither it nor its response may be stored; an answer stored before may be used.
        only_if_cached: It wants a stored answer or none, which is 504 (section 5.2.1.7). No verdict changes for it:
            only `Use.VALIDATE` leaves it unanswered.
        max_age: The highest age that it accepts, in seconds.
        min_fresh: How many seconds the answer is to stay fresh for at least.
        max_stale: For how many seconds past its freshness it accepts an answer; `inf`: however long; None: not at all.
        stale_if_error: For how many seconds past its freshness it accepts an answer in place of an error (RFC 5861,
            section 4); None: it does not say.
    """

    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    max_age: int | None = None
    min_fresh: int | None = None
    max_stale: float | None = None
    stale_if_error: float | None = None

    @classmethod
    def parse(cls, headers: Iterable[Header]) -> RequestDirectives:
        """The directives of a request with these field lines. Never raises.

        `Pragma: no-cache` counts where there is no `Cache-Control` (section 5.4, and RFC 7234 for how). What is too
        long to be read is taken for a wish to be left alone.
        """
        # This runs on every hit, and hardly any request says anything: one pass over the names tells.
        lines = [line for line in headers if line[0].lower() in _FIELDS]
        if not lines:
            return NO_DIRECTIVES
        if sum(len(value) for _, value in lines) > LONGEST:
            return cls(no_cache=True, no_store=True)
        if any(name.lower() == b"cache-control" for name, _ in lines):
            return cls._of(Directives.parse(lines))
        pragma = [element.lower() for element in elements(lines, b"pragma")]
        return cls(no_cache=True) if "no-cache" in pragma else NO_DIRECTIVES

    @classmethod
    def _of(cls, directives: Directives) -> RequestDirectives:
        return cls(
            no_cache="no-cache" in directives,
            no_store="no-store" in directives,
            only_if_cached="only-if-cached" in directives,
            max_age=directives.seconds("max-age"),
            min_fresh=_at_least(directives, "min-fresh"),
            max_stale=_at_most(directives, "max-stale", bare=math.inf),
            stale_if_error=_at_most(directives, "stale-if-error", bare=None),
        )

    def accepts(self, *, age: float, lifetime: float) -> bool:
        """Whether a stored response that is fresh by itself is fresh enough for this request.

        Args:
            age: Its `current_age` in seconds.
            lifetime: Its `freshness_lifetime` in seconds.
        """
        if self.no_cache:
            return False
        if self.max_age is not None and age > self.max_age:
            return False
        return self.min_fresh is None or lifetime - age >= self.min_fresh

    def accepts_stale(self, *, age: float, lifetime: float) -> bool:
        """Whether this request rules out no stale response of this age, so that what permits one can count.

        `max-age` wants none unless `max-stale` is there as well, and then both bound it (sections 5.2.1.1 and
        5.2.1.2); nothing stale meets `min-fresh`. `max-stale` also bounds what the response permits by itself: whoever
        names a number wants nothing staler.
        """
        if not self.accepts(age=age, lifetime=lifetime):
            return False
        if self.max_stale is None:
            return self.max_age is None
        return age - lifetime <= self.max_stale


NO_DIRECTIVES = RequestDirectives()
"""Of a request that asks for nothing in particular."""


class Use(enum.Enum):
    """How a stored response may be used for a request."""

    FRESH = enum.auto()
    """Answer with it (section 4.2)."""
    STALE = enum.auto()
    """Answer with it although it is stale: the client permits that (`max-stale`)."""
    WHILE_REVALIDATED = enum.auto()
    """Answer with it, and validate it behind the client's back (RFC 5861, section 3)."""
    VALIDATE = enum.auto()
    """Not without validation (section 4.3)."""


def judge(
    directives: RequestDirectives,
    *,
    age: float,
    lifetime: float,
    stale_while_revalidate: float = 0.0,
    must_revalidate: bool = False,
) -> Use:
    """How a request with these directives may use a stored response (sections 4, 4.2.4 and 5.2.1).

    Args:
        directives: What the request asks for.
        age: The `current_age` of the response in seconds.
        lifetime: Its `freshness_lifetime` in seconds; 0 where each use needs validation.
        stale_while_revalidate: Seconds past its freshness for which it may be used while it is validated.
        must_revalidate: It is never to be used stale, whoever would allow it.
    """
    if age < lifetime:
        accepted = directives is NO_DIRECTIVES or directives.accepts(age=age, lifetime=lifetime)
        return Use.FRESH if accepted else Use.VALIDATE
    if must_revalidate or not directives.accepts_stale(age=age, lifetime=lifetime):
        return Use.VALIDATE
    if _within(age - lifetime, stale_while_revalidate):
        return Use.WHILE_REVALIDATED
    return Use.VALIDATE if directives.max_stale is None else Use.STALE


def may_stand_in(
    directives: RequestDirectives,
    *,
    age: float,
    lifetime: float,
    stale_if_error: float = 0.0,
    must_revalidate: bool = False,
    status: int | None = None,
) -> bool:
    """Whether a stored response may be used in place of an error (section 4.2.4; RFC 5861, section 4).

    1. Only in place of 500, 502, 503 and 504, or of an exception.
    2. What the request says of `stale-if-error` counts, in place of what the response says: more or less. Without
       that, `no-cache` in the request wants validation, and an error is none.
    3. A response that is fresh, and was to be validated for the request's sake only, needs no permission.
    4. `must-revalidate` and its like forbid every stale use.
    5. So many seconds past its freshness are permitted. The request's `max-age`, `min-fresh` and `max-stale` do not
       count: the permission holds whatever else is said of freshness.

    Args:
        directives: What the request asks for.
        age: The `current_age` of the response in seconds.
        lifetime: Its `freshness_lifetime` in seconds.
        stale_if_error: Seconds past its freshness for which it may stand in for an error.
        must_revalidate: It is never to be used stale, whoever would allow it.
        status: The error's status code; None for an exception.
    """
    if status is not None and status not in ERRORS:
        return False
    permitted = stale_if_error if directives.stale_if_error is None else directives.stale_if_error
    if directives.no_cache and not directives.stale_if_error:
        return False
    return age < lifetime or (not must_revalidate and _within(age - lifetime, permitted))


def _within(staleness: float, permitted: float) -> bool:
    return permitted > 0 and staleness <= permitted


def _at_least(directives: Directives, name: str) -> int | None:
    """The seconds that a directive demands: of several the most, 0 for one that is malformed."""
    arguments = directives.arguments.get(name)
    return None if arguments is None else max(delta_seconds(argument) or 0 for argument in arguments)


def _at_most(directives: Directives, name: str, *, bare: float | None) -> float | None:
    """The seconds that a directive permits: of several the least; `bare` for one without an argument.

    None where it is absent, or malformed once: nothing malformed permits anything.
    """
    arguments = directives.arguments.get(name, ())
    seconds = [bare if argument is None else delta_seconds(argument) for argument in arguments]
    numbers = [number for number in seconds if number is not None]
    return min(numbers) if numbers and len(numbers) == len(seconds) else None
