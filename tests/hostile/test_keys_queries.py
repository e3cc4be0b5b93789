"""Queries, headers and cookies that try to be read as others, or to take long."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from asgi_tiercache import Policy, TierCache
from asgi_tiercache.keys.request import Pass, RequestKeys
from tests.hostile.apps import MODES, PUBLIC, Line, asked, mirrored, seen
from tests.hostile.sockets import raw, served
from tests.middleware.asgi import Exchange, http_scope, run

modes = pytest.mark.parametrize("policy", MODES.values(), ids=MODES)
exact = pytest.mark.parametrize("policy", [MODES["http"], MODES["rfc9111"]], ids=["http", "rfc9111"])
explicit = pytest.mark.parametrize("policy", [MODES["strict"], MODES["lax"]], ids=["strict", "lax"])

DIFFERENT = (
    b"",
    b"a",
    b"a&a",
    b"a=",
    b"a=&a=",
    b"a=1",
    b"a=1&a=1",
    b"a=1&a=2",
    b"a=2&a=1",
    b"a=1&b=2",
    b"a=1%26b=2",
    b"a=1%2526b=2",
    b"a=1%3Bb=2",
    b"a%3D1=",
    b"a=1%3D",
    b"a==1",
    b"=a",
    b"=",
    b"a[]=1",
    b"a%5B%5D=1&a[]=2",
    b"a=%00",
    b"a=%C3%A9",
    b"a=%E9",
    b"a=\xe9",
    b"a=\xc3\xa9",
    b"a=%FF",
    b"a=%FE",
    b"a=%EF%BF%BD",
    b"a=%",
    b"a=%2",
    b"a=%zz",
    b"a=%0D%0A",
    b"a=1%23",
    b"A=1",
    b"a=%2B",
    b"a=%20",
    b"1:a=3:1",
)
"""Each is another question, whoever reads it."""


@modes
def test_no_two_queries_share_an_answer_that_can_be_read_apart(policy: Policy) -> None:
    async def test() -> None:
        app = mirrored(policy)
        bare = Starlette(routes=app.routes)
        for again in (False, True):
            for query in DIFFERENT:
                reply, expected = await asked(app, query_string=query), await asked(bare, query_string=query)
                assert seen(reply)["parameters"] == seen(expected)["parameters"], query
                assert reply.hit == again, query

    run(test())


SAME = (
    (b"a=%", b"a=%25"),
    (b"a=1&b=2", b"b=2&a=1"),
    (b"a=1", b"&a=1&&"),
    (b"a=%61", b"a=a"),
    (b"a=b+c", b"a=b%20c"),
    (b"a=%3a", b"a=%3A"),
    (b"a=1;b=2", b"a=1%3Bb=2"),
)


@explicit
@pytest.mark.parametrize(("one", "other"), SAME)
def test_under_an_explicit_policy_one_question_has_one_spelling(one: bytes, other: bytes, policy: Policy) -> None:
    async def test() -> None:
        app = mirrored(policy)
        first, second = await asked(app, query_string=one), await asked(app, query_string=other)
        assert second.hit
        assert seen(first)["query"] == seen(second)["query"]

    run(test())


@exact
@pytest.mark.parametrize(("one", "other"), SAME)
def test_in_the_http_modes_each_spelling_is_another(one: bytes, other: bytes, policy: Policy) -> None:
    async def test() -> None:
        app = mirrored(policy)
        for query in (one, other):
            reply = await asked(app, query_string=query)
            assert not reply.hit
            assert seen(reply)["query"] == query.decode()

    run(test())


@modes
@settings(max_examples=60)
@given(queries=st.lists(st.text("ab=&;%+0\xe9\xff", max_size=8).map(lambda text: text.encode("latin-1")), max_size=8))
def test_whatever_the_query_the_answer_is_that_of_the_app_alone(queries: list[bytes], policy: Policy) -> None:
    async def test() -> None:
        app = mirrored(policy)
        bare = Starlette(routes=app.routes)
        for query in itertools.chain(queries, queries):
            reply, expected = await asked(app, query_string=query), await asked(bare, query_string=query)
            # Sorting moves parameters of other names past each other; those of one name stay in order.
            mine, theirs = (sorted(seen(each)["parameters"], key=lambda pair: pair[0]) for each in (reply, expected))
            assert mine == theirs

    run(test())


# ---- separators in values ----

Sent = dict[str, Any]


def cookies(*lines: bytes) -> Sent:
    return {"headers": [(b"cookie", line) for line in lines]}


def lines(*values: bytes, name: bytes = b"x-tenant") -> Sent:
    return {"headers": [(name, value) for value in values]}


KEYED = Policy(ttl=60, vary_on=["x-tenant", "x-other"], cookies=["a", "b"])
SEPARATED: tuple[Sent, ...] = (
    lines(b"a"),
    lines(b"a", b"b"),
    lines(b"b", b"a"),
    lines(b"a, b"),
    lines(b"a,b"),
    lines(b"a", b""),
    lines(b""),
    lines(b"ab"),
    lines(b"1:a"),
    lines(b"a\x00b"),
    lines(b"a", name=b"x-other"),
    {"headers": [(b"x-tenant", b"a"), (b"x-other", b"b")]},
    {"headers": [(b"x-tenant", b"b"), (b"x-other", b"a")]},
    cookies(b"a=1"),
    cookies(b"a=1; b=2"),
    cookies(b"a=2; b=1"),
    cookies(b"a=1%3B b=2"),
    cookies(b"a=1, b=2"),
    cookies(b"a=1; a=2"),
    cookies(b"a=2; a=1"),
    cookies(b"a="),
    cookies(b"a"),
    cookies(b'a="1; b=2"'),
    cookies(b"a=1=b"),
    cookies(b"a=1:b"),
)


def test_separators_in_keyed_headers_and_cookies_move_nothing_from_one_to_the_next() -> None:
    async def test() -> None:
        app = mirrored(KEYED)
        answers: dict[bytes, bytes] = {}
        for sent in itertools.chain(SEPARATED, SEPARATED):
            reply = await asked(app, *sent["headers"])
            told = [line for line in seen(reply)["headers"] if line[0].startswith("x-")]
            expected = [[name.decode(), value.decode()] for name, value in sent["headers"] if name != b"cookie"]
            assert told == expected
            answers[repr(sent).encode()] = reply.body
        # "a" and "" are both no cookie of a name: the only two that may share an answer with others.
        bodies = [body for sent, body in answers.items()]
        assert len(set(bodies)) == len(bodies)

    run(test())


@pytest.mark.parametrize("split", [[b"a=1; b=2"], [b"a=1", b"b=2"], [b"z=0; a=1", b"b=2; z=1"], [b"b=2; a=1"]])
def test_cookies_in_several_lines_are_one_list(split: list[bytes]) -> None:
    """HTTP/2 may send each cookie in a line of its own (RFC 9113, section 8.2.3)."""

    async def test() -> None:
        app = mirrored(KEYED)
        await asked(app, (b"cookie", b"a=1; b=2"))
        reply = await asked(app, *[(b"cookie", line) for line in split])
        assert reply.hit
        assert seen(reply)["cookies"] == {"a": "1", "b": "2"}
        assert not (await asked(app, (b"cookie", b"a=1"), (b"cookie", b"a=2"), (b"cookie", b"b=2"))).hit

    run(test())


def test_separators_in_path_and_query_move_no_tag() -> None:
    cache = TierCache()
    policy = Policy(ttl=60, tags=["t:{path}:{q}"])
    pairs = [
        ("a", "b:c"),
        ("a:b", "c"),
        ("a", "b"),
        ("*", "b"),
        ("a%3Ab", "c"),
        ("{q}", "b"),
        ("a", "*"),
        ("a:b", "c:"),
    ]

    async def hits(app: Starlette) -> list[bool]:
        return [(await asked(app, path=f"/{path}", query_string=b"q=" + _quoted(q))).hit for path, q in pairs]

    async def test() -> None:
        app = mirrored(policy, cache=cache)
        await hits(app)
        assert all(await hits(app))
        for index, (path, q) in enumerate(pairs):
            await cache.invalidate("t:{path}:{q}", path=path, q=q)
            assert await hits(app) == [at != index for at in range(len(pairs))]

    run(test())


def _quoted(text: str) -> bytes:
    return b"".join(b"%%%02X" % byte for byte in text.encode())


def test_separators_in_users_and_extra_keys_move_nothing() -> None:
    def sent(name: bytes) -> Callable[[Any], str]:
        return lambda scope: dict(scope["headers"])[name].decode()

    policy = Policy(ttl=60, user=sent(b"x-user"), key=sent(b"x-key"), strict=False)

    async def test() -> None:
        app = mirrored(policy)
        for user, key in [(b"a", b"b:c"), (b"a:b", b"c"), (b"ab", b"c"), (b"a", b"bc"), (b"asb", b"c"), (b"a", b"bsc")]:
            reply = await asked(app, (b"x-user", user), (b"x-key", key))
            assert not reply.hit
            assert ["x-user", user.decode()] in seen(reply)["headers"]

    run(test())


# ---- a body where none is expected ----


@modes
@pytest.mark.parametrize(
    "framing",
    [
        [(b"content-length", b"4")],
        [(b"content-length", b"00")],
        [(b"content-length", b"+0")],
        [(b"content-length", b"")],
        [(b"content-length", b"0"), (b"content-length", b"4")],
        [(b"content-length", b"4"), (b"content-length", b"0")],
        [(b"content-length", b"0"), (b"transfer-encoding", b"chunked")],
        [(b"transfer-encoding", b"chunked")],
        [(b"transfer-encoding", b"identity")],
    ],
)
def test_a_get_that_says_it_has_a_body_passes_by_whatever_is_stored(framing: list[Line], policy: Policy) -> None:
    async def test() -> None:
        app = mirrored(policy)
        for _ in range(2):
            reply = await Exchange(app, http_scope(headers=framing), body=b"evil").reply()
            assert "detail=body" in reply.cache_status
            await asked(app)
        assert (await asked(app, (b"content-length", b"0"))).hit

    run(test())


@modes
def test_on_the_wire_no_framing_smuggles_a_second_request(policy: Policy) -> None:
    head = b"GET / HTTP/1.1\r\nHost: example.org\r\n"
    rest = b"GET /smuggled HTTP/1.1\r\nHost: example.org\r\nX: "
    close = b"Connection: close\r\n\r\n"
    with served(mirrored(policy)) as port:
        assert not raw(port, head + close).hit
        for framing, status in [
            (b"Content-Length: 0\r\nContent-Length: %d\r\n" % len(rest), 400),
            (b"Content-Length: %d\r\nContent-Length: 0\r\n" % len(rest), 400),
            (b"Content-Length: +%d\r\n" % len(rest), 400),
            (b"Content-Length: %d, %d\r\n" % (len(rest), len(rest)), 200),
            (b"Content-Length: %d\r\n" % len(rest), 200),
            (b"Transfer-Encoding: xchunked\r\n", 400),
        ]:
            answer = raw(port, head + framing + close + rest)
            assert answer.status == status, framing
            assert answer.data.count(b"HTTP/1.1 ") == 1
            assert status != 200 or "detail=body" in answer.cache_status
        assert raw(port, head + close).hit
        assert not raw(port, b"GET /smuggled HTTP/1.1\r\nHost: example.org\r\n" + close).hit


# ---- size ----

MANY = 10_000


def parameters(number: int) -> bytes:
    return b"&".join(b"p%d=%d" % (n * 7919 % number, n) for n in range(number))


@modes
@pytest.mark.parametrize(
    "query",
    [parameters(MANY), b"a&" * MANY, b"a=1&" * MANY, b"&" * 65_536, b"%41" * 20_000, b"a=" + b"%" * 65_536],
    ids=["names", "empty", "repeated", "separators", "escapes", "percent signs"],
)
def test_ten_thousand_parameters_are_a_question_like_any_other(query: bytes, policy: Policy) -> None:
    async def test() -> None:
        app = mirrored(policy)
        first, second = await asked(app, query_string=query), await asked(app, query_string=query)
        assert (first.hit, second.hit, second.status) == (False, True, 200)
        assert not (await asked(app, query_string=query + b"&b=1")).hit

    run(test())


@modes
@pytest.mark.parametrize("name", [b"x-tenant", b"accept-language", b"origin", b"x-forwarded-host", b"forwarded"])
def test_values_of_64_kilobytes_are_keyed_whole(name: bytes, policy: Policy) -> None:
    big = b"v" * 65_536

    async def test() -> None:
        app = mirrored(policy.but(vary_on=["x-tenant"]), headers={**PUBLIC, "vary": "accept-language, origin"})
        for last in (b"1", b"2"):
            reply = await asked(app, (name, big + last))
            assert not reply.hit or policy is MODES["strict"]
            if name in (b"x-tenant", b"accept-language", b"origin") or policy is not MODES["strict"]:
                assert [name.decode(), (big + last).decode()] in seen(reply)["headers"]
            assert (await asked(app, (name, big + last))).hit
        reply = await asked(app, path="/" + big.decode(), raw_path=b"/" + big)
        assert not reply.hit
        assert not (await asked(app, path="/" + big.decode() + "1", raw_path=b"/" + big + b"1")).hit

    run(test())


def growth(cost: Callable[[int], float], *, small: int = 1_000, factor: int = 32) -> float:
    """By how much `cost` grows, of what it would if it were in proportion: 32 where it is squared."""
    return min(cost(small * factor) for _ in range(3)) / min(cost(small) for _ in range(5)) / factor


def key_cost(policy: Policy, scope_of: Callable[[int], Any]) -> Callable[[int], float]:
    def cost(number: int) -> float:
        keys, scope = RequestKeys(policy), scope_of(number)
        begun = time.process_time()
        for _ in range(max(1, 2_000 // number)):
            key = RequestKeys.of(keys, scope)
            assert not isinstance(key, Pass)
            keys.withhold(scope, key)
        return (time.process_time() - begun) / max(1, 2_000 // number)

    return cost


@pytest.mark.parametrize(
    ("policy", "scope_of"),
    [
        (MODES["strict"], lambda n: http_scope(query=parameters(n))),
        (MODES["strict"], lambda n: http_scope(query=b"a=1&" * n)),
        (MODES["strict"], lambda n: http_scope(query=b"a=" + b"%41" * n)),
        (MODES["strict"].but(drop_query=["utm_*"]), lambda n: http_scope(query=b"utm_%41=1&" * n)),
        (MODES["http"], lambda n: http_scope(query=parameters(n))),
        (KEYED, lambda n: http_scope(headers=[(b"cookie", b"a=1;" * n)])),
        (KEYED, lambda n: http_scope(headers=[(b"cookie", b"a=1")] * n)),
        (KEYED, lambda n: http_scope(headers=[(b"x-tenant", b"a")] * n)),
        (MODES["http"], lambda n: http_scope(headers=[(b"x-forwarded-host", b"a")] * n)),
        (MODES["http"], lambda n: http_scope(headers=[(b"forwarded", b"for=a;" * n)])),
        (MODES["http"], lambda n: http_scope(headers=[(b"forwarded", b"for=" * n)])),
        (MODES["http"], lambda n: http_scope(headers=[(b"forwarded", b'for="' + b"a" * n)])),
        (MODES["http"], lambda n: http_scope(headers=[(b"forwarded", b"for=\t" + b"a." * n)])),
        (MODES["strict"], lambda n: http_scope("/" + "é" * n)),
    ],
)
def test_the_cost_of_a_key_is_in_proportion_to_what_was_sent(policy: Policy, scope_of: Callable[[int], Any]) -> None:
    assert growth(key_cost(policy, scope_of)) < 8, "32 where it grows with the square"
