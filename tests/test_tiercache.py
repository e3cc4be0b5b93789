from __future__ import annotations

import asyncio
import datetime
import logging
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from asgi_tiercache import CodecError, ConfigError, NoFillError, Policy, TierCache
from asgi_tiercache.codec.entries import decode, encode
from asgi_tiercache.signals import Answered, EntryRejected
from asgi_tiercache.testing import ScriptedTier, TickingClock
from asgi_tiercache.types import Entry
from tests.engine.doubles import Fleet, Paused, alone, written
from tests.tiers.doubles import ticks, until

MISSING = object()


# ---- values ----


def test_a_value_is_there_until_its_lifetime_ends() -> None:
    async def body() -> None:
        cache, clock = alone()
        async with cache:
            await cache.set("k", {"a": [1, 2]}, ttl=10)
            clock.tick(9.9)
            assert await cache.get("k") == {"a": [1, 2]}
            clock.tick(0.1)
            assert await cache.get("k", MISSING) is MISSING

    asyncio.run(body())


def test_what_is_set_first_is_there_without_anything_having_started_the_cache() -> None:
    async def body() -> None:
        cache, _ = alone()
        await cache.set("k", 1, ttl=10)
        assert await cache.get("k") == 1

    asyncio.run(body())


def test_a_stamp_taken_before_anything_else_is_of_use() -> None:
    async def body() -> None:
        cache, _ = alone()
        before = cache.stamp()
        await cache.set("k", 1, ttl=10, since=before)
        assert await cache.get("k") == 1

    asyncio.run(body())


def test_none_is_a_value() -> None:
    async def body() -> None:
        fleet = Fleet()
        first, second = fleet.worker(), fleet.worker()
        async with first, second:
            await first.set("k", None, ttl=10)
            assert await first.get("k", MISSING) is None
            await written(first)
            assert await second.get("k", MISSING) is None
            load = Paused("other")
            assert await first.get_or_set("k", load, ttl=10) is None
            assert load.calls == 0
            assert await first.get_many(["k", "l"]) == {"k": None}

    asyncio.run(body())


def test_get_returns_the_default_where_there_is_nothing() -> None:
    async def body() -> None:
        cache, _ = alone()
        assert await cache.get("k") is None
        assert await cache.get("k", 7) == 7

    asyncio.run(body())


@pytest.mark.parametrize(
    "value",
    [0, "", b"\x00\xff", [], (1, "a"), {"k": {1, 2}}, Decimal("1.10"), uuid.UUID(int=7), 1.5, True],
    ids=repr,
)
def test_values_come_back_as_they_are(value: object) -> None:
    async def body() -> None:
        fleet = Fleet()
        first, second = fleet.worker(), fleet.worker()
        async with first, second:
            await first.set("k", value, ttl=10)
            await written(first)
            for cache in (first, second):
                found = await cache.get("k")
                assert (type(found), found) == (type(value), value)

    asyncio.run(body())


def test_no_two_callers_share_an_object() -> None:
    async def body() -> None:
        cache, _ = alone()
        async with cache:
            mine = {"a": [1]}
            await cache.set("k", mine, ttl=10)
            mine["a"].append(2)
            first = await cache.get("k")
            first["a"].append(3)
            assert await cache.get("k") == {"a": [1]}

    asyncio.run(body())


def test_those_who_waited_for_one_load_share_no_object() -> None:
    async def body() -> None:
        cache, _ = alone()
        load = Paused([1])
        async with cache:
            tasks = [asyncio.create_task(cache.get_or_set("k", load, ttl=10)) for _ in range(3)]
            await until(lambda: load.calls == 1)
            load.go.set()
            values = await asyncio.gather(*tasks)
            for value in values:
                value.append(2)
            assert values == [[1, 2]] * 3
            assert await cache.get("k") == [1]

    asyncio.run(body())


def test_get_many_finds_what_is_there_and_asks_a_lower_tier_once() -> None:
    async def body() -> None:
        fleet = Fleet()
        first, second = fleet.worker(), fleet.worker()
        async with first, second:
            for number in range(5):
                await first.set(f"k{number}", number, ttl=10)
            await written(first)
            fleet.tier.calls.clear()
            found = await second.get_many(["k4", "none", "k0", "k0"])
            assert list(found.items()) == [("k4", 4), ("k0", 0)]
            assert fleet.tier.calls == ["get_many"]

    asyncio.run(body())


