"""One computation for all workers: who works, who waits, who looks, in every order and with every cancellation."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_tiercache.fleet import once
from asgi_tiercache.testing import ScriptedLeases, TickingClock
from asgi_tiercache.tiers.leases import Ended, Lease
from tests.tiers.doubles import ticks, until


class Service:
    """Workers that want the same, and where they store it."""

    def __init__(self) -> None:
        self.clock = TickingClock()
        self.leases = ScriptedLeases(self.clock)
        self.store: str | None = None
        self.looks = 0
        self.works = 0
        self.go = asyncio.Event()
        self.shareable = True
        self.blind = False
        self.error: Exception | None = None
        self.given: list[Lease] = []

    async def waits(self, number: int = 1) -> None:
        """Return once so many wait, and sleep."""
        await ticks(9)
        await until(lambda: self.leases.waiting == self.clock.sleeping == number)

    async def worker(self, *, patience: float = 10.0, stale: str | None = None) -> str | None:
        return await once(
            self.leases,
            "key",
            look=self._look,
            work=self._work,
            seconds=5.0,
            patience=patience,
            clock=self.clock,
            stale=stale,
        )

    def befall(self, what: str, how: Any) -> None:
        """Let something happen to all of them."""
        if what == "tick":
            self.clock.tick(how)
        elif what == "go":
            self.shareable = how
            self.go.set()
        elif what == "seize":
            self.leases.seize("key", how)
        elif what == "fail":
            (self.leases.fail if how else self.leases.recover)()

    async def _look(self) -> str | None:
        self.looks += 1
        await asyncio.sleep(0)
        return None if self.blind else self.store

    async def _work(self, lease: Lease) -> str | None:
        self.works += 1
        self.given.append(lease)
        name = f"made {self.works}"
        await self.go.wait()
        if self.error is not None:
            raise self.error
        if not self.shareable:
            return None
        self.store = name
        lease.end(Ended.STORED)
        return name


def run(body: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await body

    asyncio.run(bounded())


def test_one_works_and_the_others_find_what_it_has_stored() -> None:
    async def body() -> None:
        service = Service()
        workers = [asyncio.create_task(service.worker()) for _ in range(5)]
        await service.waits(4)
        service.go.set()
        assert await asyncio.gather(*workers) == ["made 1"] * 5
        assert service.works == 1
        assert service.looks == 5
        assert service.leases.held == []

    run(body())


def test_the_winner_looks_before_it_works() -> None:
    async def body() -> None:
        service = Service()
        service.store = "already there"
        assert await service.worker() == "already there"
        assert service.leases.calls == ["acquire", "end"]
        assert service.works == 0

    run(body())


def test_those_who_waited_for_what_cannot_be_shared_do_not_wait_for_each_other() -> None:
    async def body() -> None:
        service = Service()
        service.shareable = False
        workers = [asyncio.create_task(service.worker()) for _ in range(4)]
        await service.waits(3)
        service.go.set()
        assert await asyncio.gather(*workers) == [None] * 4
        assert service.works == 4
        assert service.leases.calls.count("acquire") == 4

    run(body())


def test_those_who_waited_for_a_failure_do_not_fail_in_turn() -> None:
    async def body() -> None:
        service = Service()
        service.error = ValueError("no")
        workers = [asyncio.create_task(service.worker()) for _ in range(4)]
        await service.waits(3)
        service.go.set()
        for worker in workers:
            with pytest.raises(ValueError, match="no"):
                await worker
        assert service.works == 4
        assert service.leases.calls.count("acquire") == 4
        assert service.leases.held == []

    run(body())


def test_of_those_who_waited_for_one_that_was_cancelled_one_works() -> None:
    async def body() -> None:
        service = Service()
        first = asyncio.create_task(service.worker())
        await until(lambda: service.works == 1)
        others = [asyncio.create_task(service.worker()) for _ in range(3)]
        await service.waits(3)
        first.cancel()
        await until(lambda: service.works == 2)
        await service.waits(2)
        service.go.set()
        assert await asyncio.gather(*others) == ["made 2"] * 3

    run(body())


def test_a_dead_holder_delays_by_its_lease() -> None:
    async def body() -> None:
        service = Service()
        service.leases.seize("key", 5.0)
        worker = asyncio.create_task(service.worker())
        await service.waits()
        service.clock.tick(4.9)
        await ticks(10)
        assert service.works == 0
        service.clock.tick(0.1)
        await until(lambda: service.works == 1)
        assert service.leases.held == ["key"]
        service.go.set()
        assert await worker == "made 1"

    run(body())


def test_patience_ends_in_what_is_stale() -> None:
    async def body() -> None:
        service = Service()
        service.leases.seize("key")
        worker = asyncio.create_task(service.worker(patience=2.0, stale="old"))
        await service.waits()
        service.clock.tick(2.0)
        assert await worker == "old"
        assert service.works == 0

    run(body())


def test_patience_ends_in_a_computation_where_nothing_is_stale() -> None:
    async def body() -> None:
        service = Service()
        service.go.set()
        service.leases.seize("key")
        worker = asyncio.create_task(service.worker(patience=2.0))
        await service.waits()
        service.clock.tick(2.0)
        assert await worker == "made 1"
        assert service.leases.held == ["key"]  # of whoever holds it

    run(body())


def test_patience_is_for_all_waits_together() -> None:
    async def body() -> None:
        service = Service()
        service.go.set()
        service.leases.seize("key")
        worker = asyncio.create_task(service.worker(patience=2.0, stale="old"))
        await service.waits()
        service.clock.tick(1.0)
        service.leases.end("key", Ended.STORED)  # by one that has stored nothing that can be found
        service.leases.seize("key")
        await service.waits()
        service.clock.tick(1.0)
        assert await worker == "old"

    run(body())


def test_leases_out_of_reach_stop_nobody() -> None:
    async def body() -> None:
        service = Service()
        service.go.set()
        service.leases.fail()
        workers = [service.worker(), service.worker()]
        assert await asyncio.gather(*workers) == ["made 1", "made 2"]
        assert service.looks == 0

    run(body())


def test_leases_that_fail_while_somebody_waits_stop_nobody() -> None:
    async def body() -> None:
        service = Service()
        service.go.set()
        service.leases.seize("key")
        worker = asyncio.create_task(service.worker())
        await service.waits()
        service.leases.fail()
        assert await worker == "made 1"

    run(body())


def test_what_does_not_suit_the_one_who_waited_is_waited_for_once_more_at_most() -> None:
    async def body() -> None:
        service = Service()
        service.blind = True
        service.go.set()
        service.leases.seize("key")
        worker = asyncio.create_task(service.worker())
        for _ in range(2):
            await service.waits()
            service.leases.end("key", Ended.STORED)
            service.leases.seize("key")
        assert await worker == "made 1"
        assert service.leases.calls.count("acquire") == 2

    run(body())


def test_work_may_let_the_others_go_before_it_returns() -> None:
    async def body() -> None:
        service = Service()
        holder = asyncio.create_task(service.worker())
        await until(lambda: service.works == 1)
        other = asyncio.create_task(service.worker())
        await service.waits()
        service.store = "early"
        service.given[0].end(Ended.STORED)
        assert await other == "early"
        assert not holder.done()
        service.go.set()
        assert await holder == "made 1"
        assert service.leases.calls.count("end") == 1

    run(body())


def test_a_lease_taken_by_somebody_else_is_left_to_them() -> None:
    async def body() -> None:
        service = Service()
        worker = asyncio.create_task(service.worker())
        await until(lambda: service.works == 1)
        lost = [service.given[0].lost]
        service.leases.seize("key")
        assert [*lost, service.given[0].lost] == [False, True]
        service.go.set()
        assert await worker == "made 1"
        assert service.leases.held == ["key"]

    run(body())


def test_every_moment_of_a_cancellation_leaves_nothing_behind() -> None:
    """Cancelled after each number of steps, as the winner and as one who waits."""

    async def body(steps: int, *, waits: bool) -> bool:
        service = Service()
        if waits:
            service.leases.seize("key", 1.0)
        worker = asyncio.create_task(service.worker())
        for step in range(steps):
            if step == 8:
                service.clock.tick(1.0)
            if step == 16:
                service.go.set()
            await ticks(1)
        if worker.done():
            return True
        worker.cancel()
        with pytest.raises(asyncio.CancelledError):
            await worker
        await ticks(2)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert service.leases.waiting == 0
        service.clock.tick(1.0)
        assert service.leases.held == []
        return False

    for waits in (False, True):
        ended = [asyncio.run(body(steps, waits=waits)) for steps in range(40)]
        assert ended[0] is False
        assert ended[-1] is True


Step = st.one_of(
    st.tuples(st.just("arrive"), st.booleans()),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.just("tick"), st.sampled_from([0.5, 3.0, 6.0])),
    st.tuples(st.just("go"), st.booleans()),
    st.tuples(st.just("seize"), st.sampled_from([1.0, 5.0, math.inf])),
    st.tuples(st.just("fail"), st.booleans()),
    st.tuples(st.just("run"), st.integers(1, 4)),
)


@given(steps=st.lists(Step, max_size=30))
def test_whatever_happens_everybody_is_answered_and_nothing_is_left(steps: list[tuple[str, Any]]) -> None:
    async def body() -> None:
        service = Service()
        workers: list[asyncio.Task[str | None]] = []
        cancelled: set[asyncio.Task[str | None]] = set()
        for what, how in steps:
            if what == "arrive":
                workers.append(asyncio.create_task(service.worker(patience=8.0, stale="old" if how else None)))
            elif what == "cancel":
                for worker in workers[how : how + 1]:
                    cancelled.add(worker)
                    worker.cancel()
            else:
                service.befall(what, how)
            await ticks(how if what == "run" else 1)
        service.go.set()
        while not all(worker.done() for worker in workers):
            await ticks(5)
            service.clock.tick(1.0)
        for worker in workers:
            if not worker.cancelled():
                assert worker.result() in (None, "old", *(f"made {number}" for number in range(1, 31)))
            else:
                assert worker in cancelled
        await ticks(2)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert service.leases.waiting == 0
        assert all(lease.lost for lease in service.given)

    run(body())
