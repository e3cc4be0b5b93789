"""Which stored response answers which request (RFC 9111, section 4.1)."""

from __future__ import annotations

import pytest

from tests.http.wire.world import Answer, World, over_sockets

FRESH = "Cache-Control: max-age=60"


async def _matches(w: World, vary: list[str], first: list[str], second: list[str]) -> bool:
    w.origin.script(Answer(FRESH, *vary))
    await w.get(*first)
    reply = await w.get(*second)
    assert reply.hit is (w.origin.asked == 1)
    return reply.hit


@pytest.mark.parametrize(
    ("vary", "first", "second"),
    [
        (["Vary: Foo"], ["Foo: 1"], ["Foo: 1"]),
        (["Vary: Foo"], [], []),
        (["Vary: Foo"], ["Foo: 1", "Bar: 2"], ["Foo: 1", "Bar: 3"]),
        (["Vary: FOO"], ["foo: 1"], ["Foo: 1"]),
        (["Vary: Foo, Bar"], ["Foo: 1", "Bar: 2"], ["Bar: 2", "Foo: 1"]),
        (["Vary: Foo", "Vary: Bar"], ["Foo: 1", "Bar: 2"], ["Foo: 1", "Bar: 2"]),
        (["Vary: ,Foo,,Foo,"], ["Foo: 1"], ["Foo: 1"]),
        (["Vary: Foo"], ["Foo:  1 \t"], ["Foo:1"]),
        (["Vary: Foo"], ["Foo: 1", "Foo: 2"], ["Foo: 1, 2"]),
        (["Vary: Accept-Encoding"], ["Accept-Encoding: gzip, br"], ["Accept-Encoding: br,gzip"]),
        (["Vary: Accept-Encoding"], ["Accept-Encoding: GZIP"], ["Accept-Encoding: gzip"]),
        (["Vary: Accept-Encoding"], ["Accept-Encoding: gzip", "Accept-Encoding: br"], ["Accept-Encoding: gzip, br"]),
        (["Vary: Accept-Encoding"], ["Accept-Encoding: x-gzip"], ["Accept-Encoding: gzip"]),
        (["Vary: Accept-Encoding"], ["Accept-Encoding: x-compress"], ["Accept-Encoding: compress"]),
        (["Vary: Accept-Language"], ["Accept-Language: en, de"], ["Accept-Language: EN ,DE"]),
        (["Vary: Accept-Language"], ["Accept-Language: en;q=0.5, de"], ["Accept-Language: en;q=0.5,de"]),
        (["Vary: Accept"], ["Accept: text/html , */*"], ["Accept: Text/HTML,*/*"]),
        (["Vary:"], ["Foo: 1"], ["Foo: 2"]),
    ],
)
@over_sockets
async def test_requests_match_that_mean_the_same(
    w: World, vary: list[str], first: list[str], second: list[str]
) -> None:
    assert await _matches(w, vary, first, second)


