"""What a stored response sends to a request that asks for parts of it."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message

from asgi_tiercache.middleware.answer import ConditionalSend, covers, render, send_stored
from asgi_tiercache.types import Entry, Header, Stamp
from tests.middleware.asgi import Lines, Reply, http_scope

DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"
CREATED = 784_111_777.0
HEADERS: tuple[Header, ...] = (
    (b"content-type", b"text/plain"),
    (b"content-length", b"10"),
    (b"etag", b'"a"'),
    (b"cache-control", b"max-age=60"),
    (b"date", DATE),
    (b"vary", b"accept"),
)
BODY = b"0123456789"


def stored(
    status: int = 200, *, headers: tuple[Header, ...] = HEADERS, body: bytes = BODY, created: float = CREATED
) -> Entry:
    return Entry(Stamp("epoch", 1), created, 60.0, b"GET /", status=status, headers=headers, body=body)


def asked(entry: Entry, *headers: Header, method: str = "GET") -> Reply:
    """The answer of a hit on `entry`."""
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    scope = http_scope(method=method, headers=headers)
    asyncio.run(send_stored(entry, render(entry, 7, "L1"), scope, send))
    assert [message["type"] for message in messages] == ["http.response.start", "http.response.body"]
    return Reply(messages)


def fields(reply: Reply) -> dict[bytes, bytes]:
    lines: list[Header] = reply.messages[0]["headers"]
    assert len(dict(lines)) == len(lines)
    return dict(lines)


def test_a_hit_sends_the_range_that_is_asked_for() -> None:
    reply = asked(stored(), (b"range", b"bytes=2-4"))
    assert (reply.status, reply.body) == (206, b"234")
    assert reply.hit
    assert fields(reply) == {
        b"content-type": b"text/plain",
        b"etag": b'"a"',
        b"cache-control": b"max-age=60",
        b"date": DATE,
        b"vary": b"accept",
        b"age": b"7",
        b"cache-status": b"tiercache; hit; ttl=53; detail=L1",
        b"content-range": b"bytes 2-4/10",
        b"content-length": b"3",
    }


def test_several_ranges_come_in_parts() -> None:
    reply = asked(stored(), (b"range", b"bytes=0-1,-1"))
    assert reply.status == 206
    assert fields(reply)[b"content-type"].startswith(b"multipart/byteranges; boundary=")
    assert reply.body.count(b"Content-Range: bytes ") == 2


def test_a_range_that_does_not_exist_is_refused() -> None:
    reply = asked(stored(), (b"range", b"bytes=10-"))
    assert (reply.status, reply.body) == (416, b"")
    assert fields(reply)[b"content-range"] == b"bytes */10"


def test_the_whole_body_is_not_copied() -> None:
    entry = stored()
    for headers in ((), ((b"range", b"items=0-1"),), ((b"range", b"bytes=0-"),)):
        assert asked(entry, *headers).messages[1]["body"] is entry.body


@pytest.mark.parametrize("unit", [b"items=0-1", b"bytes=4-2", b"bytes=" + b"0-0," * 10_000])
def test_what_is_to_be_ignored_is_answered_in_full(unit: bytes) -> None:
    reply = asked(stored(), (b"range", unit))
    assert (reply.status, reply.body) == (200, BODY)
    assert fields(reply)[b"content-length"] == b"10"


def test_head_has_no_ranges() -> None:
    reply = asked(stored(), (b"range", b"bytes=2-4"), method="HEAD")
    assert (reply.status, reply.body) == (200, b"")
    assert fields(reply)[b"content-length"] == b"10"


@pytest.mark.parametrize("status", [203, 301, 404])
def test_only_a_200_has_ranges_and_conditions(status: int) -> None:
    reply = asked(stored(status), (b"range", b"bytes=2-4"), (b"if-none-match", b'"a"'))
    assert (reply.status, reply.body) == (status, BODY)


def test_other_methods_have_neither() -> None:
    reply = asked(stored(), (b"range", b"bytes=2-4"), (b"if-none-match", b'"a"'), method="POST")
    assert (reply.status, reply.body) == (200, BODY)


@pytest.mark.parametrize("value", [b"bytes=2-4", b"bytes=10-"])
def test_conditions_come_before_ranges(value: bytes) -> None:
    assert asked(stored(), (b"range", value), (b"if-none-match", b'"a"'), (b"if-range", b'"b"')).status == 304
    assert asked(stored(), (b"range", b"bytes=2-4"), (b"if-none-match", b'"b"')).status == 206


@pytest.mark.parametrize(("condition", "status"), [(b'"a"', 206), (b'"b"', 200), (b'W/"a"', 200), (DATE, 200)])
def test_if_range_decides_between_the_part_and_the_whole(condition: bytes, status: int) -> None:
    assert asked(stored(), (b"range", b"bytes=2-4"), (b"if-range", condition)).status == status


def test_if_range_without_range_is_ignored() -> None:
    assert asked(stored(), (b"if-range", b'"a"')).status == 200


def test_conditions_on_the_origin_are_ignored() -> None:
    assert asked(stored(), (b"if-match", b'"b"'), (b"if-unmodified-since", DATE)).status == 200


@pytest.mark.parametrize(("created", "status"), [(CREATED, 304), (CREATED + 1, 200)])
def test_without_validators_a_date_is_compared_with_the_age_of_the_response(created: float, status: int) -> None:
    entry = stored(headers=((b"content-type", b"text/plain"),), created=created)
    assert asked(entry, (b"if-modified-since", DATE)).status == status


PART = stored(206, headers=(*HEADERS, (b"content-range", b"bytes 10-19/40")))


def covered(*headers: Header, method: str = "GET", entry: Entry = PART) -> bool:
    return covers(entry, http_scope(method=method, headers=headers))


def test_a_stored_part_sends_what_it_covers() -> None:
    assert covered((b"range", b"bytes=12-14"))
    reply = asked(PART, (b"range", b"bytes=12-14"))
    assert (reply.status, reply.body) == (206, b"234")
    assert fields(reply)[b"content-range"] == b"bytes 12-14/40"
    assert fields(reply)[b"content-length"] == b"3"


def test_a_stored_part_that_covers_the_request_meets_conditions() -> None:
    reply = asked(PART, (b"range", b"bytes=12-14"), (b"if-none-match", b'"a"'))
    assert (reply.status, reply.body) == (304, b"")
    assert b"content-range" not in fields(reply)


def test_a_stored_part_covers_nothing_else() -> None:
    assert not covered()
    assert not covered((b"range", b"bytes=12-20"))
    assert not covered((b"range", b"bytes=12-14"), method="HEAD")
    assert not covered((b"if-none-match", b'"a"'))


def test_a_whole_response_covers_everything() -> None:
    assert covered(entry=stored())
    assert covered((b"range", b"bytes=12-20"), method="HEAD", entry=stored())
    assert covered(entry=stored(404))


# ---- what is passed on while it is made ----


def sent_through(request: Lines, *messages: Message, method: str = "GET") -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def test() -> None:
        through = ConditionalSend.around(http_scope(method=method, headers=request), send, lambda: CREATED)
        for message in messages:
            await through(message)

    asyncio.run(test())
    return sent


START: Message = {"type": "http.response.start", "status": 200, "headers": list(HEADERS), "trailers": True}
TRAILERS: Message = {"type": "http.response.trailers", "headers": []}
CONDITION = [(b"if-none-match", b'"a"')]


def body(content: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more}


def test_a_condition_that_is_met_leaves_nothing_of_the_content() -> None:
    copied: Message = {"type": "http.response.zerocopysend", "file": 3, "more_body": True}
    start, *rest = sent_through(CONDITION, START, body(b"a", more=True), copied, body(b"b"), TRAILERS)
    assert (start["status"], start["trailers"]) == (304, False)
    assert rest == [body(b"")]


def test_a_file_that_is_not_to_be_sent_becomes_an_empty_body() -> None:
    file: Message = {"type": "http.response.pathsend", "path": "/file"}
    assert sent_through(CONDITION, START, file)[1:] == [body(b"")]


@pytest.mark.parametrize(
    ("request_lines", "method"), [([(b"if-none-match", b'"b"')], "GET"), ([], "GET"), (CONDITION, "POST")]
)
def test_what_is_to_be_sent_is_passed_on_as_it_comes(request_lines: list[Header], method: str) -> None:
    messages = [START, body(b"a", more=True), body(b"b"), TRAILERS]
    assert sent_through(request_lines, *messages, method=method) == messages


def test_the_century_of_a_short_year_is_that_of_the_clock() -> None:
    start = {**START, "headers": [(b"last-modified", DATE)]}
    request = [(b"if-modified-since", b"Sunday, 06-Nov-94 08:49:37 GMT")]
    assert sent_through(request, start)[0]["status"] == 304


def test_a_response_being_made_has_no_ranges_yet() -> None:
    assert sent_through([(b"range", b"bytes=0-1")], START, body(BODY)) == [START, body(BODY)]