def test_setting_again_replaces() -> None:
    async def body() -> None:
        cache, _ = alone()
        async with cache:
            await cache.set("k", 1, ttl=10)
            await cache.set("k", 2, ttl=10)
            assert await cache.get("k") == 2

    asyncio.run(body())


def test_setting_replaces_also_where_the_new_value_has_to_be_asked_about() -> None:
    """A stamp below the horizon keeps the new value out of L1; the old one must not go on answering from there."""

    async def body() -> None:
        fleet = Fleet()
        cache, other = fleet.worker(), fleet.worker()
        async with cache, other:
            await cache.set("k", "old", ttl=1000)
            before = cache.stamp()
            await other.invalidate("unrelated")
            fleet.clock.tick(1.0)
            assert await cache.get("k") == "old"
            await cache.set("k", "new", ttl=1000, since=before)
            assert await cache.get("k") == "new"

    asyncio.run(body())


def test_a_value_set_while_an_older_one_is_read_from_below_stays() -> None:
    async def body() -> None:
        fleet = Fleet()
        other, cache = fleet.worker(), fleet.worker()

        class SlowTier(ScriptedTier):
            go = asyncio.Event()

            async def get_many(self, keys: Any) -> list[bytes | None]:
                found = await super().get_many(keys)
                await self.go.wait()
                return found

        async with other, cache:
            await other.set("k", "old", ttl=1000)
            await written(other)
            fleet.tier.__class__ = SlowTier
            reading = asyncio.create_task(cache.get("k"))
            await until(lambda: "get_many" in fleet.tier.calls)
            await cache.set("k", "new", ttl=1000)
            SlowTier.go.set()
            await reading
            assert await cache.get("k") == "new"

    asyncio.run(body())


def test_deleting_forgets_in_memory_below_and_on_other_workers() -> None:
    async def body() -> None:
        fleet = Fleet()
        first, second = fleet.worker(), fleet.worker()
        async with first, second:
            for key in "ab":
                await first.set(key, 1, ttl=1000)
            await written(first)
            assert await second.get_many("ab") == {"a": 1, "b": 1}
            await first.delete("a", "b")
            assert await first.get_many("ab") == {}
            assert fleet.tier.data == {}
            fleet.clock.tick(1.0)
            assert await second.get_many("ab") == {}
            await first.set("a", 2, ttl=1000)
            assert await first.get("a") == 2

    asyncio.run(body())


def test_deleting_what_is_not_there_or_nothing_at_all_is_no_error() -> None:
    async def body() -> None:
        cache, _ = alone()
        await cache.delete("none")
        await cache.delete()
        assert await cache.get("none") is None

    asyncio.run(body())


# ---- time ----


def test_a_value_found_below_lives_no_longer_than_it_would_have() -> None:
    async def body() -> None:
        fleet = Fleet()
        first, second = fleet.worker(), fleet.worker()
        async with first, second:
            await first.set("k", 1, ttl=10)
            await written(first)
            fleet.clock.tick(6)
            assert await second.get("k") == 1
            fleet.clock.tick(3.9)
            assert await second.get("k") == 1
            fleet.tier._expiry.clear()
            fleet.clock.tick(0.1)
            assert await second.get("k") is None

    asyncio.run(body())


def test_the_copy_in_memory_is_bounded_by_l1_ttl_and_fetched_anew_from_below() -> None:
    async def body() -> None:
        fleet = Fleet()
        cache = fleet.worker()
        calls = []

        @cache.cached("f", ttl=100, l1_ttl=5)
        async def f() -> int:
            calls.append(1)
            return len(calls)

        async with cache:
            assert await f() == 1
            await written(cache)
            fleet.clock.tick(4)
            fleet.tier.calls.clear()
            assert (await f(), fleet.tier.calls) == (1, [])
            fleet.clock.tick(2)
            assert (await f(), fleet.tier.calls) == (1, ["get_many"])
            fleet.clock.tick(4)
            assert (await f(), fleet.tier.calls) == (1, ["get_many"])

    asyncio.run(body())


def test_an_entry_that_expires_while_the_lease_is_renewed_is_not_used() -> None:
    async def body() -> None:
        fleet = Fleet()
        cache = fleet.worker(max_lag=1.0)
        async with cache:
            await cache.set("k", 1, ttl=5)
            fleet.tier.data.clear()
            fleet.clock.tick(2)
            fleet.scripted.pause()
            reading = asyncio.create_task(cache.get("k"))
            await until(lambda: bool(fleet.scripted.waiting))
            fleet.clock.tick(10)
            fleet.tier.data.clear()
            fleet.scripted.resume()
            assert await reading is None

    asyncio.run(body())


