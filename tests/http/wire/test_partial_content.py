"""Responses that are not whole (RFC 9111, sections 3.3 and 3.4; RFC 9110, sections 14.4 and 15.3.7.3)."""

from __future__ import annotations

import pytest
from starlette.types import Receive, Scope, Send

from asgi_tiercache import TierCache, TierCacheMiddleware
from tests.http.wire.world import Answer, World, over_sockets
from tests.middleware.asgi import ask, run

FRESH = "Cache-Control: max-age=60"
TAG = 'ETag: "a"'


def _part(*lines: str, ranges: str = "bytes 2-5/10", body: bytes = b"2345") -> Answer:
    return Answer(FRESH, *lines, f"Content-Range: {ranges}", status=206, body=body)


@pytest.mark.parametrize("lines", [[TAG], [], ["Last-Modified: Tue, 14 Nov 2023 20:00:00 GMT"]])
@over_sockets
async def test_a_part_never_answers_for_the_whole(w: World, lines: list[str]) -> None:
    w.origin.script(_part(*lines), Answer(FRESH, body=b"0123456789"))
    await w.get("Range: bytes=2-5")
    reply = await w.get()
    assert (reply.status, reply.body) == (200, b"0123456789")
    assert '"a"' not in w.origin.last["if-none-match"]


@over_sockets
async def test_a_206_to_a_request_without_range_answers_for_nothing_else(w: World) -> None:
    w.origin.script(_part(TAG), Answer(FRESH, body=b"0123456789"))
    assert (await w.get()).status == 206
    assert (await w.get()).status == 200


@pytest.mark.parametrize("ranges", ["bytes=0-3", "bytes=4-7", "bytes=6-9", "bytes=-2", "bytes=2-", "bytes=2-5,7-8"])
@over_sockets
async def test_a_part_does_not_answer_for_what_is_not_in_it(w: World, ranges: str) -> None:
    w.origin.script(_part(TAG), Answer(FRESH, TAG, status=206, body=b"other"))
    await w.get("Range: bytes=2-5")
    reply = await w.get(f"Range: {ranges}")
    assert (reply.hit, reply.body, w.origin.last["range"]) == (False, b"other", ranges)


@pytest.mark.parametrize(
    ("ranges", "content_range", "body"),
    [
        ("bytes=2-5", "bytes 2-5/10", b"2345"),
        ("bytes=3-4", "bytes 3-4/10", b"34"),
        ("bytes=2-2", "bytes 2-2/10", b"2"),
    ],
)
@over_sockets
async def test_a_part_answers_for_what_is_in_it(w: World, ranges: str, content_range: str, body: bytes) -> None:
    w.origin.script(_part(TAG, "Content-Type: text/plain"))
    await w.get("Range: bytes=2-5")
    reply = await w.get(f"Range: {ranges}")
    assert (reply.hit, reply.status, reply.body) == (True, 206, body)
    assert (reply["content-range"], reply["content-type"]) == (content_range, "text/plain")


@pytest.mark.parametrize(
    "ranges",
    [
        "lines 2-5/10",
        "bytes 5-2/10",
        "bytes 2-5/5",
        "bytes 2-5/4",
        "bytes 2-5",
        "2-5/10",
        "bytes a-b/10",
        "",
        "bytes */10",
    ],
)
@over_sockets
async def test_a_part_that_does_not_say_what_it_is_of_is_passed_on_and_not_used(w: World, ranges: str) -> None:
    w.origin.script(_part(TAG, ranges=ranges))
    first = await w.get("Range: bytes=2-5")
    assert (first.status, first.body, first["content-range"]) == (206, b"2345", ranges)
    assert not (await w.get("Range: bytes=2-5")).hit
    assert not (await w.get()).hit


@over_sockets
async def test_parts_of_different_versions_are_never_put_together(w: World) -> None:
    w.origin.script(
        _part('ETag: "a"', ranges="bytes 0-4/10", body=b"aaaaa"),
        _part('ETag: "b"', ranges="bytes 5-9/10", body=b"bbbbb"),
        Answer(FRESH, body=b"cccccccccc"),
    )
    await w.get("Range: bytes=0-4")
    await w.get("Range: bytes=5-9")
    assert (await w.get()).body == b"cccccccccc"
    assert (await w.get("Range: bytes=4-5")).body != b"ab"


@pytest.mark.parametrize("validator", ['ETag: W/"a"', "X-A: 1"])
@over_sockets
async def test_parts_without_a_strong_validator_are_never_put_together(w: World, validator: str) -> None:
    w.origin.script(
        _part(validator, ranges="bytes 0-4/10", body=b"aaaaa"),
        _part(validator, ranges="bytes 5-9/10", body=b"bbbbb"),
        Answer(FRESH, body=b"cccccccccc"),
    )
    await w.get("Range: bytes=0-4")
    await w.get("Range: bytes=5-9")
    assert (await w.get()).body == b"cccccccccc"


