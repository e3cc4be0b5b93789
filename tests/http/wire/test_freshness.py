"""How long a response answers without its origin (RFC 9111, sections 1.2.2, 4.2, 4.2.1, 5.2.2.1, 5.2.2.10 and 5.3)."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.http.wire.world import Answer, World, over_sockets

DAY = 86_400.0


@over_sockets
async def test_a_response_is_fresh_while_its_lifetime_exceeds_its_age(w: World) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60"))
    await w.get()
    w.clock.tick(59)
    assert (await w.get()).hit
    w.clock.tick(1)
    assert not (await w.get()).hit


@pytest.mark.parametrize(
    ("lines", "fresh", "stale"),
    [
        (["Cache-Control: s-maxage=60, max-age=1"], 59, 60),
        (["Cache-Control: max-age=600, s-maxage=60"], 59, 60),
        (["Cache-Control: s-maxage=60"], 59, 60),
        (["Cache-Control: max-age=60", "Expires: {past}"], 59, 60),
        (["Cache-Control: max-age=60", "Expires: {far}"], 59, 60),
        (["Cache-Control: s-maxage=60", "Expires: {past}"], 59, 60),
        (["Cache-Control: s-maxage=60", "Expires: {far}"], 59, 60),
        (["Cache-Control: max-age=60", "Expires: 0"], 59, 60),
        (["Cache-Control: public", "Expires: {soon}"], 59, 60),
        (["Expires: {soon}"], 59, 60),
        (["Expires: {soon}", "Date: {now}"], 59, 60),
    ],
)
@over_sockets
async def test_the_first_rule_that_applies_gives_the_lifetime(
    w: World, lines: list[str], fresh: float, stale: float
) -> None:
    dates = {"past": w.date(-100), "now": w.date(), "soon": w.date(60), "far": w.date(6_000)}
    w.origin.script(Answer(*(line.format(**dates) for line in lines)))
    await w.get()
    w.clock.tick(fresh)
    assert (await w.get()).hit
    w.clock.tick(stale - fresh)
    assert not (await w.get()).hit


@over_sockets
async def test_s_maxage_of_zero_counts_before_max_age(w: World) -> None:
    assert not await w.reuses("Cache-Control: s-maxage=0, max-age=60")


@pytest.mark.parametrize("directive", ["max-age=0", "max-age=00", "s-maxage=0", "max-age=0, max-age=0"])
@over_sockets
async def test_a_lifetime_of_zero_is_over_at_once(w: World, directive: str) -> None:
    assert not await w.reuses(f"Cache-Control: {directive}", after=0)


# ---- Expires ----


@over_sockets
async def test_expires_counts_from_the_date_of_the_origins_clock(w: World) -> None:
    """An origin whose clock is an hour ahead gives a minute all the same."""
    w.origin.script(Answer(f"Date: {w.date(3_600)}", f"Expires: {w.date(3_660)}"))
    await w.get()
    w.clock.tick(59)
    assert (await w.get()).hit
    w.clock.tick(1)
    assert not (await w.get()).hit


@over_sockets
async def test_expires_of_an_origin_whose_clock_is_behind_gives_what_is_left_of_it(w: World) -> None:
    assert await w.reuses(f"Date: {w.date(-30)}", f"Expires: {w.date(30)}", after=29)
    assert not await w.reuses(f"Date: {w.date(-100)}", f"Expires: {w.date(-40)}", after=0)


@pytest.mark.parametrize("date", ["yesterday", "0", "Tue, 14 Nov 2023 22:13:20", ""])
@over_sockets
async def test_beside_a_date_that_is_none_expires_counts_from_the_arrival(w: World, date: str) -> None:
    assert await w.reuses(f"Date: {date}", f"Expires: {w.date(60)}", after=59)


@pytest.mark.parametrize(
    "expires",
    [
        "0",
        "-1",
        "",
        "never",
        "Thu, 01 Jan 2099 00:00:00 EST",
        "Thu, 01 Jan 2099 00:00:00 UTC",
        "Thu, 01 Jan 2099 00:00:00 +0000",
        "Thu, 01 Jan 2099 00:00:00",
        "Thu, 1 Jan 2099 00:00:00 GMT",
        "Thu,01 Jan 2099 00:00:00 GMT",
        "Thu, 01 Jan 2099 24:00:00 GMT",
        "Thu, 01 Jan 2099 00:60:00 GMT",
        "Thu, 31 Feb 2099 00:00:00 GMT",
        "Thu, 01 Jan 99 00:00:00 GMT",
        "Thu, 01-Jan-2099 00:00:00 GMT",
        "Thu, 01 Foo 2099 00:00:00 GMT",
        "01 Jan 2099 00:00:00 GMT",
        "2099-01-01T00:00:00Z",
        "4070908800",
        "Thu, 01 Jan 2099 00:00:00 GMT, Thu, 01 Jan 2099 00:00:00 GMT",
        "Thu, 01 Jan 2099 00:00:00 GMT; foo",
        "\xb2",
    ],
)
@over_sockets
async def test_an_expires_that_is_no_date_has_passed(w: World, expires: str) -> None:
    assert not await w.reuses(f"Expires: {expires}", f"Last-Modified: {w.date(-DAY)}", after=0)


@pytest.mark.parametrize(
    "expires",
    [
        "Tue, 14 Nov 2023 22:14:20 GMT",
        "tue, 14 nov 2023 22:14:20 gmt",
        "TUE, 14 NOV 2023 22:14:20 GMT",
        "Tuesday, 14-Nov-23 22:14:20 GMT",
        "Tue Nov 14 22:14:20 2023",
    ],
)
@over_sockets
async def test_expires_may_have_any_of_the_three_formats_in_any_case(w: World, expires: str) -> None:
    w.origin.script(Answer(f"Expires: {expires}"))
    await w.get()
    w.clock.tick(59)
    assert (await w.get()).hit
    w.clock.tick(1)
    assert not (await w.get()).hit


@over_sockets
async def test_a_day_below_ten_has_a_blank_before_it_in_the_format_of_asctime(w: World) -> None:
    assert await w.reuses("Expires: Fri Dec  1 00:00:00 2023")


@over_sockets
async def test_expires_far_away_is_no_overflow(w: World) -> None:
    assert await w.reuses("Expires: Fri, 31 Dec 9999 23:59:59 GMT", after=DAY)


@over_sockets
async def test_several_expires_that_differ_are_stale(w: World) -> None:
    assert not await w.reuses(f"Expires: {w.date(1)}", f"Expires: {w.date(60)}", after=2)
    assert not await w.reuses(f"Expires: {w.date(60)}", f"Expires: {w.date(1)}", after=2)


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A local time zone of the process that is nine hours ahead."""
    monkeypatch.setenv("TZ", "UTC-9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_from_greenwich")