def test_a_wall_clock_set_back_makes_nothing_live_longer_in_memory() -> None:
    async def body() -> None:
        cache, clock = alone()
        await cache.start()
        await cache.set("k", 1, ttl=10)
        clock.jump(-3600)
        assert await cache.get("k") == 1
        clock.tick(10)
        assert await cache.get("k") is None

    asyncio.run(body())


# ---- get_or_set ----


def test_twenty_who_miss_at_the_same_time_load_once() -> None:
    async def body() -> None:
        cache, _ = alone()
        load = Paused(7)
        async with cache:
            tasks = [asyncio.create_task(cache.get_or_set("k", load, ttl=10)) for _ in range(20)]
            await until(lambda: load.calls == 1)
            await ticks(20)
            load.go.set()
            assert await asyncio.gather(*tasks) == [7] * 20
            assert load.calls == 1

    asyncio.run(body())


def test_a_plain_loader_will_do() -> None:
    async def body() -> None:
        cache, _ = alone()
        assert await cache.get_or_set("k", lambda: 5, ttl=10) == 5
        assert await cache.get("k") == 5

    asyncio.run(body())


def test_a_loader_that_fails_fails_all_who_wait_once_and_the_next_call_tries_again() -> None:
    async def body() -> None:
        cache, _ = alone()
        load = Paused(LookupError("no"), 7)
        async with cache:
            tasks = [asyncio.create_task(cache.get_or_set("k", load, ttl=10)) for _ in range(5)]
            await until(lambda: load.calls == 1)
            load.go.set()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [LookupError] * 5
            assert load.calls == 1
            assert await cache.get_or_set("k", load, ttl=10) == 7

    asyncio.run(body())


@pytest.mark.parametrize("cancelled", [0, 1, 4], ids=["the leader", "a follower", "the last"])
def test_cancelling_one_who_waits_leaves_the_others_waiting(cancelled: int) -> None:
    async def body() -> None:
        cache, _ = alone()
        load = Paused(7)
        async with cache:
            tasks = [asyncio.create_task(cache.get_or_set("k", load, ttl=10)) for _ in range(5)]
            await until(lambda: load.calls == 1)
            await ticks(5)
            tasks[cancelled].cancel()
            await ticks(3)
            assert tasks[cancelled].cancelled()
            load.go.set()
            others = [task for number, task in enumerate(tasks) if number != cancelled]
            assert await asyncio.gather(*others) == [7] * 4
            assert load.calls == 1

    asyncio.run(body())


def test_a_load_that_everybody_gave_up_on_is_stored_all_the_same() -> None:
    async def body() -> None:
        cache, _ = alone()
        load = Paused(7)
        task = asyncio.create_task(cache.get_or_set("k", load, ttl=10))
        await until(lambda: load.calls == 1)
        task.cancel()
        await asyncio.wait([task])
        load.go.set()
        await cache.aclose()
        assert await cache.get("k") == 7

    asyncio.run(body())


def test_a_load_that_began_before_an_invalidation_does_not_answer_those_who_came_after_it() -> None:
    async def body() -> None:
        cache, _ = alone()
        load = Paused("old", "new")
        async with cache:
            before = asyncio.create_task(cache.get_or_set("k", load, ttl=10, tags=["t"]))
            await until(lambda: load.calls == 1)
            await cache.invalidate("t")
            after = asyncio.create_task(cache.get_or_set("k", load, ttl=10, tags=["t"]))
            await ticks(5)
            load.go.set()
            assert await before == "old"
            assert await after == "new"
            assert await cache.get("k") == "new"

    asyncio.run(body())


def test_loads_that_wait_for_each_other_crosswise_end() -> None:
    """Without the cache each of them would end: neither loader of the inner calls needs the outer one."""

    async def body() -> None:
        cache, _ = alone()
        started: list[str] = []

        async def outer(first: str, second: str) -> str:
            async def load() -> str:
                started.append(first)
                await until(lambda: len(started) >= 2)

                async def inner() -> str:
                    return second

                return f"{first}{await cache.get_or_set(second, inner, ttl=10)}"

            return str(await cache.get_or_set(first, load, ttl=10))

        tasks = [asyncio.create_task(outer(*names)) for names in ("ab", "ba")]
        await ticks(200)
        ended = [task.done() for task in tasks]
        for task in tasks:
            task.cancel()
        assert ended == [True, True]

    asyncio.run(body())


