from __future__ import annotations

import asyncio
import dataclasses
import datetime
from typing import TYPE_CHECKING, Any, TypedDict
from uuid import UUID

import pydantic
import pytest

from asgi_tiercache import SESSION, CodecError, ConfigError, KeyingError, NoFillError, Policy, Region, TierCache
from asgi_tiercache.signals import Answered
from tests.engine.doubles import Fleet, alone, written
from tests.tiers.doubles import ticks, until

if TYPE_CHECKING:
    from email.message import Message as OnlyForTypeCheckers


@dataclasses.dataclass
class Point:
    x: int
    day: datetime.date


class Model(pydantic.BaseModel):
    id: UUID
    price: float


class Row(TypedDict):
    name: str
    when: datetime.datetime


async def uses(session: OnlyForTypeCheckers | None, n: int) -> Point:
    return Point(n, datetime.date(2020, 1, 1))


# ---- hits and keys ----


def test_a_function_is_computed_once_for_equal_arguments_however_they_are_passed() -> None:
    async def body() -> None:
        cache, _ = alone()
        calls: list[tuple[int, str]] = []

        @cache.cached("f:{a}:{b}", ttl=10)
        async def f(a: int, b: str = "x") -> str:
            calls.append((a, b))
            return f"{a}{b}"

        assert [await f(1), await f(1, "x"), await f(a=1, b="x"), await f(b="x", a=1)] == ["1x"] * 4
        assert calls == [(1, "x")]
        assert await f(1, "y") == "1y"
        assert calls == [(1, "x"), (1, "y")]

    asyncio.run(body())


async def module_level(a: int, *rest: int, **more: int) -> list[Any]:
    return [a, list(rest), more]


def test_without_a_template_every_argument_counts() -> None:
    async def body() -> None:
        cache, _ = alone()
        seen: list[Any] = []
        cache.engine.signals.subscribe(seen.append)
        f = cache.cached(ttl=10)(module_level)
        for _ in range(2):
            assert await f(1, 2, b=3) == [1, [2], {"b": 3}]
            assert await f(1, b=3) == [1, [], {"b": 3}]
            assert await f(True) == [True, [], {}]
            assert await f(1) == [1, [], {}]
        outcomes = [signal.outcome for signal in seen if isinstance(signal, Answered)]
        assert outcomes == ["miss"] * 4 + ["hit"] * 4

    asyncio.run(body())


def test_ignored_arguments_are_no_part_of_the_key_and_reach_the_function() -> None:
    async def body() -> None:
        cache, _ = alone()

        @cache.cached("f:{a}", ttl=10, ignore=["connection"])
        async def f(a: int, connection: object) -> str:
            return type(connection).__name__

        assert await f(1, object()) == "object"
        assert await f(1, {}) == "object"

    asyncio.run(body())


def test_methods_are_cached_with_self_ignored() -> None:
    async def body() -> None:
        cache, _ = alone()

        class Users:
            def __init__(self) -> None:
                self.calls = 0

            @cache.cached("users:{user_id}", ttl=10, ignore=["self"])
            async def load(self, user_id: int) -> int:
                self.calls += 1
                return user_id * 2

            @staticmethod
            @cache.cached("squares:{n}", ttl=10)
            async def square(n: int) -> int:
                return n * n

            @classmethod
            @cache.cached("names:{n}", ttl=10, ignore=["cls"])
            async def name(cls, n: int) -> str:
                return cls.__name__

        first, second = Users(), Users()
        assert [await first.load(1), await second.load(user_id=1)] == [2, 2]
        assert (first.calls, second.calls) == (1, 0)
        assert [await Users.square(3), await first.square(3)] == [9, 9]
        assert await Users.name(1) == "Users"

    asyncio.run(body())


def test_arguments_that_hold_separators_do_not_meet() -> None:
    async def body() -> None:
        cache, _ = alone()

        @cache.cached("f:{a}:{b}", ttl=10)
        async def f(a: str, b: str) -> list[str]:
            return [a, b]

        pairs = [("x:y", "z"), ("x", "y:z"), ("x%3Ay", "z"), ("*", "z"), ("{b}", "z")]
        assert [await f(*pair) for pair in pairs] == [list(pair) for pair in pairs]

    asyncio.run(body())


def test_two_keys_that_meet_by_their_text_never_share_a_value() -> None:
    async def body() -> None:
        cache, _ = alone()

        @cache.cached("k:{n}", ttl=10)
        async def f(n: int) -> str:
            return "function"

        assert await f(1) == "function"
        await cache.set("k:1", "direct", ttl=10)
        assert await f(1) == "function"
        assert await cache.get("k:1") != "function"

    asyncio.run(body())


