"""Plays one row of the table: two workers under load, a fault, its end; and holds them to what is promised."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tests.engine.doubles import written
from tests.faults.scene import KINDS, MAX_LAG, USERS, Answer, Worker, workers
from tests.faults.table import Figures, Row, Stage

DEADLINE = 0.3
SLACK = 0.6
"""Seconds that a busy machine may add to what is promised."""
BUSY = 40
"""And how many times as much as what a request takes on it usually: those in flight are two dozen and more."""
OPEN_COST = 0.02
"""Seconds that a request may take longer than the app where the breaker is open, on such a machine."""
ATTEMPTS = 3
MAX_UNVERIFIED = 1.0
PRESENT = 12
"""Items that are in Redis before the fault begins."""
AT_ONCE = 8
"""Requests of one worker's that are in flight when the fault begins, and as many that come right after."""
MAX_CONNECTIONS = 2 * 2 * 48 + 8
MAX_TASKS = 400
RECOVERS_WITHIN = 15.0

T = TypeVar("T")


class TooSlowError(AssertionError):
    """Requests took longer than is promised: by a defect, or since the machine had others to serve."""


@dataclass
class Load:
    """The requests of one run: to what only Redis has, to what nobody has, and to what is in memory."""

    one: Worker
    two: Worker
    new: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    present: Iterator[int] = field(default_factory=lambda: itertools.cycle(range(PRESENT)))
    filled: deque[tuple[str, str | None]] = field(default_factory=deque)
    """What the first worker was asked for, and the second was not yet."""

    async def prepare(self) -> float:
        """Fill Redis, and ask as in the run; the median seconds of a request that Redis was asked for."""
        for number in range(PRESENT):
            for path, user in _paths(f"p{number}"):
                await self.one.ask(path, user)
        await written(self.one.cache)
        usual = [await self._cold(worker) for worker in (self.one, self.two) for _ in range(2 * AT_ONCE)]
        await written(self.one.cache)
        return statistics.median(answer.seconds for answer in usual)

    def in_flight(self) -> list[asyncio.Task[Answer]]:
        """Requests that Redis is asked for, on both workers; the second finds some that the first has put there."""
        asked = [self._cold(worker) for worker in (self.one, self.two) for _ in range(AT_ONCE)]
        asked += [self._found() for _ in range(AT_ONCE)]
        return [asyncio.create_task(request) for request in asked]

    async def round(self) -> Sequence[Answer]:
        """One request of each kind, all at once."""
        hot = [worker.ask(f"/item/p{next(self.present)}") for worker in (self.one, self.two)]
        return await asyncio.gather(*hot, self._cold(self.one), self._cold(self.two), self._found())

    async def costs_while_open(self) -> list[float]:
        """Seconds by which requests that find the breaker open take longer than the app without a cache."""
        costs = []
        for worker in (self.one, self.two):
            if not worker.uses_redis:
                answer = await self._cold(worker)
                if not worker.uses_redis:
                    plain = await worker.ask("/item/plain", plain=True)
                    costs.append(answer.seconds - plain.seconds)
        return costs

    async def _cold(self, worker: Worker) -> Answer:
        number = next(self.new)
        path, user = _paths(f"n{number}")[number % 5]
        if worker is self.one:
            self.filled.append((path, user))
        return await worker.ask(path, user)

    async def _found(self) -> Answer:
        """An answer of the second worker's to what the first has filled a while ago."""
        return await self.two.ask(*self.filled.popleft())


@contextlib.asynccontextmanager
async def nothing_left() -> Any:
    """What is created within is gone at the end, and no task has failed unheard."""
    loop = asyncio.get_running_loop()
    unheard: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unheard.append(context))
    before = asyncio.all_tasks()
    yield
    await asyncio.sleep(0)
    assert asyncio.all_tasks() - before == set()
    assert unheard == []


