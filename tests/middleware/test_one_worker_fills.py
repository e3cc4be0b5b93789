"""Of several workers that want the same response one makes it; the others wait for it, look, and go on without it."""

from __future__ import annotations

import asyncio

import pytest

from asgi_tiercache import Policy
from asgi_tiercache.engine.core import LEASE_SECONDS
from asgi_tiercache.testing import ScriptedLeases
from asgi_tiercache.tiers.leases import Ended
from tests.engine.doubles import Fleet
from tests.middleware.asgi import Exchange, Reply, ask, http_scope, run, turns, until
from tests.middleware.producers import Header, Producer, Production, is_idle, ours

POLICY = Policy(ttl=60, tags=["t"])
VARYING: Header = (b"vary", b"accept-language")


class Workers:
    """So many apps behind the middleware over one tier, one set of leases and one producer."""

    def __init__(self, policy: Policy = POLICY, number: int = 2) -> None:
        self.fleet = Fleet()
        self.clock = self.fleet.clock
        self.leases = ScriptedLeases(self.clock)
        self.caches = [self.fleet.worker(leases=self.leases, random=lambda: 0.0) for _ in range(number)]
        self.producer = Producer()
        self.apps = [ours(self.producer, policy, cache) for cache in self.caches]

    def ask(self, number: int, *headers: Header) -> Exchange:
        return Exchange(self.apps[number], http_scope(headers=headers))

    async def __aenter__(self) -> Workers:
        for cache in self.caches:
            await cache.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for cache in self.caches:
            await cache.aclose()

    async def waiting(self, number: int) -> None:
        """Return when so many workers wait for a lease."""
        await until(lambda: self.leases.waiting == number)
        await turns()

    async def idle(self) -> None:
        await turns()
        await until(lambda: all(map(is_idle, self.caches)))

    async def answer(self, number: int, content: bytes = b"text", *headers: Header, status: int = 200) -> Production:
        """Have the call with that number answer."""
        production = await self.producer.called(number)
        await production.start(*headers, status=status, content=None)
        await production.last(content)
        return production

    async def store(self, content: bytes = b"old", *headers: Header) -> None:
        """Have it stored by the first worker, and known to all."""
        first = self.ask(0)
        await self.answer(1, content, *headers)
        await first.reply()
        for cache in self.caches:
            assert cache.engine.stack is not None
            await cache.engine.stack.flush()
        for app in self.apps:
            assert (await ask(app)).hit


def test_fifty_requests_on_each_of_four_workers_are_one_call() -> None:
    async def test() -> None:
        async with Workers(number=4) as workers:
            asking = [workers.ask(number % 4) for number in range(200)]
            await workers.waiting(3)
            await workers.answer(1)
            replies = [await each.reply() for each in asking]
            assert {reply.body for reply in replies} == {b"text"}
            assert workers.producer.calls == 1
            assert sum("hit" in reply.cache_status and "detail=L2" in reply.cache_status for reply in replies) == 3
            assert sum("collapsed; detail=flight" in reply.cache_status for reply in replies) == 196
            assert workers.leases.held == []

    run(test())


def test_the_lease_ends_with_the_write_and_the_client_does_not_wait_for_that() -> None:
    async def test() -> None:
        async with Workers() as workers:
            mine, theirs = workers.ask(0), workers.ask(1)
            await workers.waiting(1)
            workers.fleet.tier.hang()
            await workers.answer(1)
            assert (await mine.reply()).body == b"text"
            await turns()
            assert len(workers.leases.held) == 1
            assert not theirs.task.done()
            workers.fleet.tier.recover()
            assert "detail=L2" in (await theirs.reply()).cache_status
            assert workers.leases.held == []

    run(test())


@pytest.mark.parametrize(
    ("headers", "status"), [([(b"cache-control", b"no-store")], 200), ([(b"set-cookie", b"a=1")], 200), ([], 503)]
)
def test_what_may_not_be_shared_ends_the_lease_at_once_and_each_worker_asks(headers: list[Header], status: int) -> None:
    """Before the end of the response, and long before that of what the handler does after it."""

    async def test() -> None:
        async with Workers(number=3) as workers:
            asking = [workers.ask(number) for number in range(3)]
            await workers.waiting(2)
            first = await workers.producer.called()
            await first.start(*headers, status=status)
            await workers.producer.called(3)
            assert not first.over
            assert workers.leases.calls.count("acquire") == 3
            for number in (1, 2):
                await workers.producer.productions[number].start(*headers, status=status)
            for production in workers.producer.productions:
                await production.last(b"two")
            assert [(await each.reply()).body for each in asking] == [b"one two"] * 3

    run(test())


