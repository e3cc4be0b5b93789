from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_tiercache.tiers.deadline import BEATS, SLOW, BusyError, Deadline
from tests.tiers.doubles import ticks

Runner = Callable[[Coroutine[Any, Any, None]], None]
pytestmark = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


async def for_ever(deadline: Deadline) -> None:
    with deadline.limit():
        await asyncio.Event().wait()


def block_the_loop(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def test_a_call_that_comes_to_its_end_is_left_alone(run: Runner) -> None:
    async def body() -> None:
        deadline = Deadline(0.01)
        for _ in range(3):
            with deadline.limit():
                await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await for_ever(deadline)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    run(body())


def test_a_call_that_does_not_is_ended_at_the_limit_and_not_before(run: Runner) -> None:
    async def body() -> None:
        deadline = Deadline(0.02)
        started = time.perf_counter()
        with pytest.raises(TimeoutError):
            await for_ever(deadline)
        assert time.perf_counter() - started >= 0.019

    run(body())


def test_a_call_that_takes_its_time_to_end_is_ended_once(run: Runner) -> None:
    async def lingers(deadline: Deadline) -> None:
        with deadline.limit():
            try:
                await asyncio.Event().wait()
            finally:
                await ticks(20)

    async def body() -> None:
        with pytest.raises(TimeoutError):
            await lingers(Deadline(0.01))

    run(body())


def test_calls_that_began_one_after_another_each_have_the_whole_time_but_for_a_beat(run: Runner) -> None:
    async def one(deadline: Deadline) -> float:
        started = time.perf_counter()
        with pytest.raises(TimeoutError):
            await for_ever(deadline)
        return time.perf_counter() - started

    async def body() -> None:
        deadline = Deadline(0.03)
        first = asyncio.create_task(one(deadline))
        await ticks(2)
        block_the_loop(0.01)
        second = asyncio.create_task(one(deadline))
        assert min(await asyncio.gather(first, second)) >= 0.03 * (BEATS - 1) / BEATS - 0.001

    run(body())


def test_the_end_of_one_call_does_not_touch_another(run: Runner) -> None:
    async def body() -> None:
        deadline = Deadline(0.01)
        release = asyncio.Event()

        async def ends() -> str:
            with deadline.limit():
                await release.wait()
            return "done"

        ending = asyncio.create_task(ends())
        hanging = asyncio.create_task(for_ever(deadline))
        await ticks(2)
        release.set()
        assert await ending == "done"
        with pytest.raises(TimeoutError):
            await hanging

    run(body())


def test_an_exception_of_the_call_goes_through(run: Runner) -> None:
    async def body() -> None:
        deadline = Deadline(1.0)
        with pytest.raises(KeyError), deadline.limit():
            raise KeyError("mine")

    run(body())


def test_a_cancellation_from_outside_stays_one(run: Runner) -> None:
    async def body() -> None:
        hanging = asyncio.create_task(for_ever(Deadline(1.0)))
        await ticks(2)
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging

    run(body())


def test_a_cancellation_from_outside_wins_over_the_limit(run: Runner) -> None:
    async def body() -> None:
        hanging = asyncio.create_task(for_ever(Deadline(0.01)))
        await ticks(2)
        # Both in one step of the loop: the timer is due, and cancels the task once more.
        asyncio.get_running_loop().call_later(0.01, hanging.cancel)
        block_the_loop(0.02)
        with pytest.raises(asyncio.CancelledError):
            await hanging

    run(body())


def test_what_was_cancelled_before_can_still_be_limited(run: Runner) -> None:
    outcomes: list[str] = []

    async def cleans_up(deadline: Deadline) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            try:
                await for_ever(deadline)
            except TimeoutError:
                outcomes.append("limited")
            raise

    async def body() -> None:
        task = asyncio.create_task(cleans_up(Deadline(0.01)))
        await ticks(2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(body())
    assert outcomes == ["limited"]


def test_an_answer_that_lay_unread_while_the_loop_was_blocked_counts(run: Runner) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(4))
        await writer.drain()
        await reader.read()
        writer.close()

    async def body() -> None:
        deadline = Deadline(0.05)
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())

            async def ask() -> bytes:
                with deadline.limit():
                    writer.write(b"ping")
                    return await reader.readexactly(4)

            asking = asyncio.create_task(ask())
            await ticks(1)
            block_the_loop(0.2)
            assert await asking == b"ping"
            writer.close()
            await writer.wait_closed()

    run(body())


