"""`invalidate_pattern`: exactly the keys that match, and what was made from them."""

from __future__ import annotations

import asyncio
import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_tiercache import ConfigError, Policy, TierCache
from asgi_tiercache.invalidation.log import MAX_PATTERNS, Appended, ProcessLog, Purge
from tests.middleware.apps import Handler, app_of
from tests.middleware.asgi import ask, run
from tests.servers import RedisServer


class Recording(ProcessLog):
    """Keeps what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.purges: list[Purge] = []

    async def append(self, purge: Purge, *, replicate: bool = False) -> Appended:
        self.purges.append(purge)
        return await super().append(purge, replicate=replicate)


async def left(cache: TierCache, *keys: str) -> list[str]:
    return list(await cache.get_many(keys))


async def stored(cache: TierCache, *keys: str) -> None:
    for key in keys:
        await cache.set(key, 1, ttl=60)


# ---- what a tag can stand for ----


@pytest.mark.parametrize("namespace", ["", "shop"])
@pytest.mark.parametrize("pattern", ["user:42:*", "user:*", "user:42:profile"])
def test_a_beginning_or_a_whole_key_costs_what_a_tag_costs(pattern: str, namespace: str) -> None:
    async def test() -> None:
        log = Recording()
        cache = TierCache(log=log, namespace=namespace)
        keys = ["user:42:profile", "user:42:likes:7", "user:421:profile", "user:42", "video:user:42:x"]
        await stored(cache, *keys)
        receipt = await cache.invalidate_pattern(pattern)
        assert receipt.durable
        assert [purge.patterns for purge in log.purges] == [()]
        assert await left(cache, *keys) == [key for key in keys if not fnmatch.fnmatchcase(key, pattern)]

    run(test())


def test_the_namespace_is_nobodys_beginning() -> None:
    async def test() -> None:
        cache = TierCache(namespace="user")
        await stored(cache, "user:1", "x:1")
        await cache.invalidate_pattern("user:*")
        assert await left(cache, "user:1", "x:1") == ["x:1"]

    run(test())


def test_keys_with_more_colons_than_have_tags_are_found_all_the_same() -> None:
    async def test() -> None:
        cache = TierCache()
        deep = ":".join("abcdefghijkl")
        await stored(cache, deep, "other")
        await cache.invalidate_pattern(f"{deep[:-1]}*")
        assert await left(cache, deep, "other") == ["other"]

    run(test())


# ---- what is matched ----


@pytest.mark.parametrize(
    ("pattern", "goes"),
    [
        ("*:42:*", ["user:42:profile", "video:42:likes"]),
        ("user:4?:profile", ["user:42:profile", "user:43:profile"]),
        ("user:4[24]:*", ["user:42:profile"]),
        ("user:4[!2]:*", ["user:43:profile"]),
        ("user:4[^2]:*", ["user:43:profile"]),
        ("*profile", ["user:42:profile", "user:43:profile"]),
        ("user:42", []),
        ("profile*", []),
        ("*", ["user:42:profile", "user:43:profile", "video:42:likes"]),
    ],
)
@pytest.mark.parametrize("namespace", ["", "shop"])
def test_other_patterns_are_matched_against_whole_keys(pattern: str, goes: list[str], namespace: str) -> None:
    async def test() -> None:
        cache = TierCache(namespace=namespace)
        keys = ["user:42:profile", "user:43:profile", "video:42:likes"]
        await stored(cache, *keys)
        await cache.invalidate_pattern(pattern)
        assert await left(cache, *keys) == [key for key in keys if key not in goes]
        await stored(cache, *keys)
        assert await left(cache, *keys) == keys, "what is stored afterwards is newer"

    run(test())


KEYS = st.text("ab:[]*?!%", min_size=1, max_size=6)
PATTERNS = st.text("ab:*?[]!", min_size=1, max_size=6)


@given(st.lists(KEYS, min_size=1, max_size=6, unique=True), PATTERNS)
def test_what_goes_is_what_fnmatch_says_and_never_more(keys: list[str], pattern: str) -> None:
    async def test() -> None:
        cache = TierCache()
        await stored(cache, *keys)
        await cache.invalidate_pattern(pattern)
        assert await left(cache, *keys) == [key for key in keys if not fnmatch.fnmatchcase(key, pattern)]

    asyncio.run(test())


def test_what_was_made_from_a_value_that_matches_goes_with_it() -> None:
    async def test() -> None:
        cache, calls = TierCache(), list[int]()

        @cache.cached("user:{n}:likes", ttl=60)
        async def likes(n: int) -> int:
            return n

        @cache.cached("page:{n}", ttl=60)
        async def page(n: int) -> int:
            calls.append(n)
            return await likes(n)

        for pattern in ("user:1:*", "user:?:likes", "*:1:*", "user:1:likes"):
            calls.clear()
            for n in (1, 2):
                await page(n)
            calls.clear()
            await cache.invalidate_pattern(pattern)
            for n in (1, 2):
                await page(n)
            assert calls[0] == 1
            assert ("?" in pattern) is (2 in calls)

    run(test())


# ---- responses ----


@pytest.mark.parametrize("namespace", ["", "shop"])
def test_responses_are_found_by_their_paths(namespace: str) -> None:
    async def test() -> None:
        cache, handler = TierCache(namespace=namespace), Handler()
        app = app_of(handler, Policy(ttl=60), cache=cache, path="/videos/{id}")
        paths = ("/videos/1", "/videos/2", "/videos/10")

        async def misses() -> list[str]:
            return [path for path in paths if not (await ask(app, path)).hit]

        assert await misses() == list(paths)
        await cache.invalidate_pattern("api:response:/videos/1*")
        assert await misses() == ["/videos/1", "/videos/10"]
        await cache.invalidate_pattern("api:response:/videos/1:*")
        assert await misses() == ["/videos/1"]
        await cache.invalidate_pattern("api:response:/videos/*")
        assert await misses() == list(paths)
        await cache.invalidate_pattern("api:response:*")
        assert await misses() == list(paths)
        await cache.invalidate_pattern("api:*")
        assert await misses() == list(paths)
        await cache.invalidate_pattern("videos/*")
        assert await misses() == []

    run(test())


def test_a_response_made_from_a_value_that_matches_goes_with_it() -> None:
    async def test() -> None:
        cache = TierCache()

        async def respond(_: object) -> object:
            from starlette.responses import PlainTextResponse

            return PlainTextResponse(f"{await cache.get_or_set('user:1:name', load, ttl=60)}")

        async def load() -> int:
            return handler.calls

        handler = Handler(respond)  # type: ignore[arg-type]
        app = app_of(handler, Policy(ttl=60), cache=cache)
        await ask(app)
        await cache.invalidate_pattern("user:2:*")
        assert (await ask(app)).hit
        await cache.invalidate_pattern("user:1:*")
        assert (await ask(app)).body == b"2"

    run(test())


# ---- bounds, bad input ----


def test_more_patterns_than_can_be_told_apart_invalidate_everything(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        cache = TierCache()
        await stored(cache, "kept")
        for number in range(MAX_PATTERNS):
            await cache.invalidate_pattern(f"x{number}*")
        assert await left(cache, "kept") == ["kept"]
        await cache.invalidate_pattern("x1*")
        assert await left(cache, "kept") == ["kept"], "one that is known already is no further one"
        assert caplog.text == ""
        await cache.invalidate_pattern("one too many*")
        assert "more than 64 patterns" in caplog.text
        assert "one too many*" in caplog.text
        assert await left(cache, "kept") == []
        await stored(cache, "kept")
        await cache.invalidate_pattern("a further one*")
        assert await left(cache, "kept") == ["kept"]

    run(test())


@pytest.mark.parametrize("pattern", ["", "x" * 257, "é" * 129, "a\nb", "a\0*", "a\x7f", 7, None, b"x"])
def test_what_is_no_pattern_is_refused_and_nothing_is_purged(pattern: object) -> None:
    async def test() -> None:
        log = Recording()
        with pytest.raises(ConfigError, match="pattern"):
            await TierCache(log=log).invalidate_pattern(pattern)  # type: ignore[arg-type]
        assert log.purges == []

    run(test())


@pytest.mark.parametrize("value", ["*", "?", "[a-z]", "1:*", "*:1"])
def test_a_value_from_a_request_never_becomes_a_glob(value: str) -> None:
    async def test() -> None:
        cache = TierCache()
        cache.on("activity", patterns=["activity:{user_id}:*"])

        @cache.cached("activity:{user_id}:{day}", ttl=60)
        async def activity(user_id: str, day: int) -> int:
            calls.append(user_id)
            return day

        calls: list[str] = []
        for user in ("1", value):
            await activity(user, 1)
        await cache.emit("activity", user_id=value)
        calls.clear()
        for user in ("1", value):
            await activity(user, 1)
        assert calls == [value]

    run(test())


def test_through_redis_other_workers_match_by_the_same_rules(each_redis: RedisServer) -> None:
    async def test() -> None:
        made = [TierCache.from_url(each_redis.url, namespace="globs", deadline=5.0) for _ in range(3)]
        first, second, third = made
        await first.clear()
        keys = ["a:1:x", "a:2:x", "b:1:x"]
        async with first, second:
            await stored(first, *keys)
            async with asyncio.timeout(5):
                while len(await left(second, *keys)) < len(keys):  # noqa: ASYNC110 - another worker has no event
                    await asyncio.sleep(0.01)
            await first.invalidate_pattern("a:?:x")
            async with asyncio.timeout(5):
                while len(await left(second, *keys)) > 1:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert await left(second, *keys) == ["b:1:x"]
        async with third:  # heard of none of it while it happened
            assert await left(third, *keys) == ["b:1:x"]

    run(test())


@pytest.mark.parametrize("pattern", ["page:{url}:*", "page:{url}*", "page:{url}:*n", "*:{url}:en"])
@pytest.mark.parametrize("length", [100, 225, 245, 260, 900])
def test_a_long_value_of_an_event_is_found_in_keys_that_had_to_be_cut(pattern: str, length: int) -> None:
    async def test() -> None:
        cache, calls = TierCache(namespace="shop"), list[str]()
        cache.on("changed", patterns=[pattern])

        @cache.cached("page:{url}:{lang}", ttl=60)
        async def page(url: str, lang: str) -> str:
            calls.append(url)
            return lang

        one, other = "u" * length, "u" * (length - 1) + "v"
        for url in (one, other):
            await page(url, "en")
        await cache.emit("changed", url=one)
        calls.clear()
        for url in (one, other):
            await page(url, "en")
        assert calls == [one]

    run(test())