def test_a_new_version_starts_afresh() -> None:
    async def body() -> None:
        fleet = Fleet()

        def build(version: str) -> tuple[TierCache, Any]:
            cache = fleet.worker()

            @cache.cached("k", ttl=1000, version=version)
            async def f() -> str:
                return version

            return cache, f

        for version in ("1", "2"):
            cache, f = build(version)
            async with cache:
                assert await f() == version

    asyncio.run(body())


def test_the_wrapper_looks_like_the_function() -> None:
    cache, _ = alone()

    @cache.cached("f:{a}", ttl=10)
    async def f(a: int) -> int:
        """What f does."""
        return a

    assert (f.__name__, f.__doc__) == ("f", "What f does.")


def test_delete_and_invalidate_key_reach_functions_with_a_template() -> None:
    async def body() -> None:
        cache, _ = alone()
        calls: list[int] = []

        @cache.cached("f:{a}", ttl=10)
        async def f(a: int) -> int:
            calls.append(a)
            return a

        await f(1)
        await cache.delete("f:1")
        await f(1)
        await cache.invalidate_key("f:1")
        await f(1)
        assert calls == [1, 1, 1]

    asyncio.run(body())


# ---- what is restored ----


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Point, Point(1, datetime.date(2020, 1, 2))),
        (Model, Model(id=UUID(int=5), price=1.5)),
        (Row, Row(name="a", when=datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC))),
        (list[Point], [Point(1, datetime.date(2020, 1, 2))]),
        (dict[str, set[int]], {"a": {1}}),
        (datetime.datetime, datetime.datetime(2020, 1, 2, 3)),
        (Point | None, None),
        (bytes, b"\xff"),
        (Any, {"t": (1, 2)}),
    ],
    ids=str,
)
def test_a_hit_returns_what_the_call_would_have_returned(annotation: Any, value: Any) -> None:
    async def body() -> None:
        fleet = Fleet()

        async def f() -> Any:
            return value

        f.__annotations__["return"] = annotation
        first, second = fleet.worker(), fleet.worker()
        async with first, second:
            await first.cached("f", ttl=1000)(f)()
            await written(first)
            again = second.cached("f", ttl=1000)(f)
            for _ in range(2):
                found = await again()
                assert (type(found), found) == (type(value), value)
            assert fleet.tier.calls.count("get_many") == 2

    asyncio.run(body())


def test_parameters_may_be_annotated_with_what_only_type_checkers_import() -> None:
    async def body() -> None:
        cache, _ = alone()
        f = cache.cached("f:{n}", ttl=10, ignore=["session"])(uses)
        assert await f(None, 1) == Point(1, datetime.date(2020, 1, 1))

    asyncio.run(body())


def test_a_return_annotation_that_cannot_be_restored_is_refused_when_decorating() -> None:
    cache, _ = alone()

    async def f() -> object: ...

    class Opaque: ...

    f.__annotations__["return"] = Opaque
    with pytest.raises(CodecError, match=r"f.*Opaque"):
        cache.cached("f", ttl=10)(f)


def test_a_value_that_cannot_be_stored_names_function_and_type() -> None:
    async def body() -> None:
        cache, _ = alone()

        @cache.cached("f", ttl=10)
        async def f() -> Any:
            return asyncio.Lock()

        with pytest.raises(CodecError, match="Lock") as caught:
            await f()
        assert "f" in str(caught.value).split(":")[0]

    asyncio.run(body())


def test_an_argument_that_cannot_be_keyed_names_function_argument_and_type() -> None:
    async def body() -> None:
        cache, _ = alone()
        f = cache.cached(ttl=10)(module_level)
        with pytest.raises(KeyingError) as caught:
            await f(object())  # type: ignore[arg-type]
        assert all(word in str(caught.value) for word in ("module_level", "'a'", "object"))

    asyncio.run(body())


def test_wrong_arguments_raise_as_the_function_would() -> None:
    async def body() -> None:
        cache, _ = alone()
        f = cache.cached(ttl=10)(module_level)
        with pytest.raises(TypeError):
            await f()  # type: ignore[call-arg]

    asyncio.run(body())


