"""Conditions that a stored response answers (RFC 9111, section 4.3.2; RFC 9110, sections 8.8.3.2, 13 and 15.4.5)."""

from __future__ import annotations

import pytest

from tests.http.wire.world import Answer, World, over_sockets

FRESH = "Cache-Control: max-age=60"
MODIFIED = "Tue, 14 Nov 2023 20:00:00 GMT"


async def _asked(w: World, stored: list[str], *lines: str, status: int = 200, method: str = "GET") -> int:
    """The status with which a stored response answers a request with these field lines."""
    w.origin.script(Answer(FRESH, *stored, status=status, body="stored"))
    await w.get()
    reply = await w.request(method, *lines)
    assert (reply.hit, w.origin.asked) == (True, 1)
    expected = b"" if reply.status == 304 or method == "HEAD" else b"stored"
    assert reply.body == expected
    return reply.status


@pytest.mark.parametrize(
    ("etag", "lines"),
    [
        ('"a"', ['If-None-Match: "a"']),
        ('W/"a"', ['If-None-Match: W/"a"']),
        ('W/"a"', ['If-None-Match: "a"']),
        ('"a"', ['If-None-Match: W/"a"']),
        ('"a"', ['If-None-Match: "b", "a"']),
        ('"a"', ['If-None-Match: "b","a","c"']),
        ('"a"', ['If-None-Match: "b" , W/"a" ,']),
        ('"a"', ['If-None-Match: "b"', 'If-None-Match: "a"']),
        ('"a"', ["If-None-Match: *"]),
        ('"a"', ["If-None-Match:  * "]),
        ('"a,b"', ['If-None-Match: "a,b"']),
        ('"a,b"', ['If-None-Match: "c", "a,b"']),
        ('""', ['If-None-Match: ""']),
        ('"a\\"', ['If-None-Match: "a\\"']),
        ('"a\\"', ['If-None-Match: "a\\", "b"']),
        ('"\xe9"', ['If-None-Match: "\xe9"']),
        ('"a"', ['If-None-Match: "a"', f"If-Modified-Since: {MODIFIED}"]),
        ('"a"', ['If-None-Match: "a"', "If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT"]),
    ],
)
@over_sockets
async def test_an_entity_tag_that_the_client_has_is_answered_with_304(w: World, etag: str, lines: list[str]) -> None:
    assert await _asked(w, [f"ETag: {etag}", f"Last-Modified: {MODIFIED}"], *lines) == 304


@pytest.mark.parametrize(
    ("etag", "lines"),
    [
        ('"a"', ['If-None-Match: "b"']),
        ('"a"', ['If-None-Match: "A"']),
        ('"a"', ["If-None-Match: a"]),
        ('"a"', ['If-None-Match: w/"a"']),
        ('"a"', ['If-None-Match: W"a"']),
        ('"a"', ['If-None-Match: "a']),
        ('"a"', ['If-None-Match: "aa"']),
        ('"a"', ['If-None-Match: "b,a"']),
        ('"a"', ["If-None-Match: '*'"]),
        ('"a"', ["If-None-Match:"]),
        ('"a"', ['If-None-Match: "b"', f"If-Modified-Since: {MODIFIED}"]),
        ('"a"', ["If-None-Match:", f"If-Modified-Since: {MODIFIED}"]),
    ],
)
@over_sockets
async def test_any_other_entity_tag_is_answered_in_full(w: World, etag: str, lines: list[str]) -> None:
    assert await _asked(w, [f"ETag: {etag}", f"Last-Modified: {MODIFIED}"], *lines) == 200


@over_sockets
async def test_a_response_without_entity_tag_matches_none(w: World) -> None:
    assert await _asked(w, [f"Last-Modified: {MODIFIED}"], 'If-None-Match: "a"') == 200


