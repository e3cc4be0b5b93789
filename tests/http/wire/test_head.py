"""HEAD: answered by what GET has stored, and what it tells of that (RFC 9111, 4.3.5; RFC 9110, 8.6 and 9.3.2)."""

from __future__ import annotations

import pytest

from tests.http.wire.world import DOWN, Answer, World, over_sockets

FRESH = "Cache-Control: max-age=60"
TAG = 'ETag: "a"'
MODIFIED = "Last-Modified: Tue, 14 Nov 2023 20:00:00 GMT"


@over_sockets
async def test_head_has_the_fields_of_get_and_no_content(w: World) -> None:
    lines = [TAG, MODIFIED, "Content-Type: text/plain", "X-A: 1", "Vary: Foo"]
    w.origin.script(Answer(FRESH, *lines, body=b"0123456789"))
    await w.get()
    got, reply = await w.get(), await w.head()
    assert (reply.hit, reply.status, reply.body) == (True, 200, b"")
    assert reply.lines == got.lines
    assert reply.values("content-length") == ["10"]


@over_sockets
async def test_head_of_what_is_missing_is_the_origins(w: World) -> None:
    w.origin.script(Answer(FRESH, TAG, "Content-Length: 7"))
    reply = await w.head()
    assert (w.origin.last.method, reply.status, reply["content-length"], reply["etag"]) == ("HEAD", 200, "7", '"a"')


@over_sockets
async def test_a_response_to_head_does_not_answer_get(w: World) -> None:
    w.origin.script(Answer(FRESH, TAG, "Content-Length: 7"), Answer(FRESH, TAG, body="content"))
    await w.head()
    reply = await w.get()
    assert (reply.hit, reply.text, w.origin.last.method) == (False, "content", "GET")
    assert "if-none-match" not in w.origin.last


async def _after_head(w: World, stored: list[str], *lines: str, seconds: float = 10, status: int = 200) -> bool:
    """Whether what is stored answers GET after the origin answered HEAD so."""
    w.origin.script(Answer(FRESH, *stored, body=b"0123456789"))
    await w.get()
    w.clock.tick(seconds)
    w.origin.script(Answer(*lines, status=status))
    head = await w.head("Cache-Control: no-cache")
    assert (w.origin.last.method, head.status, head.told) == ("HEAD", status, {"fwd": "method", "detail": "head"})
    w.origin.script(Answer(FRESH, body=b"new"))
    reply = await w.get()
    assert reply.hit is (reply.body == b"0123456789")
    return reply.hit


@pytest.mark.parametrize(
    ("stored", "lines"),
    [
        ([TAG], [FRESH, TAG, "Content-Length: 10"]),
        ([TAG], [FRESH, TAG]),
        ([MODIFIED], [FRESH, MODIFIED, "Content-Length: 10"]),
        ([TAG, MODIFIED], [FRESH, TAG, MODIFIED]),
        ([TAG, MODIFIED], [FRESH, TAG]),
        ([], [FRESH, "Content-Length: 10"]),
        (['ETag: W/"a"'], [FRESH, 'ETag: W/"a"']),
    ],
)
@over_sockets
async def test_a_head_that_agrees_freshens_what_is_stored(w: World, stored: list[str], lines: list[str]) -> None:
    assert await _after_head(w, stored, *lines, "X-A: 1")
    reply = await w.get()
    assert (reply["x-a"], reply["content-length"], reply.age) == ("1", "10", 0)
    w.clock.tick(59)
    assert (await w.get()).hit


@pytest.mark.parametrize(
    ("stored", "lines"),
    [
        ([TAG], [FRESH, 'ETag: "b"', "Content-Length: 10"]),
        ([TAG], [FRESH, 'ETag: "b"']),
        ([TAG], [FRESH, TAG, "Content-Length: 11"]),
        ([], [FRESH, TAG, "Content-Length: 10"]),
        ([], [FRESH, "Content-Length: 11"]),
        ([MODIFIED], [FRESH, "Last-Modified: Tue, 14 Nov 2023 20:00:01 GMT"]),
        ([TAG, MODIFIED], [FRESH, TAG, "Last-Modified: Tue, 14 Nov 2023 20:00:01 GMT"]),
        ([TAG, MODIFIED], [FRESH, 'ETag: "b"', MODIFIED]),
    ],
)
@over_sockets
async def test_a_head_that_does_not_agree_makes_it_stale(w: World, stored: list[str], lines: list[str]) -> None:
    assert not await _after_head(w, stored, *lines)


