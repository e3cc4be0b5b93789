"""Ranges of a complete stored response (RFC 9110, sections 13.1.5, 13.2.2, 14, 15.3.7 and 15.5.17)."""

from __future__ import annotations

import re
from email.parser import BytesParser

import pytest

from tests.http.wire.world import Answer, Reply, World, over_sockets

FRESH = "Cache-Control: max-age=60"
BODY = b"0123456789"
TAG = 'ETag: "a"'
MODIFIED = "Last-Modified: Tue, 14 Nov 2023 20:00:00 GMT"


async def _range(
    w: World, *lines: str, stored: tuple[str, ...] = (TAG,), status: int = 200, body: bytes = BODY
) -> Reply:
    """What a stored response answers to a request with these field lines."""
    w.origin.script(Answer(FRESH, *stored, status=status, body=body))
    await w.get()
    reply = await w.get(*lines)
    assert (reply.hit, w.origin.asked) == (True, 1)
    return reply


@pytest.mark.parametrize(
    ("ranges", "content_range", "body"),
    [
        ("bytes=0-3", "bytes 0-3/10", b"0123"),
        ("bytes=4-", "bytes 4-9/10", b"456789"),
        ("bytes=0-0", "bytes 0-0/10", b"0"),
        ("bytes=9-9", "bytes 9-9/10", b"9"),
        ("bytes=-3", "bytes 7-9/10", b"789"),
        ("bytes=-1", "bytes 9-9/10", b"9"),
        ("bytes=5-999", "bytes 5-9/10", b"56789"),
        ("bytes=0-9", "bytes 0-9/10", BODY),
        ("bytes=0-", "bytes 0-9/10", BODY),
        ("bytes=-10", "bytes 0-9/10", BODY),
        ("bytes=-999", "bytes 0-9/10", BODY),
        ("bytes=00-03", "bytes 0-3/10", b"0123"),
        ("BYTES=0-3", "bytes 0-3/10", b"0123"),
        ("bytes=5-99999999999999999999999999", "bytes 5-9/10", b"56789"),
        ("bytes=-99999999999999999999999999", "bytes 0-9/10", BODY),
        ("bytes= 0-3", "bytes 0-3/10", b"0123"),
        ("bytes=,0-3 ,", "bytes 0-3/10", b"0123"),
    ],
)
@over_sockets
async def test_a_range_is_answered_with_206(w: World, ranges: str, content_range: str, body: bytes) -> None:
    reply = await _range(w, f"Range: {ranges}")
    assert (reply.status, reply.body) == (206, body)
    assert (reply.values("content-range"), reply.values("content-length")) == ([content_range], [str(len(body))])


@pytest.mark.parametrize(
    "ranges", ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=999-", "bytes=99999999999999999999999-", "bytes=10-,-0"]
)
@over_sockets
async def test_a_range_beyond_the_end_is_answered_with_416(w: World, ranges: str) -> None:
    reply = await _range(w, f"Range: {ranges}")
    assert (reply.status, reply["content-range"]) == (416, "bytes */10")
    assert BODY not in reply.body


@pytest.mark.parametrize(
    "ranges",
    [
        "bytes=3-1",
        "bytes=a-b",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=--1",
        "bytes=1",
        "bytes=0-1-2",
        "bytes=+0-3",
        "bytes=0x0-3",
        "bytes=0-3, a",
        "bytes=3-1, 0-3",
        "bytes=0.5-3",
        "bytes=\xb2-3",
        "bytes:0-3",
        "bytes = 0-3",
        "0-3",
        "=0-3",
        "",
        "bytes=0 - 3",
        "bytes=;0-3",
    ],
)
@over_sockets
async def test_ranges_that_are_invalid_are_ignored(w: World, ranges: str) -> None:
    reply = await _range(w, f"Range: {ranges}")
    assert (reply.status, reply.body, "content-range" in reply) == (200, BODY, False)


