"""Fills that bring nothing that could be shared: who waited is released at once, and is told once."""

from __future__ import annotations

import pytest

from asgi_tiercache import Policy, TierCache
from asgi_tiercache.stampede import REMEMBERED_SECONDS
from asgi_tiercache.testing import TickingClock
from tests.middleware.asgi import Exchange, ask, http_scope, run, turns, until
from tests.middleware.producers import Header, Producer, Production, is_idle, ours

POLICY = Policy(ttl=60, tags=["t"])
HTTP = Policy.http(ttl=60)
EXPLICIT_AND_HTTP = pytest.mark.parametrize("policy", [POLICY, HTTP])
FOLLOWERS = 10


class Service:
    def __init__(self, policy: Policy) -> None:
        self.clock = TickingClock()
        self.cache = TierCache(clock=self.clock)
        self.producer = Producer()
        self.app = ours(self.producer, policy, self.cache)

    async def crowd(self) -> tuple[Production, list[Exchange]]:
        """A fill under way, and those who wait for it, the leader first."""
        before = self.producer.calls
        asking = [Exchange(self.app) for _ in range(1 + FOLLOWERS)]
        production = await self.producer.called(before + 1)
        await turns()
        assert self.producer.calls == before + 1
        return production, asking

    async def answer(self, number: int, content: bytes = b"text", *headers: Header, status: int = 200) -> None:
        production = await self.producer.called(number)
        await production.start(*headers, status=status, content=None)
        await production.last(content)

    async def idle(self) -> None:
        await turns()
        await until(lambda: is_idle(self.cache))


def test_an_exception_is_raised_to_all_who_wait_and_the_handler_runs_once() -> None:
    async def test() -> None:
        service = Service(POLICY)
        production, asking = await service.crowd()
        production.order(LookupError("as it is"))
        for each in asking:
            with pytest.raises(LookupError, match="as it is"):
                await each.reply()
        assert service.producer.calls == 1

    run(test())


def test_an_error_of_an_explicit_policy_is_given_to_all_who_wait_and_to_nobody_after_them() -> None:
    async def test() -> None:
        service = Service(POLICY)
        production, asking = await service.crowd()
        await production.start((b"retry-after", b"5"), status=503)
        await turns()
        assert not any(each.messages for each in asking[1:]), "until it is complete"
        await production.last(b"two")
        replies = [await each.reply() for each in asking]
        assert {(reply.status, reply.body) for reply in replies} == {(503, b"one two")}
        assert (b"retry-after", b"5") in replies[1].messages[0]["headers"]
        assert service.producer.calls == 1
        later = Exchange(service.app)
        await service.answer(2)
        assert (await later.reply()).status == 200

    run(test())


def test_an_error_that_is_not_as_long_as_announced_is_for_who_asked_alone() -> None:
    async def test() -> None:
        service = Service(POLICY)
        production, asking = await service.crowd()
        await production.start((b"content-length", b"9"), status=503, content=None)
        await production.last(b"short")
        for number in range(2, 2 + FOLLOWERS):
            await service.answer(number)
        assert (await asking[0].reply()).status == 503
        for each in asking[1:]:
            assert (await each.reply()).status == 200

    run(test())


@pytest.mark.parametrize("headers", [[(b"set-cookie", b"a=1")], [(b"vary", b"accept-language")]])
def test_an_error_that_may_speak_of_one_client_is_for_that_one_and_the_others_ask_at_once(
    headers: list[Header],
) -> None:
    async def test() -> None:
        service = Service(POLICY)
        production, asking = await service.crowd()
        await production.start(*headers, status=500)
        await service.producer.called(1 + FOLLOWERS)
        await production.last()
        for number in range(FOLLOWERS):
            await service.answer(2 + number)
        assert [(await each.reply()).status for each in asking] == [500] + [200] * FOLLOWERS

    run(test())


def test_an_error_in_http_mode_makes_each_ask_at_once_and_not_in_turn() -> None:
    async def test() -> None:
        service = Service(HTTP)
        production, asking = await service.crowd()
        await production.start(status=500)
        await service.producer.called(1 + FOLLOWERS)
        await production.last()
        for number in range(FOLLOWERS):
            await service.answer(2 + number, status=500)
        assert [(await each.reply()).status for each in asking] == [500] * (1 + FOLLOWERS)

    run(test())


def test_an_error_too_large_to_be_kept_makes_each_ask_at_once() -> None:
    async def test() -> None:
        service = Service(POLICY.but(max_body=10))
        production, asking = await service.crowd()
        await production.start(status=500, content=b"x" * 20)
        await service.producer.called(1 + FOLLOWERS)
        await production.last()
        for number in range(FOLLOWERS):
            await service.answer(2 + number)
        assert [(await each.reply()).status for each in asking] == [500] + [200] * FOLLOWERS

    run(test())


def test_a_handler_that_breaks_off_its_error_fails_for_all() -> None:
    async def test() -> None:
        service = Service(POLICY)
        production, asking = await service.crowd()
        await production.start(status=500)
        production.order(LookupError("half way"))
        for each in asking:
            with pytest.raises(LookupError, match="half way"):
                await each.reply()
        assert [len(each.messages) for each in asking] == [2] + [0] * FOLLOWERS

    run(test())


