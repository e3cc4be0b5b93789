"""Which responses are stored at all (RFC 9111, sections 3, 3.3, 3.5, 5.2.1.5 and 5.2.2)."""

from __future__ import annotations

import pytest
from starlette.types import Receive, Scope, Send

from asgi_tiercache import TierCache, TierCacheMiddleware
from asgi_tiercache.testing import ScriptedTier
from tests.http.wire.world import Answer, Raw, World, over_sockets
from tests.middleware.asgi import ask, run

FINAL = [
    200,
    201,
    202,
    203,
    204,
    205,
    226,
    299,
    300,
    301,
    302,
    303,
    305,
    307,
    308,
    399,
    400,
    401,
    403,
    404,
    405,
    410,
    414,
    418,
    422,
    451,
    499,
    500,
    501,
    502,
    503,
    504,
    599,
]
UNKNOWN = [299, 399, 499, 599]
KNOWN = [200, 203, 204, 301, 404, 410, 500]
LET_IN = ["public, max-age=60", "s-maxage=60", "max-age=60, must-revalidate"]


@over_sockets
async def test_a_response_to_get_is_stored_and_says_so(w: World) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60"))
    first = await w.get()
    second = await w.get()
    assert (first.stored, second.hit, second.body) == (True, True, first.body)
    assert w.origin.asked == 1


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "POST", "OPTIONS", "TRACE", "FOO", "get"])
@over_sockets
async def test_responses_to_other_methods_answer_no_get(w: World, method: str) -> None:
    assert not await w.reuses("Cache-Control: public, max-age=60", method=method)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "POST", "OPTIONS", "TRACE", "FOO", "get"])
@over_sockets
async def test_other_methods_are_never_answered_from_what_is_stored(w: World, method: str) -> None:
    w.origin.script(Answer("Cache-Control: public, max-age=60"))
    await w.get()
    for _ in range(2):
        before = w.origin.asked
        reply = await w.request(method)
        assert (w.origin.asked, w.origin.last.method, "age" in reply) == (before + 1, method, False)


@pytest.mark.parametrize("status", FINAL)
@over_sockets
async def test_any_final_status_with_a_lifetime_is_stored(w: World, status: int) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60", status=status))
    await w.get()
    reply = await w.get()
    assert (reply.hit, reply.status) == (True, status)


@pytest.mark.parametrize("status", [200, 404, 299])
@over_sockets
async def test_what_says_nothing_of_caching_is_not_stored(w: World, status: int) -> None:
    assert not await w.reuses("Content-Type: text/plain", status=status, after=0)


@pytest.mark.parametrize("status", [428, 429, 431, 511])
@over_sockets
async def test_a_status_whose_definition_forbids_it_is_not_stored(w: World, status: int) -> None:
    """RFC 6585, sections 3 to 6."""
    assert not await w.reuses("Cache-Control: public, max-age=60", status=status)


@over_sockets
async def test_a_304_that_nobody_asked_for_is_not_stored(w: World) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60", 'ETag: "a"', status=304), Answer())
    assert (await w.get()).status == 304
    assert (await w.get()).status == 200


