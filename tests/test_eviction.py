from __future__ import annotations

from dataclasses import dataclass

import pytest
from cachetools import LFUCache, LRUCache
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_tiercache.eviction import ExpiryCache, make_cache


@dataclass
class Value:
    expires: float
    size: int = 1


def size_of(value: Value) -> int:
    return value.size


def small_cache(max_bytes: int = 3) -> ExpiryCache[Value]:
    return ExpiryCache(max_bytes, size_of)


def test_the_earliest_expiry_is_given_up_first() -> None:
    cache = small_cache()
    for key, expires in (("later", 30.0), ("soon", 10.0), ("between", 20.0), ("new", 40.0)):
        cache[key] = Value(expires)
    assert set(cache) == {"later", "between", "new"}


def test_reading_does_not_save_what_expires_first() -> None:
    cache = small_cache()
    for key, expires in (("a", 10.0), ("b", 20.0), ("c", 30.0)):
        cache[key] = Value(expires)
    assert cache["a"].expires == 10.0
    cache["d"] = Value(40.0)
    assert "a" not in cache


def test_among_equal_expiries_the_oldest_goes_first() -> None:
    cache = small_cache()
    for key in ("b", "c", "a"):
        cache[key] = Value(10.0)
    assert [cache.popitem()[0] for _ in range(3)] == ["b", "c", "a"]


def test_a_replaced_value_counts_with_its_new_expiry() -> None:
    cache = small_cache()
    cache["a"] = Value(10.0)
    cache["b"] = Value(20.0)
    cache["a"] = Value(30.0)
    assert cache.popitem()[0] == "b"


def test_a_deleted_value_is_not_given_up_again() -> None:
    cache = small_cache()
    cache["a"] = Value(10.0)
    cache["b"] = Value(20.0)
    del cache["a"]
    assert cache.popitem()[0] == "b"
    with pytest.raises(KeyError):
        cache.popitem()


def test_clearing_forgets_the_order_as_well() -> None:
    cache = small_cache()
    cache["a"] = Value(10.0)
    cache.clear()
    assert (len(cache), cache.currsize, cache._heap) == (0, 0, [])
    cache["b"] = Value(20.0)
    assert cache.popitem() == ("b", Value(20.0))


def test_replacing_the_same_key_for_ever_takes_bounded_memory() -> None:
    cache = small_cache()
    for number in range(10_000):
        cache["a"] = Value(float(number))
    assert len(cache._heap) < 100


def test_deleting_gives_memory_back() -> None:
    cache = small_cache(10_000)
    for number in range(1_000):
        cache[str(number)] = Value(float(number))
    for number in range(1_000):
        del cache[str(number)]
    assert len(cache._heap) < 100


_steps = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.one_of(st.none(), st.tuples(st.integers(0, 9), st.integers(1, 4)))),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(_steps)
def test_whatever_is_put_in_and_taken_out_the_bound_and_the_order_hold(
    steps: list[tuple[str, tuple[int, int] | None]],
) -> None:
    cache = small_cache(8)
    for key, change in steps:
        if change is None:
            cache.pop(key, None)
        else:
            cache[key] = Value(float(change[0]), change[1])
        assert cache.currsize == sum(value.size for value in cache.values()) <= 8
    given_up = [cache.popitem()[1].expires for _ in range(len(cache))]
    assert given_up == sorted(given_up)


def test_each_eviction_order_has_its_cache() -> None:
    assert isinstance(make_cache("lru", 10, size_of), LRUCache)
    assert isinstance(make_cache("lfu", 10, size_of), LFUCache)
    assert isinstance(make_cache("ttl", 10, size_of), ExpiryCache)


def test_a_made_cache_is_bounded_by_the_sizes_given() -> None:
    cache = make_cache("lru", 10, size_of)
    cache["a"] = Value(1.0, size=6)
    cache["b"] = Value(1.0, size=6)
    assert list(cache) == ["b"]