# ---- tags ----


def test_invalidating_a_tag_takes_what_carries_it_and_nothing_else() -> None:
    async def body() -> None:
        cache, _ = alone()
        async with cache:
            await cache.set("a", 1, ttl=10, tags=["x", "y"])
            await cache.set("b", 2, ttl=10, tags="y")
            await cache.set("c", 3, ttl=10)
            receipt = await cache.invalidate("x")
            assert (receipt.durable, receipt.names) == (True, ("x",))
            assert await cache.get_many("abc") == {"b": 2, "c": 3}
            await cache.invalidate("{letter}", letter="y")
            assert await cache.get_many("abc") == {"c": 3}

    asyncio.run(body())


def test_invalidating_a_key_is_within_the_namespace() -> None:
    async def body() -> None:
        cache, _ = alone(namespace="shop")
        await cache.start()
        await cache.set("a", 1, ttl=10)
        await cache.set("b", 2, ttl=10)
        await cache.invalidate_key("a")
        assert await cache.get_many("ab") == {"b": 2}

    asyncio.run(body())


def test_clear_takes_everything_also_from_below() -> None:
    async def body() -> None:
        fleet = Fleet()
        cache = fleet.worker()
        async with cache:
            await cache.set("a", 1, ttl=1000)
            await written(cache)
            receipt = await cache.clear()
            assert receipt.durable
            assert await cache.get("a") is None
            await cache.set("a", 2, ttl=1000)
            assert await cache.get("a") == 2

    asyncio.run(body())


def test_a_value_read_before_an_invalidation_is_not_stored_over_it() -> None:
    async def body() -> None:
        cache, _ = alone()
        async with cache:
            before = cache.stamp()
            await cache.invalidate("t")
            await cache.set("k", "old", ttl=10, tags=["t"], since=before)
            assert await cache.get("k") is None
            await cache.set("k", "new", ttl=10, tags=["t"], since=cache.stamp())
            assert await cache.get("k") == "new"

    asyncio.run(body())


def test_more_than_128_tags_on_a_value_are_refused() -> None:
    async def body() -> None:
        cache, _ = alone()
        await cache.start()
        await cache.set("k", 1, ttl=10, tags=[f"t{n}" for n in range(128)])
        assert await cache.get("k") == 1
        with pytest.raises(CodecError, match="128 tags"):
            await cache.set("l", 1, ttl=10, tags=[f"t{n}" for n in range(129)])

    asyncio.run(body())


# ---- workers ----


def test_what_one_worker_stored_another_finds_below_without_asking_the_log_about_it() -> None:
    async def body() -> None:
        fleet = Fleet()
        first, second = fleet.worker(), fleet.worker()
        async with first:
            await first.invalidate("something")
            await first.set("k", 1, ttl=1000)
            await written(first)
            await second.start()
            asked = fleet.scripted.count("ask")
            assert await second.get("k") == 1
            assert fleet.scripted.count("ask") == asked, "its stamp is not below the horizon (I5)"

    asyncio.run(body())


def test_what_another_worker_invalidated_is_gone_once_the_lease_is_over() -> None:
    async def body() -> None:
        fleet = Fleet()
        first, second = fleet.worker(), fleet.worker()
        async with first, second:
            await first.set("k", 1, ttl=1000, tags=["t"])
            await written(first)
            assert await second.get("k") == 1
            await first.invalidate("t")
            fleet.clock.tick(1.0)
            assert await second.get("k") is None

    asyncio.run(body())


def test_a_restarted_worker_revives_nothing_of_what_was_invalidated() -> None:
    async def body() -> None:
        fleet = Fleet()
        first = fleet.worker()
        async with first:
            await first.set("k", 1, ttl=1000, tags=["t"])
            await written(first)
            await first.invalidate("t")
        assert len(fleet.tier.data) == 1
        async with fleet.worker() as again:
            assert await again.get("k") is None

    asyncio.run(body())


