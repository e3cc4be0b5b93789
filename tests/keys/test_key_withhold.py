from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.authentication import AuthCredentials, SimpleUser, UnauthenticatedUser
from starlette.requests import Request
from starlette.types import Scope

from asgi_tiercache.config import Policy
from asgi_tiercache.keys.cookies import chosen_cookies, cookie_line
from asgi_tiercache.keys.request import RequestKey, RequestKeys
from tests.keys.scopes import http_scope

PLAIN = Policy(ttl=60)
Line = tuple[bytes, bytes]


def filled(policy: Policy, scope: Scope) -> Scope:
    """The scope that the fill of the request sees."""
    keys = RequestKeys(policy)
    key = keys.of(scope)
    assert isinstance(key, RequestKey), key
    return keys.withhold(scope, key)


def names(scope: Scope) -> set[bytes]:
    return {name for name, _ in scope["headers"]}


CONDITIONS: list[Line] = [
    (b"if-range", b'"a"'),
    (b"if-match", b'"a"'),
    (b"if-none-match", b'"a"'),
    (b"if-modified-since", b"x"),
    (b"if-unmodified-since", b"x"),
]


@pytest.mark.parametrize(
    "policy",
    [PLAIN, PLAIN.but(strict=False), Policy.http(), Policy.rfc9111()],
    ids=["strict", "lax", "http", "rfc9111"],
)
def test_a_fill_asks_for_the_whole_response_unconditionally(policy: Policy) -> None:
    keys = RequestKeys(policy)
    key = keys.of(http_scope())
    assert isinstance(key, RequestKey), key
    seen = keys.withhold(http_scope(headers=CONDITIONS), key)
    assert not names(seen) & {name for name, _ in CONDITIONS}
    assert b"host" in names(seen)


def test_a_range_does_not_reach_a_fill() -> None:
    keys = RequestKeys(PLAIN.but(strict=False))
    key = keys.of(http_scope())
    assert isinstance(key, RequestKey)
    assert b"range" not in names(keys.withhold(http_scope(headers=[(b"range", b"bytes=0-1")]), key))


UNKEYED: list[Line] = [
    (b"x-forwarded-host", b"evil.example"),
    (b"x-original-url", b"/admin"),
    (b"forwarded", b"for=1"),
    (b"x-tenant-key", b"k"),
    (b"acceptable", b"1"),
]
PASS_SET: list[Line] = [
    (b"accept", b"*/*"),
    (b"accept-language", b"en"),
    (b"accept-datetime", b"now"),
    (b"origin", b"https://a.example"),
    (b"traceparent", b"00-1"),
    (b"tracestate", b"a=1"),
    (b"baggage", b"a=1"),
    (b"x-request-id", b"1"),
]


def test_strict_withholds_every_header_that_is_neither_keyed_nor_harmless() -> None:
    seen = filled(PLAIN.but(vary_on=["x-tenant"]), http_scope(headers=[*UNKEYED, *PASS_SET, (b"x-tenant", b"a")]))
    assert names(seen) == {name for name, _ in PASS_SET} | {b"host", b"accept-encoding", b"x-tenant"}


@pytest.mark.parametrize("policy", [PLAIN.but(strict=False), Policy.http()], ids=["lax", "http"])
def test_without_strict_other_headers_reach_the_handler(policy: Policy) -> None:
    lines = [(name, value) for name, value in UNKEYED if name != b"x-original-url"]  # with which a request passes by
    assert names(filled(policy, http_scope(headers=lines))) >= {name for name, _ in lines}


def test_what_tells_how_to_read_a_body_stays_with_a_keyed_body_only() -> None:
    lines = [(b"content-type", b"text/plain"), (b"content-length", b"0"), (b"content-encoding", b"br")]
    assert names(filled(PLAIN.but(body=True), http_scope(headers=lines))) >= {name for name, _ in lines}
    assert not names(filled(PLAIN, http_scope(headers=lines))) & {name for name, _ in lines}


def test_the_handler_receives_the_query_that_is_keyed() -> None:
    seen = filled(PLAIN.but(drop_query=["utm_*"]), http_scope(query=b"q=%7e&utm_id=1&b=2"))
    assert seen["query_string"] == b"b=2&q=~"
    assert filled(Policy.http(), http_scope(query=b"q=%7e&b=2"))["query_string"] == b"q=%7e&b=2"


@pytest.mark.parametrize("policy", [PLAIN, Policy.http()], ids=["explicit", "http"])
def test_the_handler_receives_the_host_that_is_keyed(policy: Policy) -> None:
    assert Request(filled(policy, http_scope(host=b"EXAMPLE.org:80"))).url.netloc == "example.org"
    assert Request(filled(policy, http_scope(host=b"Example.org:8080"))).url.netloc == "example.org:8080"


SENT: dict[str, Any] = {
    "headers": [(b"authorization", b"Bearer x"), (b"cookie", b"a=1; lang=en")],
    "session": {"id": 1},
    "user": SimpleUser("ann"),
    "auth": AuthCredentials(["authenticated"]),
}
CREDENTIALS = ("authorization", "cookie", "session", "user", "auth")