@pytest.mark.parametrize("ranges", ["lines=0-3", "none=0-3", "bytess=0-3", "byte=0-3", "items=a"])
@over_sockets
async def test_units_that_are_not_understood_are_ignored(w: World, ranges: str) -> None:
    reply = await _range(w, f"Range: {ranges}")
    assert (reply.status, reply.body) == (200, BODY)


@over_sockets
async def test_several_range_lines_are_no_range(w: World) -> None:
    reply = await _range(w, "Range: bytes=0-3", "Range: bytes=5-6")
    assert reply.status in (200, 206)
    assert reply.body != b"0123"


@over_sockets
async def test_without_content_there_is_no_range(w: World) -> None:
    assert (await _range(w, "Range: bytes=0-", body=b"")).status in (200, 416)


@pytest.mark.parametrize("line", ["Range: bytes=-5", "Range: bytes=-1"])
@over_sockets
async def test_a_suffix_of_nothing_is_nothing(w: World, line: str) -> None:
    reply = await _range(w, line, body=b"")
    assert (reply.status, reply.body) == (200, b"")


@pytest.mark.parametrize("status", [203, 301, 404, 500])
@over_sockets
async def test_only_200_has_ranges(w: World, status: int) -> None:
    reply = await _range(w, "Range: bytes=0-3", status=status)
    assert (reply.status, reply.body) == (status, BODY)


@over_sockets
async def test_head_has_no_ranges(w: World) -> None:
    w.origin.script(Answer(FRESH, TAG, body=BODY))
    await w.get()
    reply = await w.head("Range: bytes=0-3")
    assert (reply.hit, reply.status, reply["content-length"]) == (True, 200, "10")


@over_sockets
async def test_other_methods_are_the_origins(w: World) -> None:
    w.origin.script(Answer(FRESH, TAG, body=BODY))
    await w.get()
    await w.request("OPTIONS", "Range: bytes=0-3")
    assert w.origin.last["range"] == "bytes=0-3"


@over_sockets
async def test_a_206_has_what_the_200_would_have_said(w: World) -> None:
    stored = (
        f"Date: {w.date()}",
        TAG,
        f"Expires: {w.date(60)}",
        "Content-Location: /b",
        "Vary: Foo",
        "Content-Type: text/plain",
        "Content-Language: de",
        MODIFIED,
        "X-A: 1",
        "Content-Encoding: foo",
    )
    reply = await _range(w, "Range: bytes=0-3", stored=stored)
    for line in (FRESH, *stored):
        name, _, value = line.partition(": ")
        assert reply.values(name.lower()) == [value]
    assert reply.age == 0


@over_sockets
async def test_a_206_says_the_age(w: World) -> None:
    w.origin.script(Answer(FRESH, body=BODY))
    await w.get()
    w.clock.tick(7)
    reply = await w.get("Range: bytes=0-3")
    assert (reply.status, reply.age, reply.hit) == (206, 7, True)


# ---- several ranges ----


def _parts(reply: Reply) -> list[tuple[str | None, str | None, bytes]]:
    """Content-Type, Content-Range and content of each part."""
    message = BytesParser().parsebytes(f"Content-Type: {reply['content-type']}\r\n\r\n".encode() + reply.body)
    assert message.is_multipart()
    found = []
    for part in message.walk():
        content = part.get_payload(decode=True)
        if isinstance(content, bytes):
            found.append((part["content-type"], part["content-range"], content))
    return found


