from __future__ import annotations

import asyncio

from asgi_tiercache.invalidation.log import MAX_PATTERNS, Appended, InvalidationLog, ProcessLog, Purge, position_at
from asgi_tiercache.testing import TickingClock


def test_positions_are_times_only_grow_and_name_the_one_before() -> None:
    clock = TickingClock(time=5.0)
    log = ProcessLog(clock=clock)

    async def body() -> None:
        first = await log.append(Purge(("a",)))
        assert (first.id, first.previous) == (position_at(5.0), 0)
        clock.tick(-1)
        second = await log.append(Purge(everything=True))
        assert (second.id, second.previous) == (first.id + 1, first.id), "also where the clock is set back"
        clock.tick(3)
        third = await log.append(Purge(("a", "b")))
        assert (third.id, third.previous) == (position_at(7.0), second.id)

    asyncio.run(body())


def test_an_answer_tells_epoch_clock_floor_and_the_ids_in_the_order_asked() -> None:
    log = ProcessLog()

    async def body() -> None:
        a = await log.append(Purge(("a",)))
        b = await log.append(Purge(("b",), soft=True))
        answer = await log.ask(["b", "never", "a"])
        assert (answer.clock, answer.floor) == (b.id, 0)
        assert (answer.ids, answer.soft_ids) == ((0, 0, a.id), (b.id, 0, 0))
        assert answer.epoch == (await log.append(Purge(("c",)))).epoch

    asyncio.run(body())


def test_clearing_raises_the_floor_to_its_own_position_and_softly_the_soft_floor() -> None:
    log = ProcessLog()

    async def body() -> None:
        await log.append(Purge(("a",)))
        hard = await log.append(Purge(everything=True))
        soft = await log.append(Purge(everything=True, soft=True))
        answer = await log.ask(["a"])
        assert (answer.floor, answer.soft_floor, answer.ids) == (hard.id, soft.id, (0,))

    asyncio.run(body())


def test_two_logs_are_two_epochs() -> None:
    async def epoch(log: InvalidationLog) -> str:
        return (await log.ask(())).epoch

    assert asyncio.run(epoch(ProcessLog())) != asyncio.run(epoch(ProcessLog()))


def test_forgetting_tags_raises_the_floor_so_that_nothing_is_revived() -> None:
    log = ProcessLog(remembered=2)

    async def body() -> None:
        made = [await log.append(Purge((tag,))) for tag in "abc"]
        answer = await log.ask(["a", "b", "c"])
        assert answer.floor == made[1].id, "the older half is forgotten at once"
        assert answer.ids == (0, 0, made[2].id)
        last = await log.append(Purge(("d", "e", "f")))
        assert (await log.ask(())).floor == last.id

    asyncio.run(body())


def test_what_is_dated_ahead_counts_from_then_on_and_the_clock_passes_it_by_itself() -> None:
    clock = TickingClock(time=100.0)
    log = ProcessLog(clock=clock)

    async def body() -> None:
        made = await log.append(Purge(("a",), settle=0.9))
        answer = await log.ask(["a"])
        assert (answer.clock, answer.ids) == (made.id, (position_at(100.9),))
        clock.tick(0.8)
        assert (await log.confirm()).clock == made.id
        clock.tick(0.1)
        assert (await log.confirm()).clock >= position_at(100.9)
        (tick,) = await log.read(made.id)
        assert tick.previous == made.id, "those who follow see no gap"
        assert not tick.purge

    asyncio.run(body())


def test_a_short_date_ahead_is_passed_while_a_longer_one_lasts() -> None:
    async def body() -> None:
        clock = TickingClock()
        log = ProcessLog(clock=clock)
        await log.append(Purge(("slow",), settle=3600))
        settled = (await log.append(Purge(("quick",), settle=2))).id + position_at(2)
        assert (await log.confirm()).clock < settled
        clock.tick(2.1)
        assert settled < (await log.confirm()).clock < position_at(clock.time() + 3000)

    asyncio.run(body())


def test_more_patterns_than_can_be_told_apart_become_a_clear() -> None:
    log = ProcessLog()

    async def body() -> list[Appended]:
        return [await log.append(Purge(patterns=(f"a*{number}",))) for number in range(MAX_PATTERNS + 1)]

    made = asyncio.run(body())
    assert [appended.everything for appended in made] == [False] * MAX_PATTERNS + [True]
    assert (log.answer().floor, log.answer().patterns) == (made[-1].id, ())


def test_a_process_log_is_nobody_elses() -> None:
    assert ProcessLog.shared is False
