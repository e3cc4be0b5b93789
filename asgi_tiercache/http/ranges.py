"""Answering with parts of a response that is at hand (RFC 9110, section 14; RFC 9111, sections 3.3 and 3.4).

Positions count bytes from 0, and both ends of a range are part of it, as in the fields themselves.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from asgi_tiercache.http.conditional import if_range_holds
from asgi_tiercache.http.fields import values
from asgi_tiercache.types import Header

PARTIAL_CONTENT = 206
RANGE_NOT_SATISFIABLE = 416

MAX_RANGES = 32
"""A request for more is answered in full (sections 14.2 and 17.15): each part costs more than many a range holds."""
MAX_OVERLAPPING = 2
"""So is one of which more ranges than these overlap others: no client has a use for that, but an attacker has."""

_RANGES = re.compile(rb"bytes=(.*)", re.IGNORECASE)  # range units have no case (section 14.1)
_RANGE = re.compile(rb"(?P<first>[0-9]*)-(?P<last>[0-9]*)")
_CONTENT_RANGE = re.compile(rb"bytes (?P<first>[0-9]+)-(?P<last>[0-9]+)/(?P<length>[0-9]+|\*)", re.IGNORECASE)
_MOST_DIGITS = 18
_BEYOND = 10**_MOST_DIGITS  # no content is that long; exact numbers of any length would cost quadratic time
_BOUNDARY_BYTES = 16

# Fields about the bytes that are sent; on a part, those of the whole are wrong (RFC 9530, section 2 for the digest).
_OF_THE_BYTES = frozenset({b"content-length", b"content-range", b"content-digest", b"content-md5"})
# What a client that resumes by `If-Range` has already (section 15.3.7).
_KNOWN_TO_THE_CLIENT = frozenset({b"content-type", b"content-encoding", b"content-language"})
# What a refusal leaves out: it is no version of the content, and not to be stored in its place for as long.
_OF_THE_CONTENT = (b"content-", b"etag", b"last-modified", b"expires", b"pragma")


class Span(NamedTuple):
    """A part of a representation that exists."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """In bytes; at least 1."""
        return self.last - self.first + 1


class Range(NamedTuple):
    """A range as it was asked for (section 14.1.1): `a-b`, `a-` without `last`, `-n` without `first`."""

    first: int | None
    last: int | None

    def within(self, length: int) -> Span | None:
        """What there is of it in `length` bytes; None where that is nothing, which makes it unsatisfiable."""
        if self.first is None:
            size = min(self.last or 0, length)
            return Span(length - size, length - 1) if size else None
        if self.first >= length:
            return None
        return Span(self.first, length - 1 if self.last is None else min(self.last, length - 1))


class ContentRange(NamedTuple):
    """What a partial response holds of the representation (section 14.4)."""

    span: Span
    length: int | None
    """Of the complete representation; None where the field says `*`."""

    def cut(self, asked: Range) -> Span | None:
        """What is asked for, if all of it is here; an end that depends on the length needs to know that."""
        if self.length is not None:
            wanted = asked.within(self.length)
        elif asked.first is None or asked.last is None:
            return None
        else:
            wanted = Span(asked.first, asked.last)
        if wanted is None or wanted.first < self.span.first or wanted.last > self.span.last:
            return None
        return wanted


@dataclass(frozen=True, slots=True)
class Selection:
    """Which parts of a representation answer a request, in the order in which they are sent.

    Attributes:
        spans: The parts. Empty: none that were asked for exist.
        length: Bytes of the complete representation, if known.
        offset: Position in the representation at which the bytes at hand begin.
        resumed: The client has shown by `If-Range` that it knows the representation.
    """

    spans: tuple[Span, ...]
    length: int | None
    offset: int = 0
    resumed: bool = False


class Answer(NamedTuple):
    """A response, ready to be sent."""

    status: int
    headers: list[Header]
    body: bytes


def parse_range(request: Iterable[Header]) -> tuple[Range, ...] | None:
    """The ranges of bytes that `Range` asks for, in order; None where it is absent or to be ignored.

    Ignored are units other than bytes, fields of several lines, sets with more than `MAX_RANGES` members, and sets with
    any member that is malformed or ends before it begins (section 14.1.1: they are invalid as a whole).
    """
    lines = values(request, b"range")
    match = _RANGES.fullmatch(lines[0]) if len(lines) == 1 else None
    if match is None:
        return None
    members = [member for part in match[1].split(b",") if (member := part.strip(b" \t"))]
    if not 0 < len(members) <= MAX_RANGES:
        return None
    ranges = [asked for member in members if (asked := _range(member)) is not None]
    return tuple(ranges) if len(ranges) == len(members) else None


def parse_content_range(response: Iterable[Header], size: int) -> ContentRange | None:
    """What a partial response with `size` bytes of content holds; None where `Content-Range` is of no use.

    Its field may be absent, of several lines, in another unit, without a range (`bytes */9`), or contradict itself
    or the content: such a response must not be taken for any part of the representation (section 14.4).
    """
    lines = values(response, b"content-range")
    match = _CONTENT_RANGE.fullmatch(lines[0]) if len(lines) == 1 else None
    if match is None:
        return None
    span = Span(_position(match["first"]), _position(match["last"]))
    length = None if match["length"] == b"*" else _position(match["length"])
    end = _BEYOND if length is None else length
    if length == _BEYOND or span.last >= end or span.size != size or span.size < 1:
        return None
    return ContentRange(span, length)


def select(request: Sequence[Header], response: Sequence[Header], size: int, *, received: float) -> Selection | None:
    """The parts of a complete 200 that answer a GET; None: all of it does.

    Args:
        request: Header lines.
        response: The stored field lines, names in lower case.
        size: Bytes of its content.
        received: When it was received, in seconds since 1970.
    """
    ranges = parse_range(request)
    if ranges is None or not if_range_holds(request, response, received=received):
        return None
    if not size and any(asked.first is None and asked.last for asked in ranges):
        return None  # the end of nothing can be had (section 14.1.2), but no Content-Range can say so
    spans = _arranged([span for asked in ranges if (span := asked.within(size)) is not None])
    if spans is None or (len(spans) > 1 and _is_encoded(response)):
        return None
    return Selection(spans, size, resumed=_resumes(request))


def select_stored_part(
    request: Sequence[Header], response: Sequence[Header], size: int, *, received: float
) -> Selection | None:
    """The parts of a stored 206 that answer a GET; None: it does not cover what is asked for.

    The arguments are those of `select`. A range that does not exist is not covered, either: whoever has the whole
    knows better.
    """
    ranges = parse_range(request)
    held = parse_content_range(response, size)
    if ranges is None or held is None or not if_range_holds(request, response, received=received):
        return None
    found = [span for asked in ranges if (span := held.cut(asked)) is not None]
    spans = _arranged(found) if len(found) == len(ranges) else None
    if spans is None or (len(spans) > 1 and _is_encoded(response)):
        return None
    return Selection(spans, held.length, offset=held.span.first, resumed=_resumes(request))


def completed(response: Sequence[Header], size: int) -> list[Header] | None:
    """The field lines of the 200 that a 206 with the whole representation stands for (RFC 9111, section 3.4).

    None where it holds less than that. The answer to a request with `If-Range` may lack fields, such as `Content-Type`,
    that the whole would have (RFC 9110, section 15.3.7): it is no such response.
    """
    held = parse_content_range(response, size)
    if held is None or held.span.size != held.length:
        return None
    lines = [line for line in response if line[0] not in (b"content-range", b"content-length")]
    return [*lines, (b"content-length", b"%d" % size)]


def render_parts(selection: Selection, headers: Sequence[Header], body: bytes) -> Answer:
    """The 206 or 416 that a selection comes to.

    Args:
        selection: From `select` or `select_stored_part`.
        headers: Field lines of the response that is cut, as a full answer would have them, names in lower case.
        body: Its content; of it, only the parts that are sent are copied.
    """
    if not selection.spans:
        return _not_satisfiable(selection, headers)
    left_out = _OF_THE_BYTES | _known(headers) if selection.resumed else _OF_THE_BYTES
    if len(selection.spans) == 1:
        content = _slice(body, selection, selection.spans[0])
        description = (b"content-range", _content_range(selection.spans[0], selection.length))
    else:
        content, boundary = _multipart(selection, headers, body)
        description = (b"content-type", b"multipart/byteranges; boundary=" + boundary)
        left_out |= {b"content-type"}
    kept = [line for line in headers if line[0] not in left_out]
    return Answer(PARTIAL_CONTENT, [*kept, description, (b"content-length", b"%d" % len(content))], content)


# ---- reading ----


def _range(member: bytes) -> Range | None:
    match = _RANGE.fullmatch(member)
    if match is None or member == b"-":
        return None
    first, last = match["first"], match["last"]
    if last and _magnitude(last) < _magnitude(first):
        return None
    return Range(_position(first) if first else None, _position(last) if last else None)


def _magnitude(digits: bytes) -> tuple[int, bytes]:
    """Orders numbers of any length as their values do, without computing these."""
    significant = digits.lstrip(b"0")
    return len(significant), significant


def _position(digits: bytes) -> int:
    significant = digits.lstrip(b"0")
    return int(significant or b"0") if len(significant) <= _MOST_DIGITS else _BEYOND


def _resumes(request: Iterable[Header]) -> bool:
    return bool(values(request, b"if-range"))


def _is_encoded(response: Iterable[Header]) -> bool:
    """Whether `Content-Encoding` forbids several parts: at the top of a multipart body, it would speak of that."""
    return any(name == b"content-encoding" for name, _ in response)


# ---- arranging ----


def _arranged(spans: Sequence[Span]) -> tuple[Span, ...] | None:
    """`spans` without overlaps, each where the first of those that it is made of stood (section 15.3.7.2).

    None where too many of them overlap. Those that merely touch are joined as well, without being counted.
    """
    ordered = sorted(range(len(spans)), key=lambda index: spans[index])
    if len(_overlapping([spans[index] for index in ordered])) > MAX_OVERLAPPING:
        return None
    joined: list[tuple[int, Span]] = []
    for index in ordered:
        span = spans[index]
        if joined and span.first <= joined[-1][1].last + 1:
            place, before = joined[-1]
            joined[-1] = (min(place, index), Span(before.first, max(before.last, span.last)))
        else:
            joined.append((index, span))
    return tuple(span for _, span in sorted(joined))


def _overlapping(ordered: Sequence[Span]) -> set[int]:
    """Which of `ordered`, which begin in that order, share bytes with another."""
    found: set[int] = set()
    reaching = 0  # the one that reaches furthest
    for index in range(1, len(ordered)):
        if ordered[index].first <= ordered[reaching].last:
            found |= {reaching, index}
        if ordered[index].last > ordered[reaching].last:
            reaching = index
    return found


# ---- writing ----


def _slice(body: bytes, selection: Selection, span: Span) -> bytes:
    return body[span.first - selection.offset : span.last + 1 - selection.offset]


def _content_range(span: Span, length: int | None) -> bytes:
    return b"bytes %d-%d/%b" % (span.first, span.last, b"*" if length is None else b"%d" % length)


def _known(headers: Iterable[Header]) -> frozenset[bytes]:
    """`Last-Modified` only beside an `ETag`: without either, nothing would say that the parts belong together."""
    tagged = any(name == b"etag" for name, _ in headers)
    return _KNOWN_TO_THE_CLIENT | {b"last-modified"} if tagged else _KNOWN_TO_THE_CLIENT


def _not_satisfiable(selection: Selection, headers: Iterable[Header]) -> Answer:
    """Section 15.5.17; the complete length is known, or nothing could be called unsatisfiable."""
    kept = [
        line for line in headers if not line[0].startswith(_OF_THE_CONTENT) and not line[0].endswith(b"cache-control")
    ]
    described = [(b"content-range", b"bytes */%d" % (selection.length or 0)), (b"content-length", b"0")]
    return Answer(RANGE_NOT_SATISFIABLE, [*kept, *described], b"")


def _multipart(selection: Selection, headers: Iterable[Header], body: bytes) -> tuple[bytes, bytes]:
    """The parts as `multipart/byteranges` (section 14.6), and the boundary between them."""
    slices = [_slice(body, selection, span) for span in selection.spans]
    boundary = _boundary(slices)
    kind = b"".join(b"Content-Type: %b\r\n" % value for value in values(headers, b"content-type"))
    pieces: list[bytes] = []
    for span, content in zip(selection.spans, slices, strict=True):
        about = b"Content-Range: " + _content_range(span, selection.length)
        pieces += (b"--", boundary, b"\r\n", kind, about, b"\r\n\r\n", content, b"\r\n")
    return b"".join((*pieces, b"--", boundary, b"--\r\n")), boundary


def _boundary(slices: Iterable[bytes]) -> bytes:
    """A boundary that stands in none of `slices`: it is their hash, and nobody can write a text that contains its own.

    The same parts get the same boundary.
    """
    digest = hashlib.blake2b(digest_size=_BOUNDARY_BYTES)
    for content in slices:
        digest.update(content)
    return digest.hexdigest().encode()