@pytest.mark.parametrize(
    "since", [MODIFIED, "Tue, 14 Nov 2023 20:00:01 GMT", "Tuesday, 14-Nov-23 20:00:00 GMT", "Tue Nov 14 20:00:00 2023"]
)
@over_sockets
async def test_what_was_not_modified_since_is_answered_with_304(w: World, since: str) -> None:
    assert await _asked(w, [f"Last-Modified: {MODIFIED}"], f"If-Modified-Since: {since}") == 304


@pytest.mark.parametrize(
    "lines",
    [
        ["If-Modified-Since: Tue, 14 Nov 2023 19:59:59 GMT"],
        ["If-Modified-Since: Tue, 14 Nov 2023 23:00:00 CET"],
        ["If-Modified-Since: tomorrow"],
        ["If-Modified-Since: 0"],
        ["If-Modified-Since:"],
        [f"If-Modified-Since: {MODIFIED}, {MODIFIED}"],
        [f"If-Modified-Since: {MODIFIED}", f"If-Modified-Since: {MODIFIED}"],
        [f"If-Modified-Since: {MODIFIED} "[:-2]],
    ],
)
@over_sockets
async def test_what_was_modified_since_or_since_no_date_is_answered_in_full(w: World, lines: list[str]) -> None:
    assert await _asked(w, [f"Last-Modified: {MODIFIED}"], *lines) == 200


@pytest.mark.parametrize(("since", "status"), [(-1, 200), (0, 304), (1, 304)])
@over_sockets
async def test_without_a_modification_date_the_date_takes_its_place(w: World, since: float, status: int) -> None:
    assert await _asked(w, [f"Date: {w.date(-20)}"], f"If-Modified-Since: {w.date(since - 20)}") == status


@pytest.mark.parametrize(("since", "status"), [(-1, 200), (0, 304), (1, 304)])
@over_sockets
async def test_without_either_the_time_of_arrival_does(w: World, since: float, status: int) -> None:
    assert await _asked(w, [], f"If-Modified-Since: {w.date(since)}") == status


@over_sockets
async def test_if_modified_since_goes_by_the_origins_clock(w: World) -> None:
    """An origin a day ahead: what it modified "tomorrow" has not changed since then."""
    ahead = [f"Date: {w.date(86_500)}", f"Last-Modified: {w.date(86_400)}"]
    assert await _asked(w, ahead, f"If-Modified-Since: {w.date(86_400)}") == 304
    w.clock.tick(60)
    w.origin.requests.clear()
    assert await _asked(w, ahead, f"If-Modified-Since: {w.date()}") == 200


@pytest.mark.parametrize(
    "line",
    [
        'If-Match: "b"',
        "If-Match: *",
        f"If-Unmodified-Since: {MODIFIED}",
        "If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT",
    ],
)
@over_sockets
async def test_conditions_for_the_origin_alone_are_left_to_it(w: World, line: str) -> None:
    w.origin.script(Answer(FRESH, 'ETag: "a"', body="stored"))
    await w.get()
    w.origin.script(Answer(status=412))
    name, _, value = line.partition(": ")
    assert ((await w.get(line)).status, w.origin.last[name.lower()]) == (412, value)
    assert ((await w.get()).text, w.origin.asked) == ("stored", 2)


@pytest.mark.parametrize("status", [301, 404, 410, 500])
@pytest.mark.parametrize("line", ['If-None-Match: "a"', "If-None-Match: *", f"If-Modified-Since: {MODIFIED}"])
@over_sockets
async def test_where_the_answer_is_no_success_conditions_do_not_count(w: World, status: int, line: str) -> None:
    assert await _asked(w, ['ETag: "a"', f"Last-Modified: {MODIFIED}"], line, status=status) == status