@over_sockets
async def test_the_local_time_zone_makes_no_difference(w: World) -> None:
    w.origin.script(Answer(f"Date: {w.date(-10)}", f"Expires: {w.date(50)}"))
    await w.get()
    w.clock.tick(49)
    reply = await w.get()
    assert (reply.hit, reply.age) == (True, 59)
    w.clock.tick(1)
    assert not (await w.get()).hit


# ---- several and conflicting ----


@pytest.mark.parametrize("directives", ["max-age=1, max-age=60", "max-age=60, max-age=1", "s-maxage=60, s-maxage=1"])
@over_sockets
async def test_lifetimes_that_differ_are_stale(w: World, directives: str) -> None:
    assert not await w.reuses(f"Cache-Control: {directives}", after=2)


@over_sockets
async def test_lifetimes_on_lines_of_their_own_are_several_too(w: World) -> None:
    assert not await w.reuses("Cache-Control: max-age=60", "Cache-Control: max-age=1", after=2)


@over_sockets
async def test_a_lifetime_said_twice_is_said(w: World) -> None:
    assert await w.reuses("Cache-Control: max-age=60, max-age=60")


@pytest.mark.parametrize("stricter", ["no-store", "private", "no-cache"])
@pytest.mark.parametrize("order", ["max-age=60, {}", "{}, max-age=60"])
@over_sockets
async def test_of_directives_that_conflict_the_strictest_counts(w: World, stricter: str, order: str) -> None:
    assert not await w.reuses(f"Cache-Control: {order.format(stricter)}", 'ETag: "a"')


# ---- delta-seconds ----


@pytest.mark.parametrize("argument", ["60", "060", "0000000000000000000000000060", '"60"', '"060"', '"6\\0"'])
@over_sockets
async def test_a_number_may_have_leading_zeros_and_quotes(w: World, argument: str) -> None:
    w.origin.script(Answer(f"Cache-Control: max-age={argument}"))
    await w.get()
    w.clock.tick(59)
    assert (await w.get()).hit
    w.clock.tick(1)
    assert not (await w.get()).hit


@pytest.mark.parametrize(
    "number", ["2147483647", "2147483648", "4294967296", "9223372036854775808", "1" + "0" * 50, "9" * 5_000]
)
@pytest.mark.parametrize("name", ["max-age", "s-maxage"])
@over_sockets
async def test_a_number_too_large_is_a_long_time(w: World, name: str, number: str) -> None:
    assert await w.reuses(f"Cache-Control: {name}={number}", after=DAY)


@pytest.mark.parametrize(
    "argument",
    [
        "=",
        "",
        "=a",
        "=-1",
        "=+60",
        "=60.0",
        "=60.5",
        "=1e3",
        "=0x60",
        "=60s",
        "='60'",
        '="60',
        "=6 0",
        " = 60",
        "= 60",
        '=""',
        '=" 60"',
        '="60 "',
        "=\xb2",
        "=\xbd",
        "=60;a=b",
        "=60 max-age=60",
        '="60"x',
    ],
)
@pytest.mark.parametrize("name", ["max-age", "s-maxage"])
@over_sockets
async def test_a_lifetime_that_is_no_number_is_stale(w: World, name: str, argument: str) -> None:
    assert not await w.reuses(f"Cache-Control: {name}{argument}", f"Last-Modified: {w.date(-DAY)}", after=0)


@over_sockets
async def test_an_s_maxage_that_is_no_number_is_not_made_up_for_by_max_age(w: World) -> None:
    assert not await w.reuses("Cache-Control: s-maxage=a, max-age=60", after=0)
