"""Responses to POST that may answer a GET (RFC 9110, sections 8.7 and 9.3.3)."""

from __future__ import annotations

import pytest

from tests.http.wire.world import Answer, World, over_sockets

FRESH = "Cache-Control: max-age=60"


@pytest.mark.parametrize("location", ["/a", "http://example.org/a", "http://EXAMPLE.org:80/a", "a", "./a", ""])
@pytest.mark.parametrize("fresh", [FRESH, "Cache-Control: s-maxage=60", "Expires: Tue, 14 Nov 2023 22:14:20 GMT"])
@over_sockets
async def test_a_response_that_says_that_it_is_what_a_get_would_bring_answers_it(
    w: World, location: str, fresh: str
) -> None:
    w.origin.script(Answer(fresh, f"Content-Location: {location}", body="posted"))
    await w.request("POST", path="/a", body=b"content")
    reply = await w.get(path="/a")
    assert (reply.hit, reply.text, reply.age) == (True, "posted", 0)
    assert (await w.head(path="/a")).hit
    w.clock.tick(60)
    assert not (await w.get(path="/a")).hit


@pytest.mark.parametrize(
    "lines",
    [
        [FRESH],
        [FRESH, "Content-Location: /b"],
        [FRESH, "Content-Location: /a?b"],
        [FRESH, "Content-Location: http://example.com/a"],
        [FRESH, "Content-Location: https://example.org/a"],
        [FRESH, "Content-Location: /A"],
        [FRESH, "Content-Location: http://["],
        [FRESH, "Location: /a"],
        ["Content-Location: /a"],
        ["Content-Location: /a", "Last-Modified: Mon, 13 Nov 2023 00:00:00 GMT"],
        ["Content-Location: /a", "Cache-Control: public", "Last-Modified: Mon, 13 Nov 2023 00:00:00 GMT"],
        ["Content-Location: /a", "Cache-Control: no-store, max-age=60"],
        ["Content-Location: /a", "Cache-Control: private, max-age=60"],
        ["Content-Location: /a", "Cache-Control: max-age=0"],
    ],
)
@over_sockets
async def test_any_other_response_does_not(w: World, lines: list[str]) -> None:
    w.origin.script(Answer(*lines, body="posted"), Answer(body="asked for"))
    await w.request("POST", path="/a", body=b"content")
    assert (await w.get(path="/a")).text == "asked for"


@over_sockets
async def test_it_answers_for_its_own_uri_alone(w: World) -> None:
    w.origin.script(Answer(FRESH, "Content-Location: /b", body="posted"), Answer(body="asked for"))
    await w.request("POST", path="/a", body=b"content")
    assert (await w.get(path="/b")).text == "asked for"


@over_sockets
async def test_a_post_is_never_answered_by_one_before(w: World) -> None:
    w.origin.script(Answer(FRESH, "Content-Location: /a"))
    for number in (1, 2):
        await w.request("POST", path="/a", body=b"content")
        assert (w.origin.asked, w.origin.last.body) == (number, b"content")


@over_sockets
async def test_it_takes_the_place_of_what_was_stored(w: World) -> None:
    w.origin.script(Answer(FRESH, body="old"), Answer(FRESH, "Content-Location: /a", body="posted"))
    await w.get(path="/a")
    await w.request("POST", path="/a", body=b"content")
    assert (await w.get(path="/a")).text == "posted"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "FOO", "OPTIONS"])
@over_sockets
async def test_other_methods_have_no_such_response(w: World, method: str) -> None:
    w.origin.script(Answer(FRESH, "Content-Location: /a", body="put"), Answer(body="asked for"))
    await w.request(method, path="/a", body=b"content")
    assert (await w.get(path="/a")).text == "asked for"


@over_sockets
async def test_a_response_to_a_post_that_breaks_off_is_not_used(w: World) -> None:
    w.origin.script(Answer(FRESH, "Content-Location: /a", body="posted", cut=2), Answer(body="asked for"))
    assert not (await w.request("POST", path="/a", body=b"content")).complete
    assert (await w.get(path="/a")).text == "asked for"


@over_sockets
async def test_a_post_with_credentials_is_nobody_elses(w: World) -> None:
    w.origin.script(Answer(FRESH, "Content-Location: /a", body="posted"), Answer(body="asked for"))
    await w.request("POST", "Authorization: Basic YTpi", path="/a", body=b"content")
    assert (await w.get(path="/a")).text == "asked for"
