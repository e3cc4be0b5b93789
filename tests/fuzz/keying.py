"""What keys and tags are made of: requests, queries, cookies, templates, patterns."""

from __future__ import annotations

import re
from http import cookies as http_cookies
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

from starlette.requests import cookie_parser

from asgi_tiercache import Policy
from asgi_tiercache.errors import ConfigError
from asgi_tiercache.invalidation.patterns import KEY, PREFIX, check_pattern, matches_key, prefixes, tag_for
from asgi_tiercache.keys.cookies import chosen_cookies, cookie_line
from asgi_tiercache.keys.escape import encoded, escape, frame
from asgi_tiercache.keys.query import QueryForm
from asgi_tiercache.keys.request import Pass, RequestKey, RequestKeys
from asgi_tiercache.keys.template import Template, tolerant_tag
from tests.fuzz.target import Source, Target

# A cut may go through an escape; the hash behind it begins with `#`.
_UNSAFE = re.compile(r"[^!-~]|[*?{}\[\]'\"\\]|%(?![0-9A-F]{2}|[0-9A-F]?#)")

# ---- requests ----

_SERVED = Policy(ttl=60, vary_on=("x-keyed",), cookies=("c",), drop_query=("utm_*",))
_KEYS = RequestKeys(_SERVED)
_REASONS = {"host", "body", "authorization", "cookie", "session", "user", "auth", "user-callable", "key-callable"}


def _scopes(data: bytes) -> list[dict[str, Any]]:
    """Two requests, the second like the first but for one part."""
    source = Source(data)
    changed = source.integer() % 8
    first = {
        "method": source.choice(("GET", "HEAD")),
        "scheme": source.choice(("http", "https")),
        "root_path": source.piece().decode("utf-8", "surrogateescape"),
        "path": "/" + source.piece().decode("utf-8", "surrogateescape"),
        "raw_path": b"/" + source.piece(),
        "query_string": source.piece(),
        "host": source.piece(),
        "headers": [(b"x-keyed", source.piece()), (b"cookie", source.piece())],
    }
    names = list(first)
    second = dict(first)
    name = names[changed]
    other = source.rest()
    if name == "method":
        second["method"] = "HEAD"
    elif name == "scheme":
        second["scheme"] = "https"
    elif name in ("path", "root_path"):
        second[name] = other.decode("utf-8", "surrogateescape")
    elif name == "headers":
        value, _, cookie = other.partition(b"\n")
        second["headers"] = [(b"x-keyed", value), (b"cookie", cookie)]
    else:
        second[name] = other
    return [_scope(each) for each in (first, second)]


def _scope(parts: dict[str, Any]) -> dict[str, Any]:
    host = parts.pop("host", b"")
    headers = [(b"host", host), *parts["headers"]]
    return {"type": "http", "server": ("127.0.0.1", 80), "state": {}, **parts, "headers": headers}


def _keys(data: bytes) -> list[RequestKey | Pass]:
    return [RequestKeys(_SERVED).of(scope) for scope in _scopes(data)]


def _judge_keys(data: bytes, outcome: list[RequestKey | Pass]) -> None:
    """Two requests share a canonical form only where nothing that the handler may see tells them apart."""
    meant = []
    for scope, key in zip(_scopes(data), outcome, strict=True):
        if isinstance(key, Pass):
            assert key.reason in _REASONS
            return
        assert frame(*unframed(key.canonical)) == key.canonical
        assert not _UNSAFE.search(key.text)
        assert re.fullmatch(r"api:response:[^:]*:[0-9a-f]{32}", key.text)
        assert _KEYS.of(scope) == key  # remembered or made anew
        meant.append(_meant(scope, key))
    left, right = outcome
    assert isinstance(left, RequestKey)
    assert isinstance(right, RequestKey)
    assert (left.canonical == right.canonical) == (left.text == right.text)
    if left.canonical == right.canonical:
        assert meant[0] == meant[1]


def _meant(scope: dict[str, Any], key: RequestKey) -> Any:
    host = scope["headers"][0][1].lower().removesuffix(b":80" if scope["scheme"] == "http" else b":443")
    query = parse_qsl(key.query.decode("latin-1"), keep_blank_values=True)
    cookie = cookie_parser(scope["headers"][2][1].decode("latin-1")).get("c")
    paths = scope["root_path"], scope["path"], scope["raw_path"]
    return scope["scheme"], host, paths, query, scope["headers"][1][1], cookie


def unframed(data: bytes) -> list[bytes]:
    """The fields of which `frame` made `data`."""
    found = []
    while data:
        length, colon, data = data.partition(b":")
        assert colon
        assert length == b"%d" % int(length)
        assert int(length) <= len(data)
        found.append(data[: int(length)])
        data = data[int(length) :]
    return found


# ---- queries and cookies ----