@over_sockets
async def test_an_interim_response_is_neither_stored_nor_an_answer(w: World) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nCache-Control: max-age=600\r\nLink: </a>\r\n\r\n"
    w.origin.script(Raw(early + b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 3\r\n\r\none"))
    await w.get()
    w.clock.tick(59)
    reply = await w.get()
    assert (reply.hit, reply.status, reply.text, "link" in reply) == (True, 200, "one", False)
    w.clock.tick(1)
    assert not (await w.get()).hit


# ---- no-store ----


@over_sockets
async def test_no_store_keeps_a_response_out(w: World) -> None:
    assert not await w.reuses("Cache-Control: no-store, max-age=60, public, s-maxage=60", 'ETag: "a"', after=0)


@over_sockets
async def test_what_says_no_store_leaves_no_validator_behind(w: World) -> None:
    w.origin.script(Answer("Cache-Control: no-store", 'ETag: "a"', f"Last-Modified: {w.date(-100)}"))
    await w.get()
    await w.get()
    assert "if-none-match" not in w.origin.last
    assert "if-modified-since" not in w.origin.last


@over_sockets
async def test_no_store_in_a_request_keeps_its_response_out(w: World) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60"))
    assert not (await w.get("Cache-Control: no-store")).stored
    assert not (await w.get()).hit


@over_sockets
async def test_no_store_in_a_request_lets_it_be_answered_by_what_is_stored(w: World) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60"))
    await w.get()
    assert (await w.get("Cache-Control: no-store")).hit
    assert (await w.get()).hit


@pytest.mark.parametrize(
    ("asked", "answered", "writes"),
    [("max-age=60", "max-age=60", True), ("no-store", "max-age=60", False), ("max-age=60", "no-store", False)],
)
def test_what_says_no_store_reaches_no_lower_tier(asked: str, answered: str, writes: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"cache-control", answered.encode()), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def test() -> None:
        tier = ScriptedTier()
        cache = TierCache(l2=tier)
        await ask(TierCacheMiddleware(app, cache=cache), headers=[(b"cache-control", asked.encode())])
        await cache.aclose()
        assert bool(tier.data) is writes

    run(test())


# ---- must-understand ----


@pytest.mark.parametrize("status", KNOWN)
@pytest.mark.parametrize("directives", ["must-understand", "must-understand, no-store", "no-store, must-understand"])
@over_sockets
async def test_must_understand_sets_no_store_aside_for_a_status_that_is_understood(
    w: World, status: int, directives: str
) -> None:
    assert await w.reuses(f"Cache-Control: max-age=60, {directives}", status=status)


@pytest.mark.parametrize("status", UNKNOWN)
@pytest.mark.parametrize("directives", ["must-understand", "must-understand, no-store"])
@over_sockets
async def test_must_understand_keeps_a_status_out_that_is_not(w: World, status: int, directives: str) -> None:
    assert not await w.reuses(f"Cache-Control: max-age=60, {directives}", status=status)


# ---- private ----


@over_sockets
async def test_private_keeps_a_response_out(w: World) -> None:
    assert not await w.reuses("Cache-Control: private, max-age=60, s-maxage=60, public")


# ---- Authorization ----


@pytest.mark.parametrize("directives", LET_IN)
@over_sockets
async def test_a_response_to_authorization_is_shared_where_it_says_so(w: World, directives: str) -> None:
    w.origin.script(Answer(f"Cache-Control: {directives}"))
    await w.get("Authorization: Basic YTpi")
    assert (await w.get("Authorization: Basic YTpi")).hit
    assert (await w.get("Authorization: Basic YzpkCg==")).hit
    assert (await w.get()).hit


@pytest.mark.parametrize(
    "directives", ["max-age=60", "max-age=60, proxy-revalidate", "max-age=60, immutable", 'max-age=60, public="no"']
)
@pytest.mark.parametrize("scheme", ["Basic YTpi", "Bearer a.b.c", "Foo", ""])
@over_sockets
async def test_a_response_to_authorization_is_nobody_elses_where_it_does_not(
    w: World, directives: str, scheme: str
) -> None:
    w.origin.script(Answer(f"Cache-Control: {directives}", f"Expires: {w.date(60)}", f"Last-Modified: {w.date(-1000)}"))
    await w.get(f"Authorization: {scheme}")
    assert not (await w.get(f"Authorization: {scheme}")).hit
    assert not (await w.get()).hit


@over_sockets
async def test_a_response_to_authorization_is_subject_to_what_let_it_in(w: World) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60, must-revalidate"))
    await w.get("Authorization: Basic YTpi")
    w.clock.tick(60)
    assert not (await w.get("Authorization: Basic YTpi", "Cache-Control: max-stale")).hit


@over_sockets
async def test_cookies_are_no_obstacle_in_either_direction(w: World) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60", "Set-Cookie: a=b"))
    await w.get("Cookie: a=1")
    assert (await w.get("Cookie: a=2")).hit


# ---- what is not complete ----


@over_sockets
async def test_a_response_that_breaks_off_is_not_used_as_if_it_were_complete(w: World) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60", body="all of it", cut=3), Answer("Cache-Control: max-age=60"))
    assert not (await w.get()).complete
    reply = await w.get()
    assert (reply.hit, reply.complete, w.origin.asked) == (False, True, 2)


@over_sockets
async def test_what_is_stored_outlives_a_response_that_breaks_off(w: World) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60", body="one"))
    await w.get()
    w.origin.script(Answer("Cache-Control: max-age=60", body="another", cut=3))
    await w.get("Cache-Control: no-cache")
    w.origin.script(Answer("Cache-Control: max-age=60", body="a third"))
    assert (await w.get()).text in ("one", "a third")


@over_sockets
async def test_a_response_in_chunks_is_stored(w: World) -> None:
    head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n"
    w.origin.script(Raw(head + b"3\r\none\r\n0\r\n\r\n"))
    await w.get()
    reply = await w.get()
    assert (reply.hit, reply.body) == (True, b"one")


# ---- Vary ----


@pytest.mark.parametrize("lines", [["Vary: *"], ["Vary: accept, *"], ["Vary: *,accept"], ["Vary: accept", "Vary: *"]])
@over_sockets
async def test_a_star_in_vary_matches_no_request(w: World, lines: list[str]) -> None:
    assert not await w.reuses("Cache-Control: max-age=60", *lines)


# ---- the key ----


@over_sockets
async def test_a_response_answers_for_its_own_uri_alone(w: World) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60"))
    await w.get(path="/a?b=c")
    for path in ("/a", "/a?b=d", "/a?b=c&", "/A?b=c", "/a/?b=c", "/a?B=c", "/a?b=C"):
        assert not (await w.get(path=path)).hit
    assert (await w.get(path="/a?b=c")).hit


@over_sockets
async def test_a_response_answers_for_its_own_host_alone(w: World) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60"))
    await w.get()
    assert not (await w.request("GET", host="Host: example.com")).hit
    assert not (await w.request("GET", host="Host: example.org:8000")).hit
    assert (await w.request("GET", host="Host: EXAMPLE.org")).hit
