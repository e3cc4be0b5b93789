"""Field lines: finding them, taking lists and dates apart, choosing what is stored (RFC 9110, section 5)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from asgi_tiercache.types import Header

TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105 - the grammar's name for it (RFC 9110, section 5.6.2)
QUOTED = r'"(?:[^"\\]|\\.)*+"'

_BLANKS = " \t"
_DELIMITER = re.compile(r'[,"]')
_QUOTED = re.compile(QUOTED, re.DOTALL)

# RFC 9110, section 7.6.1. `Trailer` is here because no trailer section is stored that it could announce.
_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
# RFC 9111, section 3.1: they belong to the proxy that was asked, not to the response.
_OF_THE_PROXY = frozenset({b"proxy-authenticate", b"proxy-authentication-info", b"proxy-authorization"})
_NEVER_STORED = _HOP_BY_HOP | _OF_THE_PROXY | {b"age"}
_FRESHNESS = frozenset({b"cache-control", b"expires", b"pragma"})

OCTETS = (bytes, bytearray, memoryview)
"""What servers take for a byte string."""
_TOKEN_BYTES = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
_CONTROLS = bytes({*range(32), 127} - set(b"\t"))

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY = "(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)"
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
_TIME = "(?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9]):(?P<second>[0-5][0-9]|(?<=23:59:)60)"
_HTTP_DATE = (
    rf"{_DAY}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT",  # IMF-fixdate
    rf"{_LONG_DAY}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT",  # rfc850-date
    rf"{_DAY} {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_TIME} (?P<year>[0-9]{{4}})",  # asctime-date
)
_STRICT = tuple(re.compile(pattern) for pattern in _HTTP_DATE)
_ANY_CASE = tuple(re.compile(pattern, re.IGNORECASE) for pattern in _HTTP_DATE)


def values(headers: Iterable[Header], name: bytes) -> list[bytes]:
    """The values of all field lines called `name` (lower case), without blanks around them (RFC 9110, section 5.5)."""
    size = len(name)  # comparing lengths first spares a lower-cased copy of nearly every other name
    return [value.strip(b" \t") for key, value in headers if len(key) == size and key.lower() == name]


def octets_of(lines: Any) -> tuple[Header, ...] | None:
    """`lines` as field lines, names in lower case; None where they are none, as in a message that is none of ASGI."""
    try:
        pairs = [(name, value) for name, value in lines]
    except (TypeError, ValueError):
        return None
    if not all(isinstance(name, OCTETS) and isinstance(value, OCTETS) for name, value in pairs):
        return None
    return tuple([(bytes(name).lower(), bytes(value)) for name, value in pairs])


def well_formed(names: Sequence[bytes], values: Sequence[bytes]) -> bool:
    """Whether field lines with these names, in lower case, and values can stand in a header block as they are.

    A name is a token, and a value has no control character but tabs (RFC 9110, sections 5.1 and 5.5): some servers
    write what they are given, and a line end would begin a line, or a response, that nobody meant.
    """
    if b"" in names or b"".join(names).translate(None, _TOKEN_BYTES):
        return False
    text = b"".join(values)
    return text.translate(None, _CONTROLS) == text


def elements(headers: Iterable[Header], name: bytes) -> list[str]:
    """The members of the list field `name` (lower case), over all its lines (RFC 9110, section 5.6.1).

    Commas in quoted strings do not separate. Blanks around members are trimmed, empty members dropped. A quoted
    string that never ends is taken for plain text, so that it cannot hide the members behind it.
    """
    return [
        element
        for line in values(headers, name)
        for part in _split(line.decode("latin-1"))
        if (element := part.strip(_BLANKS))
    ]


def _split(line: str) -> Iterator[str]:
    start = position = 0
    while (delimiter := _DELIMITER.search(line, position)) is not None:
        if delimiter[0] == ",":
            yield line[start : delimiter.start()]
            start = position = delimiter.end()
        elif (quoted := _QUOTED.match(line, delimiter.start())) is not None:
            position = quoted.end()
        else:
            # No later quote can end, either: looking at each of them again would take quadratic time.
            yield from line[start:].split(",")
            return
    yield line[start:]


def parse_http_date(value: bytes, *, now: float, any_case: bool = False) -> float | None:
    """`value` as seconds since 1970, or None if it is in none of the three formats of RFC 9110, section 5.6.7.

    Args:
        value: The field value.
        now: Seconds since 1970; decides the century of a two-digit year.
        any_case: Take the names of days, months and the zone in any case, as a cache should where it calculates
            freshness (RFC 9111, section 4.2).
    """
    text = value.decode("latin-1")
    for pattern in _ANY_CASE if any_case else _STRICT:
        if match := pattern.fullmatch(text):
            return _timestamp(match, now)
    return None


def _timestamp(match: re.Match[str], now: float) -> float | None:
    month = _MONTHS.index(match["month"].title()) + 1
    day, hour, minute, second = (int(match[part]) for part in ("day", "hour", "minute", "second"))
    year = int(match["year"])
    if len(match["year"]) == 2:
        year = _century(year, (month, day, hour, minute, second), now)
    leap = second == 60  # datetime knows no leap seconds; POSIX time gives them to the next day
    try:
        return datetime(year, month, day, hour, minute, second - leap, tzinfo=UTC).timestamp() + leap
    except ValueError:  # no such day in that month, or the year 0
        return None


def _century(year: int, within_year: tuple[int, ...], now: float) -> int:
    """The latest year ending in `year` that does not put the date more than 50 years ahead of `now`."""
    today = datetime.fromtimestamp(now, UTC)
    latest = today.year + 50
    full = latest - (latest - year) % 100
    if full == latest and within_year > (today.month, today.day, today.hour, today.minute, today.second):
        full -= 100
    return full


def storable_headers(headers: Iterable[Header], without: frozenset[bytes] = frozenset()) -> tuple[Header, ...]:
    """The field lines of a response that are stored (RFC 9111, section 3.1): names in lower case, order kept.

    All are, known or not, except those that end with this connection, those that `Connection` names, those of the
    proxy's own authentication, and `Age`, which is written anew on every reuse. `Cache-Status` of a cache behind us
    is stored as well: ours is added behind it (RFC 9211, section 2).

    Args:
        headers: The response's field lines, names in any case.
        without: Names, lower case, of further fields that must not be stored: `Store.without`.
    """
    lines = [(name.lower(), value) for name, value in headers]
    named = {option.lower().encode("latin-1") for option in elements(lines, b"connection")}
    left_out = _NEVER_STORED | named | without
    return tuple(line for line in lines if line[0] not in left_out)


def with_downstream(headers: tuple[Header, ...], downstream: str) -> tuple[Header, ...]:
    """`headers` (names in lower case) with what `Policy.downstream` tells the client about caching.

    `"keep"` changes nothing, `"remove"` leaves `Cache-Control`, `Expires` and `Pragma` out, any other value
    replaces the three as `Cache-Control`.
    """
    if downstream == "keep":
        return headers
    kept = tuple(line for line in headers if line[0] not in _FRESHNESS)
    return kept if downstream == "remove" else (*kept, (b"cache-control", downstream.encode()))
