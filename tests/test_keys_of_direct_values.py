"""`cache.set` and `cache.get_or_set`: how long a key may be, and how long its value lives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from asgi_tiercache import ConfigError, TierCache
from tests.engine.doubles import alone

USES: dict[str, Callable[[TierCache, str], Awaitable[Any]]] = {
    "set": lambda cache, key: cache.set(key, 1, ttl=10),
    "get": lambda cache, key: cache.get(key),
    "get_or_set": lambda cache, key: cache.get_or_set(key, lambda: 1, ttl=10),
    "delete": lambda cache, key: cache.delete(key),
}


@pytest.mark.parametrize("use", USES)
def test_a_key_has_at_most_1024_characters(use: str) -> None:
    async def body() -> None:
        cache, _ = alone(namespace="shop")
        await USES[use](cache, "k" * 1024)
        with pytest.raises(ConfigError, match=r"key.*1024.*1025"):
            await USES[use](cache, "k" * 1025)

    asyncio.run(body())


def test_the_longest_key_holds_a_value() -> None:
    async def body() -> None:
        cache, _ = alone()
        await cache.set("k" * 1024, 1, ttl=10)
        assert await cache.get("k" * 1024) == 1

    asyncio.run(body())


class Counting:
    """A loader that returns how often it ran, and may have a lifetime of its own in mind."""

    def __init__(self, cache: TierCache, *, own_ttl: float | None = None) -> None:
        self._cache = cache
        self._own_ttl = own_ttl
        self._calls = 0

    async def __call__(self) -> int:
        self._calls += 1
        if self._own_ttl is not None:
            self._cache.current.set_ttl(self._own_ttl)
        return self._calls


@pytest.mark.parametrize(("own_ttl", "lifetime"), [(None, 50.0), (20.0, 20.0), (90.0, 90.0)])
def test_a_value_lives_as_long_as_asked_unless_its_loader_says_otherwise(
    own_ttl: float | None, lifetime: float
) -> None:
    async def body() -> None:
        cache, clock = alone()
        load = Counting(cache, own_ttl=own_ttl)
        assert await cache.get_or_set("key", load, ttl=50) == 1
        clock.tick(lifetime - 1)
        assert await cache.get_or_set("key", load, ttl=50) == 1
        clock.tick(2)
        assert await cache.get_or_set("key", load, ttl=50) == 2

    asyncio.run(body())


def test_a_loader_that_wants_nothing_stored_has_its_way() -> None:
    async def body() -> None:
        cache, _ = alone()
        load = Counting(cache, own_ttl=0)
        assert [await cache.get_or_set("key", load, ttl=50) for _ in range(2)] == [1, 2]

    asyncio.run(body())
