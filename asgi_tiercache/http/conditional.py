"""Conditional requests for a response that is at hand (RFC 9110, section 13; RFC 9111, section 4.3.2).

`If-Match` and `If-Unmodified-Since` are no business of a cache's: they guard the state of the origin, and a stored
response says nothing of that (RFC 9110, sections 13.1.1 and 13.1.4).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from asgi_tiercache.http.etag import entity_tag, listed_tags, parse_entity_tag
from asgi_tiercache.http.fields import parse_http_date, values
from asgi_tiercache.http.freshness import date_value
from asgi_tiercache.types import Header

NOT_MODIFIED = 304
CONDITIONAL_METHODS = frozenset({"GET", "HEAD"})
"""The methods with which a condition that fails is answered with 304 (RFC 9110, section 13.2.2)."""
CONDITIONS = frozenset({b"if-none-match", b"if-modified-since"})
"""The fields whose conditions a cache evaluates (RFC 9111, section 4.3.2)."""
PARTIAL_AND_CONDITIONAL = CONDITIONS | {b"range", b"if-range", b"if-match", b"if-unmodified-since"}
"""The fields that ask for less than the whole response, or for none."""
_CONTENT = (200, 206)
_STRONG_SECONDS = 1.0


def is_conditional(request: Iterable[Header]) -> bool:
    """Whether the header lines `request` hold a condition that can lead to 304."""
    return any(name in CONDITIONS for name, _ in request)


def not_modified(
    request: Sequence[Header], status: int, response: Sequence[Header], *, now: float, received: float | None = None
) -> bool:
    """Whether a GET or HEAD with the header lines `request` is answered with 304 rather than with `response`.

    `If-None-Match` rules where it is there (RFC 9110, section 13.2.2), even if nothing in it is an entity tag. Only
    what has content to spare has a condition to fail: 200, and 206 of what is asked for (RFC 9111, section 4.3.2).

    Args:
        request: Header lines.
        status: The status code of the response.
        response: Its field lines.
        now: Seconds since 1970; decides the century of a two-digit year.
        received: When a stored response was received, in seconds since 1970. Of one that was made just now (None),
            only `Last-Modified` counts against a date.
    """
    if status not in _CONTENT:
        return False
    asked = values(request, b"if-none-match")
    if asked:
        return _is_among(asked, response)
    since = _only_date(request, b"if-modified-since", now)
    return since is not None and _unmodified_since(since, response, now, received)


def if_range_holds(request: Iterable[Header], response: Sequence[Header], *, received: float) -> bool:
    """Whether `If-Range`, if `request` has it, lets `Range` count (RFC 9110, section 13.1.5).

    An entity tag has to match strongly. A date has to be that of `Last-Modified` exactly, and a strong validator: the
    response was made a second later at least, or it could have changed in that very second (section 8.8.2.2).
    """
    conditions = values(request, b"if-range")
    if not conditions:
        return True
    if len(conditions) > 1:
        return False
    if b'"' in conditions[0][:3]:
        asked, tag = parse_entity_tag(conditions[0]), entity_tag(response)
        return asked is not None and tag is not None and asked.matches_strongly(tag)
    modified = _only_date(response, b"last-modified", received)
    return (
        modified is not None
        and modified == parse_http_date(conditions[0], now=received)
        and date_value(response, now=received) - modified >= _STRONG_SECONDS
    )


def not_modified_headers(headers: Sequence[Header]) -> list[Header]:
    """The field lines that a 304 repeats of its 200 (RFC 9110, section 15.4.5).

    Cookies and fields of the application's own go along, `Content-*` does not: it describes content that is not sent.
    `Last-Modified` does only where there is no `ETag`: it then tells the client which of its responses is meant.
    """
    tagged = any(name == b"etag" for name, _ in headers)
    left_out = (b"content-", b"last-modified") if tagged else b"content-"
    return [line for line in headers if line[0] == b"content-location" or not line[0].startswith(left_out)]


def _is_among(asked: Sequence[bytes], response: Iterable[Header]) -> bool:
    """Whether `If-None-Match` names the response (RFC 9110, section 13.1.2). Among others, `*` is no entity tag."""
    if list(asked) == [b"*"]:
        return True
    tag = entity_tag(response)
    if tag is None:
        return False
    # Nearly every client has one copy, and sends its tag as it came: the list need not be taken apart.
    return list(asked) == [tag.serialise()] or any(map(tag.matches_weakly, listed_tags(asked)))


def _unmodified_since(since: float, response: Sequence[Header], now: float, received: float | None) -> bool:
    """The three cases of RFC 9111, section 4.3.2.

    A date ahead of our clock is like any other: it is the origin's clock that counts (RFC 9110, section 13.1.3).
    """
    if values(response, b"last-modified"):
        modified = _only_date(response, b"last-modified", now)
        return modified is not None and modified <= since
    return received is not None and date_value(response, now=received) <= since


def _only_date(headers: Iterable[Header], name: bytes, now: float) -> float | None:
    lines = values(headers, name)
    return parse_http_date(lines[0], now=now) if len(lines) == 1 else None
