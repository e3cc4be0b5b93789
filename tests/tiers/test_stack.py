from __future__ import annotations

import asyncio

import pytest

from asgi_tiercache.codec.entries import encode
from asgi_tiercache.errors import CodecError
from asgi_tiercache.signals import EntryRejected
from asgi_tiercache.stampede import SharedReads
from asgi_tiercache.testing import TickingClock
from asgi_tiercache.tiers.stack import Located, Stack
from asgi_tiercache.types import Entry, Write
from tests.tiers.doubles import Recorder, ScriptedTier, an_entry, ticks


class Bench:
    def __init__(self, tiers: int = 2) -> None:
        self.clock = TickingClock()
        self.signals = Recorder()
        self.l2, self.l3 = ScriptedTier("L2"), ScriptedTier("L3")
        self.stack = Stack([self.l2, self.l3][:tiers], clock=self.clock, signals=self.signals)

    def entry(self, body: bytes = b"body", lifetime: float = 60.0) -> Entry:
        return an_entry(body, created=self.clock.time(), lifetime=lifetime)

    async def store(self, tier: ScriptedTier, key: str, entry: Entry) -> None:
        await tier.set_many([Write(key, encode(entry), 60.0)])
        tier.writes.clear()

    async def found(self, key: str, *, alone: bool = True) -> tuple[bytes, str] | None:
        located = await self.stack.get(key, alone=alone)
        return located and (located[0].body, located[1])


def test_what_is_put_in_is_written_to_every_tier_and_found_in_the_first() -> None:
    bench = Bench()

    async def body() -> None:
        bench.stack.put("a", bench.entry(), compress=False, ttl=30.0)
        await bench.stack.flush()
        assert await bench.found("a") == (b"body", "L2")

    asyncio.run(body())
    for tier in (bench.l2, bench.l3):
        assert [(write.key, write.ttl) for batch in tier.writes for write in batch] == [("a", 30.0)]
    assert bench.l3.reads == []


def test_nothing_found_is_none() -> None:
    bench = Bench()
    assert asyncio.run(bench.found("a")) is None
    assert (bench.l2.reads, bench.l3.reads) == ([("a",)], [("a",)])


def test_a_worker_reads_what_it_put_in_before_it_is_written() -> None:
    bench = Bench()

    async def body() -> None:
        bench.l2.hang()
        bench.stack.put("a", bench.entry(), compress=False, ttl=30.0)
        assert await bench.found("a") == (b"body", "L2")
        await ticks(3)
        assert await bench.found("a") == (b"body", "L2"), "under way"
        bench.l2.go_on()

    asyncio.run(body())
    assert bench.l2.reads == []


def test_what_a_later_tier_has_goes_up_with_the_lifetime_that_is_left() -> None:
    bench = Bench()

    async def body() -> None:
        await bench.store(bench.l3, "a", bench.entry(lifetime=60.0))
        bench.clock.tick(20.0)
        assert await bench.found("a") == (b"body", "L3")
        await bench.stack.flush()
        assert await bench.found("a") == (b"body", "L2")

    asyncio.run(body())
    assert [(write.key, round(write.ttl)) for batch in bench.l2.writes for write in batch] == [("a", 40)]
    assert bench.l3.writes == []


def test_what_has_no_lifetime_left_is_returned_and_not_promoted() -> None:
    bench = Bench()

    async def body() -> None:
        await bench.store(bench.l3, "a", bench.entry(lifetime=60.0))
        bench.clock.tick(60.0)
        assert await bench.found("a") == (b"body", "L3")
        await bench.stack.flush()

    asyncio.run(body())
    assert bench.l2.writes == []


def test_bytes_that_are_no_entry_are_a_miss_and_reported_and_the_next_tier_is_asked() -> None:
    bench = Bench()

    async def body() -> None:
        await bench.l2.set_many([Write("a", b"rubbish", 60.0)])
        await bench.store(bench.l3, "a", bench.entry())
        assert await bench.found("a") == (b"body", "L3")
        assert await bench.found("a") == (b"body", "L2"), "promoted"

    asyncio.run(body())
    (rejected,) = bench.signals.of(EntryRejected)
    assert rejected.tier == "L2"
    assert rejected.reason


