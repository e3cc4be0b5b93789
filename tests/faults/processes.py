"""Faults of workers and clients, each with its figure: who stands still, is killed, leaves, holds the loop up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Literal

from redis import Redis

from asgi_tiercache.signals import Signal, TierFailed
from tests.engine.doubles import written
from tests.faults.process import Process
from tests.faults.proxy import Fault, FaultProxy
from tests.faults.scenario import nothing_left
from tests.faults.scene import MAX_LAG, USERS, Worker, workers
from tests.faults.table import Case
from tests.servers import RedisServer

When = Literal["while it waits", "as it goes on"]
Kind = Literal["item", "sure", "free", "mine"]

PAUSED = MAX_LAG + 0.3
PATIENT = 5.0
BLOCKED = 1.0
HEARS_WITHIN = 10.0
FEW = 16
"""Connections that two workers have open at the most, though dozens of commands were cancelled."""
WAITS = 40
"""More than any request has."""


def stood_still(redis: RedisServer, seconds: float = PAUSED, *, connections: Literal["kept", "lost"] = "kept") -> str:
    """A worker that was stopped serves nothing that was invalidated meanwhile."""

    async def body(proxy: FaultProxy, paused: Process) -> str:
        async with workers(redis.url, 1) as (one,):
            for path in ("/item/1", "/free/1", "/item/2"):
                paused.ask(path)
                assert paused.ask(path) == [0, False], "it is in memory"
            paused.stop()
            if connections == "lost":
                proxy.reset()  # so that its own question about the log is not answered, either
            assert (await one.change("1")).durable
            await asyncio.sleep(seconds)
            paused.begin("commit", item="1", version=1)
            # All of it lies there when the worker goes on: nothing else tells it first that time has passed.
            changed = [paused.begin("ask", path=path) for path in ("/item/1", "/free/1")]
            other = paused.begin("ask", path="/item/2")
            went_on = time.perf_counter()
            paused.go_on()
            made = [paused.answer(number) for number in changed]
            assert made == [[1, True], [1, True]], f"made anew, not {made}"
            took = time.perf_counter() - went_on
            if connections == "kept":
                assert paused.answer(other) == [0, False], "was not invalidated"
            return f"after {seconds:.0f} s, right at once: {took * 1000:.0f} ms"

    # Patient: on a busy machine, what awaits a worker that goes on may take it longer than the usual deadline.
    with FaultProxy(redis.port) as proxy, Process(proxy.url, deadline=PATIENT) as paused:
        return asyncio.run(body(proxy, paused))


def stood_still_while_filling(redis: RedisServer, seconds: float = PAUSED) -> str:
    """What a worker was making when it was stopped is not served once it was invalidated."""

    async def body() -> str:
        async with workers(redis.url, 1) as (one,):
            paused.do("take", seconds=0.2)
            making = paused.begin("ask", path="/item/1")
            await asyncio.sleep(0.1)
            paused.stop()
            assert (await one.change("1")).durable
            await asyncio.sleep(seconds)
            paused.begin("commit", item="1", version=1)
            paused.go_on()
            assert paused.answer(making) == [0, True], "it was asked before"
            assert [paused.ask("/item/1") for _ in range(2)] == [[1, True], [1, False]]
            assert (await one.ask("/item/1")).version == 1
            return f"after {seconds:.0f} s, 0 answers too old"

    with Process(redis.url) as paused:
        paused.ask("/item/2")
        return asyncio.run(body())


def killed_with_writes(redis: RedisServer) -> str:
    """What waited to be written when a process was killed costs others a miss."""

    async def body(proxy: FaultProxy) -> str:
        async with workers(redis.url, 1) as (other,):
            with Process(proxy.url) as killed:
                assert killed.ask("/item/1") == [0, True]
                proxy.begin(Fault(silent=True))
                assert killed.ask("/item/2") == [0, True]
            proxy.reset()  # what was sent into the black hole does not come out of it
            proxy.end()
            with Process(proxy.url) as started:
                assert [started.ask("/item/2") for _ in range(2)] == [[0, True], [0, False]]
                assert (await other.change("2")).durable
                started.do("commit", item="2", version=1)
                await _until(lambda: started.ask("/item/2")[0] == 1)
            return "1 miss for each lost write"

    with FaultProxy(redis.port) as proxy:
        return asyncio.run(body(proxy))


def killed_with_invalidations(redis: RedisServer) -> str:
    """What was held when a process was killed had been reported, and holds once it is said again."""

    async def body(proxy: FaultProxy) -> str:
        async with workers(redis.url, 1) as (other,):
            await other.ask("/item/1")
            await written(other.cache)
            with Redis(port=redis.port) as admin:  # nor does its lease hold anybody up
                await _until(lambda: not admin.keys("*lease"))
            with Process(proxy.url) as killed:
                assert killed.ask("/item/1") == [0, False], "from Redis"
                proxy.begin(Fault(silent=True))
                assert killed.do("change", item="1") is False
                assert killed.ask("/item/1") == [1, True], "it holds where it was made"
            proxy.reset()  # what was sent into the black hole does not come out of it
            proxy.end()
            with Process(proxy.url) as started:
                started.do("commit", item="1", version=1)
                assert started.ask("/item/1") == [0, False], "nobody but the killed process knew"
                assert started.do("change", item="1") is True, "so whoever was told False says it again"
                assert started.ask("/item/1") == [2, True]
                other.truth.versions["1"] = 2
                said = time.perf_counter()
                await _until(lambda: _version_is(other, "/item/1", 2))
            return f"said again, elsewhere after {(time.perf_counter() - said) * 1000:.0f} ms"

    with FaultProxy(redis.port) as proxy:
        return asyncio.run(body(proxy))


def ended(redis: RedisServer) -> str:
    """A process that ends by itself has written what it had queued."""
    with FaultProxy(redis.port) as proxy, Process(proxy.url) as ending:
        ending.ask("/item/0")
        proxy.begin(Fault(delay=0.03))
        assert ending.ask("/item/1") == [0, True]
        ending.end()
    with Process(redis.url) as started:
        assert started.ask("/item/1") == [0, False]
        started.end()
    return "0 misses"


def held_up(redis: RedisServer) -> str:
    """An app that holds its event loop up, twice in a row, opens no breaker."""
    failed: list[Signal] = []

    async def hold_up() -> None:
        for _ in range(3):  # as far as the question to Redis
            await asyncio.sleep(0)
        time.sleep(BLOCKED)  # noqa: ASYNC251 - that is the fault

    async def body(proxy: FaultProxy) -> None:
        async with nothing_left(), workers(proxy.url) as (one, two):
            for number in range(20):
                await one.ask(f"/item/{number}")
            await written(one.cache)
            two.cache.engine.signals.subscribe(failed.append, TierFailed)
            await two.ask("/item/0")
            for numbers in (range(1, 10), range(10, 20)):
                await asyncio.gather(*(two.ask(f"/item/{number}") for number in numbers), hold_up())
            assert two.calls == 0, "every answer came from Redis"
            assert two.uses_redis
            assert [(await worker.change("1")).durable for worker in (one, two)] == [True, True]

    with FaultProxy(redis.port) as proxy:
        asyncio.run(body(proxy))
    assert failed == []
    return f"{BLOCKED:.0f} s, twice: 0 failures"


# ---- clients that leave ----


class Leaving:
    """Awaits `work`, and cancels the task that does so where it waits for the `number`th time.

    Args:
        work: What is awaited.
        number: Which wait, counted from 1.
        when: While it waits, or in the very tick in which what it waits for is there.
    """

    def __init__(self, work: Awaitable[Any], number: int, when: When) -> None:
        self.waits = 0
        self._work = work
        self._number = number
        self._when = when

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._work.__await__()
        error: BaseException | None = None
        while True:
            try:
                future = next(steps) if error is None else steps.throw(error)
            except StopIteration as end:
                return end.value
            self.waits += 1
            if self.waits == self._number:
                self._leave(future)
            try:
                error = None
                yield future
            except BaseException as thrown:
                error = thrown

    def _leave(self, future: asyncio.Future[Any] | None) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._when == "while it waits" or future is None:
            task.cancel()
        else:
            future.add_done_callback(lambda _: task.cancel())


async def leave_everywhere(
    request: Callable[[int], Awaitable[Any]], then: Callable[[int], Awaitable[None]], when: When
) -> int:
    """Send `request` again and again, leaving one wait later each time, until it has none left; how many it had."""
    for number in range(1, WAITS):
        leaving = Leaving(request(number), number, when)
        task = asyncio.create_task(_await(leaving))
        await asyncio.wait([task])
        assert task.cancelled() or task.exception() is None
        await then(number)
        if leaving.waits < number:
            return number - 1
    raise AssertionError("a request that never ends")


def left_requests(redis: RedisServer, kind: Kind, when: When, *, found: bool) -> int:
    """Requests left at each wait leave nothing behind, and the next ones are answered rightly; how many."""
    user = USERS[0] if kind == "mine" else None

    async def body(proxy: FaultProxy) -> int:
        async with nothing_left(), workers(proxy.url) as (one, two):
            for number in range(1 if found else WAITS, 2 * WAITS):
                await one.ask(f"/{kind}/{number}", user)
            await written(one.cache)

            async def then(number: int) -> None:
                found = await two.ask(f"/{kind}/{number + WAITS}", user)
                assert "; hit" in found.told, "Redis was asked, and what it said was the answer"
                paths = (f"/{kind}/{number}", f"/{kind}/{number + 1000}", "/item/other")
                await asyncio.gather(*(two.ask(path, user) for path in paths))

            left = await leave_everywhere(lambda number: two.ask(f"/{kind}/{number}", user), then, when)
            assert two.uses_redis
            assert proxy.open <= FEW
            return left

    with FaultProxy(redis.port) as proxy:
        return asyncio.run(body(proxy))


def left_while_connecting(redis: RedisServer, kind: Kind, when: When) -> int:
    """Likewise, the first request of a worker that has no connection yet."""

    async def body(proxy: FaultProxy) -> int:
        async with nothing_left(), workers(proxy.url) as (one, _):
            for number in range(1, 2 * WAITS):
                await one.ask(f"/{kind}/{number}")
            await written(one.cache)
            new: list[Worker] = []

            async def request(number: int) -> None:
                new.append(Worker(proxy.url, one.truth))
                await new[-1].ask(f"/{kind}/{number}")

            async def then(number: int) -> None:
                assert "; hit" in (await new[-1].ask(f"/{kind}/{number + WAITS}")).told, "likewise"
                await asyncio.gather(*(new[-1].ask(path) for path in (f"/{kind}/{number}", "/item/other")))
                assert new[-1].uses_redis
                assert new[-1].wrong == []
                await new[-1].cache.aclose()

            return await leave_everywhere(request, then, when)

    with FaultProxy(redis.port) as proxy:
        return asyncio.run(body(proxy))


def left_invalidations(redis: RedisServer, when: When) -> int:
    """Invalidations left at each wait hold nevertheless, here at once and elsewhere soon; how many."""

    async def body(proxy: FaultProxy) -> int:
        async with nothing_left(), workers(proxy.url) as (one, two):
            for worker in (one, two):
                await worker.ask("/item/1")

            async def then(number: int) -> None:
                assert (await one.ask("/item/1")).version == number
                await _until(lambda: _version_is(two, "/item/1", number))

            left = await leave_everywhere(lambda _: one.change("1"), then, when)
            assert proxy.open <= FEW
            return left

    with FaultProxy(redis.port) as proxy:
        return asyncio.run(body(proxy))


def left(redis: RedisServer) -> str:
    """All of these."""
    whens: tuple[When, ...] = ("while it waits", "as it goes on")
    kinds: tuple[Kind, ...] = ("item", "sure", "free", "mine")
    requests = invalidations = 0
    for when in whens:
        for kind in kinds:
            for found in (False, True):
                requests += _anew(redis, lambda: left_requests(redis, kind, when, found=found))  # noqa: B023
            requests += _anew(redis, lambda: left_while_connecting(redis, kind, when))  # noqa: B023
        invalidations += _anew(redis, lambda: left_invalidations(redis, when))  # noqa: B023
    return f"{requests} requests and {invalidations} invalidations left, each at another wait"


def _anew(redis: RedisServer, leave: Callable[[], int]) -> int:
    redis.restart()
    return leave()


async def _await(leaving: Leaving) -> None:
    await leaving


async def _version_is(worker: Worker, path: str, version: int) -> bool:
    return (await worker.ask(path)).version == version


async def _until(holds: Callable[[], bool | Coroutine[Any, Any, bool]]) -> None:
    async with asyncio.timeout(HEARS_WITHIN):
        while not (await held if asyncio.iscoroutine(held := holds()) else held):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


CASES = (
    Case(
        name="a worker stopped for 30 s (SIGSTOP), others invalidate",
        play=lambda redis: stood_still(redis, 30.0, connections="lost"),
        clients="nothing that was invalidated meanwhile: its lease is over, and Redis is asked first",
        receipts="durable",
        recovery="with the first request",
        test="faults.test_process_faults::test_a_worker_that_stood_still_serves_nothing_that_was_invalidated_meanwhile",
    ),
    Case(
        name="likewise, stopped while it fills",
        play=stood_still_while_filling,
        clients="whoever had asked before gets what was made; nobody else does",
        receipts="durable",
        recovery="with the next request",
        test="faults.test_process_faults::"
        "test_what_a_worker_was_making_when_it_stood_still_is_not_served_once_invalidated",
    ),
    Case(
        name="process killed (SIGKILL) with queued writes",
        play=killed_with_writes,
        clients="a miss for each",
        receipts="none was lost",
        recovery="filled anew",
        test="faults.test_process_faults::test_a_process_killed_with_queued_writes_costs_others_a_miss",
    ),
    Case(
        name="process killed (SIGKILL) with held invalidations",
        play=killed_with_invalidations,
        clients="others go on serving what was there",
        receipts="lost with the process, which had reported them as not durable",
        recovery="whoever was told so invalidates again",
        test="faults.test_process_faults::"
        "test_a_process_killed_with_held_invalidations_had_said_that_they_were_not_durable",
    ),
    Case(
        name="event loop held up by the app for 1 s",
        play=held_up,
        clients="wait for the app; hits stay hits",
        receipts="durable",
        recovery="nothing to recover: the breaker stays closed",
        test="faults.test_process_faults::test_an_app_that_holds_its_event_loop_up_opens_no_breaker",
    ),
    Case(
        name="client leaves at any point",
        play=left,
        clients="others: right answers; connections with a reply on its way are closed",
        receipts="hold though the caller left",
        recovery="nothing to recover",
        test="faults.test_process_faults::test_whoever_leaves_at_any_point_leaves_nothing_behind",
    ),
)