def test_without_the_log_policies_say_whether_to_go_on() -> None:
    async def body() -> None:
        fleet = Fleet()
        cache = fleet.worker(max_lag=1.0, max_unverified=60.0)
        calls: list[str] = []

        @cache.cached("serve", ttl=1000)
        async def serve() -> None:
            calls.append("serve")

        @cache.cached("bypass", ttl=1000, unverified="bypass")
        async def bypass() -> None:
            calls.append("bypass")

        async with cache:
            await serve()
            await bypass()
            calls.clear()
            fleet.scripted.fail()
            fleet.clock.tick(1.0)
            await serve()
            await bypass()
            assert calls == ["bypass"]
            fleet.clock.tick(60.0)
            await serve()
            assert calls == ["bypass", "serve"]
            fleet.scripted.recover()
            await serve()
            await bypass()
            assert calls == ["bypass", "serve"]

    asyncio.run(body())


def test_an_invalidation_that_the_log_refused_holds_here_and_says_so() -> None:
    async def body() -> None:
        fleet = Fleet()
        cache = fleet.worker()
        async with cache:
            await cache.set("k", 1, ttl=1000, tags=["t"])
            fleet.scripted.fail()
            receipt = await cache.invalidate("t")
            assert not receipt.durable
            assert await cache.get("k") is None

    asyncio.run(body())


# ---- bytes of unknown origin ----


async def _poisoned(spoil: Callable[[bytes], bytes]) -> tuple[Any, list[Any]]:
    """What `get` returns, and what was reported, after L2's bytes were spoiled."""
    fleet = Fleet()
    first, second = fleet.worker(), fleet.worker()
    seen: list[Any] = []
    second.engine.signals.subscribe(seen.append)
    async with first, second:
        await first.set("k", "value", ttl=1000)
        await written(first)
        fleet.tier.data["k"] = spoil(fleet.tier.data["k"])
        return await second.get("k", MISSING), seen


def _entry(data: bytes) -> Entry:
    entry = decode(data)
    assert isinstance(entry, Entry)
    return entry


@pytest.mark.parametrize(
    "spoil",
    [lambda _: b"", lambda _: b"garbage", lambda data: data[:-1], lambda data: data[:-1] + b"!"],
    ids=["empty", "garbage", "truncated", "altered"],
)
def test_undecodable_bytes_are_a_miss_and_counted(spoil: Callable[[bytes], bytes]) -> None:
    found, seen = asyncio.run(_poisoned(spoil))
    assert found is MISSING
    assert len([signal for signal in seen if isinstance(signal, EntryRejected)]) == 1


def test_another_keys_entry_under_our_key_is_a_miss() -> None:
    def spoil(data: bytes) -> bytes:
        entry = _entry(data)
        entry.canonical += b"!"
        return encode(entry)

    found, _ = asyncio.run(_poisoned(spoil))
    assert found is MISSING


def test_a_body_that_is_no_value_is_a_miss_and_counted() -> None:
    def spoil(data: bytes) -> bytes:
        entry = _entry(data)
        entry.body = b"{"
        return encode(entry)

    found, seen = asyncio.run(_poisoned(spoil))
    assert found is MISSING
    assert [signal for signal in seen if isinstance(signal, EntryRejected)], "undecodable bytes are a counted event"


# ---- failing tiers ----


def test_a_tier_that_fails_is_a_miss_and_left_alone_after_three_failures() -> None:
    async def body() -> None:
        tier = ScriptedTier()
        cache = TierCache(l2=tier, clock=TickingClock())
        tier.fail()
        async with cache:
            for number in range(10):
                assert await cache.get(f"k{number}") is None
        assert tier.calls.count("get_many") == 3
        assert cache.stats()["breakers"]["L2"]["state"] == "open"

    asyncio.run(body())


def test_a_tier_that_hangs_costs_one_deadline_once() -> None:
    async def body() -> None:
        tier = ScriptedTier()
        cache = TierCache(l2=tier, clock=TickingClock(), deadline=0.02)
        tier.hang()
        load = Paused(1)
        load.go.set()
        loop = asyncio.get_running_loop()
        started = loop.time()
        for number in range(10):
            assert await cache.get_or_set(f"k{number}", load, ttl=10) == 1
        assert loop.time() - started < 5 * 0.02
        assert tier.calls.count("get_many") == 1
        tier.recover()
        await cache.aclose()

    asyncio.run(body())


def test_while_a_tier_is_down_values_stay_in_memory() -> None:
    async def body() -> None:
        fleet = Fleet()
        cache = fleet.worker()
        async with cache:
            fleet.tier.fail()
            await cache.set("k", 1, ttl=10)
            assert await cache.get("k") == 1

    asyncio.run(body())


