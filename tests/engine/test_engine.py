"""`Engine` by itself: what it lets into L1, and what it asks for (rules I3, I5, I6)."""

from __future__ import annotations

import asyncio

from asgi_tiercache import Policy
from asgi_tiercache.engine.entries import Place
from asgi_tiercache.signals import WriteDropped
from asgi_tiercache.tiercache import TierCache
from asgi_tiercache.types import Entry, Stamp
from tests.engine.doubles import Fleet, written
from tests.tiers.doubles import ticks, until


def a_place(cache: TierCache, **options: float) -> Place:
    policy = Policy(ttl=1000).but(**options)
    return Place(cache.engine.memory.bucket(policy.region), policy)


def an_entry(
    cache: TierCache, *, stamp: Stamp | None = None, lifetime: float = 100, tags: tuple[str, ...] = ()
) -> Entry:
    clock = cache.engine.clock
    return Entry(stamp or cache.stamp(), clock.time(), lifetime, b"canonical", tags, body=b"body")


def test_an_entry_is_in_memory_at_once_and_below_a_moment_later() -> None:
    async def body() -> None:
        fleet = Fleet()
        async with fleet.worker() as cache:
            place, entry = a_place(cache), an_entry(cache)
            cache.engine.keep(place, "k", entry)
            assert place.bucket.get("k", fleet.clock.monotonic()) is entry
            assert fleet.tier.data == {}
            await written(cache)
            assert list(fleet.tier.data) == ["k"]

    asyncio.run(body())


def test_a_fill_from_below_the_horizon_does_not_enter_memory_unasked() -> None:
    async def body() -> None:
        fleet = Fleet()
        cache, other = fleet.worker(), fleet.worker()
        async with cache, other:
            entry = an_entry(cache, tags=("t",))
            await other.invalidate("unrelated")
            fleet.scripted.records.clear()  # a gap
            fleet.clock.tick(1.0)
            await cache.engine.invalidation.confirm()
            place = a_place(cache)
            cache.engine.keep(place, "k", entry)
            assert len(place.bucket) == 0
            await written(cache)
            found = await cache.engine.fetch(place, "k", b"canonical")
            assert found is not None
            assert found.tier == "L2"
            assert len(place.bucket) == 1, "asked about, and valid"

    asyncio.run(body())


def test_a_fill_that_was_invalidated_meanwhile_never_enters_memory() -> None:
    async def body() -> None:
        fleet = Fleet()
        async with fleet.worker() as cache:
            entry = an_entry(cache, tags=("t",))
            await cache.invalidate("t")
            place = a_place(cache)
            cache.engine.keep(place, "k", entry)
            assert len(place.bucket) == 0
            await written(cache)
            assert await cache.engine.fetch(place, "k", b"canonical") is None

    asyncio.run(body())


def test_an_entry_whose_time_is_over_is_kept_nowhere() -> None:
    async def body() -> None:
        fleet = Fleet()
        async with fleet.worker() as cache:
            place, entry = a_place(cache), an_entry(cache, lifetime=10)
            fleet.clock.tick(10)
            cache.engine.keep(place, "k", entry)
            await written(cache)
            assert (len(place.bucket), fleet.tier.data) == (0, {})

    asyncio.run(body())


def test_an_entry_that_cannot_be_written_below_is_served_from_memory_and_counted() -> None:
    async def body() -> None:
        fleet = Fleet()
        seen: list[object] = []
        async with fleet.worker() as cache:
            cache.engine.signals.subscribe(seen.append)
            place, entry = a_place(cache), an_entry(cache, tags=("\ud800",))
            cache.engine.keep(place, "k", entry)
            await written(cache)
            assert place.bucket.get("k", fleet.clock.monotonic()) is entry
            assert [signal.tier for signal in seen if isinstance(signal, WriteDropped)] == ["L2"]

    asyncio.run(body())


def test_another_canonical_form_under_the_key_is_a_miss_in_every_tier() -> None:
    async def body() -> None:
        fleet = Fleet()
        async with fleet.worker() as cache:
            place = a_place(cache)
            cache.engine.keep(place, "k", an_entry(cache))
            await written(cache)
            now = fleet.clock.monotonic()
            assert cache.engine.recall(place.bucket, "k", b"other", now) is None
            assert await cache.engine.fetch(place, "k", b"other") is None
            assert cache.engine.recall(place.bucket, "k", b"canonical", now) is not None

    asyncio.run(body())


def test_twenty_who_look_for_a_key_ask_below_once() -> None:
    async def body() -> None:
        fleet = Fleet()
        first, second = fleet.worker(), fleet.worker()
        async with first, second:
            first.engine.keep(a_place(first), "k", an_entry(first))
            await written(first)
            fleet.tier.calls.clear()
            place = a_place(second)
            found = await asyncio.gather(*(second.engine.fetch(place, "k", b"canonical") for _ in range(20)))
            assert all(found)
            assert fleet.tier.calls == ["get_many"]

    asyncio.run(body())


def test_a_reader_that_is_cancelled_leaves_the_others_their_answer() -> None:
    async def body() -> None:
        fleet = Fleet()
        first, second = fleet.worker(), fleet.worker(deadline=60)
        async with first, second:
            first.engine.keep(a_place(first), "k", an_entry(first))
            await written(first)
            fleet.tier.calls.clear()
            place = a_place(second)
            fleet.tier.hang()
            readers = [asyncio.create_task(second.engine.fetch(place, "k", b"canonical")) for _ in range(4)]
            await until(lambda: "get_many" in fleet.tier.calls)
            for reader in readers[:2]:
                reader.cancel()
            await ticks(5)
            fleet.tier.recover()
            assert all(await asyncio.gather(*readers[2:]))

    asyncio.run(body())


def test_whoever_shares_a_read_judges_what_it_brought() -> None:
    """I6: the read began before the invalidation, the second request after it."""

    async def body() -> None:
        fleet = Fleet()
        first, second = fleet.worker(), fleet.worker(deadline=60)
        async with first, second:
            first.engine.keep(a_place(first), "k", an_entry(first, tags=("t",)))
            await written(first)
            fleet.tier.calls.clear()
            place = a_place(second)
            fleet.tier.hang()
            before = asyncio.create_task(second.engine.fetch(place, "k", b"canonical"))
            await until(lambda: "get_many" in fleet.tier.calls)
            await second.invalidate("t")
            after = asyncio.create_task(second.engine.fetch(place, "k", b"canonical"))
            await ticks(3)
            fleet.tier.recover()
            await before
            assert await after is None

    asyncio.run(body())


def test_forgetting_a_key_takes_what_is_queued_along() -> None:
    async def body() -> None:
        fleet = Fleet()
        async with fleet.worker() as cache:
            place = a_place(cache)
            cache.engine.keep(place, "k", an_entry(cache))
            await cache.engine.forget("k")
            await written(cache)
            assert (len(place.bucket), fleet.tier.data) == (0, {})

    asyncio.run(body())
