"""Header fields, against models written another way, and against http-sf where fields are structured."""

from __future__ import annotations

import email
import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from urllib.parse import unquote, urlsplit

import http_sf
import httpx

from asgi_tiercache import Policy
from asgi_tiercache.http import cache_status
from asgi_tiercache.http.conditional import not_modified
from asgi_tiercache.http.directives import MAX_SECONDS, Directives, targeted
from asgi_tiercache.http.etag import EntityTag, listed_tags, parse_entity_tag
from asgi_tiercache.http.fields import parse_http_date, storable_headers
from asgi_tiercache.http.freshness import age_value, explicit_lifetime, heuristic_lifetime, initial_age
from asgi_tiercache.http.groups import groups
from asgi_tiercache.http.ranges import Answer, parse_content_range, parse_range, render_parts, select
from asgi_tiercache.http.reuse import RequestDirectives
from asgi_tiercache.http.storing import Refuse, Store, judge_response
from asgi_tiercache.http.structured import (
    BareItem,
    Date,
    DisplayString,
    InnerList,
    Item,
    Member,
    Token,
    parse_dictionary,
    parse_list,
)
from asgi_tiercache.http.unsafe import Reference, TargetURI, resolve
from asgi_tiercache.http.vary import variant, vary_names
from tests.fuzz.target import Source, Target, fields, lines

NOW = 1_700_000_000.0
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")

# ---- lists and directives: a model that reads character by character ----


def model_elements(values: Sequence[bytes]) -> list[str]:
    """The members of a list field, as RFC 9110, section 5.6.1 has them; a quote that never ends is plain text."""
    found: list[str] = []
    for value in values:
        text, element, position = value.decode("latin-1").strip(" \t"), "", 0
        plain = False
        while position < len(text):
            if text[position] == '"' and not plain:
                end = _end_of_quoted(text, position)
                plain = end is None
                end = position + 1 if end is None else end
                element += text[position:end]
                position = end
                continue
            if text[position] == ",":
                found.append(element)
                element = ""
            else:
                element += text[position]
            position += 1
        found.append(element)
    return [element.strip(" \t") for element in found if element.strip(" \t")]


def _end_of_quoted(text: str, start: int) -> int | None:
    position = start + 1
    while position < len(text):
        if text[position] == '"':
            return position + 1
        position += 2 if text[position] == "\\" else 1
    return None


def model_directive(element: str) -> tuple[str, str | None] | None:
    """Name and argument of one cache directive; `""` for what follows a name without being an argument."""
    name = _token_at(element, 0)
    if not name:
        return None
    rest = element[len(name) :]
    if not rest:
        return name.lower(), None
    argument = rest[1:] if rest[0] == "=" else ""
    if argument and argument == _token_at(argument, 0):
        return name.lower(), argument
    if argument[:1] == '"' and _end_of_quoted(argument, 0) == len(argument):
        return name.lower(), _unquoted(argument)
    return name.lower(), ""


def _token_at(text: str, start: int) -> str:
    end = start
    while end < len(text) and text[end] in _TOKEN:
        end += 1
    return text[start:end]


def _unquoted(text: str) -> str:
    characters = iter(text[1:-1])
    return "".join(next(characters) if each == "\\" else each for each in characters)


def _model_directives(values: Sequence[bytes]) -> dict[str, tuple[str | None, ...]]:
    found: dict[str, list[str | None]] = {}
    for name, argument in filter(None, map(model_directive, model_elements(values))):
        found.setdefault(name, []).append(argument)
    return {name: tuple(arguments) for name, arguments in found.items()}


def _judge_cache_control(data: bytes, outcome: Directives) -> None:
    assert outcome.arguments == _model_directives(data.split(b"\n"))
    for name, arguments in outcome.arguments.items():
        seconds = outcome.seconds(name)
        assert seconds is not None
        assert 0 <= seconds <= MAX_SECONDS
        numbers = {_model_seconds(argument) for argument in arguments}
        assert seconds == (min(numbers) if len(numbers) == 1 else 0)
        limited = outcome.fields(name)
        assert limited is None or all(field and set(field) <= _TOKEN for field in limited)