async def play(row: Row, stage: Stage, *, seconds: float | None = None) -> Figures:
    """What was measured; fails where a promise was broken, with `TooSlowError` where the machine may have done it.

    Args:
        row: Which fault.
        stage: Where it is made.
        seconds: How long it lasts; default: as the row says.
    """
    options: dict[str, Any] = {"deadline": DEADLINE, "max_lag": MAX_LAG, "max_unverified": MAX_UNVERIFIED}
    async with nothing_left(), workers(stage.url, **options) as (one, two):
        for worker in (one, two):
            worker.lag, worker.padding = MAX_LAG + MAX_UNVERIFIED, row.padding
        load = Load(one, two)
        usual = await load.prepare()
        flying = load.in_flight()
        for _ in range(3):  # as far as the question to Redis
            await asyncio.sleep(0)
        row.begin(stage)
        flying += load.in_flight()
        answers = await asyncio.gather(*flying)
        added = max(answer.seconds for answer in answers) - usual
        costs, receipts = await _during(row, stage, load, seconds if seconds is not None else row.seconds)
        assert row.opens is None or bool(costs) == row.opens
        row.end(stage)
        recovery = await _recovery(load, len(receipts))
        durable = sum(receipts)
        assert row.receipts == "either" or durable == (len(receipts) if row.receipts == "durable" else 0)
        requests = len(one.answers) + len(two.answers)
    cost = statistics.median(costs) if costs else None
    figures = Figures(added, cost, requests, recovery, durable, len(receipts) - durable)
    # With wide margins: the figures are in the table.
    if added >= DEADLINE + SLACK + BUSY * usual or (cost is not None and cost >= OPEN_COST):
        raise TooSlowError(f"{row.name}: {figures}")
    return figures


def patiently(attempt: Callable[[], T]) -> T:
    """What `attempt` returns; tried again where it was too slow: a defect always is, a busy machine now and then."""
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(TooSlowError):
            return attempt()
    return attempt()


async def _during(row: Row, stage: Stage, load: Load, seconds: float) -> tuple[list[float], list[bool]]:
    """The costs of requests while the breaker was open, and which invalidations were durable."""
    costs: list[float] = []
    receipts: list[bool] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until or len(receipts) < 2:
        await load.round()
        costs += await load.costs_while_open()
        worker = (load.one, load.two)[len(receipts) % 2]
        if len(receipts) < PRESENT:
            receipts.append((await worker.change(f"p{len(receipts)}")).durable)
        assert stage.proxy.open <= MAX_CONNECTIONS
        assert len(asyncio.all_tasks()) < MAX_TASKS
        await asyncio.sleep(0.01)
    return costs, receipts


async def _recovery(load: Load, changed: int) -> float:
    """Seconds until Redis is used by both as before, and each knows what the other has invalidated."""
    ended = time.monotonic()
    async with asyncio.timeout(RECOVERS_WITHIN):
        while not (load.one.uses_redis and load.two.uses_redis and await _all_known(load, changed)):
            await load.round()
            await asyncio.sleep(0.01)
        while not (await load.one.change("p0")).durable or not await _shared(load):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return time.monotonic() - ended


async def _all_known(load: Load, changed: int) -> bool:
    for item in map("p{}".format, range(changed)):
        for worker in (load.one, load.two):
            if (await worker.ask(f"/item/{item}")).version != worker.truth.version(item):
                return False
    return True


async def _shared(load: Load) -> bool:
    """Whether the second worker finds in Redis what the first has filled."""
    path = f"/item/n{next(load.new)}"
    await load.one.ask(path)
    await written(load.one.cache)
    calls = load.two.calls
    await load.two.ask(path)
    return load.two.calls == calls


def _paths(item: str) -> list[tuple[str, str | None]]:
    """Every way to ask for `item`, and who asks."""
    return [(f"/{kind}/{item}", user) for kind in KINDS for user in (USERS if kind == "mine" else (None,))]
