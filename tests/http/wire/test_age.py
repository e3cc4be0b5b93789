"""How old a response is, and what `Age` and `Date` say of it (RFC 9111, sections 4, 4.2.3 and 5.1)."""

from __future__ import annotations

import asyncio

import pytest

from tests.http.wire.world import Answer, World, over_sockets


@over_sockets
async def test_every_reuse_says_the_age(w: World) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60"))
    assert "age" not in await w.get()
    assert (await w.get()).age == 0
    w.clock.tick(10.9)
    assert (await w.get()).age == 10
    assert (await w.head()).age == 10


@over_sockets
async def test_the_age_on_arrival_goes_on_growing(w: World) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60", "Age: 30"))
    assert (await w.get()).age == 30
    w.clock.tick(10)
    reply = await w.get()
    assert reply.values("age") == ["40"]
    w.clock.tick(19)
    assert (await w.get()).hit
    w.clock.tick(1)
    assert not (await w.get()).hit


@over_sockets
async def test_without_age_the_date_tells_the_age(w: World) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60", f"Date: {w.date(-30)}"))
    await w.get()
    w.clock.tick(10)
    assert (await w.get()).age == 40
    w.clock.tick(20)
    assert not (await w.get()).hit


@pytest.mark.parametrize(("age", "since", "told"), [(10, 30, 30), (30, 10, 30), (30, -3_600, 30), (0, -3_600, 0)])
@over_sockets
async def test_the_higher_of_the_two_ages_counts_and_none_is_negative(
    w: World, age: int, since: float, told: int
) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60", f"Age: {age}", f"Date: {w.date(-since)}"))
    await w.get()
    assert (await w.get()).age == told


@over_sockets
async def test_the_age_on_arrival_is_that_of_when_the_request_was_sent(w: World) -> None:
    gate = asyncio.Event()
    w.origin.script(Answer("Cache-Control: max-age=60", "Age: 10", gate=gate))
    first = asyncio.create_task(w.get())
    await w.origin.was_asked(1)
    w.clock.tick(5)
    gate.set()
    await first
    assert (await w.get()).age == 15


@pytest.mark.parametrize("lines", [["Age: 60"], ["Age: 61"], ["Age: 0", "Date: {}"]])
@over_sockets
async def test_what_arrives_stale_is_not_used(w: World, lines: list[str]) -> None:
    dated = [line.format(w.date(-60)) for line in lines]
    assert not await w.reuses("Cache-Control: max-age=60", *dated, after=0)


@pytest.mark.parametrize("lines", [["Age: 30, 90"], ["Age: 30,0"], ["Age: 30", "Age: 90"], ["Age: 30", "Age: a"]])
@over_sockets
async def test_the_first_of_several_ages_counts(w: World, lines: list[str]) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60", *lines))
    await w.get()
    assert (await w.get()).values("age") == ["30"]


@pytest.mark.parametrize("age", ["-1", "a", "30a", "30.5", "", '"30"', "+30", "3 0", "30;a=b", "\xb2", "0x1e", "a, 30"])
@over_sockets
async def test_an_age_that_is_no_number_does_not_count(w: World, age: str) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60", f"Age: {age}"))
    await w.get()
    assert (await w.get()).values("age") == ["0"]


@pytest.mark.parametrize(("age", "told"), [("0030", 30), ("00", 0)])
@over_sockets
async def test_an_age_may_have_leading_zeros(w: World, age: str, told: int) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60", f"Age: {age}"))
    await w.get()
    assert (await w.get()).age == told


@pytest.mark.parametrize("age", ["2147483648", "99999999999", "1" + "0" * 50, "9" * 5_000])
@over_sockets
async def test_an_age_too_large_is_a_great_age(w: World, age: str) -> None:
    assert not await w.reuses("Cache-Control: max-age=3600", f"Age: {age}", after=0)


@pytest.mark.parametrize("date", ["yesterday", "Tue, 14 Nov 2023 21:13:20 EST", "0", ""])
@over_sockets
async def test_a_date_that_is_none_tells_no_age(w: World, date: str) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60", f"Date: {date}"))
    await w.get()
    assert (await w.get()).age == 0


@over_sockets
async def test_the_date_of_a_stored_response_is_left_alone(w: World) -> None:
    made = w.date(-5)
    w.origin.script(Answer("Cache-Control: max-age=60", f"Date: {made}"))
    await w.get()
    w.clock.tick(10)
    assert (await w.get()).values("date") == [made]


@over_sockets
async def test_no_date_is_made_up(w: World) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60"))
    await w.get()
    assert "date" not in await w.get()


@over_sockets
async def test_an_answer_of_304_says_the_age_too(w: World) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60", 'ETag: "a"'))
    await w.get()
    w.clock.tick(7)
    reply = await w.get('If-None-Match: "a"')
    assert (reply.status, reply.age) == (304, 7)