_FORMS: tuple[tuple[QueryForm, Any], ...] = (
    (QueryForm(Policy(ttl=60)), lambda name: True),
    (QueryForm(Policy(ttl=60, query=("q", "page"))), lambda name: name in ("q", "page")),
    (QueryForm(Policy(ttl=60, drop_query=("utm_*", "x"))), lambda name: name != "x" and not name.startswith("utm_")),
)


def _form(data: bytes) -> tuple[QueryForm, Any]:
    return _FORMS[(data[0] if data else 0) % len(_FORMS)]


def _judge_query(data: bytes, outcome: bytes) -> None:
    """The handler reads the same parameters, sorted by name, and none that are dropped."""
    form, keeps = _form(data)
    sent = parse_qsl(data[1:].decode("latin-1"), keep_blank_values=True)
    read = parse_qsl(outcome.decode("latin-1"), keep_blank_values=True)
    assert read == sorted((pair for pair in sent if keeps(pair[0])), key=lambda pair: pair[0])
    assert form.canonical(outcome) == outcome
    assert not set(outcome) & set(b" #+\0\r\n")


_COOKIES = ("c", "session")


def _judge_cookies(data: bytes, outcome: dict[str, list[bytes]]) -> None:
    """What is keyed is what Starlette reads, before and after the field is written anew."""
    assert list(outcome) == list(_COOKIES)
    written = cookie_line(outcome)
    assert chosen_cookies([written], _COOKIES) == outcome
    read: dict[str, str] = {}
    for line in data.split(b"\n"):
        read |= cookie_parser(line.decode("latin-1"))
    again = cookie_parser(written.decode("latin-1")) if written else {}
    for name in _COOKIES:
        assert (name in read) == bool(outcome[name])
        assert read.get(name) == again.get(name)
        if outcome[name]:
            last: str = http_cookies._unquote(outcome[name][-1].decode("latin-1"))
            assert read[name] == last


# ---- templates and patterns ----


def _template(data: bytes) -> Template:
    text, _, _ = data.partition(b"\xff")
    return Template(text.decode("utf-8", "surrogatepass"), option="tags")


def _judge_template(data: bytes, outcome: Template | ConfigError | UnicodeDecodeError) -> None:
    """A template is read as it is written, and no value leaves its place."""
    if isinstance(outcome, Exception):
        return
    assert outcome.render_plain({name: f"{{{name}}}" for name in outcome.fields}) == outcome.text
    values = data.split(b"\xff")[1:]
    given = {
        name: (values[index] if index < len(values) else b"").decode("utf-8", "surrogateescape")
        for index, name in enumerate(outcome.fields)
    }
    tag = outcome.render_strict(given)
    assert len(tag) <= 256
    assert not _UNSAFE.search(tag)
    assert outcome.render(given) == tag
    if "#" not in tag:
        whole = outcome.render_plain(given)
        assert unquote_to_bytes(tag) == encoded(whole)
        assert tag.count(":") <= whole.count(":")


def _escaped(data: bytes) -> tuple[str, str]:
    text = data.decode("utf-8", "surrogateescape")
    return escape(text), escape(data)


def _judge_escaped(data: bytes, outcome: tuple[str, str]) -> None:
    text = data.decode("utf-8", "surrogateescape")
    for written, meant in zip(outcome, (encoded(text), data), strict=True):
        assert unquote_to_bytes(written) == meant
        assert not _UNSAFE.search(written)
        assert not set(written) & set(":#<> ")
    assert len(tolerant_tag(text)) <= 256


def _matched(data: bytes) -> tuple[str, str, bool]:
    glob, _, key = data.partition(b"\xff")
    text, name = glob.decode("utf-8", "surrogateescape"), key.decode("utf-8", "surrogateescape")
    return text, name, matches_key(check_pattern(text), name)


def _judge_matched(data: bytes, outcome: Any) -> None:
    if isinstance(outcome, Exception):
        return
    glob, key, matched = outcome
    tag = tag_for(glob, responses="api:response:")
    if tag is not None and not key.startswith("api:response:") and key.count(":") < 8:
        assert matched == (tag in (KEY + key, *(PREFIX + each for each in prefixes(key)))), outcome
    if "[" not in glob:
        assert matched == model_match(glob, key), outcome


def model_match(glob: str, key: str) -> bool:
    """Whether `key` matches a glob without brackets: by all positions that may have been reached."""
    reached = {0}
    for each in glob:
        if each == "*":
            reached = set(range(min(reached), len(key) + 1)) if reached else reached
        else:
            reached = {at + 1 for at in reached if at < len(key) and each in ("?", key[at])}
    return len(key) in reached


TARGETS = {
    "request-key": Target(_keys, _judge_keys),
    "query": Target(lambda data: _form(data)[0].canonical(data[1:]), _judge_query),
    "cookies": Target(lambda data: chosen_cookies(data.split(b"\n"), _COOKIES), _judge_cookies),
    "template": Target(_template, _judge_template, raises=(ConfigError, UnicodeDecodeError)),
    "escape": Target(_escaped, _judge_escaped),
    "pattern": Target(_matched, _judge_matched, raises=(ConfigError,)),
}
