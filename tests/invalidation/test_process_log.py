from __future__ import annotations

import asyncio

from asgi_tiercache.invalidation.log import InvalidationLog, ProcessLog


def test_positions_only_grow_and_name_the_one_before() -> None:
    log = ProcessLog()

    async def body() -> list[tuple[int, int]]:
        made = [await log.append(["a"]), await log.append_clear(), await log.append(["a", "b"])]
        return [(appended.id, appended.previous) for appended in made]

    assert asyncio.run(body()) == [(1, 0), (2, 1), (3, 2)]


def test_an_answer_tells_epoch_clock_floor_and_the_ids_in_the_order_asked() -> None:
    log = ProcessLog()

    async def body() -> None:
        await log.append(["a"])
        await log.append(["b"])
        answer = await log.ask(["b", "never", "a"])
        assert (answer.clock, answer.floor, answer.ids) == (2, 0, (2, 0, 1))
        assert answer.epoch == (await log.append(["c"])).epoch

    asyncio.run(body())


def test_clearing_raises_the_floor_to_its_own_position() -> None:
    log = ProcessLog()

    async def body() -> None:
        await log.append(["a"])
        await log.append_clear()
        answer = await log.ask(["a"])
        assert (answer.floor, answer.ids) == (2, (0,))

    asyncio.run(body())


def test_two_logs_are_two_epochs() -> None:
    async def epoch(log: InvalidationLog) -> str:
        return (await log.ask(())).epoch

    assert asyncio.run(epoch(ProcessLog())) != asyncio.run(epoch(ProcessLog()))


def test_forgetting_a_tag_raises_the_floor_so_that_nothing_is_revived() -> None:
    log = ProcessLog(remembered=2)

    async def body() -> None:
        for tag in "abc":
            await log.append([tag])
        answer = await log.ask(["a", "b", "c"])
        assert (answer.floor, answer.ids) == (1, (0, 2, 3))
        await log.append(["d", "e", "f"])
        assert (await log.ask(())).floor == 4

    asyncio.run(body())


def test_a_process_log_is_nobody_elses() -> None:
    assert ProcessLog.shared is False
