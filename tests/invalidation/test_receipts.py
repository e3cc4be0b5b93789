"""What an invalidation returns, and which options are refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from asgi_tiercache import ConfigError, TierCache
from asgi_tiercache.invalidation.service import Receipt
from asgi_tiercache.testing import TickingClock
from tests.invalidation.scripted import ScriptedLog
from tests.middleware.asgi import run
from tests.servers import RedisServer

Purge = Callable[..., Awaitable[Receipt]]
WAYS: dict[str, Callable[[TierCache], Purge]] = {
    "tag": lambda cache: lambda **how: cache.invalidate("a", **how),
    "key": lambda cache: lambda **how: cache.invalidate_key("a", **how),
    "path": lambda cache: lambda **how: cache.invalidate_path("/a", **how),
    "route": lambda cache: lambda **how: cache.invalidate_route("/a", **how),
    "user": lambda cache: lambda **how: cache.invalidate_user("a", **how),
    "pattern": lambda cache: lambda **how: cache.invalidate_pattern("a*", **how),
    "everything": lambda cache: cache.clear,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_it_says_where_in_the_log_it_stands_and_what_was_named(way: Callable[[TierCache], Purge]) -> None:
    async def test() -> None:
        cache = TierCache()
        receipts = [await way(cache)(soft=soft, settle=settle) for soft in (False, True) for settle in (0, 1.5)]
        positions = [receipt.position or 0 for receipt in receipts]
        assert all(receipt.durable for receipt in receipts)
        assert positions == sorted(set(positions))
        assert bool(receipts[0].names) is (way is not WAYS["everything"])

    run(test())


def test_it_names_what_was_asked_for_once() -> None:
    async def test() -> None:
        cache = TierCache()
        assert (await cache.invalidate("a", "b", "a")).names == ("a", "b")
        assert (await cache.invalidate("video:{id}", id=42)).names == ("video:42",)
        assert (await cache.invalidate_pattern("a*b")).names == ("a*b",)
        assert (await cache.clear()).names == ()

    run(test())


def test_a_misspelt_option_or_value_is_refused_and_nothing_is_purged() -> None:
    async def test() -> None:
        log = ScriptedLog()
        cache = TierCache(log=log, clock=TickingClock())
        await cache.set("k", 1, ttl=60, tags=["t", "v:1"])
        for tags, values in ((("t",), {"sof": True}), (("t",), {"settel": 2}), (("v:{x}", "t"), {"x": 1, "y": 2})):
            with pytest.raises(ConfigError, match=r"^(sof|settel|y): no tag has"):
                await cache.invalidate(*tags, **values)
        assert await cache.get("k") == 1
        assert (await cache.invalidate("v:{x}", "w:{y}", x=1, y=2)).names == ("v:1", "w:2")

    run(test())


def test_it_is_not_durable_while_the_log_does_not_take_it_yet_it_holds_here() -> None:
    async def test() -> None:
        log = ScriptedLog()
        cache = TierCache(log=log, clock=TickingClock())
        async with cache:
            await cache.set("k", 1, ttl=60, tags=["t"])
            log.fail()
            assert await cache.invalidate("t") == Receipt(durable=False, position=None, names=("t",))
            assert await cache.get("k") is None
            assert cache.stats()["invalidations"]["held"] == 1
            log.recover()
        assert cache.stats()["invalidations"]["held"] == 0

    run(test())


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_softly_and_by_pattern_it_holds_here_as_well(way: Callable[[TierCache], Purge]) -> None:
    async def test() -> None:
        log = ScriptedLog()
        cache = TierCache(log=log, clock=TickingClock())
        async with cache:
            await cache.set("a", 1, ttl=60, tags=["a"])
            log.fail()
            concerned = way in (WAYS["tag"], WAYS["key"], WAYS["pattern"], WAYS["everything"])
            assert not (await way(cache)(soft=True)).durable
            assert (await cache.get("a") is None) is concerned
            assert not (await way(cache)()).durable
            assert (await cache.get("a") is None) is concerned
            log.recover()

    run(test())


def test_without_a_replica_nothing_is_durable_there_though_it_stands_in_the_log(each_redis: RedisServer) -> None:
    async def test() -> None:
        async with TierCache.from_url(each_redis.url, namespace="receipts", deadline=5.0) as cache:
            await cache.set("k", 1, ttl=60, tags=["t"])
            receipt = await cache.invalidate("t", durable="replica")
            assert (receipt.durable, receipt.position is not None) == (False, True)
            assert await cache.get("k") is None
            assert (await cache.invalidate("t")).durable

    run(test())


def test_in_one_process_there_is_no_replica_to_wait_for() -> None:
    async def test() -> None:
        assert (await TierCache().invalidate("t", durable="replica")).durable

    run(test())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("soft", 1),
        ("soft", None),
        ("soft", "yes"),
        ("settle", -1),
        ("settle", float("inf")),
        ("settle", float("nan")),
        ("settle", True),
        ("settle", "1"),
        ("settle", 86_401),
        ("durable", "x"),
        ("durable", True),
        ("durable", None),
        ("durable", ["log"]),
    ],
)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_bad_option_is_named_and_nothing_is_purged(
    way: Callable[[TierCache], Purge], option: str, value: Any
) -> None:
    async def test() -> None:
        log = ScriptedLog()
        with pytest.raises(ConfigError, match=f"^{option}"):
            await way(TierCache(log=log))(**{option: value})
        assert log.calls == []

    run(test())


@pytest.mark.parametrize("tag", ["", "x" * 257, "a*", "a\nb", "a\0", 7, None])
def test_a_bad_tag_is_refused_and_nothing_is_purged(tag: Any) -> None:
    async def test() -> None:
        log = ScriptedLog()
        with pytest.raises(ConfigError, match="tag"):
            await TierCache(log=log).invalidate("good", tag)
        assert log.calls == []

    run(test())