@pytest.mark.parametrize("line", ['If-None-Match: "a"', "If-None-Match: *", f"If-Modified-Since: {MODIFIED}"])
@over_sockets
async def test_head_has_conditions_as_well(w: World, line: str) -> None:
    assert await _asked(w, ['ETag: "a"', f"Last-Modified: {MODIFIED}"], line, method="HEAD") == 304


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "OPTIONS", "TRACE", "FOO"])
@pytest.mark.parametrize(
    "line", ['If-None-Match: "a"', "If-None-Match: *", f"If-Modified-Since: {MODIFIED}", 'If-Match: "b"']
)
@over_sockets
async def test_conditions_of_other_methods_are_the_origins(w: World, method: str, line: str) -> None:
    w.origin.script(Answer(FRESH, 'ETag: "a"', f"Last-Modified: {MODIFIED}"))
    await w.get()
    reply = await w.request(method, line)
    name, _, value = line.partition(": ")
    assert (reply.status, w.origin.last.method, w.origin.last[name.lower()]) == (200, method, value)


@over_sockets
async def test_a_304_says_what_its_200_would_have_said_of_caching(w: World) -> None:
    lines = [
        "Content-Location: /b",
        f"Date: {w.date()}",
        'ETag: "a"',
        "Vary: Foo",
        f"Expires: {w.date(60)}",
        "Set-Cookie: a=b",
        "X-A: 1",
        "Link: </c>",
    ]
    w.origin.script(Answer(FRESH, *lines))
    await w.get()
    w.clock.tick(5)
    reply = await w.get('If-None-Match: "a"')
    assert reply.status == 304
    for line in (FRESH, *lines):
        name, _, value = line.partition(": ")
        assert reply.values(name.lower()) == [value]


@over_sockets
async def test_a_304_does_not_describe_content(w: World) -> None:
    lines = ["Content-Type: text/plain", "Content-Encoding: gzip", "Content-Language: de", f"Last-Modified: {MODIFIED}"]
    w.origin.script(Answer(FRESH, 'ETag: "a"', *lines))
    await w.get()
    reply = await w.get('If-None-Match: "a"')
    names = {name for name, _ in reply.lines}
    assert not names & {"content-type", "content-encoding", "content-language", "last-modified"}
    assert reply["content-length"] in ("", "8")


@over_sockets
async def test_what_is_missing_is_fetched_whole_and_then_meets_the_condition(w: World) -> None:
    w.origin.script(Answer(FRESH, 'ETag: "a"', "Content-Type: text/plain", "X-A: 1", body="whole"))
    met = await w.get('If-None-Match: "a"')
    assert (met.status, met["etag"], met["x-a"]) == (304, '"a"', "1")
    assert not {name for name, _ in met.lines} & {"content-type", "content-length"}
    reply = await w.get()
    assert (reply.hit, reply.text) == (True, "whole")


@over_sockets
async def test_a_condition_that_is_not_met_by_what_is_missing_brings_it_whole(w: World) -> None:
    w.origin.script(Answer(FRESH, 'ETag: "a"', body="whole"))
    assert (await w.get('If-None-Match: "b"')).text == "whole"


@over_sockets
async def test_an_entity_tag_counts_for_its_own_uri_alone(w: World) -> None:
    w.origin.script(Answer(FRESH, 'ETag: "a"'), Answer(FRESH, 'ETag: "b"', body="another"))
    await w.get(path="/one")
    await w.get(path="/two")
    reply = await w.get('If-None-Match: "a"', path="/two")
    assert (reply.status, reply.text) == (200, "another")


@over_sockets
async def test_an_entity_tag_counts_for_its_own_variant_alone(w: World) -> None:
    w.origin.script(Answer(FRESH, "Vary: Foo", 'ETag: "a"'), Answer(FRESH, "Vary: Foo", 'ETag: "b"', body="another"))
    await w.get("Foo: 1")
    await w.get("Foo: 2")
    assert (await w.get("Foo: 2", 'If-None-Match: "a"')).text == "another"
    assert (await w.get("Foo: 1", 'If-None-Match: "a"')).status == 304


@over_sockets
async def test_ten_thousand_entity_tags_are_read(w: World) -> None:
    many = ", ".join(f'"{number}"' for number in range(5_000))
    w.origin.script(Answer(FRESH, 'ETag: "a"'))
    await w.get()
    assert (await w.get(f'If-None-Match: {many}, "a"')).status == 304
    assert (await w.get(f"If-None-Match: {many}")).status == 200
