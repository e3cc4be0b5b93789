"""Responses are renewed before they expire: by whoever asks shortly before, or without anybody asking."""

from __future__ import annotations

import asyncio
import gc
from contextvars import ContextVar
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from asgi_tiercache import Policy, Region, TierCache
from asgi_tiercache.engine.background import MAX_FOR_EACH
from asgi_tiercache.keys.withhold import NOBODYS_ADDRESS
from asgi_tiercache.testing import ScriptedLeases, TickingClock
from asgi_tiercache.types import Entry
from tests.engine.doubles import Fleet
from tests.middleware.apps import Handler, app_of
from tests.middleware.asgi import Exchange, Reply, ask, http_scope, run, turns, until
from tests.middleware.producers import hurry, is_idle, ours, run_hurried

EARLY = Policy(ttl=60, tags=["t"], early_refresh=1)
AHEAD = Policy(ttl=60, tags=["t"], refresh_ahead=True)
FILL_SECONDS = 2.0


class Origin:
    """An app that answers with the number of the call, after some ticks of the clock; or fails, as it is told."""

    def __init__(self, clock: TickingClock, seconds: float = FILL_SECONDS) -> None:
        self.scopes: list[Scope] = []
        self.fails = False
        self.headers: list[tuple[bytes, bytes]] = []
        self._clock, self._seconds = clock, seconds

    @property
    def calls(self) -> int:
        return len(self.scopes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        number = self.calls
        await self._clock.sleep(self._seconds)
        if self.fails:
            raise LookupError("told to fail")
        await send({"type": "http.response.start", "status": 200, "headers": list(self.headers)})
        await send({"type": "http.response.body", "body": b"%d" % number})


class Service:
    def __init__(self, policy: Policy, *, cache: TierCache | None = None, clock: TickingClock | None = None) -> None:
        self.clock = clock or TickingClock()
        self.cache = cache or TierCache(clock=self.clock, random=lambda: 0.0)
        self.origin = Origin(self.clock)
        self.app = ours(self.origin, policy, self.cache, paths=("/", "/a", "/b"))

    async def ask(self, **scope: Any) -> Reply:
        """Ask, and let the clock tick until there is an answer."""
        exchange = Exchange(self.app, http_scope(**scope))
        await turns()
        while not exchange.task.done():
            self.clock.tick(FILL_SECONDS)
            await turns()
        return await exchange.reply()

    async def tick(self, seconds: float) -> None:
        """Let `seconds` go by, one at a time, and everything that is to be done then be done."""
        for _ in range(int(seconds)):
            self.clock.tick(1.0)
            await turns()

    @property
    def refreshes(self) -> dict[str, int]:
        counts: dict[str, int] = self.cache.stats()["refreshes"]
        return counts


# ---- early refresh ----


def test_at_a_thousand_requests_a_second_nobody_waits_after_the_first_fill() -> None:
    """And there are two fills in each lifetime more than without, at the most."""

    async def test() -> None:
        clock = TickingClock()
        cache = TierCache(clock=clock, random=Random(5).random)
        origin = Origin(clock, seconds=0.3)
        app = ours(origin, Policy(ttl=5, early_refresh=1), cache)
        first = asyncio.ensure_future(Exchange(app).reply())
        await turns()
        clock.tick(0.3)
        await first
        for period in range(4):
            before = origin.calls
            for _ in range(5_000):
                clock.tick(0.001)
                exchange = Exchange(app)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                if not exchange.task.done():
                    await turns()
                assert exchange.task.done(), f"a request waits in period {period}"
            assert 1 <= origin.calls - before <= 3
        await turns()
        clock.tick(1)
        await until(lambda: is_idle(cache))

    run(test())


def test_who_asks_shortly_before_the_expiry_is_answered_at_once_and_the_response_is_renewed() -> None:
    async def test() -> None:
        service = Service(EARLY)
        await service.ask()
        service.clock.tick(30)
        assert (await ask(service.app)).body == b"1"
        assert service.origin.calls == 1
        service.clock.tick(25)
        replies = [await ask(service.app) for _ in range(5)]
        assert {(reply.body, "detail=L1" in reply.cache_status) for reply in replies} == {(b"1", True)}
        await service.tick(FILL_SECONDS)
        assert (await ask(service.app)).body == b"2"
        assert (service.origin.calls, service.refreshes) == (2, {"stored": 1})

    run(test())


def test_a_renewal_that_fails_goes_on_serving_and_is_not_tried_again_before_the_expiry() -> None:
    async def test() -> None:
        service = Service(EARLY)
        await service.ask()
        service.clock.tick(55)
        service.origin.fails = True
        await ask(service.app)
        await service.tick(FILL_SECONDS)
        assert service.refreshes == {"failed": 1}
        assert [(await ask(service.app)).body for _ in range(5)] == [b"1"] * 5
        assert service.origin.calls == 2
        service.origin.fails = False
        service.clock.tick(10)
        assert (await service.ask()).body == b"3"

    run(test())


def test_what_another_worker_has_renewed_is_adopted() -> None:
    async def test() -> None:
        fleet = Fleet()
        leases = ScriptedLeases(fleet.clock)
        caches = [fleet.worker(leases=leases, random=lambda: 0.0) for _ in range(2)]
        workers = [Service(EARLY, cache=cache, clock=fleet.clock) for cache in caches]
        for cache in caches:
            await cache.start()
        await workers[0].ask()
        assert "detail=L2" in (await ask(workers[1].app)).cache_status
        await workers[1].cache.engine.stack.flush()  # type: ignore[union-attr]
        fleet.clock.tick(55)
        await ask(workers[0].app)
        await workers[0].tick(FILL_SECONDS)
        # The second one has measured no fill, so nothing is early to it; its entry is past its time by then.
        fleet.clock.tick(3)
        reply = await ask(workers[1].app)
        assert (reply.body, "detail=L2" in reply.cache_status) == (b"2", True)
        assert (workers[0].origin.calls, workers[1].origin.calls) == (2, 0)
        for cache in caches:
            await cache.aclose()

    run(test())


def test_what_another_worker_is_renewing_is_left_to_it() -> None:
    async def test() -> None:
        fleet = Fleet()
        leases = ScriptedLeases(fleet.clock)
        cache = fleet.worker(leases=leases, random=lambda: 0.0)
        service = Service(EARLY, cache=cache, clock=fleet.clock)
        await cache.start()
        await service.ask()
        await turns()
        (key,) = fleet.tier.data
        fleet.clock.tick(55)
        leases.seize(key, 10)
        assert (await ask(service.app)).body == b"1"
        await turns()
        assert (service.origin.calls, service.refreshes) == (1, {"elsewhere": 1})
        await cache.aclose()

    run(test())


def test_variants_are_renewed_each_for_itself() -> None:
    async def test() -> None:
        service = Service(EARLY)
        service.origin.headers = [(b"vary", b"accept-language")]
        languages = [[(b"accept-language", language)] for language in (b"de", b"fr")]
        for headers in languages:
            await service.ask(headers=headers)
        service.clock.tick(53)
        for headers in languages:
            assert (await ask(service.app, headers=headers)).hit
        await service.tick(FILL_SECONDS)
        assert service.origin.calls == 4
        for headers in languages:
            assert (await ask(service.app, headers=headers)).hit
        asked = [dict(scope["headers"])[b"accept-language"] for scope in service.origin.scopes]
        assert asked == [b"de", b"fr", b"de", b"fr"]

    run(test())


# ---- refresh-ahead ----


async def regular(service: Service, times: int = 4, gap: float = 20, **scope: Any) -> None:
    """Ask so many times, `gap` seconds apart."""
    for _ in range(times):
        await service.ask(**scope)
        await service.tick(gap)


def test_what_is_asked_for_regularly_is_renewed_before_anybody_asks() -> None:
    async def test() -> None:
        service = Service(AHEAD)
        await regular(service, 3)
        assert service.origin.calls == 2, "by itself, shortly before the 60 seconds are over"
        assert (await ask(service.app)).body == b"2"
        await service.cache.aclose()

    run(test())


def test_what_nobody_asks_for_any_more_is_renewed_twice_at_most() -> None:
    async def test() -> None:
        service = Service(AHEAD)
        await regular(service, 3)
        calls = service.origin.calls
        await service.tick(600)
        assert calls <= service.origin.calls <= calls + 2
        assert service.clock.sleeping == 0
        await service.cache.aclose()

    run(test())


def test_what_was_asked_for_once_is_not_renewed() -> None:
    async def test() -> None:
        service = Service(AHEAD)
        await service.ask()
        await service.tick(600)
        assert service.origin.calls == 1
        await service.cache.aclose()

    run(test())


def test_a_renewal_without_a_request_has_nobodys_identity() -> None:
    async def test() -> None:
        service = Service(AHEAD.but(strict=False, ignore=["cookie", "authorization", "session", "user", "auth"]))
        somebody: dict[str, Any] = {
            "headers": [(b"cookie", b"session=secret"), (b"authorization", b"Bearer secret"), (b"x-a", b"1")],
            "session": {"user": "somebody"},
            "user": "somebody",
            "auth": "everything",
            "client": ("203.0.113.9", 1234),
        }
        await regular(service, 3, **somebody)
        renewed = service.origin.scopes[1]
        assert dict(renewed["headers"]) == {b"host": b"example.org", b"x-a": b"1"}
        assert renewed["client"] == NOBODYS_ADDRESS
        assert renewed["session"] == {}
        assert not getattr(renewed["user"], "is_authenticated", True)
        assert "secret" not in repr(renewed)
        assert "somebody" not in repr(renewed)
        await service.cache.aclose()

    run(test())


def test_a_renewal_without_a_request_has_what_the_key_holds_and_the_state_of_the_lifespan() -> None:
    """A response for a user that was made without the user would be somebody else's."""

    async def test() -> None:
        policy = AHEAD.but(user=lambda scope: scope["session"].get("user"))
        service = Service(policy)
        state = {"database": object()}
        session = {"user": "u1"}
        await regular(service, 3, session=session, state=state)
        first, renewed = service.origin.scopes[:2]
        assert renewed["session"] == {"user": "u1"}
        assert renewed["session"] is not session
        assert renewed["state"]["database"] is first["state"]["database"]
        await service.cache.aclose()

    run(test())


def test_watching_a_key_keeps_nothing_that_memory_had_no_room_for() -> None:
    async def test() -> None:
        service = Service(replace(AHEAD, region=Region(name="small", max_entries=1)))
        for path in ("/a", "/b"):
            for _ in range(2):
                await service.ask(path=path)
        gc.collect()
        epoch = service.cache.engine.invalidation.stamp().epoch  # no other test's
        held = [each for each in gc.get_objects() if isinstance(each, Entry) and each.stamp.epoch == epoch]
        assert [entry.body for entry in held] == [b"2"]
        del held
        await service.tick(60)
        assert [scope["path"] for scope in service.origin.scopes] == ["/a", "/b", "/b"]
        await service.cache.aclose()

    run(test())


def test_variants_have_rhythms_of_their_own() -> None:
    async def test() -> None:
        service = Service(AHEAD)
        service.origin.headers = [(b"vary", b"accept-language")]
        for turn in range(6):
            assert (await service.ask(headers=[(b"accept-language", b"de")])).hit is (turn > 0)
            if turn == 0:
                await service.ask(headers=[(b"accept-language", b"fr")])
            await service.tick(20)
        asked = [dict(scope["headers"])[b"accept-language"] for scope in service.origin.scopes]
        assert asked.count(b"fr") == 1
        assert asked.count(b"de") >= 2
        await service.cache.aclose()

    run(test())


def test_what_another_worker_has_renewed_ahead_is_adopted_and_watched_on() -> None:
    async def test() -> None:
        fleet = Fleet()
        leases = ScriptedLeases(fleet.clock)
        caches = [fleet.worker(leases=leases, random=lambda: 0.0) for _ in range(2)]
        workers = [Service(AHEAD, cache=cache, clock=fleet.clock) for cache in caches]
        for cache in caches:
            await cache.start()
        for _ in range(14):
            for worker in workers:
                await worker.ask()
            await workers[0].tick(20)
        misses = sum(cache.stats()["answers"]["misses"] for cache in caches)
        assert misses == 1
        assert workers[0].origin.calls + workers[1].origin.calls <= 7
        for cache in caches:
            await cache.aclose()

    run(test())


def test_what_was_invalidated_is_made_anew_and_not_served() -> None:
    async def test() -> None:
        service = Service(AHEAD)
        await regular(service, 2)
        await service.cache.invalidate("t")
        assert (await service.ask()).body == b"2"
        await service.cache.aclose()

    run(test())


def test_renewals_are_bounded_for_each_route_and_what_waits_is_dropped_at_the_end() -> None:
    async def test() -> None:
        service = Service(AHEAD)
        keys = [b"n=%d" % number for number in range(3 * MAX_FOR_EACH)]
        for _ in range(2):
            asking = [Exchange(service.app, http_scope(query=query)) for query in keys]
            await turns()
            await service.tick(FILL_SECONDS)
            for each in asking:
                await each.reply()
            service.clock.tick(20)
        calls = service.origin.calls
        most = 0
        for _ in range(60):
            service.clock.tick(1)
            await turns()
            most = max(most, len(service.cache.engine.fills.tasks()))
        assert service.origin.calls > calls
        assert most <= MAX_FOR_EACH
        closing = asyncio.ensure_future(service.cache.aclose())
        await service.tick(FILL_SECONDS)
        await closing
        await turns()
        assert is_idle(service.cache)

    run(test())


def test_closing_ends_the_watch() -> None:
    async def test() -> None:
        service = Service(AHEAD)
        await regular(service, 2, gap=10)
        assert service.clock.sleeping == 1
        await service.cache.aclose()
        await turns()
        assert service.clock.sleeping == 0
        calls = service.origin.calls
        await service.tick(200)
        assert service.origin.calls == calls

    run(test())


# ---- shutdown ----


@pytest.mark.parametrize("ends", [True, False])
def test_closing_waits_for_a_renewal_and_cancels_it_after_five_seconds(ends: bool) -> None:
    async def test() -> None:
        service = Service(EARLY)
        await service.ask()
        service.clock.tick(55)
        await ask(service.app)
        await turns()
        closing = asyncio.ensure_future(service.cache.aclose())
        await turns()
        hurry(4.5)
        await turns()
        assert not closing.done()
        if ends:
            await service.tick(FILL_SECONDS)
        else:
            hurry(1.0)
        await closing
        await turns()
        assert is_idle(service.cache)
        assert service.refreshes == ({"stored": 1} if ends else {})
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_hurried(test())


def test_closing_cancels_a_renewal_that_has_stored_its_response_and_never_ends() -> None:
    async def test() -> None:
        cache = TierCache(clock=(clock := TickingClock()), random=lambda: 0.0)
        calls = 0

        async def origin(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal calls
            calls += 1
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"%d" % calls})
            if calls > 1:
                await asyncio.Event().wait()

        app = ours(origin, Policy(ttl=60, stale_while_revalidate=60), cache)
        await ask(app)
        clock.tick(70)
        await ask(app)
        await turns()
        assert (await ask(app)).body == b"2"
        closing = asyncio.ensure_future(cache.aclose())
        await turns()
        hurry(5.5)
        await closing
        await turns()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_hurried(test())


def test_closing_leaves_a_request_that_waits_for_its_own_response_alone() -> None:
    async def test() -> None:
        service = Service(EARLY)
        leader = Exchange(service.app)
        await turns()
        closing = asyncio.ensure_future(service.cache.aclose())
        await turns()
        hurry(6.0)
        await closing
        await service.tick(FILL_SECONDS)
        assert (await leader.reply()).body == b"1"

    run_hurried(test())


def test_what_is_made_anew_knows_no_context_variable_of_whoever_set_it_off() -> None:
    async def test() -> None:
        user: ContextVar[str] = ContextVar("user", default="nobody")
        seen: list[str] = []

        def respond(_: Request) -> Response:
            seen.append(user.get())
            return PlainTextResponse(f"{len(seen)}")

        clock = TickingClock()
        cache = TierCache(clock=clock)
        app = app_of(Handler(respond), Policy(ttl=10, stale_while_revalidate=100), cache=cache)
        user.set("alice")
        await ask(app)
        clock.tick(11)
        user.set("bob")
        assert (await ask(app)).body == b"1"
        await until(lambda: len(seen) == 2)
        assert seen == ["alice", "nobody"]
        await cache.aclose()

    run(test())