def test_a_handler_that_fails_lets_the_others_ask_at_once() -> None:
    async def test() -> None:
        async with Workers(number=3) as workers:
            asking = [workers.ask(number) for number in range(3)]
            await workers.waiting(2)
            (await workers.producer.called()).order(LookupError())
            for number in (2, 3):
                await workers.answer(number)
            outcomes = await asyncio.gather(*(each.task for each in asking), return_exceptions=True)
            assert sum(isinstance(outcome, LookupError) for outcome in outcomes) == 1
            assert workers.producer.calls == 3

    run(test())


def test_what_outgrows_the_bound_ends_the_lease_while_it_is_being_sent() -> None:
    async def test() -> None:
        async with Workers(POLICY.but(max_body=10)) as workers:
            mine, theirs = workers.ask(0), workers.ask(1)
            await workers.waiting(1)
            first = await workers.producer.called()
            await first.start(content=b"x" * 20)
            second = await workers.producer.called(2)
            await second.start(content=None)
            await second.last(b"small")
            assert (await theirs.reply()).body == b"small"
            await first.last()
            assert len((await mine.reply()).body) == 20

    run(test())


def test_without_finish_the_holder_that_leaves_lets_another_take_over() -> None:
    async def test() -> None:
        async with Workers(POLICY.but(finish=False)) as workers:
            mine = workers.ask(0)
            first = await workers.producer.called()
            theirs = workers.ask(1)
            await workers.waiting(1)
            await mine.cancel()
            await workers.answer(2)
            assert (await theirs.reply()).body == b"text"
            assert isinstance(first.ended, asyncio.CancelledError)

    run(test())


def test_a_holder_that_has_died_delays_the_others_by_its_lease() -> None:
    async def test() -> None:
        async with Workers() as workers:
            await workers.store()
            (key,) = [key for key in workers.fleet.tier.data if not key.endswith("lease")]
            workers.clock.tick(60)
            workers.leases.seize(key, LEASE_SECONDS)
            theirs = workers.ask(1)
            await workers.waiting(1)
            workers.clock.tick(LEASE_SECONDS - 0.1)
            await turns()
            assert workers.producer.calls == 1
            workers.clock.tick(0.1)
            await workers.answer(2, b"new")
            assert (await theirs.reply()).body == b"new"

    run(test())


@pytest.mark.parametrize("stale_if_error", [0, 300])
def test_who_has_waited_for_long_enough_serves_what_is_stale_or_asks(stale_if_error: float) -> None:
    async def test() -> None:
        async with Workers(POLICY.but(lock_wait=2, stale_if_error=stale_if_error)) as workers:
            await workers.store()
            workers.clock.tick(60)
            mine, theirs = workers.ask(0), [workers.ask(1) for _ in range(3)]
            await workers.producer.called(2)
            await workers.waiting(1)
            workers.clock.tick(2)
            if not stale_if_error:
                await workers.answer(3, b"their own")
            replies = [await each.reply() for each in theirs]
            assert {reply.body for reply in replies} == {b"old" if stale_if_error else b"their own"}
            if stale_if_error:
                assert all("-stale" in reply.cache_status or "flight" in reply.cache_status for reply in replies)
            await workers.answer(2, b"new")
            assert (await mine.reply()).body == b"new"

    run(test())


def test_what_was_invalidated_meanwhile_is_not_served_after_the_wait() -> None:
    async def test() -> None:
        async with Workers(POLICY.but(lock_wait=2, stale_if_error=300)) as workers:
            await workers.store()
            workers.clock.tick(60)
            mine, theirs = workers.ask(0), workers.ask(1)
            await workers.producer.called(2)
            await workers.waiting(1)
            await workers.caches[1].invalidate("t")
            workers.clock.tick(2)
            await workers.answer(3, b"new")
            assert (await theirs.reply()).body == b"new"
            await workers.answer(2, b"older")
            await mine.reply()

    run(test())


def test_the_hard_timeout_counts_from_the_handlers_call() -> None:
    async def test() -> None:
        async with Workers(POLICY.but(lock_wait=20, hard_timeout=5)) as workers:
            mine = workers.ask(0)
            first = await workers.producer.called()
            await first.start()
            theirs = workers.ask(1)
            await workers.waiting(1)
            workers.clock.tick(10)
            await turns()
            assert not theirs.task.done()
            await first.last(b"two")
            assert "detail=L2" in (await theirs.reply()).cache_status
            await mine.reply()

    run(test())


def test_the_soft_timeout_counts_while_another_worker_is_waited_for() -> None:
    async def test() -> None:
        async with Workers(POLICY.but(soft_timeout=1, stale_if_error=300)) as workers:
            await workers.store()
            workers.clock.tick(60)
            mine = workers.ask(0)
            await workers.producer.called(2)
            theirs = workers.ask(1)
            await workers.waiting(1)
            workers.clock.tick(1)
            assert [(await each.reply()).body for each in (mine, theirs)] == [b"old"] * 2
            await workers.answer(2, b"new")
            await workers.idle()
            assert [(await ask(app)).body for app in workers.apps] == [b"new"] * 2

    run(test())


