"""That the harness itself carries what it is given."""

from __future__ import annotations

import asyncio

from tests.http.wire.world import DOWN, Answer, Raw, World, over_sockets


@over_sockets
async def test_malformed_values_reach_the_cache_and_the_client_as_they_are(w: World) -> None:
    lines = ['Cache-Control: =, ;;"max-age=60\\', "ETag: W/unquoted", "X-Latin: \xe9\xff", "Expires: never"]
    w.origin.script(Answer(*lines, body="one"))
    reply = await w.get('X-Odd: =;"\\')
    assert [reply["cache-control"], reply["etag"], reply["x-latin"]] == ['=, ;;"max-age=60\\', "W/unquoted", "\xe9\xff"]
    assert (reply.body, w.origin.last["x-odd"]) == (b"one", '=;"\\')


@over_sockets
async def test_interim_responses_and_chunks_are_taken_apart(w: World) -> None:
    chunked = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    w.origin.script(Raw(chunked + b"3\r\none\r\n4\r\n two\r\n0\r\n\r\n"))
    reply = await w.get()
    assert (reply.status, reply.body) == (200, b"one two")
    assert "link" not in reply


@over_sockets
async def test_an_answer_may_break_off(w: World) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60", body="all of it", cut=3))
    reply = await w.get()
    assert (reply.body, reply.complete) == (b"all of", False)


@over_sockets
async def test_an_origin_that_hangs_up_is_an_error_of_the_app(w: World) -> None:
    w.origin.script(DOWN)
    assert (await w.get()).status == 500


@over_sockets
async def test_a_request_with_content_reaches_the_origin_whole(w: World) -> None:
    w.origin.script(Answer())
    await w.request("POST", "X-One: a", "X-One: b", path="/a?b=c", body=b"content")
    seen = w.origin.last
    assert (seen.method, seen.target, seen.values("x-one"), seen.body) == ("POST", "/a?b=c", ["a", "b"], b"content")


@over_sockets
async def test_an_answer_can_be_held_back(w: World) -> None:
    gate = asyncio.Event()
    w.origin.script(Answer(gate=gate))
    task = asyncio.create_task(w.get())
    await w.origin.was_asked(1)
    assert not task.done()
    gate.set()
    assert (await task).status == 200
