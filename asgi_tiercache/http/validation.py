"""Validating stored responses: what to ask, which of them a 304 is about, what it changes (RFC 9111, section 4.3)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from asgi_tiercache.http.etag import entity_tag
from asgi_tiercache.http.fields import elements, parse_http_date, storable_headers, values
from asgi_tiercache.types import Entry, Flag, Header

MAX_NOMINATED = 32
"""How many stored responses are validated by one request at most."""

# RFC 9110, section 8.8.3. What is not of this form is no validator, and never sent on.
_ENTITY_TAG = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
# Section 3.2 excepts the first; the others say how the stored bytes are to be read, and these stay as they are.
# Other fields are updated, whatever their names begin with: `Content-Type` too.
_OF_THE_STORED_BYTES = frozenset({b"content-length", b"content-encoding", b"content-range"})
_OF_ALL = frozenset(
    {
        b"cache-control",
        b"cdn-cache-control",
        b"content-location",
        b"date",
        b"etag",
        b"expires",
        b"last-modified",
        b"set-cookie",  # not to be repeated, but to be told by it that the response is for nobody else
        b"vary",
    }
)


def conditions(stored: Sequence[Entry]) -> list[Header]:
    """The field lines that make a request validate `stored`; none if they have no validators (section 4.3.1).

    `If-None-Match` names the entity tag of each that has one, `If-Modified-Since` repeats the `Last-Modified` where
    only one is asked about. A tag that we generated is unknown to the handler and never sent. No date is made up
    where there is no `Last-Modified`: a `Date` would leave out what changed within its second.
    """
    nominated = _nominated(stored)
    tags = dict.fromkeys(tag for entry in nominated if (tag := _entity_tag(entry)) is not None)
    lines = [(b"if-none-match", b", ".join(tags))] if tags else []
    if len(nominated) == 1 and _modified(nominated[0].headers) is not None:
        lines.append((b"if-modified-since", values(nominated[0].headers, b"last-modified")[0]))
    return lines


def selected(stored: Sequence[Entry], headers: Sequence[Header]) -> list[Entry]:
    """Those of `stored` that a 304 with the field lines `headers` is about, the most recent first (section 4.3.4).

    1. It has strong validators: those with one of the same, if there are any. `Last-Modified` counts as weak.
    2. It has weak validators only: the most recent of those that they match. Where both sides have an entity tag, that
       decides alone.
    3. It has none: the only one that the request asked about. The RFC wants that one to have none either; but a 304
       need not repeat `Last-Modified` (RFC 9110, section 15.4.5), and it can be about nothing else.
    """
    tags = [tag for tag in values(headers, b"etag") if _ENTITY_TAG.fullmatch(tag)]
    strong = {tag for tag in tags if not tag.startswith(b"W/")}
    modified = _modified(headers)
    if strong:
        return _latest_first(entry for entry in _successes(stored) if _entity_tag(entry) in strong)
    if tags or modified is not None:
        opaque = {_opaque(tag) for tag in tags}
        return _latest_first(entry for entry in _successes(stored) if _matches(entry, opaque, modified))[:1]
    nominated = _nominated(stored)
    return nominated if len(nominated) == 1 else []


def freshened(stored: Iterable[Header], update: Iterable[Header]) -> tuple[Header, ...]:
    """The field lines `stored` as updated by those of a 304, or of a 200 to HEAD (section 3.2); names in lower case.

    Each field that `update` has replaces all lines of its name. What is not stored does not update either (section
    3.1), and what belongs to the stored bytes stays. `Set-Cookie` is a field like others: whether a response that has
    one may be stored is for `storing` to say. The old `Date` goes in any case: an update without one was made when it
    arrived (RFC 9110, section 6.6.1), and from then on the age counts.

    `Vary` only grows: what the stored bytes have depended on they still depend on, and compressing middleware says so
    of content alone, which a 304 and the answer to HEAD have not.
    """
    stored = tuple(stored)
    lines = [line for line in storable_headers(update) if line[0] not in _OF_THE_STORED_BYTES]
    lines = _with_all_of_vary(stored, lines)
    replaced = {b"date", *(name for name, _ in lines)}
    return (*(line for line in stored if line[0] not in replaced), *lines)


def _with_all_of_vary(stored: Sequence[Header], update: list[Header]) -> list[Header]:
    before, now = ({name.lower() for name in elements(headers, b"vary")} for headers in (stored, update))
    if not now or before <= now:
        return update
    kept = [line for line in stored if line[0] == b"vary"]
    return [*(line for line in update if line[0] != b"vary" or not now <= before), *kept]


def updated_by_one(stored: Iterable[Header], update: Iterable[Header]) -> tuple[Header, ...]:
    """The field lines `stored`, and in place of what tells its freshness, version and variants that of `update`.

    Where `update` was said to somebody with credentials, and does not say that it is for all, the rest may be of that
    one alone: a token, or a name. Section 3.2 would have everybody given it.
    """
    return (
        *(line for line in stored if line[0] not in _OF_ALL),
        *(line for line in update if line[0] in _OF_ALL),
    )


def head_agrees(stored: Entry, headers: Sequence[Header]) -> bool:
    """Whether a 200 to HEAD with the field lines `headers` updates `stored`; else that is stale from now on.

    It agrees in each validator that it has, and in `Content-Length` (section 4.3.5).
    """
    lengths = values(headers, b"content-length")
    return (
        _repeats(headers, b"etag", values(own_headers(stored), b"etag"))
        and _repeats(headers, b"last-modified", values(stored.headers, b"last-modified"))
        and all(length == b"%d" % len(stored.body) for length in lengths)
    )


def is_part_of(headers: Iterable[Header], whole: Entry) -> bool:
    """Whether a part with the field lines `headers` is one of `whole`: a strong validator says so (section 3.4)."""
    ours, theirs = entity_tag(own_headers(whole)), entity_tag(headers)
    return ours is not None and theirs is not None and ours.matches_strongly(theirs)


def own_headers(entry: Entry) -> tuple[Header, ...]:
    """The field lines of `entry` that are the handler's: without an entity tag that we generated."""
    if Flag.GENERATED_ETAG in entry.flags:
        return tuple(line for line in entry.headers if line[0] != b"etag")
    return entry.headers