def test_who_is_alone_is_not_held_up_by_a_turn_of_the_loop() -> None:
    bench = Bench()
    asyncio.run(bench.store(bench.l2, "a", bench.entry()))

    async def body() -> None:
        with pytest.raises(StopIteration) as answer:
            bench.found("a").send(None)
        assert answer.value.value == (b"body", "L2")

    asyncio.run(body())


def test_keys_asked_for_together_are_asked_of_each_tier_once() -> None:
    bench = Bench()

    async def body() -> None:
        await bench.store(bench.l2, "a", bench.entry(b"A"))
        await bench.store(bench.l3, "b", bench.entry(b"B"))
        found = await asyncio.gather(*(bench.found(key, alone=False) for key in ("b", "none", "a", "b")))
        assert found == [(b"B", "L3"), None, (b"A", "L2"), (b"B", "L3")]
        await bench.stack.flush()

    asyncio.run(body())
    assert (bench.l2.reads, bench.l3.reads) == ([("b", "none", "a")], [("b", "none")])
    assert [write.key for batch in bench.l2.writes for write in batch] == ["b"]


def test_concurrent_gets_are_two_reads_per_tier() -> None:
    bench = Bench()

    async def get(alone: bool, key: str) -> Located | None:
        return await bench.stack.get(key, alone=alone)

    async def body() -> None:
        bench.l2.hang()
        bench.l3.hang()
        reads: SharedReads[Located | None] = SharedReads()
        callers = asyncio.gather(*(reads.read(key, get, key) for key in "abcdef"))
        for tier in (bench.l2, bench.l3):
            await ticks(5)
            tier.go_on()
        await callers

    asyncio.run(body())
    assert list(map(len, bench.l2.reads)) == [1, 5]
    assert list(map(len, bench.l3.reads)) == [1, 5]


def test_deleting_reaches_every_tier_and_what_is_queued() -> None:
    bench = Bench()

    async def body() -> None:
        for tier in (bench.l2, bench.l3):
            await bench.store(tier, "old", bench.entry())
        bench.stack.put("new", bench.entry(), compress=False, ttl=30.0)
        await bench.stack.delete(["old", "new"])
        assert await bench.found("old") is None
        assert await bench.found("new") is None
        await bench.stack.flush()
        assert await bench.found("new") is None

    asyncio.run(body())
    assert (bench.l2.data, bench.l3.data) == ({}, {})


def test_a_body_is_deflated_at_rest_where_asked() -> None:
    bench = Bench(1)
    text = b"the same again and again " * 200

    async def body() -> None:
        bench.stack.put("plain", bench.entry(text), compress=False, ttl=30.0)
        bench.stack.put("deflated", bench.entry(text), compress=True, ttl=30.0)
        await bench.stack.flush()
        assert await bench.found("deflated") == (text, "L2")

    asyncio.run(body())
    assert len(bench.l2.data["deflated"][0]) < len(text) / 5 < len(bench.l2.data["plain"][0])


def test_an_entry_that_cannot_be_written_is_the_callers_to_know() -> None:
    bench = Bench()
    entry = bench.entry()
    entry.tags = tuple(map(str, range(1000)))

    async def body() -> None:
        with pytest.raises(CodecError):
            bench.stack.put("a", entry, compress=False, ttl=30.0)

    asyncio.run(body())


def test_closing_writes_what_is_queued_and_closes_the_tiers() -> None:
    bench = Bench()

    async def body() -> None:
        bench.l2.hang()
        bench.stack.put("a", bench.entry(), compress=False, ttl=30.0)
        closing = asyncio.create_task(bench.stack.aclose())
        await ticks(5)
        assert (bench.l2.closed, bench.l3.closed) == (0, 0), "not before the last write"
        bench.l2.go_on()
        await closing
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(body())
    assert list(bench.l2.data) == list(bench.l3.data) == ["a"]
    assert (bench.l2.closed, bench.l3.closed) == (1, 1)


def test_a_stack_without_tiers_has_nothing() -> None:
    bench = Bench(0)

    async def body() -> None:
        bench.stack.put("a", bench.entry(), compress=False, ttl=30.0)
        assert await bench.stack.get("a") is None
        assert await bench.stack.get("a") is None
        await bench.stack.delete(["a"])
        await bench.stack.aclose()

    asyncio.run(body())
    assert repr(bench.stack) == "<Stack without tiers>"
    assert repr(Bench().stack) == "<Stack L2 then L3>"
