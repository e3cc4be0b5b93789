"""The public API as users write it; mypy in strict mode reads this, nothing runs it."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, assert_type

from fastapi import FastAPI
from redis.asyncio import Redis, RedisCluster
from redis.credentials import UsernamePasswordCredentialProvider
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.types import ASGIApp

from asgi_tiercache import (
    FREQUENT,
    SESSION,
    STATIC,
    TEMPORARY,
    BlockingCallError,
    CodecError,
    ConfigError,
    KeyingError,
    NoFillError,
    Policy,
    Preview,
    Purged,
    Receipt,
    Region,
    TierCache,
    TierCacheError,
    TierCacheMiddleware,
    TierError,
)
from asgi_tiercache.testing import ScriptedTier, TickingClock, assert_hit, assert_miss


@dataclasses.dataclass
class Profile:
    name: str


def who(scope: Mapping[str, Any]) -> str | None:
    user: str | None = scope.get("user")
    return user


cache = TierCache.from_url("redis://localhost:6379/0", namespace="shop", deadline=0.2, max_lag=1, max_unverified=60)
with_credentials = TierCache.from_url(
    "redis+cluster://a,b", credential_provider=UsernamePasswordCredentialProvider("user", "secret")
)
assert_type(TierCache.from_client(Redis(), namespace="shop", deadline=0.2), TierCache)
assert_type(TierCache.from_client(RedisCluster(host="a")), TierCache)
assert_type(TierCache.from_url("redis+sentinel://a,b/main", trust_restart=True), TierCache)
memory_only = TierCache()
scripted = TierCache(l2=ScriptedTier(), clock=TickingClock())
assert_type(cache, TierCache)

app = FastAPI()
app.add_middleware(
    TierCacheMiddleware,
    cache=cache,
    routes={"/config": STATIC, "/search": Policy(ttl=30, query=["q", "page"]), "/me": SESSION.but(user=who)},
)
app.mount("/cache", cache.stats_app(token="..."))
wrapped: ASGIApp = TierCacheMiddleware(Starlette(), cache=cache)


async def authorize(request: Request) -> bool:
    return request.headers.get("x-admin") == "1"


assert_type(cache.stats_app(authorize=authorize), ASGIApp)


@app.get("/videos/{video_id}")
@cache.response(ttl=300, tags=["video:{video_id}"])
async def get_video(video_id: int) -> dict[str, int]:
    cache.current.tag("author:7", "author:{id}")
    cache.current.tag("author:{id}", id=7)
    cache.current.set_ttl(10)
    cache.current.no_store()
    return {"id": video_id}


@cache.response(FREQUENT)
def plain_endpoint(request: Request) -> str:
    return request.url.path


@cache.cached("user:profile:{user_id}", ttl=1800, tags=["user:{user_id}"])
async def load_profile(user_id: str) -> Profile:
    return Profile(user_id)


@cache.cached(policy=TEMPORARY)
def count(words: str, *, minimum: int = 0) -> int:
    return max(minimum, len(words.split()))


class Users:
    @cache.cached("users:{user_id}", ttl=60, ignore=["self"])
    async def load(self, user_id: int) -> Profile | None:
        return Profile(str(user_id))


cache.on("user_update", tags=["user:{user_id}"], patterns="user_activity:{user_id}:*", users="{user_id}")
cache.on("user_update", keys=["user:profile:{user_id}"], paths=["/users/{user_id}"], routes=["/users/{id}"])
cache.on("layout", tags="layout", soft=True, settle=2.5)


async def purge_cdn(purged: Purged) -> None:
    assert_type(purged.tags, tuple[str, ...])
    assert_type((purged.everything, purged.soft, purged.here, purged.position), tuple[bool, bool, bool, int])


cache.on_invalidate(purge_cdn)
cache.on_invalidate(lambda purged: purged.paths, everywhere=True)


@app.put("/users/{user_id}")
@cache.emits("user_update")
async def rename(user_id: str, name: str) -> Profile:
    return Profile(name)


@cache.emits("user_update", user_id="uid")
def forget(uid: int) -> bool:
    return uid > 0


async def use() -> None:
    assert_type(await load_profile("u1"), Profile)
    assert_type(await load_profile(user_id="u1"), Profile)
    assert_type(count("a b", minimum=1), int)
    assert_type(await Users().load(5), Profile | None)
    assert_type(await get_video(1), dict[str, int])

    receipt = await cache.invalidate("video:42")
    assert_type(receipt, Receipt)
    assert_type(receipt.durable, bool)
    assert_type(receipt.position, int | None)
    assert_type(receipt.names, tuple[str, ...])
    assert_type(await cache.invalidate("video:{id}", "author:{name}", id=42, name="x"), Receipt)
    assert_type(await cache.invalidate_key("user:profile:u1", "other"), Receipt)
    assert_type(await cache.invalidate_path("/videos/42"), Receipt)
    assert_type(await cache.invalidate_route("/videos/{video_id}"), Receipt)
    assert_type(await cache.invalidate_user("u1"), Receipt)
    assert_type(await cache.invalidate_pattern("user:42:*", soft=True, settle=2.5, durable="replica"), Receipt)
    assert_type(await cache.clear(soft=True), Receipt)

    assert_type(await cache.emit("user_update", user_id="u1"), Receipt)
    preview = await cache.emit("user_update", dry_run=True, user_id="u1")
    assert_type(preview, Preview)
    assert_type(preview.stored, tuple[str, ...])
    assert_type(await rename("u1", name="Ann"), Profile)
    assert_type(forget(7), bool)

    async with cache as opened:
        assert_type(opened, TierCache)
        before = cache.stamp()
        await cache.set("k", {"a": 1}, ttl=60, tags=["a"], since=before)
        value: dict[str, int] = await cache.get("k", default={})
        number: int = await cache.get_or_set("n", lambda: len(value), ttl=60, tags="a")
        found: dict[str, Any] = await cache.get_many(["k", "n"])
        await cache.delete(*found, str(number))
    statistics: dict[str, Any] = cache.stats()
    assert statistics


policies = [
    Policy(ttl=60, l1_ttl=10, region=Region(name="big", max_entries=100_000, eviction="lfu")),
    Policy(status_ttl={404: 10}, vary_on=["accept-language"], cookies=["session"], ignore=["authorization"]),
    Policy.http(request_directives=False),
    Policy.rfc9111(),
    STATIC.but(tags=["config"], unverified="bypass", verify=True),
]
assert_type(policies, list[Policy])

errors: list[type[TierCacheError]] = [
    BlockingCallError,
    CodecError,
    ConfigError,
    KeyingError,
    NoFillError,
    TierError,
]
checks: tuple[Callable[..., None], ...] = (assert_hit, assert_miss)
loader: Callable[[str], Awaitable[Profile]] = load_profile