@pytest.mark.parametrize(
    ("vary", "first", "second"),
    [
        (["Vary: Foo"], ["Foo: 1"], ["Foo: 2"]),
        (["Vary: Foo"], ["Foo: 1"], []),
        (["Vary: Foo"], [], ["Foo: 1"]),
        (["Vary: Foo"], [], ["Foo:"]),
        (["Vary: Foo"], ["Foo: a"], ["Foo: A"]),
        (["Vary: Foo"], ["Foo: 1, 2"], ["Foo: 2, 1"]),
        (["Vary: Foo"], ["Foo: 1"], ["Foo: 1, 1"]),
        (["Vary: Foo, Bar"], ["Foo: 1", "Bar: 2"], ["Foo: 1", "Bar: 3"]),
        (["Vary: Foo, Bar"], ["Foo: 1", "Bar: 2"], ["Foo: 1"]),
        (["Vary: Foo, Bar"], ["Foo: 1", "Bar: 2"], ["Foo: 2", "Bar: 1"]),
        (["Vary: Foo", "Vary: Bar"], ["Foo: 1", "Bar: 2"], ["Foo: 1", "Bar: 3"]),
        (["Vary: Accept-Encoding"], ["Accept-Encoding: gzip"], ["Accept-Encoding: br"]),
        (["Vary: Accept-Encoding"], ["Accept-Encoding: gzip"], []),
        (["Vary: Accept-Encoding"], ["Accept-Encoding: gzip"], ["Accept-Encoding: gzip;q=0"]),
        (["Vary: Accept-Language"], ["Accept-Language: en"], ["Accept-Language: en-GB"]),
        (["Vary: Accept-Language"], ["Accept-Language: en, de;q=0.1"], ["Accept-Language: en, de;q=0.9"]),
        (["Vary: Accept"], ["Accept: text/html"], ["Accept: text/plain"]),
        (["Vary: User-Agent"], ["User-Agent: a b"], ["User-Agent: a  b"]),
        (["Vary: \xe9"], [], []),
        (["Vary: Foo bar"], [], []),
        (["Vary: Foo;Bar"], [], []),
    ],
)
@over_sockets
async def test_requests_do_not_match_that_may_mean_something_else(
    w: World, vary: list[str], first: list[str], second: list[str]
) -> None:
    assert not await _matches(w, vary, first, second)


@over_sockets
async def test_each_variant_answers_its_own_requests(w: World) -> None:
    w.origin.script(*(Answer(FRESH, "Vary: Foo", body=text) for text in ("one", "two", "none")))
    for line in (["Foo: 1"], ["Foo: 2"], []):
        await w.get(*line)
    replies = [await w.get(*line) for line in (["Foo: 1"], ["Foo: 2"], [])]
    assert [(reply.hit, reply.text) for reply in replies] == [(True, "one"), (True, "two"), (True, "none")]


@over_sockets
async def test_a_request_that_matches_no_variant_goes_on(w: World) -> None:
    w.origin.script(Answer(FRESH, "Vary: Foo"))
    await w.get("Foo: 1")
    assert (await w.get("Foo: 2")).told["fwd"] == "vary-miss"


@over_sockets
async def test_of_several_responses_that_match_the_one_of_the_latest_date_answers(w: World) -> None:
    """The second one says less of what it depends on, and is older all the same."""
    w.origin.script(
        Answer(FRESH, "Vary: Foo", f"Date: {w.date()}", body="newer"),
        Answer(FRESH, "Vary: Bar", f"Date: {w.date(-30)}", body="older"),
        Answer(FRESH, "Vary: Foo", f"Date: {w.date(1)}", body="newest"),
    )
    await w.get("Foo: 1", "Bar: 1")
    await w.get("Foo: 2", "Bar: 1")
    assert (await w.get("Foo: 1", "Bar: 1")).text != "older"


@over_sockets
async def test_a_newer_response_without_vary_does_not_answer_for_those_that_vary(w: World) -> None:
    w.origin.script(
        Answer(FRESH, "Vary: Accept-Language", body="german"),
        Answer(FRESH, body="default"),
        Answer(FRESH, body="asked"),
    )
    await w.get("Accept-Language: de")
    await w.get()
    assert (await w.get("Accept-Language: de")).text in ("german", "asked")


@over_sockets
async def test_head_chooses_among_variants_too(w: World) -> None:
    w.origin.script(Answer(FRESH, "Vary: Foo", body="one"))
    await w.get("Foo: 1")
    assert (await w.head("Foo: 1")).hit
    assert not (await w.head("Foo: 2")).hit


@over_sockets
async def test_a_thousand_names_in_vary_are_no_obstacle(w: World) -> None:
    names = ", ".join(f"x{number}" for number in range(1_000))
    w.origin.script(Answer(FRESH, f"Vary: {names}"))
    await w.get("x7: 1")
    assert not (await w.get("x7: 2")).hit