# ---- life ----


def test_the_cache_serves_several_event_loops_one_after_another() -> None:
    fleet = Fleet()
    cache = fleet.worker()

    async def fill() -> None:
        async with cache:
            await cache.set("k", 1, ttl=10)

    async def read() -> object:
        return await cache.get("k")

    asyncio.run(fill())
    assert asyncio.run(read()) == 1
    fleet.tier.data.clear()
    asyncio.run(fill())
    assert "k" in fleet.tier.data
    assert asyncio.run(read()) == 1


def test_the_cache_can_be_used_again_after_it_was_closed() -> None:
    async def body() -> None:
        fleet = Fleet()
        cache = fleet.worker()
        for value in range(3):
            async with cache:
                await cache.set("k", value, ttl=10)
            assert await cache.get("k") == value
        await cache.aclose()
        await cache.aclose()

    asyncio.run(body())


def test_closing_flushes_what_is_queued() -> None:
    async def body() -> ScriptedTier:
        fleet = Fleet()
        async with fleet.worker() as cache:
            for number in range(200):
                await cache.set(f"k{number}", number, ttl=10)
        return fleet.tier

    tier = asyncio.run(body())
    assert len(tier.data) == 200
    assert tier.calls[-1] == "aclose"


def test_closing_waits_for_fills_under_way() -> None:
    async def body() -> None:
        cache, _ = alone()
        load = Paused(7)
        task = asyncio.create_task(cache.get_or_set("k", load, ttl=10))
        await until(lambda: load.calls == 1)
        closing = asyncio.create_task(cache.aclose())
        await ticks(5)
        assert not closing.done()
        load.go.set()
        await closing
        assert await task == 7

    asyncio.run(body())


def test_a_log_out_of_reach_at_the_start_is_no_error() -> None:
    async def body() -> None:
        fleet = Fleet()
        fleet.scripted.fail()
        async with fleet.worker() as cache:
            load = Paused(1)
            load.go.set()
            assert await cache.get_or_set("k", load, ttl=10) == 1
            assert await cache.get_or_set("k", load, ttl=10) == 1
            assert load.calls == 1

    asyncio.run(body())


def test_starting_warns_once_of_endpoints_that_no_middleware_serves(caplog: pytest.LogCaptureFixture) -> None:
    cache, _ = alone()

    cache.response(ttl=1)(_endpoint)

    async def body() -> None:
        await cache.start()
        await cache.start()

    with caplog.at_level(logging.WARNING, logger="asgi_tiercache"):
        asyncio.run(body())
    assert ["_endpoint" in record.getMessage() for record in caplog.records] == [True]


def test_starting_warns_of_nothing_where_a_middleware_serves(caplog: pytest.LogCaptureFixture) -> None:
    cache, _ = alone()
    cache.response(ttl=1)(_endpoint)
    cache.serve()
    with caplog.at_level(logging.WARNING, logger="asgi_tiercache"):
        asyncio.run(cache.start())
    assert not caplog.records


async def _endpoint() -> None: ...


# ---- @cache.response marks ----


def test_response_returns_the_endpoint_itself_and_remembers_the_policy() -> None:
    cache, _ = alone()
    other, _ = alone()

    async def endpoint() -> None: ...

    marked = cache.response(Policy(ttl=5), tags=["a"])(endpoint)
    assert marked is endpoint
    policy = cache.policy_of(endpoint)
    assert policy is not None
    assert (policy.ttl, policy.tags) == (5, ("a",))
    assert other.policy_of(endpoint) is None
    other.response(ttl=7)(endpoint)
    assert other.policy_of(endpoint) == Policy(ttl=7)
    with pytest.raises(ConfigError, match="already") as caught:
        cache.response(ttl=6)(endpoint)
    assert caught.value.option == "response"


def test_the_policy_of_a_class_based_endpoint_may_stand_on_its_get() -> None:
    cache, _ = alone()

    class Endpoint:
        @cache.response(ttl=5)
        async def get(self) -> None: ...

    assert cache.policy_of(Endpoint) == Policy(ttl=5)


def test_what_cannot_be_marked_is_refused() -> None:
    cache, _ = alone()
    with pytest.raises(ConfigError, match="routes="):
        cache.response(ttl=5)(len)


# ---- namespace, stats, current ----