def test_a_value_stored_under_another_return_type_is_computed_anew() -> None:
    async def body() -> None:
        fleet = Fleet()

        async def f() -> Any:
            return 5

        first, second = fleet.worker(), fleet.worker()
        async with first, second:
            await first.cached("f", ttl=1000)(f)()
            await written(first)

            async def g() -> Any:
                return Point(6, datetime.date(2020, 1, 1))

            g.__annotations__["return"] = Point
            g.__qualname__, g.__module__ = f.__qualname__, f.__module__
            assert await second.cached("f", ttl=1000)(g)() == Point(6, datetime.date(2020, 1, 1))

    asyncio.run(body())


def test_a_codec_of_ones_own_is_used() -> None:
    class Upper:
        def dump(self, value: Any) -> bytes:
            return str(value).upper().encode()

        def load(self, data: bytes) -> Any:
            return data.decode()

    async def body() -> None:
        cache, _ = alone()

        @cache.cached("f", ttl=10, codec=Upper())
        async def f() -> str:
            return "a"

        assert [await f(), await f()] == ["a", "A"]

    asyncio.run(body())


def test_callers_share_no_object() -> None:
    async def body() -> None:
        cache, _ = alone()

        @cache.cached("f", ttl=10)
        async def f() -> list[int]:
            return [1]

        for _ in range(3):
            value = await f()
            assert value == [1]
            value.append(2)

    asyncio.run(body())


# ---- exceptions ----


class Abort(BaseException):
    pass


@pytest.mark.parametrize("error", [LookupError("x"), Abort("x"), TimeoutError(), GeneratorExit()], ids=repr)
def test_exceptions_pass_through_and_nothing_is_stored(error: BaseException) -> None:
    async def body() -> None:
        cache, _ = alone()
        calls: list[int] = []

        @cache.cached("f", ttl=10)
        async def f() -> int:
            calls.append(1)
            raise error

        for _ in range(2):
            with pytest.raises(type(error)) as caught:
                await f()
            assert caught.value is error
        assert len(calls) == 2

    asyncio.run(body())


def test_a_function_that_cancels_itself_is_cancelled_for_its_caller_and_leaves_nothing_stuck() -> None:
    async def body() -> None:
        cache, _ = alone()
        calls: list[int] = []

        @cache.cached("f", ttl=10)
        async def f() -> int:
            calls.append(1)
            if len(calls) == 1:
                raise asyncio.CancelledError
            return 5

        with pytest.raises(asyncio.CancelledError):
            await f()
        assert await f() == 5

    asyncio.run(body())


# ---- the fill while it runs ----


def test_tags_ttl_and_refusal_can_be_told_while_the_function_runs() -> None:
    async def body() -> None:
        cache, clock = alone()
        calls: list[str] = []

        @cache.cached("f:{how}", ttl=10, tags=["how:{how}"])
        async def f(how: str) -> None:
            calls.append(how)
            if how == "tag":
                cache.current.tag("extra:{n}", n=1)
            elif how == "ttl":
                cache.current.set_ttl(2)
            elif how == "zero":
                cache.current.set_ttl(0)
            elif how == "no":
                cache.current.no_store()

        for how in ("tag", "ttl", "zero", "no"):
            await f(how)
            await f(how)
        assert calls == ["tag", "ttl", "zero", "zero", "no", "no"]
        await cache.invalidate("extra:1")
        await f("tag")
        clock.tick(2)
        await f("ttl")
        await cache.invalidate("how:ttl")
        await f("ttl")
        assert calls[6:] == ["tag", "ttl", "ttl"]

    asyncio.run(body())


def test_what_is_not_stored_need_not_be_storable() -> None:
    async def body() -> None:
        cache, _ = alone()

        @cache.cached("f", ttl=10)
        async def f() -> Any:
            cache.current.no_store()
            return asyncio.Lock()

        assert type(await f()) is asyncio.Lock

    asyncio.run(body())


def test_a_miss_that_was_not_stored_says_why_in_the_statistics() -> None:
    async def body() -> None:
        cache, _ = alone()

        @cache.cached("f:{how}", ttl=10)
        async def f(how: str) -> None:
            if how == "no":
                cache.current.no_store()
            else:
                cache.current.tag(*(f"t{n}" for n in range(129)))

        await f("no")
        await f("many")
        await f("many")
        assert sum(cache.stats()["not_stored"].values()) == 3

    asyncio.run(body())


def test_current_ends_with_the_function() -> None:
    async def body() -> None:
        cache, _ = alone()

        @cache.cached("f", ttl=10)
        async def f() -> None:
            cache.current.tag("t")

        await f()
        await f()
        with pytest.raises(NoFillError):
            _ = cache.current

    asyncio.run(body())