def _model_seconds(argument: str | None) -> int:
    digits = argument or "x"
    return min(int(digits), MAX_SECONDS) if all(each in "0123456789" for each in digits) else 0


def _judge_request(data: bytes, outcome: RequestDirectives) -> None:
    """What a request says counts in whatever form, and never makes a cache more generous than it asks."""
    asked = _model_directives([value for name, value in fields(data) if name == b"cache-control"])
    for name in ("no-cache", "no-store", "only-if-cached"):
        if name in asked:
            assert getattr(outcome, name.replace("-", "_"))
    for bound in ("max_age", "min_fresh", "max_stale", "stale_if_error"):
        value = getattr(outcome, bound)
        assert value is None or value >= 0
        assert value is None or bound.replace("_", "-") in asked


# ---- structured fields: http-sf ----


def _theirs(parse: Callable[..., Any], data: bytes) -> Any:
    try:
        return parse(data)
    except (http_sf.StructuredFieldError, ValueError):
        return None


def _as_theirs(value: BareItem) -> Any:
    if isinstance(value, Token):
        return http_sf.Token(str(value))
    if isinstance(value, DisplayString):
        return http_sf.DisplayString(str(value))
    if isinstance(value, Date):
        return datetime.fromtimestamp(value, UTC) if -62135596800 <= value <= 253402300799 else int(value)
    return value


def _item(item: Item) -> Any:
    return _as_theirs(item.value), {name: _as_theirs(value) for name, value in item.parameters.items()}


def _member(member: Member) -> Any:
    if isinstance(member, InnerList):
        return list(map(_item, member.items)), {name: _as_theirs(each) for name, each in member.parameters.items()}
    return _item(member)


def _plain(value: Any) -> Any:
    """What compares by kind as well: 1, True and 1.0 are three values, and so are a Token and a String."""
    if isinstance(value, dict):
        return [(name, _plain(each)) for name, each in value.items()]
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, datetime):
        return "Date", value.replace(tzinfo=None)
    return type(value).__name__, str(value) if isinstance(value, Decimal) else value


# http-sf knows no dates that `datetime` does not, and pardons padding that is there and wrong.
_UNKNOWN_TO_THEM = re.compile(rb"@-?[0-9]{11}|:[A-Za-z0-9+/]*=+:")


def _judge_dictionary(data: bytes, outcome: dict[str, Member] | None) -> None:
    theirs = _theirs(lambda value: http_sf.parse(value, tltype="dictionary"), data)
    ours = None if outcome is None else {name: _member(member) for name, member in outcome.items()}
    _agree(ours, theirs, data)


def _judge_list(data: bytes, outcome: list[Member] | None) -> None:
    theirs = _theirs(lambda value: http_sf.parse(value, tltype="list"), data)
    _agree(None if outcome is None else list(map(_member, outcome)), theirs, data)


def _agree(ours: Any, theirs: Any, data: bytes) -> None:
    if (ours is None) != (theirs is None) and _UNKNOWN_TO_THEM.search(data):
        return
    assert (ours is None) == (theirs is None), (data, ours, theirs)
    assert ours is None or _plain(ours) == _plain(theirs), (data, ours, theirs)


def _judge_groups(data: bytes, outcome: tuple[str, ...]) -> None:
    value = b", ".join(line.strip(b" \t") for line in data.split(b"\n"))
    if _UNKNOWN_TO_THEM.search(value):
        return
    members = _theirs(lambda value: http_sf.parse(value, tltype="list"), value) or []
    strings = [member[0] for member in members if isinstance(member[0], str)]
    assert outcome == (tuple(dict.fromkeys(strings)) if len(strings) == len(members) else ())


def _judge_targeted(data: bytes, outcome: Directives | None) -> None:
    """Whatever is not a number of seconds is none, and what is False is not there (RFC 9213, section 2.1)."""
    value = b", ".join(line.strip(b" \t") for line in data.split(b"\n"))
    if _UNKNOWN_TO_THEM.search(value):
        return
    theirs = _theirs(lambda value: http_sf.parse(value, tltype="dictionary"), value)
    if not theirs:
        assert outcome is None
        return
    assert outcome is not None
    assert set(outcome.arguments) == {name for name, member in theirs.items() if member[0] is not False}
    for name in ("max-age", "s-maxage", "stale-while-revalidate"):
        if name in outcome:
            number = theirs[name][0]
            seconds = min(number, MAX_SECONDS) if type(number) is int and number >= 0 else 0
            assert outcome.seconds(name) == seconds