def test_the_namespace_begins_every_key_and_is_no_part_of_the_api() -> None:
    async def body() -> None:
        fleet = Fleet()
        shop, blog = fleet.worker(namespace="shop"), fleet.worker(namespace="blog")
        async with shop, blog:
            await shop.set("k", 1, ttl=1000)
            await written(shop)
            assert list(fleet.tier.data) == ["shop:k"]
            assert await shop.get_many(["k"]) == {"k": 1}
            assert await blog.get("k") is None

    asyncio.run(body())


def test_stats_tell_hits_misses_and_what_memory_holds() -> None:
    async def body() -> None:
        cache, _ = alone()
        await cache.get("k")
        await cache.set("k", 1, ttl=10)
        await cache.get("k")
        await cache.invalidate("t")
        stats = cache.stats()
        assert (stats["answers"]["hits"], stats["answers"]["misses"]) == (1, 1)
        assert stats["tiers"]["L1"]["entries"] == 1
        assert stats["routes"]["(direct)"]["answers"]["hits"] == 1

    asyncio.run(body())


def test_current_is_an_error_outside_a_fill() -> None:
    cache, _ = alone()
    with pytest.raises(NoFillError):
        cache.current.tag("a")


def test_current_is_there_in_a_loader() -> None:
    async def body() -> None:
        cache, _ = alone()

        async def load() -> int:
            cache.current.tag("t")
            return 1

        await cache.get_or_set("k", load, ttl=10)
        await cache.invalidate("t")
        assert await cache.get("k") is None

    asyncio.run(body())


def test_the_reprs_tell_an_operator_something() -> None:
    cache, _ = alone(namespace="shop")
    assert "shop" in repr(cache)
    assert "default" in repr(cache)


# ---- errors ----


@pytest.mark.parametrize(
    ("option", "build"),
    [
        ("deadline", lambda: TierCache(l2=ScriptedTier(), deadline=0)),
        ("deadline", lambda: TierCache(deadline=-1)),
        ("deadline", lambda: TierCache.from_url("redis://localhost", deadline=float("nan"))),
        ("max_lag", lambda: TierCache(max_lag=0)),
        ("max_lag", lambda: TierCache(max_lag=float("inf"))),
        ("max_unverified", lambda: TierCache(max_unverified=-1)),
        ("namespace", lambda: TierCache(namespace="a:b")),
        ("namespace", lambda: TierCache(namespace="x" * 65)),
        ("namespace", lambda: TierCache(namespace="a\n")),
        ("namespace", lambda: TierCache.from_url("redis://localhost", namespace="{x}")),
        ("url", lambda: TierCache.from_url("http://localhost")),
        ("url", lambda: TierCache.from_url("redis://localhost/typo")),
        ("url", lambda: TierCache.from_url("redis://localhost:port")),
        ("l2", lambda: TierCache(l2="redis://localhost")),  # type: ignore[arg-type]
        ("log", lambda: TierCache(log="redis://localhost")),  # type: ignore[arg-type]
        ("cached", lambda: TierCache().cached(lambda: None)),  # type: ignore[arg-type]
        ("cached", lambda: TierCache().cached("k", "STATIC")),  # type: ignore[arg-type]
        ("cached", lambda: TierCache().cached("k", ttll=5)),
        ("cached", lambda: TierCache().cached("k", Policy(ttl=1), ttll=5)),
        ("ttl", lambda: TierCache().cached("k")),
        ("ttl", lambda: TierCache().cached("k", ttl=-5)),
        ("response", lambda: TierCache().response(ttll=5)),
        ("response", lambda: TierCache().response("STATIC")),  # type: ignore[arg-type]
        ("ttl", lambda: TierCache().response(ttl=0)),
        ("token", lambda: TierCache().stats_app(token="")),
    ],
)
def test_a_wrong_option_is_named_when_the_object_is_built(option: str, build: Callable[[], object]) -> None:
    with pytest.raises(ConfigError) as caught:
        build()
    # A policy that is changed by options does not know who asked for that.
    assert caught.value.option in (option, "policy" if option == "cached" else option)