@pytest.mark.parametrize(
    ("ranges", "parts"),
    [
        ("bytes=0-1,5-6", [("bytes 0-1/10", b"01"), ("bytes 5-6/10", b"56")]),
        ("bytes=0-1, -2", [("bytes 0-1/10", b"01"), ("bytes 8-9/10", b"89")]),
        ("bytes=5-6, 0-1", [("bytes 5-6/10", b"56"), ("bytes 0-1/10", b"01")]),
        ("bytes=0-1, 5-6, 20-30", [("bytes 0-1/10", b"01"), ("bytes 5-6/10", b"56")]),
    ],
)
@over_sockets
async def test_several_ranges_are_parts_in_the_order_asked(
    w: World, ranges: str, parts: list[tuple[str, bytes]]
) -> None:
    reply = await _range(w, f"Range: {ranges}", stored=(TAG, "Content-Type: text/x-a"))
    assert reply.status == 206
    assert re.fullmatch(r"multipart/byteranges; *boundary=\S+", reply["content-type"])
    assert "content-range" not in reply
    assert int(reply["content-length"]) == len(reply.body)
    assert _parts(reply) == [("text/x-a", content_range, body) for content_range, body in parts]
    assert b"\n" not in reply.body.replace(b"\r\n", b"")


@over_sockets
async def test_parts_of_what_has_no_type_have_none(w: World) -> None:
    reply = await _range(w, "Range: bytes=0-1,5-6")
    assert b"content-type" not in reply.body.lower()


@over_sockets
async def test_one_range_that_is_left_of_several_is_no_multipart_or_a_right_one(w: World) -> None:
    reply = await _range(w, "Range: bytes=0-1,20-30")
    assert reply.status == 206
    if "content-range" in reply:
        assert (reply["content-range"], reply.body) == ("bytes 0-1/10", b"01")
    else:
        assert [part[1:] for part in _parts(reply)] == [("bytes 0-1/10", b"01")]


@pytest.mark.parametrize(
    "ranges",
    [
        "bytes=0-,0-,0-,0-",
        "bytes=" + ",".join(["0-9"] * 1_000),
        "bytes=" + ",".join(f"{n}-{n}" for n in range(1_000)),
        "bytes=" + ",".join(["-1"] * 10_000),
        "bytes=" + ",".join(["0-0", "9-9"] * 500),
    ],
)
@over_sockets
async def test_ranges_too_many_or_overlapping_cost_no_more_than_the_whole(w: World, ranges: str) -> None:
    reply = await _range(w, f"Range: {ranges}")
    assert reply.status in (200, 206, 416)
    assert len(reply.body) <= 1_000


# ---- conditions ----


@over_sockets
async def test_a_condition_that_is_met_comes_before_the_range(w: World) -> None:
    assert (await _range(w, "Range: bytes=0-3", 'If-None-Match: "a"')).status == 304


@over_sockets
async def test_a_condition_that_is_not_met_leaves_the_range(w: World) -> None:
    assert (await _range(w, "Range: bytes=0-3", 'If-None-Match: "b"')).status == 206


@pytest.mark.parametrize(
    ("stored", "if_range", "status"),
    [
        (['ETag: "a"'], '"a"', 206),
        (['ETag: "a"'], '"b"', 200),
        (['ETag: "a"'], 'W/"a"', 200),
        (['ETag: W/"a"'], 'W/"a"', 200),
        (['ETag: W/"a"'], '"a"', 200),
        (['ETag: "a"'], "a", 200),
        (['ETag: "a"'], '"a", "b"', 200),
        (['ETag: "a"'], "*", 200),
        (['ETag: "a"'], "", 200),
        ([], '"a"', 200),
    ],
)
@over_sockets
async def test_if_range_wants_exactly_the_tag_that_is_stored(
    w: World, stored: list[str], if_range: str, status: int
) -> None:
    reply = await _range(w, "Range: bytes=0-3", f"If-Range: {if_range}", stored=tuple(stored))
    assert (reply.status, reply.body) == (status, b"0123" if status == 206 else BODY)


@pytest.mark.parametrize(
    ("modified", "date", "if_range", "status"),
    [
        (-100, -10, -100, 206),
        (-11, -10, -11, 206),
        (-10, -10, -10, 200),
        (-100, -10, -99, 200),
        (-100, -10, -101, 200),
        (None, -10, -10, 200),
    ],
)
@over_sockets
async def test_if_range_wants_exactly_the_date_that_is_stored_if_it_tells_versions_apart(
    w: World, modified: float | None, date: float, if_range: float, status: int
) -> None:
    stored = [f"Date: {w.date(date)}"] + ([] if modified is None else [f"Last-Modified: {w.date(modified)}"])
    reply = await _range(w, "Range: bytes=0-3", f"If-Range: {w.date(if_range)}", stored=tuple(stored))
    assert (reply.status, reply.body) == (status, b"0123" if status == 206 else BODY)