def test_a_worker_that_waits_is_given_its_variant_and_asks_for_another() -> None:
    async def test() -> None:
        async with Workers(number=3) as workers:
            mine = workers.ask(0, (b"accept-language", b"de"))
            first = await workers.producer.called()
            same, other = workers.ask(1, (b"accept-language", b"de")), workers.ask(2, (b"accept-language", b"fr"))
            await workers.waiting(2)
            await first.start(VARYING, content=None)
            await first.last(b"deutsch")
            await workers.answer(2, b"francais", VARYING)
            replies = [await each.reply() for each in (mine, same, other)]
            assert [reply.body for reply in replies] == [b"deutsch", b"deutsch", b"francais"]
            assert "hit" in replies[1].cache_status
            assert workers.producer.calls == 2

    run(test())


@pytest.mark.parametrize("public", [True, False])
def test_a_worker_that_waits_with_credentials_is_given_what_may_be_shared_and_nothing_else(public: bool) -> None:
    async def test() -> None:
        async with Workers(Policy.http(ttl=60)) as workers:
            mine = workers.ask(0)
            first = await workers.producer.called()
            theirs = workers.ask(1, (b"cookie", b"a=1"))
            await workers.waiting(1)
            await first.start((b"cache-control", b"public" if public else b"max-age=60"), content=None)
            await first.last(b"text")
            if not public:
                await workers.answer(2, b"someone's")
            assert (await theirs.reply()).body == (b"text" if public else b"someone's")
            await mine.reply()
            assert workers.producer.calls == 2 - public

    run(test())


def test_a_lost_lease_costs_a_call_and_nothing_else() -> None:
    async def test() -> None:
        async with Workers() as workers:
            mine = workers.ask(0)
            first = await workers.producer.called()
            (key,) = workers.leases.held
            workers.leases.seize(key, 1.0)
            theirs = workers.ask(1)
            await workers.waiting(1)
            workers.clock.tick(1)
            second = await workers.producer.called(2)
            await first.start(content=None)
            await first.last(b"first")
            assert workers.leases.held == [key], "it is not the first one's to end"
            await second.start(content=None)
            await second.last(b"second")
            replies: list[Reply] = [await mine.reply(), await theirs.reply()]
            assert [reply.body for reply in replies] == [b"first", b"second"]
            await workers.idle()
            assert workers.leases.held == []

    run(test())


@pytest.mark.parametrize("when", ["before", "while"])
def test_where_nobody_can_say_who_holds_it_each_worker_asks_at_once(when: str) -> None:
    async def test() -> None:
        async with Workers() as workers:
            if when == "before":
                workers.leases.fail()
            asking = [workers.ask(number) for number in range(2)]
            if when == "while":
                await workers.waiting(1)
                workers.leases.fail()
            for number in (1, 2):
                await workers.answer(number)
            assert [(await each.reply()).body for each in asking] == [b"text"] * 2

    run(test())


def test_where_the_write_fails_the_others_ask_at_once() -> None:
    async def test() -> None:
        async with Workers(number=3) as workers:
            asking = [workers.ask(number) for number in range(3)]
            await workers.waiting(2)
            workers.fleet.tier.fail()
            for number in (1, 2, 3):
                await workers.answer(number)
            assert [(await each.reply()).body for each in asking] == [b"text"] * 3
            assert workers.leases.calls.count("acquire") == 3

    run(test())


def test_routes_of_which_nothing_was_ever_stored_and_policies_without_lock_take_no_lease() -> None:
    async def test() -> None:
        for policy in (Policy.http(), POLICY.but(lock=False)):
            async with Workers(policy) as workers:
                asking = [workers.ask(number) for number in range(2)]
                for number in (1, 2):
                    await workers.answer(number, b"text", (b"cache-control", b"max-age=60"))
                for each in asking:
                    await each.reply()
                assert workers.leases.calls == []

    run(test())


def test_a_route_of_which_something_was_stored_takes_one() -> None:
    async def test() -> None:
        async with Workers(Policy.http()) as workers:
            await workers.store(b"old", (b"cache-control", b"max-age=60"))
            workers.clock.tick(60)
            asking = [workers.ask(number) for number in range(2)]
            await workers.waiting(1)
            await workers.answer(2, b"new", (b"cache-control", b"max-age=60"))
            assert [(await each.reply()).body for each in asking] == [b"new"] * 2

    run(test())


def test_a_lease_that_was_given_up_is_taken_over_by_another() -> None:
    async def test() -> None:
        async with Workers(POLICY.but(lock_wait=20)) as workers:
            mine = workers.ask(0)
            first = await workers.producer.called()
            theirs = workers.ask(1)
            await workers.waiting(1)
            (key,) = workers.leases.held
            workers.leases.end(key, Ended.GONE)  # as where its worker is being closed
            await workers.answer(2)
            assert (await theirs.reply()).body == b"text"
            await first.start(content=None)
            await first.last(b"mine")
            assert (await mine.reply()).body == b"mine"

    run(test())