def test_those_who_wait_for_a_value_that_is_not_stored_compute_their_own() -> None:
    async def body() -> None:
        cache, _ = alone()
        go = asyncio.Event()
        calls: list[int] = []

        @cache.cached("f", ttl=10)
        async def f() -> int:
            calls.append(1)
            cache.current.no_store()
            await go.wait()
            return len(calls)

        tasks = [asyncio.create_task(f()) for _ in range(3)]
        await until(lambda: len(calls) == 1)
        await ticks(5)
        go.set()
        assert len(await asyncio.gather(*tasks)) == 3
        assert len(calls) == 3

    asyncio.run(body())


# ---- functions within functions ----


def test_invalidating_the_inner_tag_invalidates_the_outer_whether_the_inner_was_hit_or_filled() -> None:
    async def body() -> None:
        cache, _ = alone()
        source = {"inner": 1}

        @cache.cached("inner", ttl=10, tags=["inner"])
        async def inner() -> int:
            return source["inner"]

        @cache.cached("filled", ttl=10)
        async def filled() -> int:
            return await inner() * 10

        @cache.cached("hit", ttl=10)
        async def hit() -> int:
            return await inner() * 100

        @cache.cached("deep", ttl=10)
        async def deep() -> int:
            return await hit() * 10

        for value in (1, 2):
            source["inner"] = value
            await cache.invalidate("inner")
            assert await filled() == value * 10
            assert await hit() == value * 100
            assert await deep() == value * 1000

    asyncio.run(body())


def test_values_read_by_get_and_get_or_set_hand_on_their_tags_and_keys() -> None:
    async def body() -> None:
        cache, _ = alone()
        await cache.start()
        calls: list[int] = []

        @cache.cached("outer", ttl=1000)
        async def outer() -> list[Any]:
            calls.append(1)
            return [
                await cache.get("a"),
                *(await cache.get_many(["b"])).values(),
                await cache.get_or_set("c", int, ttl=9),
            ]

        await cache.set("a", 1, ttl=1000, tags=["ta"])
        await cache.set("b", 2, ttl=1000)
        assert await outer() == [1, 2, 0]
        await outer()
        assert len(calls) == 1
        await cache.invalidate("ta")
        await outer()
        await cache.invalidate_key("b")
        await outer()
        await cache.invalidate_key("c")
        await outer()
        assert len(calls) == 4

    asyncio.run(body())


def test_an_invalidation_between_the_inner_and_the_outer_fill_counts_for_both() -> None:
    async def body() -> None:
        cache, _ = alone()
        inside, go = asyncio.Event(), asyncio.Event()
        source = [1]

        @cache.cached("inner", ttl=10, tags=["inner"])
        async def inner() -> int:
            return source[0]

        @cache.cached("outer", ttl=10)
        async def outer() -> int:
            value = await inner()
            inside.set()
            await go.wait()
            return value

        first = asyncio.create_task(outer())
        await inside.wait()
        source[0] = 2
        await cache.invalidate("inner")
        go.set()
        assert await first == 1
        assert await outer() == 2

    asyncio.run(body())


def test_losing_the_epoch_during_a_fill_leaves_the_outer_value_unstored() -> None:
    async def body() -> None:
        fleet = Fleet()
        cache = fleet.worker()
        calls: list[int] = []
        go, inside = asyncio.Event(), asyncio.Event()

        @cache.cached("inner", ttl=1000)
        async def inner() -> int:
            return 1

        @cache.cached("outer", ttl=1000)
        async def outer() -> int:
            calls.append(1)
            inside.set()
            await go.wait()
            return await inner()

        async with cache:
            task = asyncio.create_task(outer())
            await inside.wait()
            fleet.scripted.lose_control()
            await cache.invalidate("x")
            go.set()
            await task
            await outer()
            assert len(calls) == 2

    asyncio.run(body())


def test_a_function_that_calls_itself_with_the_same_arguments_does_not_wait_for_itself() -> None:
    async def body() -> None:
        cache, _ = alone()
        depth = [0]

        @cache.cached("f", ttl=10)
        async def f() -> int:
            depth[0] += 1
            return 0 if depth[0] == 3 else 1 + await f()

        assert await asyncio.wait_for(f(), 5) == 2

    asyncio.run(body())


def test_a_function_that_calls_itself_by_way_of_another_does_not_wait_for_itself() -> None:
    async def body() -> None:
        cache, _ = alone()
        depth = [0]

        @cache.cached("f", ttl=10)
        async def f() -> int:
            return await g()

        @cache.cached("g", ttl=10)
        async def g() -> int:
            depth[0] += 1
            return 0 if depth[0] == 2 else 1 + await f()

        assert await asyncio.wait_for(f(), 5) == 1

    asyncio.run(body())