def _told(data: bytes) -> list[bytes]:
    detail = data.decode("utf-8", "replace")
    return [cache_status.hit(ttl=5, detail=detail), cache_status.forward("miss", stored=True, detail=detail)]


def _judge_told(data: bytes, outcome: list[bytes]) -> None:
    """One member for whoever reads the field, and nothing that ends the line."""
    detail = data.decode("utf-8", "replace")
    readable = "".join(each if " " <= each <= "~" else "?" for each in detail)
    for line in outcome:
        assert line.isascii()
        assert not set(line) & set(b"\r\n\0")
        members: Any = http_sf.parse(line, tltype="list")
        ((name, parameters),) = members
        assert str(name) == "tiercache"
        assert str(parameters.get("detail", "")) == readable


# ---- dates ----

_FORMATS = ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _judge_date(data: bytes, outcome: float | None) -> None:
    assert outcome == _model_date(data.decode("latin-1"))
    loose = parse_http_date(data.swapcase(), now=NOW, any_case=True)
    assert outcome is None or loose == outcome


def _model_date(text: str) -> float | None:
    """The date by `strptime`, which takes more: so what it reads has to be written as it was."""
    leap = "23:59:60" in text
    text = text.replace("23:59:60", "23:59:59") if leap else text
    for layout in _FORMATS:
        try:
            moment = datetime.strptime(text, layout).replace(tzinfo=UTC)
        except ValueError:
            continue
        written = moment.strftime(layout)
        if layout.startswith("%a "):
            written = f"{moment:%a %b} {moment.day:2} {moment:%H:%M:%S} {moment.year:04}"
        elif "%Y" in layout:
            written = written.replace(moment.strftime(" %Y "), f" {moment.year:04} ")
        if not _alike(text, written):
            continue
        return _in_century(moment, layout).timestamp() + leap
    return None


def _alike(text: str, written: str) -> bool:
    """Whether they are equal but for the day of the week, which nobody checks, and a day below 10 in asctime."""
    texts = [(text, written)]
    if written[8:9] == " " and written[3:4] == " ":
        texts.append((text, f"{written[:8]}0{written[9:]}"))
    for left, right in texts:
        separator = "," if "," in right else " "
        day, _, rest = left.partition(separator)
        name, _, known = right.partition(separator)
        if rest == known and (day in _DAYS if len(name) > 3 else day in [each[:3] for each in _DAYS]):
            return True
    return False


