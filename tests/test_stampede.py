from __future__ import annotations

import asyncio
import gc

import pytest

from asgi_tiercache.stampede import Flight, Flights, SharedReads, Unshareable
from asgi_tiercache.testing import TickingClock
from tests.tiers.doubles import ticks


class Work:
    """Lands its flight with an outcome, or ends in an error, once it is told to."""

    def __init__(self, outcome: int | BaseException | None = 7, *, lands: bool = True) -> None:
        self.go = asyncio.Event()
        self.ended = False
        self._outcome = outcome
        self._lands = lands

    async def __call__(self, flight: Flight[int]) -> None:
        await self.go.wait()
        self.ended = True
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        if self._lands:
            flight.land(self._outcome)


def test_a_flight_under_way_can_be_joined_until_it_lands() -> None:
    async def body() -> None:
        flights: Flights[int] = Flights()
        work = Work()
        flight = flights.lead("k", work)
        assert flights.under_way("k") is flight
        assert flights.under_way("other") is None
        work.go.set()
        assert await flight.outcome() == 7
        assert flights.under_way("k") is None

    asyncio.run(body())


def test_a_flight_may_land_before_its_work_ends() -> None:
    async def body() -> None:
        flights: Flights[int] = Flights()
        go = asyncio.Event()

        async def work(flight: Flight[int]) -> None:
            flight.land(1)
            flight.land(2)
            await go.wait()

        flight = flights.lead("k", work)
        assert await flight.outcome() == 1
        assert flights.under_way("k") is None
        assert flights.tasks() == [flight.task]
        newer = flights.lead("k", Work())
        go.set()
        await flight.task
        await ticks(2)
        assert flights.under_way("k") is newer, "the end of the older one concerns nobody"
        newer.task.cancel()

    asyncio.run(body())


def test_work_that_ends_without_landing_leaves_nothing_to_share() -> None:
    async def body() -> None:
        flights: Flights[int] = Flights()
        work = Work(lands=False)
        flight = flights.lead("k", work)
        work.go.set()
        assert await flight.outcome() is None
        assert flights.tasks() == []

    asyncio.run(body())


def test_work_that_fails_fails_everybody_who_waits() -> None:
    async def body() -> None:
        flights: Flights[int] = Flights()
        work = Work(LookupError("x"))
        flight = flights.lead("k", work)
        waiting = [asyncio.create_task(flight.outcome()) for _ in range(3)]
        work.go.set()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [LookupError] * 3

    asyncio.run(body())


def test_a_failure_that_nobody_waits_for_is_no_noise() -> None:
    noise: list[object] = []

    async def body() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: noise.append(context))
        flights: Flights[int] = Flights()
        work = Work(LookupError("x"))
        flights.lead("k", work)
        work.go.set()
        await ticks(5)

    asyncio.run(body())
    gc.collect()
    assert noise == []


def test_cancelling_a_waiter_ends_neither_the_flight_nor_the_others() -> None:
    async def body() -> None:
        flights: Flights[int] = Flights()
        work = Work()
        flight = flights.lead("k", work)
        first, second = (asyncio.create_task(flight.outcome()) for _ in range(2))
        await ticks(2)
        first.cancel()
        await ticks(2)
        work.go.set()
        assert await second == 7
        assert work.ended

    asyncio.run(body())


def test_a_task_that_is_cancelled_releases_everybody_with_nothing() -> None:
    async def body() -> None:
        flights: Flights[int] = Flights()
        flight = flights.lead("k", Work())
        await ticks(1)
        flight.task.cancel()
        assert await flight.outcome() is None
        assert flights.under_way("k") is None

    asyncio.run(body())


def test_flights_are_numbered_in_the_order_in_which_they_begin() -> None:
    async def body() -> None:
        flights: Flights[int] = Flights()
        assert flights.begun == 0
        first, second = flights.lead("a", Work()), flights.lead("b", Work())
        assert first.number < second.number == flights.begun
        for flight in (first, second):
            flight.task.cancel()

    asyncio.run(body())


