"""Event loops in several threads that share one cache, as under test clients and with plain functions."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from asgi_tiercache import TierCache
from asgi_tiercache.invalidation.held import Held
from asgi_tiercache.invalidation.log import ProcessLog, Purge
from asgi_tiercache.testing import TickingClock
from tests.invalidation.scripted import an_entry
from tests.middleware.asgi import PATIENCE

THREADS = 6


@pytest.fixture(autouse=True)
def frequent_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(work: Callable[[int], object]) -> None:
    """Run `work` in several threads at once; raises what one of them raised."""
    errors: list[BaseException] = []
    ready = threading.Barrier(THREADS)

    def run(number: int) -> None:
        try:
            ready.wait(PATIENCE)
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10 * PATIENCE)
    if errors:
        raise errors[0]


def test_each_invalidation_has_a_position_of_its_own() -> None:
    """Two that shared one would let through what was filled between them."""
    log = ProcessLog(clock=TickingClock())
    ids: list[int] = []

    def invalidate(number: int) -> None:
        async def all_of_mine() -> None:
            for each in range(200):
                ids.append((await log.append(Purge((f"{number} {each}",)))).id)

        asyncio.run(all_of_mine())

    in_threads(invalidate)
    assert len(set(ids)) == THREADS * 200
    records = list(log.records)
    assert [record.previous for record in records[1:]] == [record.id for record in records[:-1]]


def test_what_waits_for_the_log_can_grow_while_others_judge_by_it_and_send_it() -> None:
    held = Held()
    stamp = TierCache().stamp()

    def use(number: int) -> None:
        for each in range(60):
            held.add(Purge((f"{number} {each}",), (f"{number}*{each}",)))
            held.judge(an_entry(stamp, "*key:x", "y"))
            for _, claims in held.batches():
                if number == 0:
                    held.sent(claims)

    in_threads(use)
    for _, claims in held.batches():
        held.sent(claims)
    assert len(held) == 0


def test_every_thread_sees_at_once_what_another_has_invalidated() -> None:
    cache = TierCache()
    truth = [0] * THREADS

    def use(number: int) -> None:
        async def work() -> None:
            for version in range(1, 20):
                truth[number] = version
                await cache.invalidate(f"t{number}")
                for other in range(THREADS):
                    least = truth[other] - 1  # the last one may be under way

                    async def load(other: int = other) -> int:
                        return truth[other]

                    found = await cache.get_or_set(f"k{other}", load, ttl=60, tags=[f"t{other}"])
                    assert found >= (version if other == number else least)

        asyncio.run(work())

    in_threads(use)
