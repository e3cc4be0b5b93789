from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from asgi_tiercache.tiers.deadline import HELD_UP, Deadline
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


def test_calls_that_began_one_after_another_each_have_the_whole_time(run: Runner) -> None:
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
        assert min(await asyncio.gather(first, second)) >= 0.029

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
        deadline = Deadline(HELD_UP)
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())

            async def ask() -> bytes:
                with deadline.limit():
                    writer.write(b"ping")
                    return await reader.readexactly(4)

            asking = asyncio.create_task(ask())
            await ticks(1)
            block_the_loop(4 * HELD_UP)
            assert await asking == b"ping"
            writer.close()
            await writer.wait_closed()

    run(body())


def test_a_loop_that_is_blocked_again_and_again_does_not_put_the_end_off_for_ever(run: Runner) -> None:
    async def body() -> None:
        hanging = asyncio.create_task(for_ever(Deadline(0.01)))
        for _ in range(6):
            block_the_loop(2 * HELD_UP)
            await asyncio.sleep(0)
        assert hanging.done()
        with pytest.raises(TimeoutError):
            await hanging

    run(body())


def test_one_deadline_serves_one_loop_after_another(run: Runner) -> None:
    deadline = Deadline(0.01)

    async def body() -> None:
        with pytest.raises(TimeoutError):
            await for_ever(deadline)

    run(body())
    run(body())
