"""What `Cache-Status` tells the client (RFC 9211)."""

from __future__ import annotations

import asyncio

import pytest

from tests.http.wire.world import DOWN, Answer, World, over_sockets
from tests.middleware.asgi import until

FRESH = "Cache-Control: max-age=60"
TAG = 'ETag: "a"'


@over_sockets
async def test_a_hit_says_how_long_it_will_be_fresh(w: World) -> None:
    w.origin.script(Answer(FRESH, "Age: 10"))
    await w.get()
    w.clock.tick(7)
    told = (await w.get()).told
    assert (told["hit"], told["ttl"], "fwd" in told) == ("?1", "43", False)


@over_sockets
async def test_a_miss_says_why_and_what_became_of_it(w: World) -> None:
    w.origin.script(Answer(FRESH, "Vary: Foo"))
    told = (await w.get("Foo: 1")).told
    assert (told["fwd"], told.get("stored"), "hit" in told) == ("uri-miss", "?1", False)
    assert (await w.get("Foo: 2")).told["fwd"] == "vary-miss"


@over_sockets
async def test_a_response_that_is_not_stored_does_not_say_so(w: World) -> None:
    w.origin.script(Answer("Cache-Control: no-store"))
    told = (await w.get()).told
    assert (told["fwd"], told.get("stored", "?0")) == ("uri-miss", "?0")


@pytest.mark.parametrize("directive", ["no-cache", "max-age=0", "min-fresh=60"])
@over_sockets
async def test_a_request_that_does_not_want_what_is_fresh_is_told_so(w: World, directive: str) -> None:
    w.origin.script(Answer(FRESH))
    await w.get()
    w.clock.tick(1)
    assert (await w.get(f"Cache-Control: {directive}")).told["fwd"] == "request"


@over_sockets
async def test_what_is_stale_says_so_and_what_the_origin_answered(w: World) -> None:
    w.origin.script(Answer(FRESH, TAG))
    await w.get()
    w.clock.tick(60)
    w.origin.script(Answer(FRESH, TAG, status=304))
    told = (await w.get()).told
    assert (told["fwd"], told["fwd-status"], told.get("stored"), "hit" in told) == ("stale", "304", "?1", False)


@over_sockets
async def test_what_is_stale_and_replaced_says_so(w: World) -> None:
    w.origin.script(Answer(FRESH, TAG))
    await w.get()
    w.clock.tick(60)
    told = (await w.get()).told
    assert (told["fwd"], told.get("fwd-status", "200"), told.get("stored")) == ("stale", "200", "?1")


@over_sockets
async def test_what_stands_in_for_an_error_says_so(w: World) -> None:
    w.origin.script(Answer(FRESH, TAG))
    await w.get()
    w.clock.tick(70)
    w.origin.script(Answer(status=503))
    told = (await w.get()).told
    assert ("hit" in told) != ("fwd" in told)
    if "fwd" in told:
        assert (told["fwd"], told["fwd-status"]) == ("stale", "503")
    else:
        assert told["ttl"] == "-10"


@pytest.mark.parametrize(
    ("line", "status"), [('If-None-Match: "a"', 304), ("Range: bytes=0-1", 206), ("Range: bytes=99-", 416)]
)
@over_sockets
async def test_what_is_made_of_a_stored_response_is_a_hit(w: World, line: str, status: int) -> None:
    w.origin.script(Answer(FRESH, TAG))
    await w.get()
    reply = await w.get(line)
    assert (reply.status, reply.hit, reply.told["ttl"]) == (status, True, "60")


@over_sockets
async def test_who_waited_for_anothers_response_is_told_so(w: World) -> None:
    gate = asyncio.Event()
    w.origin.script(Answer(FRESH, gate=gate))
    asked = [asyncio.create_task(w.get()) for _ in range(2)]
    await w.origin.was_asked(1)
    await until(lambda: len(w.state.tasks) == 2)
    gate.set()
    replies = await asyncio.gather(*asked)
    assert w.origin.asked == 1
    assert sorted(reply.told.get("collapsed", "") for reply in replies) == ["", "?1"]
    assert {reply.told["fwd"] for reply in replies} == {"uri-miss"}
    assert [reply.told["ttl"] for reply in replies if "collapsed" in reply.told] == ["60"]


@pytest.mark.parametrize(
    "lines", [["Cache-Status: Origin; hit; ttl=5"], ["Cache-Status: A; fwd=miss", 'Cache-Status: "B C"; hit']]
)
@over_sockets
async def test_what_caches_before_us_said_stays_before_what_we_say(w: World, lines: list[str]) -> None:
    w.origin.script(Answer(FRESH, *lines))
    theirs = ", ".join(line.partition(": ")[2] for line in lines)
    for hit in (False, True):
        reply = await w.get()
        assert reply["cache-status"].startswith(f"{theirs}, tiercache; ")
        assert reply.hit is hit


@over_sockets
async def test_each_answer_has_one_member_of_ours(w: World) -> None:
    w.origin.script(Answer(FRESH))
    for _ in range(3):
        assert (await w.get())["cache-status"].count("tiercache") == 1


@over_sockets
async def test_an_answer_of_our_own_has_none(w: World) -> None:
    reply = await w.get("Cache-Control: only-if-cached")
    assert (reply.status, "cache-status" in reply) == (504, False)


@over_sockets
async def test_what_the_origin_did_not_answer_has_none_either(w: World) -> None:
    w.origin.script(DOWN)
    assert "hit" not in (await w.get())["cache-status"]


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "FOO"])
@over_sockets
async def test_a_method_that_is_never_answered_from_the_cache_is_no_hit(w: World, method: str) -> None:
    w.origin.script(Answer(FRESH))
    await w.get()
    told = (await w.request(method)).told
    assert told.get("fwd", "method") == "method"
    assert "hit" not in told