def test_a_loop_that_is_blocked_again_and_again_does_not_put_the_end_off_for_ever(run: Runner) -> None:
    async def body() -> None:
        hanging = asyncio.create_task(for_ever(Deadline(0.01)))
        for _ in range(3 * BEATS):
            block_the_loop(0.02)
            await asyncio.sleep(0)
        assert hanging.done()
        with pytest.raises(TimeoutError):
            await hanging

    run(body())


def test_a_loop_that_is_slow_all_the_time_makes_no_answer_late(run: Runner) -> None:
    async def takes_iterations(deadline: Deadline) -> None:
        with deadline.limit():
            await ticks(3)  # as an answer does that is there as soon as the loop looks

    async def body() -> None:
        deadline = Deadline(0.03, impatient=True)
        for _ in range(5):
            asking = asyncio.create_task(takes_iterations(deadline))
            while not asking.done():
                block_the_loop(0.02)
                await asyncio.sleep(0)
            await asking

    run(body())


def test_slow_answers_add_up_to_the_limit_where_none_is_quick(run: Runner) -> None:
    async def asks(deadline: Deadline, number: int, beats: float) -> int:
        """How many of `number` calls, one after the other, were answered."""
        for answered in range(number):
            try:
                with deadline.limit():
                    await asyncio.sleep(deadline.seconds * beats / BEATS)
            except TimeoutError:
                return answered
        return number

    async def body() -> None:
        started = time.perf_counter()
        assert await asks(Deadline(0.3, impatient=True), 10, 7.0) == 1
        assert time.perf_counter() - started < 0.45
        assert await asks(Deadline(0.3, impatient=False), 3, 7.0) == 3

    run(body())


def test_a_quick_answer_to_anybody_starts_the_sum_anew(run: Runner) -> None:
    async def body() -> None:
        deadline = Deadline(0.1, impatient=True)
        for _ in range(4):
            with deadline.limit() as slow:
                await asyncio.sleep(0.07)
            with deadline.limit() as quick:
                await asyncio.sleep(0)
            assert (slow.slow, quick.slow) == (True, False)

    run(body())


def test_once_nothing_was_answered_for_so_long_all_end(run: Runner) -> None:
    async def body() -> None:
        deadline = Deadline(0.06, impatient=True)
        first = asyncio.create_task(for_ever(deadline))
        await asyncio.sleep(0.03)
        started = time.perf_counter()
        with pytest.raises(TimeoutError):
            await for_ever(deadline)
        assert time.perf_counter() - started < 0.055
        with pytest.raises(TimeoutError):
            await first

    run(body())


# ---- the bulkhead ----


class Crowd:
    """Calls that end when told, under one deadline."""

    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline
        self.made: list[int] = []
        self.gates: dict[int, asyncio.Event] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}

    async def come(self, *numbers: int, patient: bool = True) -> None:
        for number in numbers:
            self.gates[number] = asyncio.Event()
            self.tasks[number] = asyncio.create_task(self._call(number, patient))
        await ticks(3)

    async def leave(self, *numbers: int) -> None:
        for number in numbers:
            self.gates[number].set()
        await ticks(4)

    async def _call(self, number: int, patient: bool) -> None:
        with self.deadline.limit() as limit:
            if limit.waits:
                await limit.turn(patient=patient)
            self.made.append(number)
            await self.gates[number].wait()


def test_no_more_calls_are_made_at_once_than_allowed_and_the_rest_in_turn(run: Runner) -> None:
    async def body() -> None:
        crowd = Crowd(Deadline(5.0, at_once=2))
        await crowd.come(1, 2, 3, 4, 5)
        assert crowd.made == [1, 2]
        await crowd.leave(2)
        assert crowd.made == [1, 2, 3]
        await crowd.leave(1, 3, 4, 5)
        assert crowd.made == [1, 2, 3, 4, 5]
        await asyncio.gather(*crowd.tasks.values())

    run(body())


