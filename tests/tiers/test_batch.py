from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Sequence

import pytest

from asgi_tiercache.errors import TierError
from asgi_tiercache.tiers.batch import MAX_KEYS, Batched
from asgi_tiercache.types import Write
from tests.tiers.doubles import ScriptedTier, ticks


def filled(*keys: str) -> ScriptedTier:
    tier = ScriptedTier()
    asyncio.run(tier.set_many([Write(key, key.encode(), 60.0) for key in keys]))
    return tier


def gets(tier: ScriptedTier, keys: Sequence[str]) -> list[bytes | None]:
    """What callers get who all come in one tick; the tier answers later, as one does that has to be waited for."""

    async def body() -> list[bytes | None]:
        batched = Batched(tier)
        tier.hang()
        callers = [asyncio.create_task(batched.get(key)) for key in keys]
        await ticks(3)
        tier.go_on()
        return await asyncio.gather(*callers)

    return asyncio.run(body())


def test_the_calls_of_one_tick_are_one_read() -> None:
    tier = filled("a", "c")
    assert gets(tier, ["a", "b", "c", "d"]) == [b"a", None, b"c", None]
    assert tier.reads == [("a", "b", "c", "d")]


def test_a_batch_asks_for_the_same_key_once() -> None:
    tier = filled("a", "b")
    assert gets(tier, ["b", "a", "a", "c", "a"]) == [b"b", b"a", b"a", None, b"a"]
    assert tier.reads == [("b", "a", "c")]


def test_a_caller_who_comes_after_a_batch_was_sent_waits_for_no_answer_but_its_own() -> None:
    tier = filled("a", "b", "c")

    async def body() -> None:
        batched = Batched(tier)
        tier.hang()
        stuck = [asyncio.create_task(batched.get(key)) for key in "ab"]
        await ticks(3)
        assert tier.reads == [("a", "b")]
        tier.go_on()
        assert await batched.get("c") == b"c"
        await asyncio.gather(*stuck)

    asyncio.run(body())


def test_calls_of_different_ticks_do_not_wait_for_each_other() -> None:
    tier = filled("a", "b")

    async def body() -> None:
        batched = Batched(tier)
        tier.hang()
        first = asyncio.create_task(batched.get("a"))
        await ticks(3)
        tier.go_on()
        assert await batched.get("b") == b"b"
        first.cancel()

    asyncio.run(body())
    assert tier.reads == [("a",), ("b",)]


def test_more_keys_than_one_call_takes_are_split() -> None:
    keys = [str(number) for number in range(MAX_KEYS + 10)]
    tier = filled(*keys)
    assert gets(tier, keys) == [key.encode() for key in keys]
    assert sorted(map(len, tier.reads)) == [10, MAX_KEYS]


@pytest.mark.parametrize("cancelled", [{0}, {1}, {2}, {3}, {0, 1}, {1, 2}, {0, 2}, {1, 2, 3}])
@pytest.mark.parametrize("after", [1, 2, 3])
def test_who_is_cancelled_disturbs_no_other(cancelled: set[int], after: int) -> None:
    tier = filled("a", "b")

    async def body() -> list[bytes | BaseException | None]:
        batched = Batched(tier)
        tier.hang()
        callers = [asyncio.create_task(batched.get(key)) for key in ("a", "b", "a", "b")]
        await ticks(after)
        for number in cancelled:
            callers[number].cancel()
        await ticks(3)
        tier.go_on()
        async with asyncio.timeout(5):
            return await asyncio.gather(*callers, return_exceptions=True)

    outcomes = asyncio.run(body())
    for number, (outcome, data) in enumerate(zip(outcomes, (b"a", b"b", b"a", b"b"), strict=True)):
        assert isinstance(outcome, asyncio.CancelledError) if number in cancelled else outcome == data


def test_a_failure_reaches_every_caller() -> None:
    tier = filled()
    tier.error = TierError("down")

    async def body() -> list[bytes | BaseException | None]:
        batched = Batched(tier)
        return await asyncio.gather(*(batched.get(key) for key in "abc"), return_exceptions=True)

    assert asyncio.run(body()) == [tier.error] * 3


def test_a_read_that_is_cancelled_from_within_leaves_no_caller_waiting() -> None:
    tier = filled()

    async def body() -> None:
        async def get_many(keys: Sequence[str]) -> list[bytes | None]:
            await ticks(2)
            raise asyncio.CancelledError

        tier.get_many = get_many  # type: ignore[method-assign]
        batched = Batched(tier)
        async with asyncio.timeout(5):
            outcomes = await asyncio.gather(*(batched.get(key) for key in "ab"), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] * 2

    asyncio.run(body())


def test_a_read_under_way_survives_garbage_collection() -> None:
    tier = filled()

    async def body() -> None:
        answers: list[weakref.ref[asyncio.Future[list[bytes | None]]]] = []

        async def get_many(keys: Sequence[str]) -> list[bytes | None]:
            answer: asyncio.Future[list[bytes | None]] = asyncio.get_running_loop().create_future()
            answers.append(weakref.ref(answer))
            return await answer

        tier.get_many = get_many  # type: ignore[method-assign]
        batched = Batched(tier)
        callers = asyncio.gather(*(batched.get("a") for _ in range(3)))
        await ticks(3)
        gc.collect()
        assert len(answers) == 1
        for reference in answers:
            answer = reference()
            assert answer is not None
            answer.set_result([b"1"])
        assert await callers == [b"1"] * 3

    asyncio.run(body())


def test_it_serves_one_loop_after_another() -> None:
    tier = filled("a", "b")
    batched = Batched(tier)

    async def both() -> list[bytes | None]:
        tier.hang()
        callers = asyncio.gather(batched.get("a"), batched.get("b"))
        await ticks(3)
        tier.go_on()
        return list(await callers)

    assert asyncio.run(both()) == asyncio.run(both()) == [b"a", b"b"]
    assert batched._open == {}


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_loop_that_ends_while_callers_wait_leaves_nothing_behind(turns: int) -> None:
    tier = filled("a", "b")
    batched = Batched(tier)

    async def leaves() -> None:
        tier.hang()
        callers = [asyncio.create_task(batched.get(key)) for key in "aba"]
        await ticks(turns)
        assert not any(caller.done() for caller in callers)

    asyncio.run(leaves())
    assert (batched._open, batched._tasks) == ({}, set())
