"""Handlers that take too long: stale answers at once, 504, and what becomes of the handler."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from starlette.types import Receive, Scope, Send

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.engine.core import REFRESH_SECONDS, TooLateError
from asgi_tiercache.testing import TickingClock
from tests.middleware.apps import app_of
from tests.middleware.asgi import Exchange, ask, http_scope, run, turns, until
from tests.middleware.origins import Origin
from tests.middleware.producers import Producer, hurry, is_idle, ours, run_hurried

SOFT = Policy(ttl=60, tags=["t"], stale_if_error=300, soft_timeout=1)
HARD = Policy(ttl=60, tags=["t"], stale_if_error=300, hard_timeout=5)


class Service:
    """An app that does what it is told, behind the middleware; what is stored of it is stale."""

    def __init__(self, policy: Policy, *, stubborn: bool = False) -> None:
        self.clock = TickingClock()
        self.cache = TierCache(clock=self.clock)
        self.producer = Producer(stubborn=stubborn)
        self.app = ours(self.producer, policy, self.cache)

    async def store(self, content: bytes = b"old", *headers: tuple[bytes, bytes], seconds: float = 60) -> None:
        """Have a response stored, and let it grow stale in so many seconds."""
        first = Exchange(self.app)
        production = await self.producer.called(self.producer.calls + 1)
        await production.start(*headers, content=None)
        await production.last(content)
        await first.reply()
        self.clock.tick(seconds)

    async def sleeping(self, number: int) -> None:
        await turns()
        await until(lambda: self.clock.sleeping == number)

    async def idle(self) -> None:
        await turns()
        await until(lambda: is_idle(self.cache))


# ---- soft ----


@pytest.mark.parametrize("finish", [True, False])
def test_past_the_soft_timeout_all_are_given_what_is_stale_and_the_new_response_is_stored(finish: bool) -> None:
    async def test() -> None:
        service = Service(SOFT.but(finish=finish))
        await service.store()
        asking = [Exchange(service.app) for _ in range(5)]
        production = await service.producer.called(2)
        await service.sleeping(5)
        service.clock.tick(0.5)
        await turns()
        assert not any(each.task.done() for each in asking)
        service.clock.tick(0.5)
        replies = [await each.reply() for each in asking]
        assert [reply.body for reply in replies] == [b"old"] * 5
        assert all("detail=L1-stale" in reply.cache_status for reply in replies)
        late = await ask(service.app)
        assert late.body == b"old", "the seconds count from the first on who waited"
        await production.start(content=None)
        await production.last(b"new")
        await service.idle()
        assert [(await ask(service.app)).body, service.producer.calls] == [b"new", 2]
        answers = service.cache.stats()["answers"]
        assert answers["hits"] + answers["misses"] == 8

    run(test())


def test_what_begins_within_the_soft_timeout_is_for_all_who_wait() -> None:
    """However long it takes to its end."""

    async def test() -> None:
        service = Service(SOFT)
        await service.store()
        leader, follower = Exchange(service.app), Exchange(service.app)
        production = await service.producer.called(2)
        await service.sleeping(2)
        await production.start(content=b"new ")
        service.clock.tick(20)
        for each in (leader, follower):
            await each.until(2)
        await production.last(b"one")
        assert (await leader.reply()).body == (await follower.reply()).body == b"new one"

    run(test())


def test_what_was_invalidated_hard_is_not_given_past_the_soft_timeout() -> None:
    async def test() -> None:
        service = Service(SOFT)
        await service.store()
        asking = [Exchange(service.app) for _ in range(3)]
        production = await service.producer.called(2)
        await service.sleeping(3)
        await service.cache.invalidate("t")
        service.clock.tick(1)
        await turns()
        assert not any(each.task.done() for each in asking)
        await production.start(content=None)
        await production.last(b"new")
        assert (await asking[0].reply()).body == b"new"

    run(test())


def test_who_leaves_before_the_soft_timeout_leaves_nothing_behind() -> None:
    """Also where the response turns out to be for its leader alone, which is there no more."""

    async def test() -> None:
        service = Service(SOFT)
        await service.store()
        leader = Exchange(service.app)
        production = await service.producer.called(2)
        await service.sleeping(1)
        await leader.cancel()
        await production.start((b"cache-control", b"no-store"), content=None)
        await production.last(b"new")
        await service.idle()
        assert service.clock.sleeping == 0

    run(test())


def test_without_finish_the_leader_that_leaves_before_the_soft_timeout_ends_the_fill() -> None:
    async def test() -> None:
        service = Service(SOFT.but(finish=False))
        await service.store()
        leader = Exchange(service.app)
        production = await service.producer.called(2)
        await service.sleeping(1)
        await leader.cancel()
        await service.idle()
        assert production.over

    run(test())


def test_a_client_that_refuses_the_stale_answer_leaves_the_fill_alone() -> None:
    async def test() -> None:
        service = Service(SOFT)
        await service.store()
        leader = Exchange(service.app, refuse=0)
        production = await service.producer.called(2)
        await service.sleeping(1)
        service.clock.tick(1)
        with pytest.raises(OSError, match="the client is gone"):
            await leader.reply()
        await production.start((b"cache-control", b"no-store"), content=None)
        await production.last(b"new")
        await service.idle()

    run(test())


def test_what_may_not_be_stored_after_all_ends_quietly(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        service = Service(SOFT)
        await service.store()
        leader = Exchange(service.app)
        production = await service.producer.called(2)
        await service.sleeping(1)
        service.clock.tick(1)
        await leader.reply()
        production.order({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"no-store")]})
        await production.last(b"new")
        await service.idle()
        assert production.ended is None

    run(test())
    assert caplog.records == []


# ---- hard ----


def test_past_the_hard_timeout_all_who_wait_are_given_what_is_stale() -> None:
    async def test() -> None:
        service = Service(HARD)
        await service.store()
        asking = [Exchange(service.app) for _ in range(5)]
        production = await service.producer.called(2)
        await service.sleeping(1)
        service.clock.tick(5)
        assert [(await each.reply()).body for each in asking] == [b"old"] * 5
        await until(lambda: production.over)
        assert isinstance(production.ended, asyncio.CancelledError)
        assert service.producer.calls == 2
        await service.idle()

    run(test())


@pytest.mark.parametrize("policy", [HARD, Policy.http(ttl=60, hard_timeout=5)])
@pytest.mark.parametrize("stubborn", [False, True])
def test_with_nothing_stale_all_who_wait_are_told_504_and_the_next_asks_anew(policy: Policy, stubborn: bool) -> None:
    async def test() -> None:
        service = Service(policy, stubborn=stubborn)
        asking = [Exchange(service.app) for _ in range(5)]
        late = await service.producer.called()
        await service.sleeping(1)
        service.clock.tick(5)
        assert [(await each.reply()).status for each in asking] == [504] * 5
        assert service.producer.calls == 1
        answers = service.cache.stats()["answers"]
        assert (answers["misses"], answers["hits"]) == (0, 0)
        await service.idle()
        last = Exchange(service.app)
        production = await service.producer.called(2)
        if stubborn:  # what it says now is for nobody
            refused = late.order({"type": "http.response.start", "status": 200, "headers": []})
            await until(lambda: late.over)
            assert not refused.done()
            assert isinstance(late.ended, OSError)
        await production.start(content=None)
        await production.last(b"new")
        assert (await last.reply()).body == b"new"
        assert (await ask(service.app)).hit

    run(test())


def test_a_response_that_has_begun_in_time_is_not_cut() -> None:
    async def test() -> None:
        service = Service(HARD)
        leader = Exchange(service.app)
        production = await service.producer.called()
        await service.sleeping(1)
        service.clock.tick(4)
        await production.start()
        follower = Exchange(service.app)
        service.clock.tick(20)
        await production.last(b"two")
        assert (await leader.reply()).body == (await follower.reply()).body == b"one two"

    run(test())


def test_a_handler_that_fails_is_not_waited_for_until_it_would_be_late() -> None:
    async def test() -> None:
        service = Service(HARD)
        asking = [Exchange(service.app) for _ in range(3)]
        production = await service.producer.called()
        await turns()
        production.order(LookupError("at once"))
        for each in asking:
            with pytest.raises(LookupError, match="at once"):
                await each.reply()
        assert service.clock.sleeping == 0

    run(test())


def test_a_handler_that_returns_without_an_answer_is_not_waited_for_either() -> None:
    async def test() -> None:
        service = Service(HARD)
        asking = Exchange(service.app)
        production = await service.producer.called()
        production.order(None)
        assert (await asking.reply()).messages == []

    run(test())


@pytest.mark.parametrize("policy", [Policy(ttl=60), HARD])
def test_a_function_that_is_too_late_for_its_handler_is_the_handlers_error_and_no_504(policy: Policy) -> None:
    """Also where the response has begun: a second one cannot."""

    async def test() -> None:
        clock = TickingClock()
        cache = TierCache(clock=clock)

        @cache.cached("f", ttl=60, hard_timeout=1)
        async def slow() -> None:
            await asyncio.Event().wait()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["query_string"]:
                await send({"type": "http.response.start", "status": 200, "headers": []})
            await slow()

        through = ours(app, policy, cache)
        for query, messages in ((b"", 0), (b"begin", 1)):
            exchange = Exchange(through, http_scope(query=query))
            await until(lambda: clock.sleeping >= 1)
            await turns()
            clock.tick(1)
            with pytest.raises(TooLateError):
                await exchange.reply()
            assert len(exchange.messages) == messages

    run(test())


def test_under_validation_a_304_in_time_renews_and_one_too_late_leaves_what_is_stale() -> None:
    async def test() -> None:
        clock = TickingClock()
        cache, origin = TierCache(clock=clock), Origin("max-age=10", clock=clock)
        app = app_of(origin.handler, Policy.http(hard_timeout=5), cache=cache)
        await ask(app)
        clock.tick(10)
        assert "fwd-status=304" in (await ask(app)).cache_status
        clock.tick(10)
        origin.open.clear()
        asking = [Exchange(app) for _ in range(3)]
        await until(lambda: origin.handler.calls == 3 and clock.sleeping == 1)
        clock.tick(5)
        replies = [await each.reply() for each in asking]
        assert [reply.body for reply in replies] == [b"version 1"] * 3
        assert "detail=stale-if-error" in replies[0].cache_status
        assert origin.answers == [200, 304]

    run(test())


def test_soft_under_validation_the_304_renews_what_is_stored() -> None:
    async def test() -> None:
        clock = TickingClock()
        cache, origin = TierCache(clock=clock), Origin("max-age=10", clock=clock)
        app = app_of(origin.handler, Policy.http(soft_timeout=1), cache=cache)
        await ask(app)
        clock.tick(10)
        origin.open.clear()
        asking = Exchange(app)
        await until(lambda: origin.handler.calls == 2 and clock.sleeping == 1)
        clock.tick(1)
        assert "stale" in (await asking.reply()).cache_status
        origin.open.set()
        await until(lambda: is_idle(cache))
        assert (await ask(app)).hit
        assert origin.answers == [200, 304]

    run(test())


def test_where_dependencies_run_always_they_are_part_of_what_may_take_so_long() -> None:
    async def test() -> None:
        clock = TickingClock()
        cache = TierCache(clock=clock)
        policy = Policy(ttl=60, dependencies="always", hard_timeout=5)
        app, calls = FastAPI(), list[int]()
        app.add_middleware(TierCacheMiddleware, cache=cache, routes={"/": policy})

        async def slow() -> None:
            calls.append(1)
            await asyncio.Event().wait()

        @app.get("/", dependencies=[Depends(slow)])
        async def endpoint() -> None: ...

        asking = [Exchange(app) for _ in range(3)]
        await until(lambda: len(calls) == 1 and clock.sleeping == 1)
        await turns()
        clock.tick(5)
        assert [(await each.reply()).status for each in asking] == [504] * 3
        assert len(calls) == 1

    run(test())


@pytest.mark.parametrize("kind", ["unshareable", "part"])
def test_a_handler_that_runs_for_one_request_alone_has_no_more_time(kind: str) -> None:
    async def test() -> None:
        service = Service(Policy.http(ttl=60, hard_timeout=5))
        headers: Any = []
        if kind == "part":
            headers = [(b"range", b"bytes=0-1")]
        else:
            await service.store(b"own", (b"cache-control", b"no-store"), seconds=1)
        calls = service.producer.calls
        asking = [Exchange(service.app, http_scope(headers=headers)) for _ in range(2)]
        await service.producer.called(calls + 2)
        await service.sleeping(2)
        service.clock.tick(5)
        assert [(await each.reply()).status for each in asking] == [504] * 2
        await until(lambda: all(production.over for production in service.producer.productions))

    run(test())


def test_what_a_cancelled_handler_still_says_reaches_nobody() -> None:
    async def test() -> None:
        said: list[str] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"no-store")]})
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                with pytest.raises(OSError, match="nobody waits"):
                    await send({"type": "http.response.body", "body": b"late"})
                said.append("late")

        cache = TierCache(clock=TickingClock())
        alone = Exchange(ours(app, Policy.http(hard_timeout=5), cache), http_scope(headers=[(b"range", b"bytes=0-1")]))
        await alone.until(1)
        await alone.cancel()
        await until(lambda: said == ["late"])
        assert len(alone.messages) == 1

    run(test())


def test_the_seconds_of_the_handler_do_not_count_while_nobody_has_called_it() -> None:
    """Such as while another worker is waited for: see test_one_worker_fills.py; nor does a hit take any."""

    async def test() -> None:
        service = Service(HARD)
        await service.store(seconds=0)
        assert (await ask(service.app)).hit
        assert service.clock.sleeping == 0

    run(test())


# ---- handlers that never end ----


def test_a_handler_that_never_returns_is_ended_when_nobody_has_waited_for_it_for_long() -> None:
    async def test() -> None:
        service = Service(Policy(ttl=60))
        leader = Exchange(service.app)
        production = await service.producer.called()
        await leader.cancel()
        await turns()
        overdue = [production.over]
        hurry(REFRESH_SECONDS + 1)
        await turns()
        assert [*overdue, production.over] == [False, True]
        assert is_idle(service.cache)

    run_hurried(test())


def test_nobody_joins_a_handler_that_has_run_for_long_and_a_new_one_takes_its_place() -> None:
    async def test() -> None:
        service = Service(Policy(ttl=60))
        stuck = Exchange(service.app)
        await service.producer.called()
        service.clock.tick(REFRESH_SECONDS)
        fresh = Exchange(service.app)
        production = await service.producer.called(2)
        await production.start(content=None)
        await production.last(b"new")
        assert (await fresh.reply()).body == b"new"
        assert (await ask(service.app)).hit
        await stuck.cancel()

    run(test())


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_renewal_that_never_ends_is_given_up_and_what_it_says_later_is_not_stored(stubborn: bool) -> None:
    async def test() -> None:
        service = Service(Policy(ttl=60, stale_while_revalidate=300), stubborn=stubborn)
        await service.store()
        assert (await ask(service.app)).body == b"old"
        stuck = await service.producer.called(2)
        await service.sleeping(1)
        service.clock.tick(REFRESH_SECONDS)
        await service.idle()
        assert service.cache.stats()["refreshes"] == {"failed": 1}
        if stubborn:
            stuck.order({"type": "http.response.start", "status": 200, "headers": []})
            stuck.order({"type": "http.response.body", "body": b"late"})
            stuck.order(None)
            await until(lambda: stuck.over)
        assert (await ask(service.app)).body == b"old"
        production = await service.producer.called(3)
        await production.start(content=None)
        await production.last(b"new")
        await service.idle()
        assert (await ask(service.app)).body == b"new"

    run(test())


def test_wherever_the_wall_clock_jumps_to_what_is_under_way_comes_to_its_end() -> None:
    async def test() -> None:
        for jump in (-86_400.0, 86_400.0):
            service = Service(SOFT.but(hard_timeout=5))
            asking = [Exchange(service.app) for _ in range(3)]
            production = await service.producer.called()
            service.clock.jump(jump)
            await production.start(content=None)
            service.clock.jump(-2 * jump)
            await production.last(b"text")
            assert [(await each.reply()).body for each in asking] == [b"text"] * 3
            await service.idle()
            assert service.clock.sleeping == 0

    run(test())


def test_what_is_made_of_a_504_has_the_tags_of_what_was_too_late() -> None:
    async def test() -> None:
        service = Service(Policy(ttl=60, tags=["t"], hard_timeout=5))
        statuses: list[int] = []

        @service.cache.cached("outer", ttl=60)
        async def outer() -> int:
            statuses.append((await Exchange(service.app).reply()).status)
            return len(statuses)

        waiting = asyncio.create_task(outer())
        await service.producer.called()
        await service.sleeping(1)
        service.clock.tick(5)
        assert [await waiting, await outer()] == [1, 1]
        await service.cache.invalidate("t")
        waiting = asyncio.create_task(outer())
        production = await service.producer.called(2)
        await production.start(content=None)
        await production.last()
        assert [await waiting, statuses] == [2, [504, 200]]

    run(test())
