"""`Policy(verify=True)`: what other workers invalidate is seen at once, at the price of a question for each read."""

from __future__ import annotations

import pytest

from asgi_tiercache import ConfigError, Policy, TierCache
from asgi_tiercache.errors import TierError
from asgi_tiercache.invalidation.log import Record
from asgi_tiercache.testing import ScriptedTier, TickingClock
from tests.invalidation.scripted import ScriptedLog
from tests.middleware.apps import Handler, app_of
from tests.middleware.asgi import ask, run, turns

STRICT = Policy(ttl=60, tags=("t",), verify=True)


class Untailed(ScriptedLog):
    """Whoever follows it hears nothing."""

    async def follow(self, after: int) -> list[Record]:
        raise TierError("nobody is told")


def test_what_another_worker_invalidated_is_seen_at_once_without_a_tail_and_without_a_tick() -> None:
    async def test() -> None:
        log, clock = Untailed(), TickingClock()
        first, second = (TierCache(log=log, clock=clock) for _ in range(2))
        strict, lax = Handler(), Handler()
        async with first, second:
            careful = app_of(strict, STRICT, cache=second)
            usual = app_of(lax, STRICT.but(verify=False, version="usual"), cache=second)
            for app in (careful, usual):
                await ask(app)
                assert (await ask(app)).hit
            await first.invalidate("t")
            assert (await ask(usual)).hit, "it may take a moment to hear of it"
            assert (await ask(careful)).body == b"answer 2"
            assert not (await ask(usual)).hit, "what the log has answered counts for everything"
        assert (strict.calls, lax.calls) == (2, 2)

    run(test())


def test_it_asks_once_for_each_read_whichever_tier_it_comes_from() -> None:
    async def test() -> None:
        log, clock = Untailed(), TickingClock()
        cache = TierCache(log=log, clock=clock, l2=ScriptedTier())
        app = app_of(Handler(), STRICT, cache=cache)
        async with cache:
            await ask(app)
            before = log.count("ask")
            for number in range(1, 6):
                assert (await ask(app)).hit
                assert log.count("ask") == before + number

    run(test())


@pytest.mark.parametrize("unverified", ["serve", "bypass"])
def test_while_the_log_is_out_of_reach_it_is_a_miss(unverified: str) -> None:
    async def test() -> None:
        log, clock, handler = Untailed(), TickingClock(), Handler()
        cache = TierCache(log=log, clock=clock)
        app = app_of(handler, STRICT.but(unverified=unverified), cache=cache)
        async with cache:
            await ask(app)
            assert (await ask(app)).hit
            log.fail()
            for body in (b"answer 2", b"answer 3"):
                reply = await ask(app)
                assert (reply.hit, reply.body) == (False, body)
            log.recover()
            clock.tick(1)
            await turns()
            await ask(app)
            assert (await ask(app)).hit

    run(test())


def test_functions_and_head_requests_ask_likewise() -> None:
    async def test() -> None:
        log, clock = Untailed(), TickingClock()
        first, second = (TierCache(log=log, clock=clock) for _ in range(2))
        calls: list[int] = []

        @second.cached("k", ttl=60, tags=["t"], verify=True)
        async def value() -> int:
            calls.append(1)
            return len(calls)

        app = app_of(Handler(), STRICT, cache=second, methods=["GET", "HEAD"])
        async with first, second:
            assert [await value(), await value()] == [1, 1]
            await ask(app)
            assert (await ask(app, method="HEAD")).hit
            await first.invalidate("t")
            assert await value() == 2
            assert not (await ask(app, method="HEAD")).hit

    run(test())


def test_soft_invalidations_of_others_are_seen_at_once_too() -> None:
    async def test() -> None:
        log, clock = Untailed(), TickingClock()
        first, second = (TierCache(log=log, clock=clock) for _ in range(2))
        app = app_of(Handler(), STRICT, cache=second)
        async with first, second:
            await ask(app)
            await first.invalidate("t", soft=True)
            assert (await ask(app)).cache_status.endswith("detail=L1-stale")
            await turns()
            assert (await ask(app)).body == b"answer 2"

    run(test())


@pytest.mark.parametrize("value", [1, None, "yes"])
def test_what_is_neither_true_nor_false_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="verify"):
        Policy(ttl=60, verify=value)  # type: ignore[arg-type]
