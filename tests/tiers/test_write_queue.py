from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_tiercache.errors import TierError
from asgi_tiercache.signals import WriteDropped
from asgi_tiercache.testing import ScriptedTier as Shipped
from asgi_tiercache.tiers.writes import AT_LOOP_END, BATCH_BYTES, BATCH_ENTRIES, WriteQueue
from asgi_tiercache.types import Write
from tests.tiers.doubles import Recorder, ScriptedTier, ticks, until


def a_write(key: str, data: bytes = b"data") -> Write:
    return Write(key, data, 60.0)


def keys_of(batches: Sequence[Sequence[Write]]) -> list[list[str]]:
    return [[write.key for write in batch] for batch in batches]


class HangsOnce(ScriptedTier):
    """Does not answer the first write, however long one waits."""

    async def set_many(self, writes: Sequence[Write]) -> None:
        if not self.writes:
            self.writes.append(list(writes))
            await asyncio.Event().wait()
        await super().set_many(writes)


def a_queue(tier: ScriptedTier, recorder: Recorder | None = None, **bounds: int) -> WriteQueue:
    return WriteQueue(tier, signals=recorder or Recorder(), **bounds)


def test_what_is_put_in_reaches_the_tier_in_order_and_in_one_batch() -> None:
    tier = ScriptedTier()

    async def body() -> None:
        queue = a_queue(tier)
        for key in "bac":
            queue.put(a_write(key))
        assert tier.writes == [], "putting in waits for nothing"
        await queue.flush()
        assert len(queue) == queue.bytes == 0

    asyncio.run(body())
    assert keys_of(tier.writes) == [["b", "a", "c"]]


def test_nobody_has_to_flush() -> None:
    tier = ScriptedTier()

    async def body() -> None:
        queue = a_queue(tier)
        queue.put(a_write("a"))
        await ticks(3)
        assert keys_of(tier.writes) == [["a"]]
        queue.put(a_write("b"))
        await ticks(3)

    asyncio.run(body())
    assert keys_of(tier.writes) == [["a"], ["b"]]


def test_the_last_write_of_a_key_wins_at_the_place_of_the_first() -> None:
    tier = ScriptedTier()

    async def body() -> None:
        queue = a_queue(tier)
        for key, data in (("a", b"1"), ("b", b"22"), ("a", b"333")):
            queue.put(a_write(key, data))
        assert (len(queue), queue.bytes) == (2, 5)
        await queue.flush()

    asyncio.run(body())
    assert tier.writes == [[a_write("a", b"333"), a_write("b", b"22")]]


def test_a_full_queue_drops_its_oldest_and_says_so() -> None:
    tier, recorder = ScriptedTier(), Recorder()

    async def body() -> None:
        queue = a_queue(tier, recorder, max_entries=2)
        for key in "abcd":
            queue.put(a_write(key))
        await queue.flush()

    asyncio.run(body())
    assert keys_of(tier.writes) == [["c", "d"]]
    assert recorder.seen == [WriteDropped("L2", "queue full")] * 2


def test_a_queue_is_full_by_bytes_as_well() -> None:
    tier, recorder = ScriptedTier(), Recorder()

    async def body() -> None:
        queue = a_queue(tier, recorder, max_bytes=100)
        for key in "abc":
            queue.put(a_write(key, b"x" * 40))
            assert queue.bytes <= 100
        assert (queue.peek("a"), len(queue)) == (None, 2)

    asyncio.run(body())
    assert recorder.seen == [WriteDropped("L2", "queue full")]


def test_a_write_larger_than_the_whole_queue_is_dropped_alone() -> None:
    tier, recorder, told = ScriptedTier(), Recorder(), list[bool]()

    async def body() -> None:
        queue = a_queue(tier, recorder, max_bytes=100)
        queue.put(a_write("a"))
        queue.put(a_write("large", b"older"))
        queue.put(a_write("large", b"x" * 101), told.append)
        assert queue.peek("large") is None, "what it replaces must not come in its stead"
        await queue.flush()

    asyncio.run(body())
    assert keys_of(tier.writes) == [["a"]]
    assert recorder.seen == [WriteDropped("L2", "too large")]
    assert told == [False]


def test_batches_are_bounded_by_entries() -> None:
    tier = ScriptedTier()

    async def body() -> None:
        queue = a_queue(tier)
        for number in range(BATCH_ENTRIES + 1):
            queue.put(a_write(str(number)))
        await queue.flush()

    asyncio.run(body())
    assert list(map(len, tier.writes)) == [BATCH_ENTRIES, 1]