@EXPLICIT_AND_HTTP
@pytest.mark.parametrize("header", [(b"cache-control", b"no-store"), (b"set-cookie", b"a=1"), (b"vary", b"*")])
def test_what_may_not_be_shared_releases_all_together_and_is_remembered_for_a_while(
    policy: Policy, header: Header
) -> None:
    async def test() -> None:
        service = Service(policy)
        production, asking = await service.crowd()
        await production.start(header)
        await service.producer.called(1 + FOLLOWERS)
        await production.last()
        for number in range(FOLLOWERS):
            await service.answer(2 + number, b"own", header)
        assert [(await each.reply()).body for each in asking] == [b"one "] + [b"own"] * FOLLOWERS
        later = [Exchange(service.app) for _ in range(3)]
        await service.producer.called(1 + FOLLOWERS + 3)
        for number in range(3):
            await service.answer(2 + FOLLOWERS + number, b"own", header)
        for each in later:
            await each.reply()
        service.clock.tick(REMEMBERED_SECONDS)
        await service.crowd()

    run(test())


def test_the_followers_of_a_stale_response_that_stands_in_are_given_it_too() -> None:
    async def test() -> None:
        service = Service(POLICY.but(stale_if_error=300))
        first = Exchange(service.app)
        await service.answer(1, b"old")
        await first.reply()
        service.clock.tick(60)
        for number, raises in enumerate((False, True)):
            production, asking = await service.crowd()
            if raises:
                production.order(LookupError())
            else:
                await production.start(status=503, content=None)
                await production.last()
            assert [(await each.reply()).body for each in asking] == [b"old"] * (1 + FOLLOWERS)
            assert service.producer.calls == 2 + number
            await service.idle()

    run(test())


def test_who_follows_a_renewal_that_fails_is_given_what_may_stand_in() -> None:
    async def test() -> None:
        service = Service(POLICY.but(stale_while_revalidate=10, stale_if_error=300))
        first = Exchange(service.app)
        await service.answer(1, b"old")
        await first.reply()
        service.clock.tick(60)
        assert (await ask(service.app)).body == b"old"
        await service.producer.called(2)
        service.clock.tick(20)
        followers = [Exchange(service.app) for _ in range(3)]
        await turns()
        await service.answer(2, b"error", status=503)
        assert [(await each.reply()).body for each in followers] == [b"old"] * 3
        assert service.producer.calls == 2

    run(test())


@pytest.mark.parametrize("how", ["hard", "clear"])
@pytest.mark.parametrize("failure", [503, LookupError()])
def test_what_was_invalidated_never_stands_in(how: str, failure: int | Exception) -> None:
    async def test() -> None:
        service = Service(POLICY.but(stale_if_error=300, stale_while_revalidate=300))
        first = Exchange(service.app)
        await service.answer(1, b"old")
        await first.reply()
        service.clock.tick(60)
        await (service.cache.invalidate("t") if how == "hard" else service.cache.clear())
        production, asking = await service.crowd()
        if isinstance(failure, int):
            await production.start(status=failure, content=None)
            await production.last(b"error")
            assert {(await each.reply()).body for each in asking} == {b"error"}
        else:
            production.order(failure)
            for each in asking:
                with pytest.raises(LookupError):
                    await each.reply()

    run(test())


@pytest.mark.parametrize("policy", [POLICY, Policy.http(ttl=60), Policy.rfc9111(ttl=60)])
def test_the_policys_seconds_count_for_responses_that_say_nothing(policy: Policy) -> None:
    async def test() -> None:
        service = Service(policy.but(stale_while_revalidate=30, stale_if_error=100, retention=0))
        first = Exchange(service.app)
        await service.answer(1, b"old")
        await first.reply()
        service.clock.tick(60 + 30)
        assert (await ask(service.app)).body == b"old"
        await service.answer(2, b"error", status=500)
        await service.idle()
        service.clock.tick(1)
        asking = Exchange(service.app)
        await service.answer(3, b"error", status=500)
        assert (await asking.reply()).body == b"old"
        service.clock.tick(70)
        last = Exchange(service.app)
        await service.answer(4, b"error", status=500)
        assert (await last.reply()).body == b"error"

    run(test())


@pytest.mark.parametrize("policy", [POLICY, HTTP.but(retention=0)])
def test_statuses_have_lifetimes_of_their_own(policy: Policy) -> None:
    """404 for ten seconds, 500 never."""

    async def test() -> None:
        service = Service(policy.but(status_ttl={404: 10, 500: 0}))
        absent = [Exchange(service.app) for _ in range(3)]
        await service.answer(1, b"nothing here", status=404)
        assert [(await each.reply()).status for each in absent] == [404] * 3
        service.clock.tick(9)
        assert (await ask(service.app)).hit
        service.clock.tick(1)
        failing = Exchange(service.app)
        await service.answer(2, b"error", (b"cache-control", b"max-age=60"), status=500)
        assert (await failing.reply()).status == 500
        last = Exchange(service.app)
        await service.answer(3)
        assert (await last.reply()).status == 200

    run(test())


def test_a_follower_retries_once_at_most() -> None:
    """It waits for a second flight where the first was not for it; then it asks."""

    async def test() -> None:
        service = Service(POLICY)
        leader = Exchange(service.app, http_scope())
        production = await service.producer.called()
        await service.cache.invalidate("t")
        late = [Exchange(service.app) for _ in range(3)]
        await turns()
        await production.start(content=None)
        await production.last(b"old")
        second = await service.producer.called(2)
        await turns()
        await service.cache.invalidate("t")
        later = Exchange(service.app)
        await turns()
        assert service.producer.calls == 2
        await second.start((b"cache-control", b"no-store"), content=None)
        await second.last(b"second")
        for number in range(3):
            await service.answer(3 + number, b"own")
        assert sorted([(await each.reply()).body for each in (*late, later)]) == [b"own"] * 3 + [b"second"]
        await leader.reply()

    run(test())