@over_sockets
async def test_a_head_freshens_what_is_stale(w: World) -> None:
    assert await _after_head(w, [TAG], FRESH, TAG, seconds=70)


@over_sockets
async def test_a_head_updates_fields_but_the_length_and_those_that_are_not_stored(w: World) -> None:
    w.origin.script(Answer(FRESH, TAG, "X-A: 1", "X-B: 2", body=b"0123456789"))
    await w.get()
    w.origin.script(Answer("Cache-Control: max-age=600", TAG, "X-A: 3", "X-C: 4", "Connection: x-c"))
    await w.head("Cache-Control: no-cache")
    w.clock.tick(599)
    reply = await w.get()
    assert (reply.hit, reply.values("x-a"), reply["x-b"], "x-c" in reply) == (True, ["3"], "2", False)
    assert (reply.values("content-length"), reply.body) == (["10"], b"0123456789")


@pytest.mark.parametrize("status", [404, 500, 302])
@over_sockets
async def test_a_head_that_fails_tells_nothing(w: World, status: int) -> None:
    assert await _after_head(w, [TAG], FRESH, 'ETag: "b"', status=status)
    assert not await _after_head(w, [TAG], FRESH, TAG, status=status, seconds=70)


@over_sockets
async def test_a_head_with_a_condition_tells_the_same_as_one_without(w: World) -> None:
    w.origin.script(Answer(FRESH, TAG))
    await w.get()
    w.origin.script(Answer(FRESH, 'ETag: "b"'))
    await w.head("Cache-Control: no-cache", 'If-None-Match: "c"')
    assert not (await w.get()).hit


@over_sockets
async def test_a_head_reaches_the_client_as_the_origin_has_answered_it(w: World) -> None:
    w.origin.script(Answer(FRESH, TAG, "X-A: 1"))
    await w.get()
    w.origin.script(Answer(FRESH, TAG, "X-A: 2", "Content-Length: 8"))
    reply = await w.head("Cache-Control: no-cache")
    assert (reply.status, reply["etag"], reply["x-a"], reply["content-length"]) == (200, '"a"', "2", "8")
    assert w.cache.stats()["passes"] == {"head": 1}


@pytest.mark.parametrize(("head_after", "get_after", "stands_in"), [(50, 15, True), (50, 21, False), (70, 15, False)])
@over_sockets
async def test_what_a_head_makes_stale_has_been_so_since_then_or_longer(
    w: World, head_after: float, get_after: float, stands_in: bool
) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60, stale-if-error=20", TAG))
    await w.get()
    w.clock.tick(head_after)
    w.origin.script(Answer(FRESH, 'ETag: "b"'), DOWN)
    await w.head("Cache-Control: no-cache")
    w.clock.tick(get_after)
    assert (await w.get()).status == (200 if stands_in else 500)


@over_sockets
async def test_a_head_tells_only_of_the_variant_that_it_asks_for(w: World) -> None:
    w.origin.script(Answer(FRESH, "Vary: Foo", 'ETag: "1"'), Answer(FRESH, "Vary: Foo", 'ETag: "2"'))
    await w.get("Foo: 1")
    await w.get("Foo: 2")
    w.origin.script(Answer(FRESH, "Vary: Foo", 'ETag: "3"'))
    await w.head("Foo: 2", "Cache-Control: no-cache")
    w.origin.script(Answer(FRESH, "Vary: Foo", 'ETag: "3"'))
    assert (await w.get("Foo: 1")).hit
    assert not (await w.get("Foo: 2")).hit


@over_sockets
async def test_content_of_a_head_request_makes_no_difference_to_others(w: World) -> None:
    w.origin.script(Answer(FRESH, body=b"0123456789"))
    await w.get()
    await w.request("HEAD", body=b"content")
    assert (await w.get()).body == b"0123456789"