@pytest.mark.parametrize(
    ("asked", "ranges", "whole"),
    [
        (["Range: bytes=0-"], "bytes 0-9/10", True),
        (["Range: bytes=0-", 'If-Range: "a"'], "bytes 0-9/10", False),  # its answer may lack fields
        (["Range: bytes=0-"], "bytes 0-9/*", False),
    ],
)
@over_sockets
async def test_a_part_that_is_all_of_it_answers_for_the_whole(
    w: World, asked: list[str], ranges: str, whole: bool
) -> None:
    w.origin.script(_part(TAG, ranges=ranges, body=b"0123456789"), Answer(FRESH, TAG, body=b"9876543210"))
    await w.get(*asked)
    reply = await w.get()
    assert (reply.status, reply.hit, "content-range" in reply) == (200, whole, False)
    assert reply.body == (b"0123456789" if whole else b"9876543210")


@over_sockets
async def test_a_part_that_is_stale_is_not_used(w: World) -> None:
    w.origin.script(_part(TAG))
    await w.get("Range: bytes=2-5")
    w.clock.tick(60)
    assert not (await w.get("Range: bytes=2-5")).hit


@over_sockets
async def test_several_parts_at_once_answer_for_nothing_else(w: World) -> None:
    kind = "Content-Type: multipart/byteranges; boundary=x"
    w.origin.script(Answer(FRESH, TAG, kind, status=206, body=b"--x--"), Answer(FRESH, body=b"0123456789"))
    await w.get("Range: bytes=0-1,5-6")
    assert (await w.get()).body == b"0123456789"


@over_sockets
async def test_a_part_does_not_take_the_place_of_the_whole(w: World) -> None:
    w.origin.script(Answer(FRESH, TAG, body=b"0123456789"))
    await w.get()
    w.origin.script(_part('ETag: "b"'), Answer(FRESH, 'ETag: "b"', body=b"abcdefghij"))
    await w.get("Range: bytes=2-5", "Cache-Control: no-cache")
    reply = await w.get()
    assert reply.status == 200
    assert reply.body in (b"0123456789", b"abcdefghij")


@over_sockets
async def test_of_a_part_and_a_whole_the_more_recent_answers(w: World) -> None:
    w.origin.script(Answer(FRESH, TAG, body=b"0123456789"))
    await w.get()
    w.clock.tick(1)
    w.origin.script(_part('ETag: "b"', body=b"cdef"), Answer(FRESH, 'ETag: "b"', body=b"abcdefghij"))
    await w.get("Range: bytes=2-5", "Cache-Control: no-cache")
    reply = await w.get("Range: bytes=3-4")
    assert (reply.hit, reply.body) == (True, b"de")
    assert (await w.get()).body == b"abcdefghij"
    assert (await w.get("Range: bytes=3-6")).body == b"defg"


@over_sockets
async def test_a_part_that_is_older_than_the_whole_does_not_answer(w: World) -> None:
    w.origin.script(_part(TAG), Answer("Cache-Control: max-age=10", 'ETag: "b"', body=b"abcdefghij"))
    await w.get("Range: bytes=2-5")
    w.clock.tick(1)
    await w.get()
    w.clock.tick(20)
    w.origin.script(_part('ETag: "c"', body=b"CDEF"))
    assert (await w.get("Range: bytes=2-5")).body == b"CDEF"


@over_sockets
async def test_a_part_answers_where_the_whole_is_stale(w: World) -> None:
    w.origin.script(Answer("Cache-Control: max-age=10", TAG, body=b"0123456789"), _part(TAG))
    await w.get()
    w.clock.tick(20)
    await w.get("Range: bytes=2-5")
    reply = await w.get("Range: bytes=2-5")
    assert (reply.hit, reply.body) == (True, b"2345")


@over_sockets
async def test_a_whole_stays_fresh_beside_a_part_of_it(w: World) -> None:
    w.origin.script(Answer(FRESH, TAG, body=b"0123456789"))
    await w.get()
    w.clock.tick(1)
    w.origin.script(_part(TAG))
    await w.get("Range: bytes=2-5", "Cache-Control: no-cache")
    assert (await w.get()).hit


@over_sockets
async def test_a_whole_that_cannot_be_validated_goes_with_a_newer_part_of_another_version(w: World) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60, must-revalidate", body=b"0123456789"))
    await w.get()
    w.clock.tick(1)
    w.origin.script(_part(TAG, body=b"cdef"), Answer(FRESH, body=b"abcdefghij"))
    await w.get("Range: bytes=2-5", "Cache-Control: no-cache")
    assert (await w.get()).body == b"abcdefghij"


# ---- lengths ----


@over_sockets
async def test_a_length_of_many_digits_is_no_error(w: World) -> None:
    w.origin.script(Answer(FRESH, "Content-Length: 9999999999999999999", body="short"))
    assert not (await w.get()).complete
    assert not (await w.get()).complete
    assert w.origin.asked == 2


@pytest.mark.parametrize(
    "lengths",
    [
        [length]
        for length in (b"9" * 5_000, b"5, 5", b"5, 6", b"-5", b"+5", b"0_5", b"5.0", b"0x5", b"", b"five", b"\xb2")
    ]
    + [[b"5", b"6"], [b"5", b""]],
)
def test_a_length_that_is_no_number_of_bytes_is_not_stored(lengths: list[bytes]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"cache-control", b"max-age=60"), *((b"content-length", length) for length in lengths)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"short"})

    async def test() -> None:
        middleware = TierCacheMiddleware(app, cache=TierCache())
        assert [(await ask(middleware)).hit for _ in range(2)] == [False, False]

    run(test())