def _in_century(moment: datetime, layout: str) -> datetime:
    if "%y" not in layout:
        return moment
    now = datetime.fromtimestamp(NOW, UTC)
    possible = []
    for century in range(now.year // 100 - 2, now.year // 100 + 2):
        try:
            full = moment.replace(year=100 * century + moment.year % 100)
        except ValueError:
            continue
        if (full.year, full - full.replace(month=1, day=1)) <= (now.year + 50, timedelta(400)):
            possible.append(full)
    limit = now.replace(year=now.year + 50, microsecond=0)
    return max(each for each in possible if each <= limit)


# ---- entity tags and conditions ----


def _model_tags(value: bytes) -> list[EntityTag]:
    """Members of a list of entity tags; one that is none ends at its first comma."""
    found: list[EntityTag] = []
    while value:
        value = value.lstrip(b" \t")
        tag, rest = _tag_at(value)
        if tag is not None and not (rest := rest.lstrip(b" \t")).strip(b",")[:0] and (not rest or rest[:1] == b","):
            found.append(tag)
            value = rest[1:]
        else:
            value = value.partition(b",")[2]
    return found


def _tag_at(value: bytes) -> tuple[EntityTag | None, bytes]:
    weak = value.startswith(b"W/")
    rest = value[2:] if weak else value
    end = rest.find(b'"', 1)
    if rest[:1] != b'"' or end < 0:
        return None, value
    opaque = rest[1:end]
    if any(each <= 0x20 or each == 0x7F for each in opaque):
        return None, value
    return EntityTag(opaque, weak), rest[end + 1 :]


def _tags(data: bytes) -> list[EntityTag]:
    return list(listed_tags(data.split(b"\n")))


def _judge_tags(data: bytes, outcome: list[EntityTag]) -> None:
    values = data.split(b"\n")
    assert outcome == [tag for value in values for tag in _model_tags(value)]
    for tag in outcome:
        assert parse_entity_tag(tag.serialise()) == tag
    whole = [] if data.strip(b" \t") == b"*" else outcome
    response = [(b"etag", b'"a"')]
    asked = not_modified([(b"if-none-match", value) for value in values], 200, response, now=NOW)
    assert asked == (data.strip(b" \t") == b"*" or any(tag.opaque == b"a" for tag in whole))


# ---- ranges ----

_CONTENT = bytes(range(48, 112))


def _asked(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    source = Source(data)
    return [(b"range", source.rest())], _CONTENT[: (len(data) * 7) % 64]


def _ranged(data: bytes) -> Answer | None:
    request, content = _asked(data)
    response = [(b"content-type", b"text/plain")]
    selection = select(request, response, len(content), received=NOW)
    return None if selection is None else render_parts(selection, response, content)


def _model_ranges(value: bytes) -> list[tuple[bytes, bytes]] | None:
    unit, equals, rest = value.strip(b" \t").partition(b"=")
    members = [member for part in rest.split(b",") if (member := part.strip(b" \t"))]
    if unit.lower() != b"bytes" or not equals or not 0 < len(members) <= 32:
        return None
    found = []
    for member in members:
        first, dash, last = member.partition(b"-")
        if not dash or not (first + last).isdigit() or (first and last and int(last) < int(first)):
            return None
        found.append((first, last))
    return found


def _judge_range(data: bytes, outcome: Answer | None) -> None:
    """What the client puts together is what it asked for."""
    request, content = _asked(data)
    asked = _model_ranges(data)
    parsed = parse_range(request)
    assert (asked is None) == (parsed is None)
    if asked is None:
        assert outcome is None
        return
    wanted = set[int]()
    for first, last in asked:
        if first:
            end = min(int(last or b"99"), len(content) - 1)
            wanted.update(range(min(int(first), len(content)), end + 1))
        else:
            wanted.update(range(len(content))[-min(int(last), 99) :] if int(last) else ())
    if outcome is None:
        return  # all of it does
    if outcome.status == 416:
        assert not wanted
        return
    assert outcome.status == 206
    got = _received(outcome)
    assert got == {position: content[position] for position in wanted}


def _received(answer: Answer) -> dict[int, int]:
    """The bytes that a client has got, by their position."""
    headers = dict(answer.headers)
    assert headers[b"content-length"] == b"%d" % len(answer.body)
    if b"content-range" in headers:
        return _placed(headers[b"content-range"].decode(), answer.body)
    message = email.message_from_bytes(b"Content-Type: " + headers[b"content-type"] + b"\r\n\r\n" + answer.body)
    assert message.is_multipart()
    got: dict[int, int] = {}
    for part in message.get_payload():
        assert isinstance(part, email.message.Message)
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        got |= _placed(part["content-range"], content)
    return got


def _placed(content_range: str, body: bytes) -> dict[int, int]:
    first, last = content_range.removeprefix("bytes ").partition("/")[0].split("-")
    assert int(last) - int(first) + 1 == len(body)
    return {int(first) + index: byte for index, byte in enumerate(body)}


def _judge_content_range(data: bytes, outcome: Any) -> None:
    unit, _, rest = data.strip(b" \t").partition(b" ")
    span, _, length = rest.partition(b"/")
    first, _, last = span.partition(b"-")
    numbers = [first, last] if length == b"*" else [first, last, length]
    valid = unit.lower() == b"bytes" and all(each.isdigit() for each in numbers)
    if valid:
        valid = int(last) - int(first) + 1 == 10 and (length == b"*" or int(last) < int(length))
        valid = valid and max(map(int, numbers)) < 10**18
    assert (outcome is not None) == valid, outcome
    if outcome is not None:
        assert outcome.span == (int(first), int(last))


# ---- Vary ----

_NAMES = ("accept", "accept-charset", "accept-encoding", "accept-language", "x-other")


def _variants(data: bytes) -> tuple[bytes, bytes]:
    source = Source(data)
    name = source.choice(_NAMES)
    return (
        variant([name], [(name.encode(), source.piece())]),
        variant([name], [(name.encode(), source.rest())]),
    )


def _judge_variants(data: bytes, outcome: tuple[bytes, bytes]) -> None:
    """Two values are taken for one only where they mean the same, and alike where they differ in nothing but form."""
    source = Source(data)
    name = source.choice(_NAMES)
    left, right = source.piece(), source.rest()
    meant = [_meaning(name, value) for value in (left, right)]
    if outcome[0] == outcome[1]:
        assert meant[0] == meant[1], (left, right)
    elif name in ("accept-encoding", "accept-language") and None not in meant:
        assert meant[0] != meant[1], (left, right)


def _meaning(name: str, value: bytes) -> Any:
    """The weights that the value gives; with those in order where that may count."""
    value = value.strip(b" \t")
    if name == "x-other":
        return value
    members = model_elements([value])
    if name == "accept":
        return ["".join(each.lower().split(" ")).replace("\t", "") for each in members]
    weighed = [_weighed(each) for each in members]
    if name == "accept-encoding":
        return frozenset() if set(weighed) == {("identity", Fraction(1))} else frozenset(weighed)
    return weighed


def _weighed(element: str) -> tuple[str, Fraction | str]:
    aliases = {"x-gzip": "gzip", "x-compress": "compress"}
    name, semicolon, rest = element.partition(";")
    name, parameter = name.rstrip(" \t").lower(), rest.lstrip(" \t")
    known = bool(name) and set(name) <= _TOKEN
    if known and not semicolon:
        return aliases.get(name, name), Fraction(1)
    number = parameter[2:]
    digits = number.replace(".", "", 1)
    if known and parameter[:2].lower() == "q=" and _is_weight(number, digits):
        return aliases.get(name, name), Fraction(digits.ljust(4, "0")) / 1000
    name, semicolon, rest = element.partition(";")
    return aliases.get(name, name), semicolon + rest


def _is_weight(number: str, digits: str) -> bool:
    known = digits.isdigit() and digits.isascii() and number.partition(".")[0] in ("0", "1")
    return known and len(digits) <= 4 and int(digits.ljust(4, "0")) <= 1000


def _judge_vary(data: bytes, outcome: tuple[str, ...] | None) -> None:
    members = {member.lower() for member in model_elements(data.split(b"\n"))}
    valid = "*" not in members and all(set(member) <= _TOKEN for member in members)
    assert outcome == (tuple(sorted(members)) if valid else None)


# ---- whole sets of field lines ----


def _judge_freshness(data: bytes, outcome: tuple[Any, ...]) -> None:
    """Ages and lifetimes are within bounds, whatever the fields say."""
    lifetime, heuristic, age, told = outcome
    assert lifetime is None or 0 <= lifetime <= MAX_SECONDS
    assert heuristic is None or 0 <= heuristic <= 86_400
    assert 0 <= age <= MAX_SECONDS
    assert told is None or 0 <= told <= MAX_SECONDS
    if told is not None:
        assert age >= told


def _freshness(data: bytes) -> tuple[Any, ...]:
    headers = fields(data)
    directives = Directives.parse(headers)
    return (
        explicit_lifetime(headers, directives, targeted=False, now=NOW),
        heuristic_lifetime(headers, now=NOW),
        initial_age(headers, now=NOW),
        age_value(headers),
    )


_POLICIES = (Policy(ttl=60), Policy.http(), Policy.http(ttl=60), Policy.rfc9111())


def _verdicts(data: bytes) -> list[Store | Refuse]:
    headers = fields(data[1:])
    status = (200, 203, 204, 206, 301, 304, 404, 500)[(data[0] if data else 0) % 8]
    return [judge_response(policy, status, headers, credentialed=False, now=NOW) for policy in _POLICIES]


def _judge_verdicts(data: bytes, outcome: list[Store | Refuse]) -> None:
    """What forbids storing forbids it under every policy, beside whatever else is said and in whatever form."""
    headers = fields(data[1:])
    aimed = [value for name, value in headers if name == b"cdn-cache-control"]
    said = _model_directives([value for name, value in headers if name == b"cache-control"])
    for policy, verdict in zip(_POLICIES, outcome, strict=True):
        if isinstance(verdict, Refuse):
            continue
        assert math.isfinite(verdict.lifetime)
        assert verdict.lifetime >= 0
        assert 0 <= verdict.age <= MAX_SECONDS
        assert vary_names(headers) is not None
        if not aimed:
            assert "no-store" not in said or "must-understand" in said
            assert "private" not in said or all(said["private"])
        if policy.mode != "rfc9111" and any(name == b"set-cookie" for name, _ in headers):
            assert b"set-cookie" in verdict.without


def _judge_stored_lines(data: bytes, outcome: tuple[tuple[bytes, bytes], ...]) -> None:
    headers = fields(data)
    named = {each.lower() for each in model_elements([value for name, value in headers if name == b"connection"])}
    kept = list(outcome)
    assert kept == [line for line in headers if line in kept]
    names = {name.decode("latin-1") for name, _ in kept}
    assert not names & named
    assert not names & {"connection", "age", "transfer-encoding", "keep-alive", "te", "trailer", "upgrade"}
    left_out = {name for name, _ in headers} - {name for name, _ in kept}
    hop = {b"proxy-connection", b"proxy-authenticate", b"proxy-authentication-info", b"proxy-authorization"}
    hop |= {b"connection", b"age", b"transfer-encoding", b"keep-alive", b"te", b"trailer", b"upgrade"}
    assert left_out <= hop | {each.encode("latin-1") for each in named}


# ---- references ----

_TARGET = TargetURI("https", "example.org:8443", "/shop/items/1", "a=b")


def _judge_reference(data: bytes, outcome: Reference | None) -> None:
    """What is named on the origin is what a client takes it for (httpx), and nothing of another's ever is."""
    if outcome is None:
        return
    assert outcome.path.startswith("/")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    if ":" in text.partition("/")[0] and not urlsplit(text).scheme:  # no reference of RFC 3986, whatever is made of it
        return
    try:
        theirs = httpx.URL("https://example.org:8443/shop/items/1?a=b").join(text)
    except (httpx.InvalidURL, ValueError):
        return
    assert (theirs.scheme, theirs.host, theirs.port) == ("https", "example.org", 8443), theirs
    if "//" not in outcome.path:  # of which httpx makes less than RFC 3986
        assert unquote(theirs.path).rstrip("/") == unquote(outcome.path).rstrip("/"), (theirs, outcome)


TARGETS = {
    "cache-control": Target(lambda data: Directives.parse(lines(data, b"cache-control")), _judge_cache_control),
    "request-directives": Target(lambda data: RequestDirectives.parse(fields(data)), _judge_request),
    "structured-dictionary": Target(parse_dictionary, _judge_dictionary),
    "structured-list": Target(parse_list, _judge_list),
    "cache-groups": Target(lambda data: groups(lines(data, b"cache-groups")), _judge_groups),
    "targeted-field": Target(lambda data: targeted(lines(data, b"cdn-cache-control")), _judge_targeted),
    "cache-status": Target(_told, _judge_told),
    "http-date": Target(lambda data: parse_http_date(data, now=NOW), _judge_date),
    "entity-tags": Target(_tags, _judge_tags),
    "range": Target(_ranged, _judge_range),
    "content-range": Target(lambda data: parse_content_range([(b"content-range", data)], 10), _judge_content_range),
    "variants": Target(_variants, _judge_variants),
    "vary": Target(lambda data: vary_names(lines(data, b"vary")), _judge_vary),
    "freshness": Target(_freshness, _judge_freshness),
    "storing": Target(_verdicts, _judge_verdicts),
    "stored-lines": Target(lambda data: storable_headers(fields(data)), _judge_stored_lines),
    "reference": Target(lambda data: resolve(data, _TARGET), _judge_reference),
}