def _successes(stored: Iterable[Entry]) -> list[Entry]:
    """Those that a 304 can be about: conditions count where the answer would be successful (RFC 9110, 13.2.1).

    And whole: the entity tag of a part is sent only with a request for no more than it covers (section 4.3.2).
    """
    return [entry for entry in stored if 200 <= entry.status <= 299 and entry.status != 206]


def _nominated(stored: Iterable[Entry]) -> list[Entry]:
    """Those that a request asks about: all with entity tags, else one with a date, the latest."""
    able = _successes(stored)
    tagged = [entry for entry in able if _entity_tag(entry) is not None]
    if tagged:
        return tagged[:MAX_NOMINATED]
    return _latest_first(entry for entry in able if _modified(entry.headers) is not None)[:1]


def _latest_first(entries: Iterable[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: entry.created, reverse=True)


def _matches(entry: Entry, opaque: set[bytes], modified: float | None) -> bool:
    own = _entity_tag(entry)
    if opaque and own is not None:
        return _opaque(own) in opaque
    return modified is not None and _modified(entry.headers) == modified


def _repeats(headers: Sequence[Header], name: bytes, own: list[bytes]) -> bool:
    received = values(headers, name)
    return not received or received == own


def _entity_tag(entry: Entry) -> bytes | None:
    tags = values(own_headers(entry), b"etag")
    return tags[0] if len(tags) == 1 and _ENTITY_TAG.fullmatch(tags[0]) else None


def _opaque(tag: bytes) -> bytes:
    """An entity tag for the weak comparison of RFC 9110, section 8.8.3.2."""
    return tag.removeprefix(b"W/")


def _modified(headers: Sequence[Header]) -> float | None:
    lines = values(headers, b"last-modified")
    return parse_http_date(lines[0], now=0.0) if len(lines) == 1 else None
