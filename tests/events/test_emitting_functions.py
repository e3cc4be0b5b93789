"""`@cache.emits` on functions outside any request, and what is checked when they are decorated."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import anyio.to_thread
import pytest
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from asgi_tiercache import BlockingCallError, ConfigError, KeyingError, TierCache
from asgi_tiercache.testing import ScriptedTier


@pytest.fixture
def cache() -> Iterator[TierCache]:
    cache = TierCache()
    cache.on("user_update", tags=["user:{user_id}"])
    yield cache
    cache.close()


def purged(cache: TierCache) -> int:
    """How many tags were purged so far."""
    count: int = cache.stats()["invalidations"]["durable"].get("event", 0)
    return count


# ---- after it succeeded ----


def test_an_async_function_has_purged_when_its_caller_goes_on(cache: TierCache) -> None:
    data = {"ann": "old"}

    @cache.cached("name:{user_id}", ttl=60, tags=["user:{user_id}"])
    async def name(user_id: str) -> str:
        return data[user_id]

    @cache.emits("user_update")
    async def rename(user_id: str, to: str, *, loud: bool = False) -> str:
        assert await name(user_id) == "old"
        data[user_id] = to
        return to.upper() if loud else to

    async def test() -> None:
        assert await rename("ann", to="new", loud=True) == "NEW"
        assert await name("ann") == "new"

    asyncio.run(test())


def test_a_plain_function_purges_from_a_script_and_from_a_worker_thread(cache: TierCache) -> None:
    @cache.emits("user_update")
    def rename(user_id: str) -> str:
        return user_id

    assert rename("ann") == "ann"
    assert purged(cache) == 1
    assert asyncio.run(_in_worker_thread(lambda: rename("bob"))) == "bob"
    assert purged(cache) == 2


def test_on_an_event_loops_own_thread_a_plain_function_raises_before_it_does_anything(cache: TierCache) -> None:
    done: list[str] = []

    @cache.emits("user_update")
    def rename(user_id: str) -> None:
        done.append(user_id)

    async def test() -> None:
        with pytest.raises(BlockingCallError, match="rename"):
            rename("ann")

    asyncio.run(test())
    assert (done, purged(cache)) == ([], 0)


def test_a_function_that_raises_purges_nothing(cache: TierCache) -> None:
    @cache.emits("user_update")
    def plain(user_id: str) -> None:
        raise ValueError("broken")

    @cache.emits("user_update")
    async def awaited(user_id: str) -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        plain("ann")
    with pytest.raises(ValueError, match="broken"):
        asyncio.run(awaited("ann"))
    assert purged(cache) == 0


def test_a_function_that_returns_the_response_of_an_error_has_not_succeeded(cache: TierCache) -> None:
    @cache.emits("user_update")
    async def endpoint(user_id: str, status: int) -> PlainTextResponse:
        return PlainTextResponse("", status)

    asyncio.run(endpoint("ann", 409))
    assert purged(cache) == 0
    asyncio.run(endpoint("ann", 201))
    assert purged(cache) == 1


def test_an_async_function_that_another_decorator_hides_is_awaited_first(cache: TierCache) -> None:
    order: list[str] = []

    def hiding(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any) -> Any:
            return function(*args)

        return call

    @cache.emits("user_update")
    @hiding
    async def rename(user_id: str) -> None:
        order.append(f"ran, {purged(cache)} purged")

    async def test() -> None:
        await rename("ann")
        order.append(f"returned, {purged(cache)} purged")

    asyncio.run(test())
    assert order == ["ran, 0 purged", "returned, 1 purged"]


# ---- fields ----


def test_fields_come_from_arguments_however_they_are_given(cache: TierCache) -> None:
    cache.on("user_update", tags=["team:{team}"])

    @cache.emits("user_update", team="group")
    async def rename(user_id: int, group: str = "all") -> None: ...

    @cache.emits("user_update")
    async def anything(**values: object) -> None: ...

    class Users:
        @cache.emits("user_update")
        async def rename(self, team: str, /, user_id: int) -> None: ...

    calls: list[tuple[Callable[[], Awaitable[None]], list[str]]] = [
        (lambda: rename(1), ["user:1", "team:all"]),
        (lambda: rename(user_id=1, group="x"), ["user:1", "team:x"]),
        (lambda: anything(user_id=1, team="x"), ["user:1", "team:x"]),
        (lambda: Users().rename("x", user_id=1), ["user:1", "team:x"]),
    ]

    async def test() -> None:
        for call, expected in calls:
            for tag in expected:
                await cache.set(tag, 1, ttl=60, tags=[tag])
            await call()
            assert await cache.get_many(expected) == {}

    asyncio.run(test())


@pytest.mark.parametrize("user_id", [None, ["ann"], object()])
def test_what_cannot_be_emitted_raises_before_the_function_does_anything(cache: TierCache, user_id: object) -> None:
    done: list[object] = []

    @cache.emits("user_update")
    async def rename(user_id: object) -> None:
        done.append(user_id)

    with pytest.raises((ConfigError, KeyingError), match="user_id"):
        asyncio.run(rename(user_id))
    assert done == []


def test_arguments_that_the_function_does_not_take_are_a_type_error(cache: TierCache) -> None:
    @cache.emits("user_update")
    async def rename(user_id: str) -> None: ...

    with pytest.raises(TypeError, match="nonsense"):
        asyncio.run(rename("ann", nonsense=1))  # type: ignore[call-arg]


# ---- checks ----


def test_a_parameter_that_the_function_lacks_is_an_error_at_decoration(cache: TierCache) -> None:
    def rename(uid: str) -> None: ...

    with pytest.raises(ConfigError, match=r"^user_id: event 'user_update' .*rename"):
        cache.emits("user_update")(rename)
    cache.emits("user_update", user_id="uid")(rename)


class RenameRequest(BaseModel):
    """Merely called like what has a path."""


def test_only_a_request_may_bring_what_the_signature_does_not_name(cache: TierCache) -> None:
    def of_starlette(request: Request) -> None: ...

    def untyped(request): ...  # type: ignore[no-untyped-def]

    def unresolved(sent: nowhere.Request) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    def of_a_body(request: RenameRequest) -> None: ...

    for function in (of_starlette, untyped, unresolved):
        cache.emits("user_update")(function)
    with pytest.raises(ConfigError, match=r"^user_id: "):
        cache.emits("user_update")(of_a_body)


def test_a_field_declared_later_is_an_error_there(cache: TierCache) -> None:
    @cache.emits("user_update")
    async def rename(user_id: str) -> None: ...

    with pytest.raises(ConfigError, match=r"^team: event 'user_update' .*rename"):
        cache.on("user_update", tags=["team:{team}"])
    asyncio.run(rename("ann"))  # the refused declaration left nothing behind


@pytest.mark.parametrize("names", [{"user_id": "nobody"}, {"usr_id": "user_id"}, {"user_id": 5}])
def test_a_misspelt_mapping_is_an_error(cache: TierCache, names: dict[str, Any]) -> None:
    def rename(user_id: str) -> None: ...

    with pytest.raises(ConfigError) as caught:
        cache.emits("user_update", **names)(rename)
    assert caught.value.option in names


def test_an_event_may_be_declared_after_its_functions_and_is_missed_at_the_start() -> None:
    cache = TierCache()

    @cache.emits("later", x="y")
    async def work(y: int) -> None: ...

    with pytest.raises(ConfigError, match=r"^event: 'later' was never declared"):
        asyncio.run(cache.start())
    with pytest.raises(ConfigError, match=r"^event: 'later' was never declared"):
        asyncio.run(work(1))
    cache.on("later", tags="a:{x}")
    asyncio.run(cache.start())
    asyncio.run(work(1))
    assert purged(cache) == 1


def test_a_misspelt_mapping_of_an_event_declared_later_is_an_error_at_the_start() -> None:
    cache = TierCache()
    cache.emits("later", z="x")(lambda x: None)
    cache.on("later", tags="a:{x}")
    with pytest.raises(ConfigError, match=r"^z: event 'later' has no such field"):
        asyncio.run(cache.start())


def test_only_functions_that_end_once_are_decorated(cache: TierCache) -> None:
    def generator(user_id: str) -> Iterator[str]:
        yield user_id

    async def async_generator(user_id: str) -> AsyncIterator[str]:
        yield user_id

    class Endpoint:
        pass

    refused: list[Any] = [generator, async_generator, Endpoint, Endpoint(), functools.partial(generator, "a"), "x"]
    for function in refused:
        with pytest.raises(ConfigError, match=r"^emits: "):
            cache.emits("user_update")(function)


@pytest.mark.parametrize("event", ["", None, 5])
def test_the_event_has_to_be_named(cache: TierCache, event: Any) -> None:
    with pytest.raises(ConfigError, match=r"^event: "):
        cache.emits(event)(lambda user_id: None)


# ---- what it looks like ----


def test_the_signature_stays_and_annotations_are_resolved_where_they_were_written(cache: TierCache) -> None:
    @cache.emits("user_update")
    async def rename(user_id: int, to: str = "x") -> dict[str, Any]:
        """Rename a user."""
        return {}

    signature = inspect.signature(rename)
    assert list(signature.parameters) == ["user_id", "to"]
    assert signature.parameters["user_id"].annotation is int
    assert signature.return_annotation == dict[str, Any]
    assert (rename.__name__, rename.__doc__) == ("rename", "Rename a user.")
    assert inspect.iscoroutinefunction(rename)


def test_an_annotation_that_does_not_resolve_is_left_alone(cache: TierCache) -> None:
    def rename(user_id: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert inspect.signature(cache.emits("user_update")(rename)).parameters["user_id"].annotation == "Nowhere"


def test_a_cached_function_below_purges_on_every_call_and_one_above_only_where_it_ran(cache: TierCache) -> None:
    @cache.emits("user_update")
    @cache.cached("below:{user_id}", ttl=60)
    async def below(user_id: str) -> str:
        return user_id

    @cache.cached("above:{user_id}", ttl=60)
    @cache.emits("user_update")
    async def above(user_id: str) -> str:
        return user_id

    @cache.cached("plain:{user_id}", ttl=60)
    @cache.emits("user_update")
    def plain(user_id: str) -> str:
        return user_id

    async def test() -> None:
        for function, expected in ((below, 2), (above, 1)):
            before = purged(cache)
            assert [await function("ann"), await function("ann")] == ["ann", "ann"]
            assert purged(cache) - before == expected

    asyncio.run(test())
    before = purged(cache)
    assert [plain("ann"), plain("ann")] == ["ann", "ann"]
    assert purged(cache) - before == 1


def test_what_stands_in_a_lower_tier_is_purged_too() -> None:
    cache = TierCache(l2=ScriptedTier())
    cache.on("e", tags="a")

    @cache.emits("e")
    async def work() -> None: ...

    async def test() -> None:
        await cache.set("k", 1, ttl=60, tags="a")
        cache.engine.memory.clear()
        assert await cache.get("k") == 1
        await work()
        assert await cache.get("k") is None

    asyncio.run(test())


def test_switched_off_the_cache_still_purges_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERCACHE_DISABLED", "1")
    cache = TierCache()
    cache.on("e", tags="a")

    @cache.emits("e")
    async def work() -> None: ...

    asyncio.run(work())
    assert purged(cache) == 1


async def _in_worker_thread(work: Callable[[], Any]) -> Any:
    result: Awaitable[Any] = anyio.to_thread.run_sync(work)
    return await result
