"""`cache.on` and `cache.emit`: what an event purges, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_tiercache import ConfigError, KeyingError, Policy, Region, TierCache
from asgi_tiercache.engine.tags import key_tag
from asgi_tiercache.outbox import PurgeOrder
from asgi_tiercache.testing import ScriptedTier, TickingClock
from tests.events.recording import Recorder, events_of
from tests.middleware.apps import Handler, app_of
from tests.middleware.asgi import ask, run


async def emitted(
    event: str = "change", /, values: dict[str, object] | None = None, **targets: Any
) -> list[PurgeOrder]:
    """What one `on` with `targets` purges for `values`."""
    recorder = Recorder()
    events = events_of(recorder)
    soft, settle = targets.pop("soft", False), targets.pop("settle", 0.0)
    events.on(event, targets, soft=soft, settle=settle)
    await events.emit(event, values or {})
    return recorder.purges


@pytest.mark.parametrize(
    ("pattern", "warned"),
    [("activity:{a}*", True), ("*:{a}:*", True), ("activity:{a}:*", False), ("activity:*", False), ("a*", False)],
)
def test_a_pattern_that_each_value_makes_another_of_is_warned_of(
    pattern: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    TierCache().on("change", patterns=[pattern])
    assert [pattern in record.getMessage() for record in caplog.records] == [True] * warned


# ---- what is purged ----


def test_one_call_invalidates_everything_of_an_entity_and_nothing_of_another() -> None:
    cache = TierCache()
    cache.on("user_update", tags=["user:{user_id}"], keys=["profile:{user_id}"], users=["{user_id}"])

    @cache.cached("profile:{user_id}", ttl=60)
    async def profile(user_id: str) -> str:
        return user_id

    @cache.cached("feed:{user_id}", ttl=60, tags=["user:{user_id}"])
    async def feed(user_id: str) -> str:
        return user_id

    pages = Handler()
    app = app_of(pages, Policy(ttl=60, query=(), user=lambda scope: scope["query_string"]), cache=cache)

    async def test() -> None:
        for user in ("ann", "bob"):
            await profile(user)
            await feed(user)
            await ask(app, query=user.encode())

        receipt = await cache.emit("user_update", user_id="ann")

        assert receipt.durable
        assert "user:ann" in receipt.names
        before = cache.stats()["answers"]["hits"]
        assert not (await ask(app, query=b"ann")).hit
        await profile("ann")
        await feed("ann")
        assert cache.stats()["answers"]["hits"] == before
        assert (await ask(app, query=b"bob")).hit
        await profile("bob")
        await feed("bob")
        assert cache.stats()["answers"]["hits"] == before + 3

    run(test())


def test_a_path_is_purged_with_every_query_and_a_route_with_every_path() -> None:
    cache, handler = TierCache(l2=ScriptedTier()), Handler()
    cache.on("video_update", paths=["/videos/{video_id}"])
    cache.on("layout", routes=["/videos/{video_id}"])
    app = app_of(handler, Policy(ttl=60), cache=cache, path="/videos/{video_id}")

    async def test() -> None:
        for path in ("/videos/1 a", "/videos/2"):
            await ask(app, path)
            await ask(app, path, query=b"q=1")
        await cache.emit("video_update", video_id="1 a")
        assert not (await ask(app, "/videos/1 a")).hit
        assert not (await ask(app, "/videos/1 a", query=b"q=1")).hit
        assert (await ask(app, "/videos/2", query=b"q=1")).hit
        await cache.emit("layout")
        for path in ("/videos/1 a", "/videos/2"):
            assert not (await ask(app, path)).hit

    run(test())


def test_declarations_of_one_event_add_up_and_are_purged_at_once() -> None:
    recorder = Recorder()
    events = events_of(recorder)
    events.on("user_update", {"tags": "user:{user_id}"}, soft=False, settle=0)
    events.on("user_update", {"tags": ["user:{user_id}", "team:{team}"]}, soft=False, settle=0)
    events.on("user_update", {"patterns": "activity:{user_id}:*"}, soft=False, settle=0)

    receipt = asyncio.run(events.emit("user_update", {"user_id": 5, "team": "a:b"}))

    assert recorder.purges == [PurgeOrder(("user:5", "team:a:b"), ("activity:5:*",))]
    assert receipt.position == 1


def test_hard_and_soft_and_settled_purges_go_their_own_ways() -> None:
    recorder = Recorder()
    events = events_of(recorder)
    events.on("e", {"tags": "a"}, soft=False, settle=0)
    events.on("e", {"tags": "b"}, soft=True, settle=0)
    events.on("e", {"tags": "c"}, soft=False, settle=2.5)

    receipt = asyncio.run(events.emit("e", {}))

    assert recorder.purges == [
        PurgeOrder(("a",)),
        PurgeOrder(("b",), soft=True),
        PurgeOrder(("c",), settle=2.5),
    ]
    assert receipt.names == ("a", "b", "c")
    assert receipt.position == 3


def test_a_receipt_is_durable_only_if_everything_is() -> None:
    recorder = Recorder()
    events = events_of(recorder)
    events.on("e", {"tags": "a"}, soft=False, settle=0)
    events.on("e", {"tags": "b"}, soft=True, settle=0)
    recorder.durable = False

    receipt = asyncio.run(events.emit("e", {}))

    assert not receipt.durable
    assert receipt.position is None


def test_where_one_purge_fails_the_others_are_made_and_the_failure_is_told() -> None:
    recorder = Recorder()
    events = events_of(recorder)
    events.on("e", {"tags": "a"}, soft=False, settle=0)
    events.on("e", {"tags": "b"}, soft=True, settle=0)
    recorder.errors = [OSError("broken")]

    with pytest.raises(OSError, match="broken"):
        asyncio.run(events.emit("e", {}))

    assert [purge.tags for purge in recorder.purges] == [("a",), ("b",)]


def test_what_events_purge_is_counted_as_such() -> None:
    cache = TierCache()
    cache.on("e", tags=["a", "b"])
    asyncio.run(_emit(cache, "e"))
    assert cache.stats()["invalidations"]["durable"] == {"event": 2}


# ---- values ----


@pytest.mark.parametrize("user_id", ["*", "a*", "?", "[a-z]", "{x}", "a\nb", "é", "a b"])
def test_a_value_with_special_characters_purges_only_itself(user_id: str) -> None:
    cache = TierCache()
    cache.on("user_update", tags=["user:{user_id}", "{user_id}:all"], keys=["profile:{user_id}"])

    @cache.cached("profile:{user_id}", ttl=60)
    async def profile(user_id: str) -> str:
        return user_id

    @cache.cached("feed:{user_id}", ttl=60, tags=["user:{user_id}"])
    async def feed(user_id: str) -> str:
        return user_id

    async def test() -> None:
        for user in (user_id, "ann", "a", "b"):
            await profile(user)
            await feed(user)
        preview = await cache.emit("user_update", dry_run=True, user_id=user_id)
        assert len(preview.stored) == 2
        await cache.emit("user_update", user_id=user_id)
        for user in ("ann", "a", "b"):
            await profile(user)
            await feed(user)
        assert cache.stats()["answers"]["hits"] == 6
        await profile(user_id)
        await feed(user_id)
        assert cache.stats()["answers"]["hits"] == 6

    asyncio.run(test())


values = st.one_of(st.text(), st.integers(), st.binary(), st.sampled_from(["*", "u*", ":", "1:*", "{id}", "%2A", "a#"]))


@given(values, values)
def test_two_values_purge_the_same_or_nothing_in_common(one: object, other: object) -> None:
    async def test() -> None:
        for template in ("user:{id}", "{id}:x", "{id}"):
            (mine,) = await emitted(values={"id": one}, tags=template, keys=template, patterns=template + "*")
            (theirs,) = await emitted(values={"id": other}, tags=template, keys=template, patterns=template + "*")
            if mine != theirs:
                assert not set(mine.tags) & set(theirs.tags)
                assert mine.patterns != theirs.patterns

    asyncio.run(test())


@given(values)
def test_a_pattern_has_only_the_stars_of_its_template(value: object) -> None:
    async def test() -> None:
        (purge,) = await emitted(values={"id": value}, patterns=["user:{id}:*", "*:{id}", "{id}*"])
        for pattern, stars in zip(purge.patterns, (1, 1, 1), strict=True):
            assert pattern.count("*") == stars
            assert not set(pattern) & set("?[]{}\\ \n\x00")

    asyncio.run(test())


@given(st.text(min_size=1), st.text(min_size=1))
def test_an_emitted_value_purges_what_a_function_stored_for_it_and_no_other(stored: str, changed: str) -> None:
    cache = TierCache()
    cache.on("e", tags=["t:{id}"], keys=["k:{id}:x"])

    @cache.cached("k:{id}:x", ttl=60)
    async def by_key(id: str) -> str:
        return id

    @cache.cached("l:{id}", ttl=60, tags=["t:{id}"])
    async def by_tag(id: str) -> str:
        return id

    async def test() -> None:
        await by_key(stored)
        await by_tag(stored)
        preview = await cache.emit("e", dry_run=True, id=changed)
        assert len(preview.stored) == (2 if stored == changed else 0)

    asyncio.run(test())


def test_a_value_without_a_canonical_text_is_an_error_that_names_event_field_and_type() -> None:
    cache = TierCache()
    cache.on("user_update", tags=["user:{user_id}"])
    with pytest.raises(KeyingError, match=r"'user_update'.*'user_id'.*list"):
        asyncio.run(_emit(cache, "user_update", user_id=[1]))


# ---- mistakes ----


def test_an_unknown_event_is_an_error_that_names_it_and_those_there_are() -> None:
    cache = TierCache()
    cache.on("user_update", tags="user:{user_id}")
    for event in ("user_updat", "", None, ["x"]):
        for dry in (False, True):
            with pytest.raises(ConfigError, match=r"^event: .* was never declared.*'user_update'") as caught:
                asyncio.run(_emit(cache, event, dry_run=dry, user_id=1))  # type: ignore[arg-type]
            assert repr(event) in str(caught.value)


@pytest.mark.parametrize("fields", [{}, {"userid": 1}, {"user_id": None}])
def test_a_missing_field_is_an_error_that_names_event_and_field_and_purges_nothing(fields: dict[str, Any]) -> None:
    cache = TierCache()
    cache.on("user_update", tags=["users"])
    cache.on("user_update", tags=["user:{user_id}"])
    before = cache.stamp()
    for dry in (False, True):
        with pytest.raises(ConfigError, match=r"^user_id: event 'user_update' needs"):
            asyncio.run(_emit(cache, "user_update", dry_run=dry, **fields))
    assert cache.stamp() == before


def test_fields_that_no_template_asks_for_are_ignored() -> None:
    cache = TierCache()
    cache.on("user_update", tags=["user:{event}"])
    receipt = asyncio.run(_emit(cache, "user_update", event="ann", cache="x", reason=object()))
    assert receipt.names == ("user:ann",)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("tags", "user:{user_id"),
        ("tags", "user:{}"),
        ("tags", "user:{user.id}"),
        ("tags", "user:*"),
        ("tags", ""),
        ("tags", ["ok", ""]),
        ("tags", [5]),
        ("tags", 5),
        ("tags", "x" * 257),
        ("patterns", "user:{id*"),
        ("patterns", ""),
        ("patterns", "a\n*"),
        ("keys", "{"),
        ("keys", "a*"),
        ("paths", "videos/{id}"),
        ("paths", "/videos/{id:int}"),
        ("routes", "videos"),
        ("routes", ""),
        ("users", "{"),
        ("settle", -1),
        ("settle", "1"),
        ("settle", float("nan")),
        ("soft", "yes"),
    ],
)
def test_a_malformed_option_is_refused_at_once_and_named(option: str, value: object) -> None:
    cache = TierCache()
    with pytest.raises(ConfigError) as caught:
        cache.on("e", **{"tags": "fine", option: value})  # type: ignore[arg-type]
    assert caught.value.option == option
    with pytest.raises(ConfigError, match="never declared"):
        asyncio.run(_emit(cache, "e"))


@pytest.mark.parametrize("event", ["", None, 5, "a\nb"])
def test_an_event_needs_a_name(event: Any) -> None:
    with pytest.raises(ConfigError, match=r"^event: "):
        TierCache().on(event, tags="a")


def test_a_declaration_that_purges_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^on: .*purge nothing"):
        TierCache().on("e", tags=[])


def test_a_field_cannot_have_the_name_of_an_option() -> None:
    with pytest.raises(ConfigError, match="dry_run"):
        TierCache().on("e", tags="a:{dry_run}")


# ---- telling beforehand ----


def test_a_dry_run_tells_what_would_be_purged_and_purges_nothing() -> None:
    cache = TierCache(namespace="shop")
    cache.on(
        "user_update",
        tags=["user:{user_id}", "users"],
        keys="profile:{user_id}",
        paths="/users/{user_id}",
        routes="/users/{id}/feed",
        users="{user_id}",
    )
    cache.on("user_update", tags="user:{user_id}", patterns="activity:{user_id}:*")

    async def test() -> None:
        await cache.set("profile:7", 1, ttl=60)
        await cache.set("profile:8", 1, ttl=60)
        await cache.set("by tag", 1, ttl=60, tags=["user:7"])
        await cache.set("activity:7:a", 1, ttl=60)
        await cache.set("activity:77:a", 1, ttl=60)
        before = cache.stamp()

        preview = await cache.emit("user_update", dry_run=True, user_id=7)

        assert preview.event == "user_update"
        assert preview.tags == ("user:7", "users")
        assert preview.patterns == ("activity:7:*",)
        assert preview.keys == ("profile:7",)
        assert preview.paths == ("/users/7",)
        assert preview.routes == ("/users/{id}/feed",)
        assert preview.users == ("7",)
        assert set(preview.stored) == {"profile:7", "by tag", "activity:7:a"}
        assert cache.stamp() == before
        assert await cache.get("profile:7") == 1

    asyncio.run(test())


@pytest.mark.parametrize("dry_run", ["no", 0, None])
def test_whether_it_is_a_dry_run_is_true_or_false(dry_run: object) -> None:
    cache = TierCache()
    cache.on("e", tags="t")
    with pytest.raises(ConfigError, match="dry_run"):
        asyncio.run(_emit(cache, "e", dry_run=dry_run))


def test_a_dry_run_counts_neither_what_is_invalid_already_nor_what_is_past_its_time() -> None:
    clock = TickingClock()
    cache = TierCache(clock=clock)
    cache.on("e", tags="a")

    async def test() -> None:
        await cache.set("short", 1, ttl=1, tags="a")
        await cache.set("other", 1, ttl=60, tags=["a", "b"])
        await cache.set("good", 1, ttl=60, tags="a")
        clock.tick(2)
        await cache.invalidate("b")
        assert (await cache.emit("e", dry_run=True)).stored == ("good",)

    asyncio.run(test())


@pytest.mark.parametrize("eviction", ["lru", "lfu", "ttl"])
def test_a_dry_run_leaves_the_order_of_eviction_alone(eviction: Any) -> None:
    cache = TierCache()
    cache.on("e", tags="a")
    region = Region(name="small", max_entries=3, eviction=eviction)
    calls = []

    @cache.cached("f:{n}", ttl=60, region=region, tags=["a"])
    async def f(n: int) -> int:
        calls.append(n)
        return n

    async def test() -> None:
        for n in (1, 2, 3, 1, 1, 3):
            await f(n)
        preview = await cache.emit("e", dry_run=True)
        assert sorted(preview.stored) == ["f:1", "f:2", "f:3"]
        await f(4)
        calls.clear()
        for n in (1, 3) if eviction != "ttl" else (2, 3):
            await f(n)
        assert calls == []

    asyncio.run(test())


def test_keys_of_the_namespace_are_purged() -> None:
    async def test() -> None:
        recorder = Recorder()
        events = events_of(recorder, TierCache(namespace="shop"))
        events.on("e", {"keys": "a:{x}"}, soft=False, settle=0)
        await events.emit("e", {"x": 1})
        assert recorder.purges == [PurgeOrder((key_tag("shop:a:1"),))]

    asyncio.run(test())


async def _emit(cache: TierCache, event: str, /, **fields: Any) -> Any:
    emit: Callable[..., Awaitable[Any]] = cache.emit
    return await emit(event, **fields)
