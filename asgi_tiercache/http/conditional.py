"""Conditional requests for a response that is at hand (RFC 9110, section 13)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from asgi_tiercache.http.fields import elements, parse_http_date, values
from asgi_tiercache.types import Header

NOT_MODIFIED = 304
_CONDITIONS = frozenset({b"if-none-match", b"if-modified-since"})


def has_validator(headers: Iterable[Header]) -> bool:
    """Whether a response can be asked about: it has an `ETag` or a `Last-Modified` (section 8.8)."""
    for name, _ in headers:  # noqa: SIM110 - a generator would be felt in every hit of a lower tier
        if name in (b"etag", b"last-modified"):
            return True
    return False


def is_conditional(request: Iterable[Header]) -> bool:
    """Whether the header lines `request` hold a condition that can lead to 304."""
    return any(name in _CONDITIONS for name, _ in request)


def not_modified(request: Iterable[Header], status: int, response: Sequence[Header]) -> bool:
    """Whether a GET or HEAD with the header lines `request` is answered with 304 rather than with `response`.

    `If-None-Match` rules where it is there (section 13.1.2, weak comparison), else `If-Modified-Since` (13.1.3). Only
    200 has a condition to fail (13.2.1); conditions that are malformed are not met.
    """
    lines = [line for line in request if line[0] in _CONDITIONS]
    if not lines or status != 200:
        return False
    asked = elements(lines, b"if-none-match")
    if values(lines, b"if-none-match"):
        tags = values(response, b"etag")
        return "*" in asked or (len(tags) == 1 and _opaque(tags[0].decode("latin-1")) in map(_opaque, asked))
    return _unmodified_since(values(lines, b"if-modified-since"), values(response, b"last-modified"))


def not_modified_headers(headers: Iterable[Header]) -> list[Header]:
    """The field lines that a 304 repeats of its 200 (section 15.4.5); others only if they are no representation data.

    Cookies and fields of the application's own go along, `Content-*` and `Last-Modified` do not.
    """
    return [
        line for line in headers if line[0] == b"content-location" or not line[0].startswith((b"content-", b"last-mod"))
    ]


def _opaque(tag: str) -> str:
    """An entity tag for the weak comparison of section 8.8.3.2."""
    return tag.removeprefix("W/")


def _unmodified_since(since: list[bytes], modified: list[bytes]) -> bool:
    if len(since) != 1 or len(modified) != 1:
        return False
    asked = parse_http_date(since[0], now=0.0)
    changed = parse_http_date(modified[0], now=0.0)
    return asked is not None and changed is not None and changed <= asked