def test_a_recursive_function_stores_every_step() -> None:
    async def body() -> None:
        cache, _ = alone()
        calls: list[int] = []

        @cache.cached("fib:{n}", ttl=10)
        async def fib(n: int) -> int:
            calls.append(n)
            return n if n < 2 else await fib(n - 1) + await fib(n - 2)

        assert await fib(20) == 6765
        assert sorted(calls) == list(range(21))

    asyncio.run(body())


# ---- what is refused ----


def test_two_functions_with_one_template_are_refused() -> None:
    cache, _ = alone()

    @cache.cached("k:{a}", ttl=10)
    async def first(a: int) -> int:
        return a

    async def second(b: int) -> int:
        return b

    with pytest.raises(ConfigError, match="first") as caught:
        cache.cached("k:{b}", ttl=10)(second)
    assert caught.value.option == "template"
    alone()[0].cached("k:{b}", ttl=10)(second)


def test_two_closures_of_one_definition_are_two_functions() -> None:
    """They have one name, yet different values: with one template they would be handed each other's."""
    cache, _ = alone()

    def times(factor: int) -> Any:
        async def f(n: int) -> int:
            return n * factor

        return cache.cached("times:{n}", ttl=10)(f)

    times(2)
    with pytest.raises(ConfigError) as caught:
        times(3)
    assert caught.value.option == "template"


async def _plain_coroutine(a: int) -> int:
    return a


def _generator(a: int) -> Any:
    yield a


async def _async_generator(a: int) -> Any:
    yield a


@pytest.mark.parametrize(
    ("option", "function", "template", "options"),
    [
        ("template", _plain_coroutine, "k", {"ttl": 1}),
        ("template", _plain_coroutine, "k:{b}", {"ttl": 1, "ignore": ["a"]}),
        ("template", _plain_coroutine, "k:{a", {"ttl": 1}),
        ("template", _plain_coroutine, "k*:{a}", {"ttl": 1}),
        ("template", module_level, "k:{a}:{rest}", {"ttl": 1, "ignore": ["more"]}),
        ("template", lambda a: a, None, {"ttl": 1}),
        ("ignore", _plain_coroutine, "k:{a}", {"ttl": 1, "ignore": ["b"]}),
        ("tags", _plain_coroutine, "k:{a}", {"ttl": 1, "tags": ["t:{b}"]}),
        ("function", _generator, "k:{a}", {"ttl": 1}),
        ("function", _async_generator, "k:{a}", {"ttl": 1}),
        ("ttl", _plain_coroutine, "k:{a}", {"status_ttl": {404: 1}}),
        ("vary_on", _plain_coroutine, "k:{a}", {"ttl": 1, "vary_on": ["accept"]}),
        ("cookies", _plain_coroutine, "k:{a}", {"ttl": 1, "cookies": ["session"]}),
        ("user", _plain_coroutine, "k:{a}", {"ttl": 1, "user": len}),
        ("query", _plain_coroutine, "k:{a}", {"ttl": 1, "query": ["q"]}),
    ],
)
def test_what_does_not_fit_a_function_is_refused_by_name(
    option: str, function: Any, template: str | None, options: dict[str, Any]
) -> None:
    cache, _ = alone()
    with pytest.raises(ConfigError) as caught:
        cache.cached(template, **options)(function)
    assert caught.value.option == option


def test_an_http_policy_is_no_policy_for_a_function() -> None:
    cache, _ = alone()
    with pytest.raises(ConfigError) as caught:
        cache.cached("k:{a}", Policy.http())(_plain_coroutine)
    assert caught.value.option == "ttl"


def test_one_region_name_with_two_bounds_is_refused() -> None:
    cache, _ = alone()
    cache.cached("a:{a}", Policy(ttl=1, region=Region(name="r", max_entries=1)))(_plain_coroutine)
    with pytest.raises(ConfigError) as caught:
        cache.cached("b:{a}", Policy(ttl=1, region=Region(name="r", max_entries=2)))(_plain_coroutine)
    assert caught.value.option == "region"


def test_presets_serve_functions_and_options_change_them() -> None:
    async def body() -> None:
        cache, clock = alone()
        calls: list[int] = []

        @cache.cached("f", SESSION, ttl=5)
        async def f() -> None:
            calls.append(1)

        await f()
        clock.tick(4.9)
        await f()
        clock.tick(0.1)
        await f()
        assert len(calls) == 2
        assert cache.engine.memory.bucket(SESSION.region).region.name == "session"

    asyncio.run(body())