def test_batches_are_bounded_by_bytes_and_a_large_entry_goes_alone() -> None:
    tier = ScriptedTier()
    sizes = {"a": BATCH_BYTES // 2, "b": BATCH_BYTES // 2, "c": 1, "large": 2 * BATCH_BYTES, "d": 1}

    async def body() -> None:
        queue = a_queue(tier)
        for key, size in sizes.items():
            queue.put(a_write(key, b"x" * size))
        await queue.flush()

    asyncio.run(body())
    assert keys_of(tier.writes) == [["a", "b"], ["c"], ["large"], ["d"]]


def test_what_is_queued_or_on_its_way_can_be_read() -> None:
    tier = ScriptedTier()

    async def body() -> None:
        queue = a_queue(tier)
        queue.put(a_write("a", b"1"))
        assert (queue.peek("a"), queue.peek("b")) == (b"1", None)
        tier.hang()
        await ticks(3)
        assert (len(queue), queue.peek("a")) == (0, b"1"), "the tier has it and did not answer yet"
        queue.put(a_write("a", b"2"))
        assert queue.peek("a") == b"2"
        tier.go_on()
        await queue.flush()
        assert queue.peek("a") is None

    asyncio.run(body())


def test_a_discarded_write_never_happens() -> None:
    tier = ScriptedTier()

    async def body() -> None:
        queue = a_queue(tier)
        queue.put(a_write("a"))
        queue.put(a_write("b"))
        queue.discard("a")
        queue.discard("unknown")
        assert (queue.peek("a"), queue.bytes) == (None, 4)
        await queue.flush()

    asyncio.run(body())
    assert keys_of(tier.writes) == [["b"]]


def test_a_deletion_comes_after_the_write_that_is_under_way() -> None:
    written = asyncio.Event()

    class SlowToWrite(ScriptedTier):
        async def set_many(self, writes: Sequence[Write]) -> None:
            await written.wait()
            await super().set_many(writes)

    async def body() -> None:
        tier = SlowToWrite()
        queue = a_queue(tier)
        queue.put(a_write("a"))
        await ticks(3)
        deletion = asyncio.create_task(queue.delete(["a"]))
        await ticks(5)
        assert not deletion.done()
        written.set()
        await deletion
        assert await tier.get_many(["a"]) == [None]

    asyncio.run(body())


def test_a_write_comes_after_the_deletion_that_is_under_way() -> None:
    deleted = asyncio.Event()

    class SlowToDelete(ScriptedTier):
        async def delete_many(self, keys: Sequence[str]) -> None:
            await deleted.wait()
            await super().delete_many(keys)

    async def body() -> None:
        tier = SlowToDelete()
        queue = a_queue(tier)
        deletion = asyncio.create_task(queue.delete(["a"]))
        await ticks(2)
        queue.put(a_write("a", b"new"))
        await ticks(5)
        deleted.set()
        await deletion
        await queue.flush()
        assert await tier.get_many(["a"]) == [b"new"]

    asyncio.run(body())


def test_a_write_put_in_after_a_deletion_survives_it() -> None:
    tier = ScriptedTier()

    async def body() -> None:
        queue = a_queue(tier)
        queue.put(a_write("a", b"old"))
        deletion = asyncio.create_task(queue.delete(["a"]))
        await ticks(1)
        queue.put(a_write("a", b"new"))
        await deletion
        await queue.flush()
        assert await tier.get_many(["a"]) == [b"new"]

    asyncio.run(body())


def test_flushing_gives_up_after_its_time_and_drops_nothing() -> None:
    tier = ScriptedTier()

    async def body() -> None:
        queue = a_queue(tier)
        tier.hang()
        queue.put(a_write("a"))
        await queue.flush(within=0.01)
        assert queue.peek("a") == b"data"
        tier.go_on()
        await queue.flush()
        assert await tier.get_many(["a"]) == [b"data"]

    asyncio.run(body())


def test_closing_flushes() -> None:
    tier, recorder = ScriptedTier(), Recorder()

    async def body() -> None:
        queue = a_queue(tier, recorder)
        queue.put(a_write("a"))
        await queue.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(body())
    assert keys_of(tier.writes) == [["a"]]
    assert recorder.seen == []


def test_closing_drops_what_is_not_written_in_time_and_says_so() -> None:
    tier, recorder = ScriptedTier(), Recorder()

    async def body() -> None:
        queue = a_queue(tier, recorder)
        tier.hang()
        for number in range(BATCH_ENTRIES + 3):
            queue.put(a_write(str(number)))
        closing = asyncio.create_task(queue.aclose(within=0.01))
        await until(lambda: bool(recorder.seen))
        tier.go_on()
        await closing
        assert len(queue) == 0

    asyncio.run(body())
    assert recorder.seen == [WriteDropped("L2", "closed")] * 3


def test_closing_ends_a_write_that_hangs_and_tries_it_once_more() -> None:
    tier = HangsOnce()

    async def body() -> None:
        queue = a_queue(tier)
        queue.put(a_write("a"))
        await queue.aclose(within=0.01)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(body())
    assert list(tier.data) == ["a"]


def test_a_tier_that_raises_loses_its_batch_and_the_queue_goes_on() -> None:
    tier, recorder = ScriptedTier(), Recorder()

    async def body() -> None:
        queue = a_queue(tier, recorder)
        tier.error = TierError("L2: out of memory")
        queue.put(a_write("a"))
        await queue.flush()
        tier.error = None
        queue.put(a_write("b"))
        await queue.flush()
        assert queue.peek("a") is None

    asyncio.run(body())
    assert recorder.seen == [WriteDropped("L2", "L2: out of memory")]
    assert keys_of(tier.writes) == [["a"], ["b"]]


def test_what_a_tier_raises_whatever_it_is_ends_no_queue() -> None:
    tier, recorder, told = ScriptedTier(), Recorder(), list[bool]()

    async def body() -> None:
        queue = a_queue(tier, recorder)
        tier.error = RuntimeError("unable to perform operation on a closed transport")
        queue.put(a_write("a"), told.append)
        await queue.flush()
        tier.error = None
        queue.put(a_write("b"), told.append)
        await queue.flush()

    asyncio.run(body())
    assert told == [False, True]
    assert len(recorder.seen) == 1


def test_closing_over_a_tier_that_hangs_for_good_ends_and_tells_everybody_once() -> None:
    tier, recorder, told = ScriptedTier(), Recorder(), list[bool]()
    tier.hang()

    async def body() -> None:
        queue = a_queue(tier, recorder)
        for number in range(2 * BATCH_ENTRIES):
            queue.put(a_write(str(number)), told.append)
        await ticks(3)
        async with asyncio.timeout(5 * AT_LOOP_END):
            await queue.aclose(within=0.01)
        assert (len(queue), queue.bytes, queue.peek("0")) == (0, 0, None)

    asyncio.run(body())
    assert told == [False] * 2 * BATCH_ENTRIES
    assert recorder.seen == [WriteDropped("L2", "closed")] * 2 * BATCH_ENTRIES


def test_a_loop_that_ends_writes_what_is_queued() -> None:
    tier = ScriptedTier()
    queue = a_queue(tier)

    async def body() -> None:
        for number in range(BATCH_ENTRIES + 1):
            queue.put(a_write(str(number)))

    asyncio.run(body())
    assert len(tier.data) == BATCH_ENTRIES + 1


def test_a_loop_that_ends_repeats_the_write_that_it_interrupts() -> None:
    tier = HangsOnce()
    queue = a_queue(tier)

    async def body() -> None:
        queue.put(a_write("a", b"old"))
        queue.put(a_write("b"))
        await ticks(3)
        queue.put(a_write("c"))
        queue.put(a_write("a", b"new"))

    asyncio.run(body())
    assert keys_of(tier.writes) == [["a", "b"], ["a", "b", "c"]]
    assert tier.data["a"][0] == b"new"
    assert (len(queue), queue.bytes, queue.peek("a")) == (0, 0, None)


def test_a_loop_that_ends_is_not_held_up_for_long_by_a_tier_that_hangs() -> None:
    tier = ScriptedTier()
    tier.hang()
    queue = a_queue(tier)

    async def body() -> None:
        queue.put(a_write("a"))
        await ticks(3)

    loop = threading.Thread(target=lambda: asyncio.run(body()), daemon=True)
    loop.start()
    loop.join(5 * AT_LOOP_END)
    assert not loop.is_alive()
    assert queue.peek("a") == b"data", "for the next loop"


def test_what_waited_without_a_loop_is_flushed_by_the_first() -> None:
    tier = ScriptedTier()
    queue = a_queue(tier)
    queue.put(a_write("a"))
    asyncio.run(queue.flush())
    assert keys_of(tier.writes) == [["a"]]


def test_what_one_loop_left_over_goes_with_the_next() -> None:
    tier = ScriptedTier()
    queue = a_queue(tier)
    queue.put(a_write("a"))  # no loop at all
    assert queue.peek("a") == b"data"

    async def body() -> None:
        queue.put(a_write("b"))
        await queue.flush()

    asyncio.run(body())
    assert keys_of(tier.writes) == [["a", "b"]]


def test_flushing_an_empty_queue_starts_nothing() -> None:
    tier = ScriptedTier()

    async def body() -> None:
        queue = a_queue(tier)
        await queue.flush()
        await queue.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(body())
    assert tier.writes == []


@pytest.mark.parametrize("put", [0, 2])
def test_its_repr_tells_how_full_it_is(put: int) -> None:
    queue = a_queue(ScriptedTier())
    for number in range(put):
        queue.put(a_write(str(number)))
    assert repr(queue) == f"<WriteQueue to L2: {put} writes, {4 * put} bytes>"


# ---- who is told what has become of a write ----


def test_whoever_wants_to_know_is_told_when_the_tier_has_it() -> None:
    tier = ScriptedTier()

    async def body() -> None:
        queue, told = a_queue(tier), list[bool]()
        tier.hang()
        queue.put(a_write("a"), told.append)
        await ticks(3)
        assert told == []
        tier.go_on()
        await queue.flush()
        assert told == [True]

    asyncio.run(body())


def test_who_is_replaced_is_told_of_what_took_its_place() -> None:
    tier = ScriptedTier()

    async def body() -> None:
        queue, told = a_queue(tier), list[str]()
        queue.put(a_write("a", b"1"), lambda written: told.append(f"first {written}"))
        queue.put(a_write("a", b"2"), lambda written: told.append(f"second {written}"))
        assert queue.bytes == 1
        await queue.flush()
        assert told == ["first True", "second True"]

    asyncio.run(body())


def test_what_is_given_up_is_told_in_each_case() -> None:
    tier = ScriptedTier()

    async def body() -> None:
        told: dict[str, bool] = {}

        def put(queue: WriteQueue, key: str) -> None:
            queue.put(a_write(key), lambda written: told.__setitem__(key, written))

        full = a_queue(tier, max_entries=1)
        put(full, "oldest")
        put(full, "deleted")
        await full.delete(["deleted"])
        tier.error = TierError("no")
        put(full, "failed")
        await full.flush()
        tier.error = None
        tier.hang()
        full.put(a_write("leaving"))
        await ticks(3)
        put(full, "closed")
        closing = asyncio.create_task(full.aclose(0.01))
        await until(lambda: "closed" in told)
        tier.go_on()
        await closing
        assert told == {"oldest": False, "deleted": False, "failed": False, "closed": False}

    asyncio.run(body())


def test_a_tier_that_reports_its_failures_by_itself_says_so() -> None:
    class Reports(Shipped):
        async def set_many(self, writes: Sequence[Write]) -> bool:
            return False

    async def body() -> None:
        recorder, told = Recorder(), list[bool]()
        queue = WriteQueue(Reports(), signals=recorder)
        queue.put(a_write("a"), told.append)
        await queue.flush()
        assert told == [False]
        assert recorder.seen == []

    asyncio.run(body())


# ---- whatever happens ----


class Moody(ScriptedTier):
    """Takes, fails, says that it failed, or hangs for good, as the next mood is; then it takes."""

    def __init__(self, moods: list[str]) -> None:
        super().__init__()
        self.moods = moods

    async def set_many(self, writes: Sequence[Write]) -> bool:  # type: ignore[override]
        mood = self.moods.pop(0) if self.moods else "takes"
        await asyncio.sleep(0)
        if mood == "hangs":
            await asyncio.Event().wait()
        if mood == "raises":
            raise OSError("reset")
        if mood == "takes":
            await super().set_many(writes)
        return mood == "takes"


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.sampled_from("abcdef"), st.integers(0, 60)),
            st.tuples(st.sampled_from(["discard", "delete"]), st.sampled_from("abcdef"), st.just(0)),
            st.tuples(st.just("wait"), st.just(""), st.integers(0, 4)),
        ),
        max_size=30,
    ),
    moods=st.lists(st.sampled_from(["takes", "raises", "fails", "hangs"]), max_size=6).filter(
        lambda moods: moods.count("hangs") <= 1
    ),
)
@settings(max_examples=150)
def test_everybody_is_told_once_and_the_bounds_hold(steps: list[tuple[str, str, int]], moods: list[str]) -> None:
    told: list[int] = []
    puts = 0

    async def body() -> None:
        nonlocal puts
        queue = a_queue(Moody(moods), max_entries=3, max_bytes=100)
        deletions = []
        for step, key, number in steps:
            if step == "put":
                queue.put(a_write(key, b"x" * number * 2), lambda _, me=puts: told.append(me))  # type: ignore[misc]
                puts += 1
            elif step == "discard":
                queue.discard(key)
            elif step == "delete":
                deletions.append(asyncio.create_task(queue.delete([key])))
            else:
                await ticks(number)
            assert len(queue) <= 3
            assert queue.bytes <= 100
        await queue.aclose(within=0.005)
        await asyncio.gather(*deletions)
        assert (len(queue), queue.bytes) == (0, 0)
        assert all(queue.peek(key) is None for key in "abcdef")

    asyncio.run(body())
    assert sorted(told) == list(range(puts))
