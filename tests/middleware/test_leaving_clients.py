"""Any of twenty clients leave, at any moment: the others are answered, and nothing is left behind."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_tiercache import Policy, TierCache
from asgi_tiercache.testing import ScriptedLeases, TickingClock
from tests.engine.doubles import Fleet
from tests.middleware.asgi import Exchange, Reply
from tests.middleware.producers import ours
from tests.tiers.doubles import ticks

CLIENTS = 20
POLICIES = st.sampled_from(
    [
        Policy(ttl=60, tags=["t"]),
        Policy(ttl=60, tags=["t"], hard_timeout=50),
        Policy(ttl=60, tags=["t"], max_body=40),
        Policy(ttl=60, tags=["t"], stale_if_error=300, soft_timeout=1),
        Policy.http(ttl=60, tags=["t"]),
    ]
)
Leaving = st.lists(
    st.tuples(st.integers(0, CLIENTS - 1), st.integers(0, 12), st.sampled_from(["cancel", "disconnect"])),
    max_size=CLIENTS,
)
"""Who leaves, how many turns of the loop after the one who left before, and how."""
Behaviour = st.fixed_dictionaries(
    {
        "steps": st.integers(0, 10),
        "parts": st.integers(0, 5),
        "kind": st.sampled_from(["", "", "no-store", "raises", "500", "too-short", "late-no-store"]),
        "stubborn": st.booleans(),
    }
)


class Handler:
    """Sends so many parts, with some turns of the loop before each."""

    def __init__(self, *, steps: int, parts: int, kind: str, stubborn: bool) -> None:
        self.running = 0
        self._steps, self._parts, self._stubborn = steps, parts, stubborn
        self.kind = kind

    @property
    def whole(self) -> bytes:
        return b"".join(b"part %d " % number for number in range(self._parts)) + b"end"

    def of(self, cache: TierCache) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            self.running += 1
            try:
                await receive()
                await self._wait()
                await self._answer(cache, send)
                await self._wait()
            finally:
                self.running -= 1

        return app

    async def _answer(self, cache: TierCache, send: Send) -> None:
        headers = [(b"cache-control", b"no-store")] if self.kind == "no-store" else []
        if self.kind == "too-short":
            headers = [(b"content-length", b"%d" % (len(self.whole) + 1))]
        status = 500 if self.kind == "500" else 200
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for number in range(self._parts):
            await send({"type": "http.response.body", "body": b"part %d " % number, "more_body": True})
            await self._wait()
        if self.kind == "raises":
            raise ValueError("half way")
        if self.kind == "late-no-store":
            cache.current.no_store()
        await send({"type": "http.response.body", "body": b"end"})

    async def _wait(self) -> None:
        for _ in range(self._steps):
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                if not self._stubborn:
                    raise


async def leave(clients: list[Exchange], leaving: list[tuple[int, int, str]]) -> set[Exchange]:
    left = set()
    for number, turns, how in leaving:
        await ticks(turns)
        client = clients[number]
        if how == "disconnect":
            client.disconnect()
            left.add(client)
        elif client.task.cancel():
            left.add(client)
    return left


async def all_is_well(caches: list[TierCache], handler: Handler, clients: list[Exchange], left: set[Exchange]) -> None:
    outcomes = await asyncio.gather(*(client.task for client in clients), return_exceptions=True)
    for client, outcome in zip(clients, outcomes, strict=True):
        if client in left:
            continue
        if outcome is None:
            assert Reply(client.messages).body == handler.whole
        else:
            assert isinstance(outcome, OSError | ValueError), outcome
            assert handler.kind in ("raises", "too-short", "late-no-store"), outcome
    await ticks(60)
    assert handler.running == 0
    for cache in caches:
        assert cache.engine.fills.tasks() == []
        await cache.aclose()
    await ticks(10)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@settings(max_examples=200)
@given(leaving=Leaving, behaviour=Behaviour, policy=POLICIES, finish=st.booleans())
def test_of_one_process(
    leaving: list[tuple[int, int, str]], behaviour: dict[str, Any], policy: Policy, finish: bool
) -> None:
    async def body() -> None:
        cache = TierCache(clock=TickingClock())
        handler = Handler(**behaviour)
        app = ours(handler.of(cache), policy.but(finish=finish), cache)
        clients = [Exchange(app) for _ in range(CLIENTS)]
        left = await leave(clients, leaving)
        await all_is_well([cache], handler, clients, left)

    asyncio.run(body())


async def befall(fleet: Fleet, leases: ScriptedLeases, cache: TierCache, trouble: str) -> None:
    if trouble == "seize":
        for key in leases.held:
            leases.seize(key, 3.0)
    elif trouble == "fail":
        leases.fail()
    elif trouble == "recover":
        leases.recover()
    elif trouble == "tick":
        fleet.clock.tick(1.0)
    elif trouble == "jump":
        fleet.clock.jump(-3600.0)
    else:
        await cache.invalidate("t")


@settings(max_examples=100)
@given(
    leaving=Leaving,
    behaviour=Behaviour,
    policy=POLICIES,
    finish=st.booleans(),
    troubles=st.lists(st.sampled_from(["seize", "fail", "recover", "tick", "jump", "invalidate"]), max_size=4),
)
def test_of_a_fleet_whose_leases_are_taken_lost_and_out_of_reach(
    leaving: list[tuple[int, int, str]], behaviour: dict[str, Any], policy: Policy, finish: bool, troubles: list[str]
) -> None:
    async def body() -> None:
        fleet = Fleet()
        leases = ScriptedLeases(fleet.clock)
        caches = [fleet.worker(leases=leases) for _ in range(2)]
        handler = Handler(**behaviour)
        apps = [ours(handler.of(cache), policy.but(finish=finish, lock_wait=4), cache) for cache in caches]
        for cache in caches:
            await cache.start()
        clients = [Exchange(apps[number % 2]) for number in range(CLIENTS)]
        leavers = asyncio.create_task(leave(clients, leaving))
        for trouble in troubles:
            await ticks(3)
            await befall(fleet, leases, caches[0], trouble)
        left = await leavers
        while not all(client.task.done() for client in clients):
            await ticks(5)
            fleet.clock.tick(1.0)
        await all_is_well(caches, handler, clients, left)
        assert leases.waiting == 0
        fleet.clock.tick(3.0)
        assert leases.held == []

    asyncio.run(body())


@settings(max_examples=200)
@given(
    leaving=Leaving,
    behaviour=Behaviour,
    finish=st.booleans(),
    options=st.fixed_dictionaries(
        {},
        optional={
            "soft_timeout": st.just(1.5),
            "hard_timeout": st.sampled_from([2, 3]),
            "stale_while_revalidate": st.sampled_from([1, 30]),
            "early_refresh": st.just(1),
            "refresh_ahead": st.just(True),
            "max_body": st.just(40),
        },
    ),
    age=st.sampled_from([0, 59, 60, 62]),
)
def test_where_something_older_is_stored(
    leaving: list[tuple[int, int, str]], behaviour: dict[str, Any], finish: bool, options: dict[str, Any], age: float
) -> None:
    async def body() -> None:
        clock = TickingClock()
        cache = TierCache(clock=clock)
        old, handler = Handler(steps=0, parts=1, kind="", stubborn=False), Handler(**behaviour)
        handlers = [old.of(cache)]

        async def either(scope: Scope, receive: Receive, send: Send) -> None:
            await handlers[-1](scope, receive, send)

        app = ours(either, Policy(ttl=60, stale_if_error=300, finish=finish, **options), cache)
        await Exchange(app).reply()
        clock.tick(age)
        handlers.append(handler.of(cache))
        clients = [Exchange(app) for _ in range(CLIENTS)]
        leavers = asyncio.create_task(leave(clients, leaving))
        while not (leavers.done() and all(client.task.done() for client in clients)):
            await ticks(3)
            clock.tick(0.5)
        left = leavers.result()
        await asyncio.gather(*(client.task for client in clients), return_exceptions=True)
        for client in set(clients) - left:
            if client.task.exception() is None:
                reply = Reply(client.messages)
                assert reply.body in (old.whole, handler.whole)
                assert reply.status == 200, "there is something that may stand in"
            else:
                assert behaviour["kind"] in ("raises", "too-short", "late-no-store")
        for _ in range(50):
            await ticks(3)
            clock.tick(2.0)
        await ticks(200)  # what has been begun ahead of an expiry may be under way still
        assert handler.running == 0
        await cache.aclose()
        await ticks(10)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(body())