@pytest.mark.parametrize("if_range", ["yesterday", "Tue, 14 Nov 2023 20:00:00", "tue, 14 nov 2023 20:00:00 gmt", "0"])
@over_sockets
async def test_an_if_range_that_is_neither_matches_nothing(w: World, if_range: str) -> None:
    assert (await _range(w, "Range: bytes=0-3", f"If-Range: {if_range}", stored=(MODIFIED,))).status == 200


@over_sockets
async def test_several_if_range_lines_match_nothing(w: World) -> None:
    assert (await _range(w, "Range: bytes=0-3", 'If-Range: "a"', 'If-Range: "a"')).status == 200


@pytest.mark.parametrize("if_range", ['"a"', '"b"', "Tue, 14 Nov 2023 20:00:00 GMT"])
@over_sockets
async def test_if_range_without_a_range_does_not_count(w: World, if_range: str) -> None:
    reply = await _range(w, f"If-Range: {if_range}")
    assert (reply.status, reply.body) == (200, BODY)


@over_sockets
async def test_a_206_to_if_range_does_not_repeat_what_the_client_has(w: World) -> None:
    reply = await _range(w, "Range: bytes=0-3", 'If-Range: "a"', stored=(TAG, MODIFIED, "Content-Language: de"))
    assert reply.status == 206
    assert "last-modified" not in reply
    assert "content-language" not in reply


@over_sockets
async def test_if_range_that_is_met_does_not_save_a_range_beyond_the_end(w: World) -> None:
    assert (await _range(w, "Range: bytes=99-", 'If-Range: "a"')).status == 416
    assert (await w.get("Range: bytes=99-", 'If-Range: "b"')).status == 200


# ---- stale, variants, misses ----


@over_sockets
async def test_a_range_of_a_variant_is_of_that_variant(w: World) -> None:
    w.origin.script(Answer(FRESH, "Vary: Foo", body=b"aaaa"), Answer(FRESH, "Vary: Foo", body=b"bbbb"))
    await w.get("Foo: 1")
    await w.get("Foo: 2")
    assert (await w.get("Foo: 2", "Range: bytes=0-1")).body == b"bb"


@over_sockets
async def test_a_range_of_what_is_missing_is_the_origins(w: World) -> None:
    w.origin.script(Answer(FRESH, TAG, "Content-Range: bytes 0-3/10", status=206, body=b"0123"))
    reply = await w.get("Range: bytes=0-3", 'If-Range: "a"')
    assert (reply.status, reply.body, reply["content-range"]) == (206, b"0123", "bytes 0-3/10")
    assert (w.origin.last["range"], w.origin.last["if-range"]) == ("bytes=0-3", '"a"')


@over_sockets
async def test_a_range_of_what_is_stale_is_not_answered_without_the_origin(w: World) -> None:
    w.origin.script(Answer(FRESH, TAG, body=BODY))
    await w.get()
    w.clock.tick(60)
    w.origin.script(Answer(FRESH, 'ETag: "b"', body=b"abcdefghij"))
    reply = await w.get("Range: bytes=0-3")
    assert not reply.hit
    assert reply.body in (b"abcd", b"abcdefghij")


@over_sockets
async def test_a_416_of_the_origin_leaves_what_is_stored(w: World) -> None:
    w.origin.script(Answer(FRESH, TAG, body=BODY))
    await w.get()
    w.origin.script(Answer("Content-Range: bytes */10", status=416))
    await w.get("Range: bytes=20-", "Cache-Control: no-cache")
    reply = await w.get()
    assert (reply.hit, reply.body) == (True, BODY)