@pytest.mark.parametrize(
    ("option", "call"),
    [
        ("ttl", lambda cache: cache.set("k", 1, ttl=0)),
        ("ttl", lambda cache: cache.set("k", 1, ttl="5")),
        ("ttl", lambda cache: cache.get_or_set("k", dict, ttl=-1)),
        ("key", lambda cache: cache.set("", 1, ttl=1)),
        ("key", lambda cache: cache.set(5, 1, ttl=1)),
        ("key", lambda cache: cache.get("a\nb")),
        ("key", lambda cache: cache.get_or_set("\x00", dict, ttl=1)),
        ("key", lambda cache: cache.delete("\x7f")),
        ("key", lambda cache: cache.invalidate_key("")),
        ("tags", lambda cache: cache.set("k", 1, ttl=1, tags=["a*"])),
        ("tags", lambda cache: cache.set("k", 1, ttl=1, tags=[""])),
        ("tags", lambda cache: cache.set("k", 1, ttl=1, tags=5)),
        ("tags", lambda cache: cache.get_or_set("k", dict, ttl=1, tags=["x" * 257])),
        ("tag", lambda cache: cache.invalidate("")),
        ("tag", lambda cache: cache.invalidate("a*")),
        ("tag", lambda cache: cache.invalidate("a\n")),
        ("tag", lambda cache: cache.invalidate("x" * 257)),
    ],
)
def test_a_wrong_argument_is_named_by_the_call(option: str, call: Callable[[TierCache], Any]) -> None:
    async def body() -> None:
        await call(TierCache())

    with pytest.raises(ConfigError) as caught:
        asyncio.run(body())
    assert caught.value.option == option


def test_a_value_that_would_not_come_back_is_refused_with_its_key_and_type() -> None:
    async def body() -> None:
        cache, _ = alone()
        with pytest.raises(CodecError, match=r"object") as caught:
            await cache.set("the:key", object(), ttl=10)
        assert "the:key" in str(caught.value)
        with pytest.raises(CodecError, match=r"generator") as caught:
            await cache.get_or_set("the:other:key", lambda: (n for n in range(3)), ttl=10)
        assert "the:other:key" in str(caught.value)

    asyncio.run(body())


# ---- TIERCACHE_DISABLED ----


def test_disabled_everything_passes_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERCACHE_DISABLED", "1")

    async def body() -> None:
        fleet = Fleet()
        cache = fleet.worker()
        assert cache.disabled
        calls: list[int] = []

        @cache.cached("f:{n}", ttl=10)
        async def f(n: int) -> datetime.date:
            calls.append(n)
            return datetime.date(2020, 1, n)

        async with cache:
            await cache.set("k", 1, ttl=10)
            assert await cache.get("k", 5) == 5
            assert await cache.get_many(["k"]) == {}
            assert await cache.get_or_set("k", lambda: 6, ttl=10) == 6
            assert [await f(1), await f(1)] == [datetime.date(2020, 1, 1)] * 2
        assert calls == [1, 1]
        assert "get_many" not in fleet.tier.calls
        assert "set_many" not in fleet.tier.calls

    asyncio.run(body())


def test_disabled_functions_may_still_speak_to_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERCACHE_DISABLED", "1")

    async def body() -> None:
        cache = TierCache()

        @cache.cached("f", ttl=10)
        async def f() -> int:
            cache.current.tag("t")
            cache.current.set_ttl(5)
            return 1

        async def load() -> int:
            cache.current.no_store()
            return 2

        assert await f() == 1
        assert await cache.get_or_set("k", load, ttl=10) == 2

    asyncio.run(body())


@pytest.mark.parametrize("value", ["0", "", "yes"])
def test_only_1_disables(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("TIERCACHE_DISABLED", value)
    assert not TierCache().disabled


def test_answers_are_reported_with_the_tier_they_came_from() -> None:
    async def body() -> None:
        fleet = Fleet()
        first, second = fleet.worker(), fleet.worker()
        seen: list[Any] = []
        second.engine.signals.subscribe(seen.append)
        load = Paused(1)
        async with first, second:
            await first.set("k", 1, ttl=1000)
            await written(first)
            await second.get("k")
            await second.get("k")
            tasks = [asyncio.create_task(second.get_or_set("l", load, ttl=10)) for _ in range(2)]
            await until(lambda: load.calls == 1)
            load.go.set()
            await asyncio.gather(*tasks)
        answers = [(signal.outcome, signal.detail) for signal in seen if isinstance(signal, Answered)]
        assert answers[:2] == [("hit", "L2"), ("hit", "L1")]
        assert sorted(answers[2:]) == [("hit", "flight"), ("miss", "")]

    asyncio.run(body())