@pytest.mark.parametrize("strict", [True, False])
def test_ignored_credentials_do_not_reach_the_handler(strict: bool) -> None:
    seen = filled(PLAIN.but(ignore=CREDENTIALS, strict=strict), http_scope(**SENT))
    assert not names(seen) & {b"authorization", b"cookie"}
    assert seen["session"] == {}
    assert type(seen["user"]) is UnauthenticatedUser
    assert type(seen["auth"]) is AuthCredentials
    assert seen["auth"].scopes == []


def test_an_ignored_credential_that_was_not_there_does_not_appear() -> None:
    assert not filled(PLAIN.but(ignore=CREDENTIALS), http_scope()).keys() & {"session", "user", "auth"}


def test_an_ignored_header_does_not_reach_the_handler_in_any_mode() -> None:
    line = (b"x-debug", b"1")
    assert b"x-debug" not in names(filled(PLAIN.but(ignore=["X-Debug"], strict=False), http_scope(headers=[line])))
    assert b"x-debug" not in names(filled(Policy.http(ignore=["x-debug"]), http_scope(headers=[line])))
    assert b"accept" not in names(filled(PLAIN.but(ignore=["accept"]), http_scope()))


def test_with_a_user_every_credential_stays() -> None:
    seen = filled(PLAIN.but(user=lambda scope: "ann"), http_scope(**SENT))
    assert names(seen) >= {b"authorization", b"cookie"}
    assert all(seen[name] is SENT[name] for name in ("session", "user", "auth"))


def test_in_http_mode_credentials_stay_even_if_it_is_strict() -> None:
    seen = filled(Policy.http(strict=True), http_scope(**SENT))
    assert names(seen) >= {b"authorization", b"cookie"}
    assert seen["session"] is SENT["session"]
    assert b"user-agent" not in names(seen)


def test_a_credential_of_another_scope_does_not_reach_an_explicit_fill() -> None:
    keys = RequestKeys(PLAIN)
    key = keys.of(http_scope())
    assert isinstance(key, RequestKey)
    assert not names(keys.withhold(http_scope(**SENT), key)) & {b"authorization", b"cookie"}


@pytest.mark.parametrize(
    "policy", [PLAIN, PLAIN.but(user=lambda scope: "ann"), Policy.http()], ids=["plain", "user", "http"]
)
def test_the_handler_receives_keyed_cookies_only(policy: Policy) -> None:
    cookies = [(b"cookie", b"a=1; lang=en"), (b"cookie", b" lang=de;b=2")]
    seen = filled(policy.but(cookies=["lang", "theme"]), http_scope(headers=cookies))
    assert [value for name, value in seen["headers"] if name == b"cookie"] == [b"lang=en; lang=de"]


def test_the_cookie_header_is_gone_where_no_keyed_cookie_was_sent() -> None:
    seen = filled(PLAIN.but(cookies=["lang"]), http_scope(headers=[(b"cookie", b"a=1")]))
    assert b"cookie" not in names(seen)


def test_a_cookie_header_keyed_whole_stays_whole() -> None:
    seen = filled(PLAIN.but(vary_on=["cookie"]), http_scope(headers=[(b"cookie", b"a=1; b=2")]))
    assert (b"cookie", b"a=1; b=2") in seen["headers"]


def test_the_request_itself_stays_as_it_was() -> None:
    scope = http_scope(query=b"b=1&a=1", host=b"EXAMPLE.org", **{**SENT, "user": None, "auth": None})
    before = copy.deepcopy(scope)
    seen = filled(PLAIN.but(ignore=CREDENTIALS), scope)
    seen["headers"].append((b"x", b"y"))
    seen["session"]["id"] = 2
    assert scope == before


@pytest.mark.parametrize("policy", [PLAIN.but(strict=False), Policy.http()], ids=["lax", "http"])
def test_a_fill_has_a_header_list_of_its_own(policy: Policy) -> None:
    scope = http_scope()
    assert filled(policy, scope)["headers"] is not scope["headers"]


def test_blanks_around_a_cookie_do_not_count() -> None:
    assert chosen_cookies([b" a = 1 ;a=2"], ["a"]) == {"a": [b"1", b"2"]}


@given(st.lists(st.text(alphabet='ab=;" \xa0\x85,\\').map(lambda text: text.encode("latin-1")), max_size=3))
def test_cookies_are_read_as_starlette_reads_them(lines: list[bytes]) -> None:
    chosen = chosen_cookies(lines, ["a", "b"])
    sent = Request({"type": "http", "headers": [(b"cookie", line) for line in lines]}).cookies
    received = Request({"type": "http", "headers": [(b"cookie", cookie_line(chosen))]}).cookies
    wanted = {name: value for name, value in sent.items() if name in ("a", "b")}
    assert received == wanted
    assert {name for name, values in chosen.items() if values} == wanted.keys()
    assert chosen_cookies([cookie_line(chosen)], ["a", "b"]) == chosen