def test_each_event_loop_has_flights_of_its_own() -> None:
    flights: Flights[int] = Flights()

    async def leave() -> None:
        flights.lead("k", Work())
        await ticks(1)

    async def look() -> bool:
        return flights.under_way("k") is None and flights.tasks() == []

    asyncio.run(leave())
    assert asyncio.run(look())


# ---- shared reads ----


class Read:
    def __init__(self, value: int = 7) -> None:
        self.go = asyncio.Event()
        self.calls = 0
        self.alone: list[bool] = []
        self._value = value

    async def __call__(self, alone: bool) -> int:
        self.calls += 1
        self.alone.append(alone)
        await self.go.wait()
        return self._value


def test_those_who_read_the_same_at_the_same_time_read_once() -> None:
    async def body() -> None:
        reads: SharedReads[int] = SharedReads()
        read = Read()
        tasks = [asyncio.create_task(reads.read("k", read)) for _ in range(10)]
        await ticks(2)
        assert "under_way=1" in repr(reads)
        read.go.set()
        assert await asyncio.gather(*tasks) == [7] * 10
        assert read.calls == 1
        assert "under_way=0" in repr(reads)

    asyncio.run(body())


def test_different_keys_are_read_side_by_side() -> None:
    async def body() -> None:
        reads: SharedReads[int] = SharedReads()
        first, second = Read(1), Read(2)
        tasks = [asyncio.create_task(reads.read(key, read)) for key, read in (("a", first), ("b", second))]
        await ticks(2)
        second.go.set()
        assert await tasks[1] == 2
        first.go.set()
        assert await tasks[0] == 1

    asyncio.run(body())


@pytest.mark.parametrize("cancelled", [{0}, {0, 1, 2}, {1, 3}])
def test_when_the_reader_is_cancelled_another_reads_and_the_rest_still_share(cancelled: set[int]) -> None:
    async def body() -> None:
        reads: SharedReads[int] = SharedReads()
        read = Read()
        tasks = [asyncio.create_task(reads.read("k", read)) for _ in range(6)]
        await ticks(2)
        for number in cancelled:
            tasks[number].cancel()
        await ticks(3)
        read.go.set()
        left = [task for number, task in enumerate(tasks) if number not in cancelled]
        assert await asyncio.gather(*left) == [7] * len(left)
        assert read.calls == (2 if 0 in cancelled else 1)

    asyncio.run(body())


def test_a_reader_and_its_heir_cancelled_together_leave_no_noise() -> None:
    noise: list[object] = []

    async def body() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: noise.append(context))
        reads: SharedReads[int] = SharedReads()
        read = Read()
        tasks = [asyncio.create_task(reads.read("k", read)) for _ in range(3)]
        await ticks(2)
        tasks[0].cancel()
        await asyncio.sleep(0)  # the reader has given up, its heir does not know yet
        tasks[1].cancel()
        read.go.set()
        assert await tasks[2] == 7
        assert tasks[1].cancelled()

    asyncio.run(body())
    gc.collect()
    assert noise == []


