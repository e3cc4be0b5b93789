"""How long a response stays fresh and how old it already is (RFC 9111, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence

from asgi_tiercache.http.directives import MAX_SECONDS, Directives, delta_seconds
from asgi_tiercache.http.fields import elements, parse_http_date, values
from asgi_tiercache.types import Header

HEURISTIC_FRACTION = 0.1
"""The part of the time since `Last-Modified` that section 4.2.2 calls typical."""

HEURISTIC_LIMIT = 86_400.0
"""Seconds that a lifetime which nobody stated has at the most: a file untouched for ten years may change today."""

HEURISTICALLY_CACHEABLE = frozenset({200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 451, 501})
"""The status codes whose responses may be given a lifetime that they do not state (RFC 9110, section 15.1; 451 by
RFC 7725, section 3)."""


def explicit_lifetime(headers: Sequence[Header], directives: Directives, *, targeted: bool, now: float) -> float | None:
    """The `freshness_lifetime` in seconds that the response states for a shared cache (section 4.2.1), or None.

    `Expires` does not count beside a directive that states it (section 5.3), be it malformed, nor where the directives
    come from a targeted field (RFC 9213, section 2.2). `Pragma` never counts: in responses it has no meaning
    (section 5.4).
    """
    for name in ("s-maxage", "max-age"):
        seconds = directives.seconds(name)
        if seconds is not None:
            return float(seconds)
    return None if targeted else _until_expiry(headers, now)


def heuristic_lifetime(headers: Sequence[Header], *, now: float) -> float | None:
    """A tenth of the seconds between `Last-Modified` and `Date` (section 4.2.2); None without `Last-Modified`.

    At most a day. A `Date` ahead of `now` counts as `now`, so nothing that was modified in the future gets any.
    """
    modified = max(_dates(headers, b"last-modified", now), default=None)
    if modified is None:
        return None
    made = min(date_value(headers, now=now), now)
    return min(max(0.0, HEURISTIC_FRACTION * (made - modified)), HEURISTIC_LIMIT)


def initial_age(headers: Sequence[Header], *, now: float, response_delay: float = 0.0) -> float:
    """The `corrected_initial_age` in seconds (section 4.2.3) of a response received `now`, by the careful formula.

    Args:
        headers: The response's field lines.
        now: `response_time`, in seconds since 1970.
        response_delay: Seconds from the request to the response. An `Age` counts from the request.
    """
    apparent_age = now - date_value(headers, now=now)  # a negative one is 0: the other is that at the least
    corrected_age_value = (age_value(headers) or 0) + max(0.0, response_delay)
    return min(max(apparent_age, corrected_age_value), float(MAX_SECONDS))


def age_value(headers: Sequence[Header]) -> int | None:
    """`Age` in seconds, at most 2**31; None if there is none, or none that is a number (section 5.1).

    It has one value. Of a list, on one line or on several, the first member counts; what follows it is discarded, not
    looked at in its place.
    """
    members = elements(headers, b"age")
    return delta_seconds(members[0]) if members else None


def date_value(headers: Sequence[Header], *, now: float) -> float:
    """When the response was made, in seconds since 1970: its `Date`, or `now` where that says nothing.

    Of several the earliest counts: it makes the response oldest.
    """
    return min(_dates(headers, b"date", now), default=now)


def _until_expiry(headers: Sequence[Header], now: float) -> float | None:
    lines = values(headers, b"expires")
    if not lines:
        return None
    moments = {parse_http_date(line, now=now, any_case=True) for line in lines}
    expires = moments.pop()
    # What is no date, "0" above all, has expired (section 5.3); so have several that differ (section 4.2.1).
    if expires is None or moments:
        return 0.0
    return min(max(0.0, expires - date_value(headers, now=now)), float(MAX_SECONDS))


def _dates(headers: Sequence[Header], name: bytes, now: float) -> list[float]:
    # In any case, as section 4.2 asks; what is no date says nothing.
    parsed = (parse_http_date(line, now=now, any_case=True) for line in values(headers, name))
    return [date for date in parsed if date is not None]