def test_where_others_have_waited_for_long_the_next_is_refused_at_once_unless_it_is_patient(run: Runner) -> None:
    async def body() -> None:
        crowd = Crowd(Deadline(0.6, at_once=1))
        await crowd.come(*range(100), patient=False)
        await asyncio.sleep(0.6 * (SLOW + 1) / BEATS)
        await crowd.come(100, patient=False)
        with pytest.raises(BusyError):
            crowd.tasks[100].result()
        await crowd.come(101, patient=True)
        await crowd.leave(*range(100), 101)
        async with asyncio.timeout(5):
            await asyncio.gather(*(task for number, task in crowd.tasks.items() if number != 100))
        assert crowd.made == [*range(100), 101]

    run(body())


def test_waiting_for_a_turn_counts_under_the_deadline_and_is_no_timeout_of_the_tier(run: Runner) -> None:
    async def body() -> None:
        deadline = Deadline(0.05, at_once=1)
        holder = asyncio.create_task(for_ever(deadline))
        await ticks(2)
        crowd = Crowd(deadline)
        await crowd.come(1)
        outcomes = await asyncio.gather(holder, crowd.tasks[1], return_exceptions=True)
        assert list(map(type, outcomes)) == [TimeoutError, BusyError]
        await crowd.come(2)
        assert crowd.made == [2], "both have left their places"
        await crowd.leave(2)

    run(body())


def test_an_answer_is_not_slow_for_the_time_before_the_question_had_its_turn(run: Runner) -> None:
    async def body() -> None:
        deadline = Deadline(0.12, at_once=1)
        seen: list[bool] = []

        async def quick() -> None:
            with deadline.limit() as limit:
                if limit.waits:
                    await limit.turn()
                await asyncio.sleep(0)
            seen.append(limit.slow)

        with deadline.limit() as slow:
            waiting = asyncio.create_task(quick())
            await asyncio.sleep(0.12 * (SLOW + 2) / BEATS)
        await waiting
        assert slow.slow
        assert seen == [False]

    run(body())


def test_one_who_is_cancelled_while_waiting_takes_no_place(run: Runner) -> None:
    async def body() -> None:
        crowd = Crowd(Deadline(5.0, at_once=1))
        await crowd.come(1, 2, 3)
        crowd.tasks[2].cancel()
        await crowd.leave(1)
        assert crowd.tasks[2].cancelled()
        assert crowd.made == [1, 3]
        await crowd.leave(3)

    run(body())


def test_one_who_is_cancelled_just_when_the_turn_comes_gives_it_to_the_next(run: Runner) -> None:
    async def body() -> None:
        crowd = Crowd(Deadline(5.0, at_once=1))
        with crowd.deadline.limit():
            await crowd.come(1, 2)
        crowd.tasks[1].cancel()
        await ticks(4)
        assert crowd.tasks[1].cancelled()
        assert crowd.made == [2]
        await crowd.leave(2)
        await crowd.come(3)
        assert crowd.made == [2, 3]
        await crowd.leave(3)

    run(body())


@given(
    at_once=st.integers(1, 3),
    steps=st.lists(st.tuples(st.sampled_from(["come", "leave", "cancel", "limit"]), st.integers(0, 9)), max_size=40),
)
@settings(max_examples=60)
def test_no_place_is_lost_or_made_up_whoever_comes_leaves_or_is_cancelled(
    run: Runner, at_once: int, steps: list[tuple[str, int]]
) -> None:
    async def body() -> None:
        crowd = Crowd(Deadline(5.0, at_once=at_once))
        for number, (step, which) in enumerate(steps):
            alive = [each for each, task in crowd.tasks.items() if not task.done()]
            if step == "come":
                await crowd.come(number)
            elif step == "limit":
                crowd.deadline.at_once = which % 3 + 1
            elif alive and step == "leave":
                crowd.gates[alive[which % len(alive)]].set()
            elif alive:
                crowd.tasks[alive[which % len(alive)]].cancel()
            await ticks(which % 3)
        for gate in crowd.gates.values():
            gate.set()
        await asyncio.gather(*crowd.tasks.values(), return_exceptions=True)
        before = len(crowd.made)
        await crowd.come(*range(100, 105))
        assert len(crowd.made) - before == crowd.deadline.at_once
        await crowd.leave(*range(100, 105))

    run(body())


def test_one_deadline_serves_one_loop_after_another(run: Runner) -> None:
    deadline = Deadline(0.01)

    async def body() -> None:
        with pytest.raises(TimeoutError):
            await for_ever(deadline)

    run(body())
    run(body())