def test_a_read_that_fails_fails_its_reader_and_the_others_try_themselves() -> None:
    async def body() -> None:
        reads: SharedReads[int] = SharedReads()
        calls: list[int] = []

        async def read(alone: bool) -> int:
            calls.append(1)
            await asyncio.sleep(0)
            if len(calls) == 1:
                raise LookupError
            return 7

        outcomes = await asyncio.gather(*(reads.read("k", read) for _ in range(3)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [LookupError, int, int]
        assert len(calls) == 2

    asyncio.run(body())


def test_a_read_is_told_whether_another_is_under_way_on_its_loop() -> None:
    reads: SharedReads[int] = SharedReads()

    async def body() -> None:
        read = Read()
        tasks = [asyncio.create_task(reads.read(key, read)) for key in "aabc"]
        await ticks(2)
        asyncio.get_running_loop().call_soon(read.go.set)
        await asyncio.gather(*tasks)
        assert await reads.read("d", read) == 7
        assert read.alone == [True, False, False, True]

    asyncio.run(body())
    asyncio.run(body())


def test_reads_made_together_are_not_alone_even_if_each_ends_at_once() -> None:
    reads: SharedReads[int] = SharedReads()

    async def body() -> None:
        read = Read()
        read.go.set()
        with reads.together():
            with reads.together():
                await reads.read("a", read)
            await reads.read("b", read)
        await reads.read("c", read)
        assert read.alone == [False, False, True]

    asyncio.run(body())


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_loop_that_ends_while_reads_are_under_way_leaves_nothing_behind(turns: int) -> None:
    reads: SharedReads[int] = SharedReads()

    async def leaves() -> None:
        tasks = [asyncio.create_task(reads.read(key, Read())) for key in "aba"]
        await ticks(turns)
        assert not any(task.done() for task in tasks)

    asyncio.run(leaves())
    assert reads._under_way == {}


# ---- unshareable ----


def test_a_key_is_remembered_for_its_time() -> None:
    keys = Unshareable(seconds=60)
    assert not keys.holds("k", 0)
    keys.remember("k", 0)
    assert keys.holds("k", 59.9)
    assert not keys.holds("k", 60)
    assert not keys.holds("other", 0)


def test_remembering_again_begins_anew_and_forgetting_ends_it() -> None:
    keys = Unshareable(seconds=60)
    keys.remember("k", 0)
    keys.remember("k", 30)
    assert keys.holds("k", 80)
    keys.forget("k")
    keys.forget("k")
    assert not keys.holds("k", 30)


def test_the_oldest_is_forgotten_where_there_are_too_many() -> None:
    keys = Unshareable(limit=2)
    for key in ("a", "b", "a", "c"):
        keys.remember(key, 0)
    assert [keys.holds(key, 1) for key in "abc"] == [True, False, True]


# ---- who waits for a while, and who leaves ----


@pytest.mark.parametrize("outcome", [7, None, ValueError("no")])
def test_whoever_waits_for_a_while_is_told_whether_the_outcome_is_known(outcome: int | ValueError | None) -> None:
    async def body() -> None:
        clock, work = TickingClock(), Work(outcome)
        flight = Flights[int]().lead("k", work)
        waiting = asyncio.create_task(flight.lands_within(1.0, clock))
        await ticks(2)
        assert flight.waiting == 1
        clock.tick(1.0)
        assert await waiting is False
        waiting = asyncio.create_task(flight.lands_within(1.0, clock))
        await ticks(2)
        work.go.set()
        assert await waiting is True
        assert flight.waiting == 0
        await asyncio.wait([flight.task])

    asyncio.run(body())


def test_an_abandoned_flight_is_ended_if_nobody_waits_and_can_not_be_joined() -> None:
    async def body() -> None:
        flights: Flights[int] = Flights()
        flight = flights.lead("k", Work())
        waiter = asyncio.create_task(flight.outcome())
        await ticks(1)
        flight.abandon()
        assert flights.under_way("k") is flight, "somebody waits"
        waiter.cancel()
        await ticks(1)
        flight.abandon()
        assert flights.under_way("k") is None
        await asyncio.wait([flight.task])
        assert flight.task.cancelled()

    asyncio.run(body())


def test_a_detached_flight_goes_on_without_anybody() -> None:
    async def body() -> None:
        work = Work()
        flight = Flights[int]().lead("k", work)
        flight.detached = True
        flight.abandon()
        work.go.set()
        assert await flight.outcome() == 7

    asyncio.run(body())


def test_at_the_end_what_nobody_waits_for_is_cancelled() -> None:
    async def body() -> None:
        flights: Flights[int] = Flights()
        alone, waited_for = flights.lead("a", Work()), flights.lead("b", Work())
        waiter = asyncio.create_task(waited_for.outcome())
        await ticks(1)
        flights.end_unattended()
        await ticks(2)
        assert alone.task.cancelled()
        assert not waited_for.task.done()
        waiter.cancel()
        flights.end_unattended()

    asyncio.run(body())
