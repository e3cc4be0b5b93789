"""How long a response stays fresh and how old it already is (RFC 9111, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence

from asgi_tiercache.http.directives import Directives, delta_seconds
from asgi_tiercache.http.fields import elements, parse_http_date, values
from asgi_tiercache.types import Header

HEURISTIC_FRACTION = 0.1
"""The part of the time since `Last-Modified` that section 4.2.2 calls typical."""

HEURISTICALLY_CACHEABLE = frozenset({200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501})
"""The status codes whose responses may be given a lifetime that they do not state (RFC 9110, section 15.1)."""


def explicit_lifetime(headers: Sequence[Header], directives: Directives, *, targeted: bool, now: float) -> float | None:
    """The `freshness_lifetime` in seconds that the response states for a shared cache (section 4.2.1), or None.

    `Expires` does not count beside a directive that states it, nor where the directives come from a targeted field
    (RFC 9213, section 2.2).
    """
    for name in ("s-maxage", "max-age"):
        seconds = directives.seconds(name)
        if seconds is not None:
            return float(seconds)
    return None if targeted else _until_expiry(headers, now)


def heuristic_lifetime(headers: Sequence[Header], *, now: float) -> float | None:
    """A tenth of the seconds between `Last-Modified` and `Date` (section 4.2.2); None without `Last-Modified`."""
    modified = _date(headers, b"last-modified", now)
    return None if modified is None else HEURISTIC_FRACTION * (date_value(headers, now=now) - modified)


def initial_age(headers: Sequence[Header], *, now: float) -> float:
    """The `corrected_initial_age` in seconds (section 4.2.3) of a response received `now`.

    Without the response delay: between the handler and us there is no network.
    """
    return max(0.0, now - date_value(headers, now=now), _age_value(headers))


def date_value(headers: Sequence[Header], *, now: float) -> float:
    """When the response was made, in seconds since 1970: its `Date`, or `now` where that says nothing."""
    date = _date(headers, b"date", now)
    return now if date is None else date


def _until_expiry(headers: Sequence[Header], now: float) -> float | None:
    lines = set(values(headers, b"expires"))
    if not lines:
        return None
    expires = _date(headers, b"expires", now)
    # What is no date, "0" above all, has expired (section 5.3); so have several that differ (section 4.2.1).
    return 0.0 if expires is None or len(lines) > 1 else expires - date_value(headers, now=now)


def _age_value(headers: Sequence[Header]) -> int:
    # Section 5.1: of a list the first member counts, and what is no number is ignored.
    members = elements(headers, b"age")
    return (delta_seconds(members[0]) or 0) if members else 0


def _date(headers: Sequence[Header], name: bytes, now: float) -> float | None:
    lines = values(headers, name)
    return parse_http_date(lines[0], now=now, any_case=True) if lines else None
