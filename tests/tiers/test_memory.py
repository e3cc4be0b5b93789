from __future__ import annotations

import sys
import threading

import pytest

from asgi_tiercache.config import Region
from asgi_tiercache.errors import ConfigError
from asgi_tiercache.signals import Evicted
from asgi_tiercache.tiers.memory import ENTRY_OVERHEAD, Bucket, Memory
from asgi_tiercache.types import Entry
from tests.tiers.doubles import Recorder, an_entry


def a_bucket(recorder: Recorder | None = None, **options: object) -> Bucket:
    return Bucket(Region(**options), signals=recorder or Recorder())  # type: ignore[arg-type]


def expiring(at: float, body: bytes = b"body") -> Entry:
    entry = an_entry(body)
    entry.expires = entry.ends = at
    return entry


def test_an_entry_is_found_until_it_expires() -> None:
    bucket = a_bucket()
    entry = expiring(10.0)
    assert bucket.put("key", entry)
    assert bucket.get("key", 9.9) is entry
    assert bucket.get("key", 10.0) is None


def test_an_expired_entry_is_dropped_when_it_is_asked_for() -> None:
    bucket = a_bucket()
    bucket.put("key", expiring(10.0))
    bucket.get("key", 11.0)
    assert (len(bucket), bucket.bytes, bucket.evictions) == (0, 0, 0)


def test_an_unknown_key_is_a_miss() -> None:
    assert a_bucket().get("key", 0.0) is None


def test_the_number_of_entries_is_bounded() -> None:
    recorder = Recorder()
    bucket = a_bucket(recorder, name="small", max_entries=2)
    for key in ("a", "b", "c"):
        bucket.put(key, expiring(10.0))
    assert (len(bucket), bucket.evictions) == (2, 1)
    assert recorder.seen == [Evicted("small", 1)]


def test_the_bytes_are_bounded_and_one_entry_may_take_the_room_of_several() -> None:
    recorder = Recorder()
    bucket = a_bucket(recorder, name="small", max_bytes=10_000)
    for key in ("a", "b", "c"):
        bucket.put(key, expiring(10.0, b"x" * 2_000))
    bucket.put("d", expiring(10.0, b"x" * 7_000))
    assert bucket.get("d", 0.0) is not None
    assert bucket.bytes <= 10_000
    assert recorder.seen == [Evicted("small", 3)]


def test_replacing_an_entry_evicts_nobody_in_a_full_region() -> None:
    recorder = Recorder()
    bucket = a_bucket(recorder, max_entries=2)
    for key in ("a", "b", "b", "a"):
        bucket.put(key, expiring(10.0))
    assert (len(bucket), recorder.seen) == (2, [])


def test_the_least_recently_read_goes_first() -> None:
    bucket = a_bucket(max_entries=2, eviction="lru")
    bucket.put("a", expiring(10.0))
    bucket.put("b", expiring(10.0))
    bucket.get("a", 0.0)
    bucket.put("c", expiring(10.0))
    assert [bucket.get(key, 0.0) is not None for key in "abc"] == [True, False, True]


def test_the_least_frequently_read_goes_first_where_the_region_says_so() -> None:
    bucket = a_bucket(max_entries=2, eviction="lfu")
    bucket.put("a", expiring(10.0))
    for _ in range(3):
        bucket.get("a", 0.0)
    bucket.put("b", expiring(10.0))
    bucket.get("b", 0.0)
    bucket.put("c", expiring(10.0))
    assert [bucket.get(key, 0.0) is not None for key in "abc"] == [True, False, True]


def test_the_earliest_expiry_goes_first_where_the_region_says_so() -> None:
    bucket = a_bucket(max_entries=2, eviction="ttl")
    bucket.put("a", expiring(30.0))
    bucket.put("b", expiring(10.0))
    bucket.put("c", expiring(20.0))
    assert [bucket.get(key, 0.0) is not None for key in "abc"] == [True, False, True]


def test_an_entry_larger_than_its_region_is_not_kept_nor_is_the_one_that_it_replaces() -> None:
    bucket = a_bucket(max_bytes=5_000)
    bucket.put("other", expiring(10.0))
    assert bucket.put("key", expiring(10.0))
    assert not bucket.put("key", expiring(10.0, b"x" * 5_000))
    assert bucket.get("key", 0.0) is None
    assert bucket.get("other", 0.0) is not None


def test_the_size_counts_entry_key_and_overhead() -> None:
    bucket = a_bucket()
    entry = expiring(10.0)
    bucket.put("four", entry)
    assert bucket.bytes == entry.size + 4 + ENTRY_OVERHEAD


def test_discarding_and_clearing_give_the_bytes_back() -> None:
    bucket = a_bucket()
    for key in ("a", "b", "c"):
        bucket.put(key, expiring(10.0))
    bucket.discard("a")
    bucket.discard("unknown")
    assert len(bucket) == 2
    bucket.clear()
    assert (len(bucket), bucket.bytes) == (0, 0)


class SlowKey(str):
    """A key that lets other threads run whenever a dictionary looks at it."""

    __slots__ = ()

    def __hash__(self) -> int:
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other)


def test_threads_may_use_a_bucket_together() -> None:
    bucket = a_bucket(max_entries=20, eviction="lfu")
    raised: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for number in range(3_000):
                key = SlowKey((number * seed) % 40)
                if bucket.get(key, float(number % 7)) is None:
                    bucket.put(key, expiring(6.0))
                if number % 11 == 0:
                    bucket.discard(key)
        except BaseException as error:
            raised.append(error)

    often = 1e-6
    seldom = sys.getswitchinterval()
    sys.setswitchinterval(often)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 3, 7, 11)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(seldom)
    assert not raised
    assert len(bucket) <= 20
    assert bucket.bytes == sum(expiring(6.0).size + len(key) + ENTRY_OVERHEAD for key in bucket._cache)


def test_a_region_is_shared_by_name() -> None:
    memory = Memory(signals=Recorder())
    assert memory.bucket(Region(name="a")) is memory.bucket(Region(name="a"))
    assert memory.bucket(Region(name="b")) is not memory.bucket(Region(name="a"))
    assert [bucket.region.name for bucket in memory.buckets()] == ["a", "b"]


def test_a_region_with_two_definitions_is_an_error_that_names_it() -> None:
    memory = Memory(signals=Recorder())
    memory.bucket(Region(name="videos", max_entries=10))
    with pytest.raises(ConfigError, match="'videos' is defined twice") as caught:
        memory.bucket(Region(name="videos", max_entries=20))
    assert caught.value.option == "region"


def test_discarding_and_clearing_reach_every_region() -> None:
    memory = Memory(signals=Recorder())
    one, two = memory.bucket(Region(name="one")), memory.bucket(Region(name="two"))
    for bucket in (one, two):
        bucket.put("a", expiring(10.0))
        bucket.put("b", expiring(10.0))
    memory.discard("a")
    assert (len(one), len(two)) == (1, 1)
    memory.clear()
    assert (len(one), len(two)) == (0, 0)
