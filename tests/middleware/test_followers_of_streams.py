"""Followers receive a response while it is being produced: who may, and what becomes of it if it breaks off."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator

import pytest
from fastapi import Depends, FastAPI
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.middleware.stream import BEHIND_SECONDS, FellBehindError
from asgi_tiercache.testing import TickingClock
from tests.engine.doubles import Fleet
from tests.middleware.asgi import Exchange, Reply, ask, http_scope, run, turns, until
from tests.middleware.producers import Producer, Slow, is_idle, ours

POLICY = Policy(ttl=60, tags=["t"])
SMALL = Policy(ttl=60, max_body=10)
EXPLICIT_AND_HTTP = pytest.mark.parametrize("policy", [POLICY, Policy.http(ttl=60)])


def _cache() -> tuple[TierCache, TickingClock]:
    clock = TickingClock()
    return TierCache(clock=clock), clock


# ---- while it may be stored ----


@EXPLICIT_AND_HTTP
@pytest.mark.parametrize("early", [True, False])
def test_followers_have_the_first_part_before_the_handler_goes_on(policy: Policy, early: bool) -> None:
    """Those who were there before it began, and those who come while it is under way."""

    async def test() -> None:
        producer, (cache, _) = Producer(), _cache()
        app = ours(producer, policy, cache)
        leader = Exchange(app)
        production = await producer.called()
        followers = [Exchange(app) for _ in range(5 if early else 0)]
        await turns()
        await production.start()
        followers += [Exchange(app) for _ in range(5)]
        for each in (leader, *followers):
            await each.until(2)
            assert each.messages[1]["body"] == b"one "
        await production.part(b"two ")
        for follower in followers:
            await follower.until(3)
        await production.last(b"three")
        for follower in followers:
            reply = await follower.reply()
            assert reply.body == b"one two three"
            assert "collapsed; detail=flight" in reply.cache_status
        assert "detail=L1" in (await ask(app)).cache_status
        assert producer.calls == 1
        await until(lambda: is_idle(cache))

    run(test())


def test_a_slow_follower_holds_up_nobody_while_the_response_may_be_stored() -> None:
    async def test() -> None:
        producer, (cache, _) = Producer(), _cache()
        app = ours(producer, POLICY, cache)
        leader = Exchange(app)
        production = await producer.called()
        slow, quick = Slow(app), Exchange(app)
        await production.start()
        await production.part(b"two ")
        await production.last(b"three")
        assert (await leader.reply()).body == (await quick.reply()).body == b"one two three"
        assert slow.messages == []
        slow.take(10)
        await slow.task
        assert slow.body == b"one two three"

    run(test())


def test_the_leader_leaves_while_the_response_is_produced_and_the_others_have_all_of_it() -> None:
    async def test() -> None:
        producer, (cache, _) = Producer(), _cache()
        app = ours(producer, POLICY.but(finish=False), cache)
        leader = Exchange(app)
        production = await producer.called()
        await production.start()
        follower = Exchange(app)
        await follower.until(2)
        await leader.cancel()
        await production.last(b"two")
        assert (await follower.reply()).body == b"one two"
        assert (await ask(app)).hit

    run(test())


@pytest.mark.parametrize("last", ["leader", "follower"])
def test_without_finish_the_last_one_who_leaves_ends_what_is_being_produced(last: str) -> None:
    async def test() -> None:
        producer, (cache, _) = Producer(), _cache()
        app = ours(producer, POLICY.but(finish=False), cache)
        leader = Exchange(app)
        production = await producer.called()
        await production.start()
        follower = Exchange(app)
        await follower.until(2)
        order = [follower, leader] if last == "leader" else [leader, follower]
        await order[0].cancel()
        await turns()
        assert not production.over
        await order[1].cancel()
        await until(lambda: production.over and is_idle(cache))

    run(test())


def test_a_handler_that_fails_half_way_breaks_off_for_all_and_is_asked_again_by_the_next() -> None:
    async def test() -> None:
        producer, (cache, _) = Producer(), _cache()
        app = ours(producer, POLICY, cache)
        leader = Exchange(app)
        production = await producer.called()
        await production.start()
        followers = [Exchange(app) for _ in range(3)]
        for follower in followers:
            await follower.until(2)
        production.order(LookupError("half way"))
        with pytest.raises(LookupError, match="half way"):
            await leader.reply()
        for follower in followers:
            with pytest.raises(FellBehindError):
                await follower.reply()
            assert len(follower.messages) == 2
        assert producer.calls == 1
        last = Exchange(app)
        production = await producer.called(2)
        await production.start(content=None)
        await production.last(b"whole")
        assert (await last.reply()).body == b"whole"

    run(test())


def test_who_waits_for_the_whole_asks_the_handler_itself_where_that_fails_half_way() -> None:
    """What had begun was an answer; the exception would be an error that nobody's handler gave for this request."""

    async def test() -> None:
        producer, (cache, _) = Producer(), _cache()
        app = ours(producer, POLICY, cache)
        leader = Exchange(app)
        production = await producer.called()
        await production.start()
        await cache.invalidate("something else")
        waiting = [Exchange(app) for _ in range(3)]
        await turns()
        production.order(LookupError("half way"))
        with pytest.raises(LookupError, match="half way"):
            await leader.reply()
        for number in range(2, 5):  # each for itself, so that nobody waits for one failure after another
            production = await producer.called(number)
            await production.start(content=None)
            await production.last(b"whole")
        for each in waiting:
            assert (await each.reply()).body == b"whole"
        assert producer.calls == 4
        assert is_idle(cache)

    run(test())


def test_a_handler_that_returns_without_an_end_breaks_off_for_all() -> None:
    async def test() -> None:
        producer, (cache, _) = Producer(), _cache()
        app = ours(producer, POLICY, cache)
        leader = Exchange(app)
        production = await producer.called()
        await production.start()
        follower = Exchange(app)
        await follower.until(2)
        production.order(None)
        await leader.reply()
        with pytest.raises(FellBehindError):
            await follower.reply()
        assert is_idle(cache)

    run(test())


def test_no_store_half_way_keeps_what_comes_then_from_followers_and_asks_for_those_who_come_later() -> None:
    async def test() -> None:
        cache, _ = _cache()
        go_on, calls = asyncio.Event(), list[int]()

        async def producing(scope: Scope, receive: Receive, send: Send) -> None:
            calls.append(1)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"one ", "more_body": True})
            await go_on.wait()
            cache.current.no_store()
            await send({"type": "http.response.body", "body": b"secret ", "more_body": True})
            await turns()
            await send({"type": "http.response.body", "body": b"three"})

        app = ours(producing, POLICY, cache)
        leader = Exchange(app)
        await leader.until(2)
        follower = Exchange(app)
        await follower.until(2)
        go_on.set()
        assert (await leader.reply()).body == b"one secret three"
        with pytest.raises(FellBehindError):
            await follower.reply()
        assert Reply(follower.messages).body == b"one "
        later = [Exchange(app) for _ in range(3)]
        assert [(await each.reply()).hit for each in later] == [False] * 3
        assert len(calls) == 4

    run(test())


def test_content_that_does_not_have_the_length_it_declared_is_not_whole_for_followers() -> None:
    async def test() -> None:
        producer, (cache, _) = Producer(), _cache()
        app = ours(producer, POLICY, cache)
        leader = Exchange(app)
        production = await producer.called()
        await production.start((b"content-length", b"20"))
        follower = Exchange(app)
        await follower.until(2)
        await production.last(b"short")
        assert (await leader.reply()).body == b"one short"
        with pytest.raises(FellBehindError):
            await follower.reply()
        assert Reply(follower.messages).body == b"one "

    run(test())


def test_what_was_sent_is_let_go_of_at_once() -> None:
    """Not when the garbage collector comes round: it may be large."""

    class Extension:
        pass

    async def test() -> None:
        producer, (cache, _) = Producer(), _cache()
        app = ours(producer, POLICY, cache)
        extension = Extension()
        held = weakref.ref(extension)
        leader = Exchange(app, http_scope(extensions={"one": extension}))
        production = await producer.called()
        await production.start()
        follower = Exchange(app)
        await production.last(b"two")
        await leader.reply()
        await follower.reply()
        producer.productions.clear()
        del leader, production, extension
        await turns()
        assert held() is None

    gc.collect()
    gc.disable()
    try:
        run(test())
    finally:
        gc.enable()


# ---- once it has outgrown the bound ----


def test_nobody_who_keeps_up_loses_a_byte_of_what_outgrows_the_bound() -> None:
    async def test() -> None:
        producer, (cache, _) = Producer(), _cache()
        app = ours(producer, SMALL, cache)
        leader = Exchange(app)
        production = await producer.called()
        await production.start()
        followers = [Exchange(app) for _ in range(3)]
        slow = Slow(app)
        await turns()
        grown = [asyncio.ensure_future(production.part(b"%09d " % number)) for number in range(3)]
        while not all(each.done() for each in grown):
            slow.take()
            await turns()
        slow.take(2)
        await production.last(b"end")
        whole = b"one 000000000 000000001 000000002 end"
        assert [(await each.reply()).body for each in (leader, *followers)] == [whole] * 4
        await slow.task
        assert slow.body == whole
        assert producer.calls == 1

    run(test())


def test_the_last_message_of_what_has_outgrown_the_bound_waits_for_nobody_who_has_it() -> None:
    """Nor is a follower waited for that has left."""

    async def test() -> None:
        producer, (cache, clock) = Producer(), _cache()
        app = ours(producer, SMALL, cache)
        leader = Exchange(app)
        production = await producer.called()
        await production.start()
        follower, leaving = Exchange(app), Slow(app)
        await follower.until(2)
        large = asyncio.ensure_future(production.part(b"x" * 20))
        await turns()
        assert not large.done()
        leaving.task.cancel()
        await large
        await production.last(b"end")
        assert (await follower.reply()).body == (await leader.reply()).body == b"one " + b"x" * 20 + b"end"
        assert clock.sleeping == 0

    run(test())


def test_who_stalls_is_left_behind_after_a_while_and_the_others_go_on() -> None:
    """Those who stall at the same time are waited for together."""

    async def test() -> None:
        producer, (cache, clock) = Producer(), _cache()
        app = ours(producer, SMALL, cache)
        leader = Exchange(app)
        production = await producer.called()
        await production.start()
        follower, stalled = Exchange(app), [Slow(app) for _ in range(3)]
        await follower.until(2)
        large = asyncio.ensure_future(production.part(b"x" * 20))
        await until(lambda: clock.sleeping == 1)
        clock.tick(BEHIND_SECONDS)
        await large
        await production.last(b"end")
        assert (await follower.reply()).body == (await leader.reply()).body == b"one " + b"x" * 20 + b"end"
        for each in stalled:
            each.take(10)
            with pytest.raises(FellBehindError):
                await each.task

    run(test())


def test_a_leader_that_stalls_does_not_hold_up_followers_for_ever() -> None:
    async def test() -> None:
        producer, (cache, clock) = Producer(), _cache()
        app = ours(producer, SMALL, cache)
        leader = Slow(app)
        production = await producer.called()
        await production.start()
        follower = Exchange(app)
        await follower.until(2)
        large = asyncio.ensure_future(production.part(b"x" * 20))
        await until(lambda: clock.sleeping == 1)
        await turns()
        assert not large.done()
        clock.tick(BEHIND_SECONDS)
        await large
        await production.last(b"end")
        assert (await follower.reply()).body == b"one " + b"x" * 20 + b"end"
        leader.take(10)
        with pytest.raises(FellBehindError):
            await leader.task

    run(test())


@pytest.mark.parametrize("leaves", ["cancelled", "refusing", "disconnected"])
@pytest.mark.parametrize("policy", [SMALL, Policy.http(ttl=60, max_body=10)])
def test_the_leader_leaves_what_has_outgrown_the_bound_and_the_app_does_not_hear_of_it(
    policy: Policy, leaves: str
) -> None:
    async def test() -> None:
        producer, (cache, _) = Producer(), _cache()
        app = ours(producer, policy, cache)
        leader = Exchange(app, refuse=3 if leaves == "refusing" else None)
        production = await producer.called()
        await production.receive()
        listening = asyncio.ensure_future(production.receive())
        await production.start()
        follower = Exchange(app)
        await follower.until(2)
        await production.part(b"x" * 20)
        if leaves == "cancelled":
            await leader.cancel()
        elif leaves == "disconnected":
            leader.disconnect()
        await production.part(b"two ")
        await turns()
        assert not listening.done()
        await production.last(b"end")
        assert (await follower.reply()).body == b"one " + b"x" * 20 + b"two end"
        listening.cancel()

    run(test())


def test_when_the_last_follower_leaves_what_has_outgrown_the_bound_a_silent_app_is_ended() -> None:
    async def test() -> None:
        producer, (cache, _) = Producer(), _cache()
        app = ours(producer, SMALL, cache)
        leader = Exchange(app)
        production = await producer.called()
        await production.start()
        followers = [Exchange(app) for _ in range(2)]
        for follower in followers:
            await follower.until(2)
        await production.part(b"x" * 20)
        await leader.cancel()
        await followers[0].cancel()
        await turns()
        assert not production.over
        await followers[1].cancel()
        await until(lambda: production.over and is_idle(cache))

    run(test())


@pytest.mark.parametrize("policy", [Policy.http(ttl=60), Policy.http()])
def test_an_app_that_waits_for_the_leader_to_leave_does_not_hear_of_it_while_others_follow(policy: Policy) -> None:
    async def test() -> None:
        producer, (cache, _) = Producer(), _cache()
        app = ours(producer, policy, cache)
        leader = Exchange(app)
        production = await producer.called()
        await production.receive()
        listening = asyncio.ensure_future(production.receive())
        await production.start((b"cache-control", b"max-age=60"))
        follower = Exchange(app)
        await follower.until(2)
        leader.disconnect()
        await turns()
        assert not listening.done()
        await production.last(b"two")
        assert (await follower.reply()).body == b"one two"
        await listening

    run(test())


def test_a_leader_that_leaves_while_it_is_being_sent_to_holds_up_nobody() -> None:
    async def test() -> None:
        producer, (cache, clock) = Producer(), _cache()
        app = ours(producer, SMALL, cache)
        leader = Slow(app)
        production = await producer.called()
        await production.start()
        leader.take(2)
        follower = Exchange(app)
        await follower.until(2)
        large = asyncio.ensure_future(production.part(b"x" * 20))
        await follower.until(3)
        await turns()
        leader.task.cancel()
        await large
        await production.last(b"end")
        assert (await follower.reply()).body == b"one " + b"x" * 20 + b"end"
        await turns()
        assert clock.sleeping == 0

    run(test())


@pytest.mark.parametrize("last", [True, False])
def test_a_leader_that_leaves_while_it_is_being_sent_what_is_its_alone_leaves_no_app_behind(last: bool) -> None:
    async def test() -> None:
        producer, (cache, _) = Producer(), _cache()
        leader = Slow(ours(producer, POLICY, cache))
        leader.take(1)
        production = await producer.called()
        await production.start((b"cache-control", b"no-store"), content=None)
        production.order({"type": "http.response.body", "body": b"text", "more_body": not last})
        if last:
            production.order(None)
        await turns()
        leader.task.cancel()
        await until(lambda: production.over and is_idle(cache))

    run(test())


# ---- who may follow ----


def test_a_follower_that_comes_after_an_invalidation_waits_for_the_end_and_is_not_given_what_is_older() -> None:
    async def test() -> None:
        producer, (cache, _) = Producer(), _cache()
        app = ours(producer, POLICY, cache)
        first = Exchange(app)
        production = await producer.called()
        await production.start()
        await cache.invalidate("t")
        late = [Exchange(app) for _ in range(5)]
        await turns()
        assert all(each.messages == [] for each in late)
        await production.last(b"old")
        again = await producer.called(2)
        await again.start(content=None)
        await again.last(b"new")
        assert [(await each.reply()).body for each in late] == [b"new"] * 5
        assert (await first.reply()).body == b"one old"
        assert producer.calls == 2

    run(test())


def test_what_is_invalidated_elsewhere_makes_later_followers_wait_for_the_end_and_not_for_another_run() -> None:
    async def test() -> None:
        producer, (cache, _) = Producer(), _cache()
        app = ours(producer, POLICY, cache)
        Exchange(app)
        production = await producer.called()
        await production.start()
        await cache.invalidate("something else")
        late = [Exchange(app) for _ in range(5)]
        await turns()
        assert all(each.messages == [] for each in late)
        await production.last(b"two")
        assert [(await each.reply()).body for each in late] == [b"one two"] * 5
        assert producer.calls == 1

    run(test())


def test_where_every_read_is_verified_who_comes_later_waits_for_the_end() -> None:
    """An invalidation may not have been heard of here yet, and only the whole response can be asked about."""

    async def test() -> None:
        fleet = Fleet()
        cache, other = fleet.worker(), fleet.worker()
        await cache.start()
        await other.start()
        producer = Producer()
        app = ours(producer, POLICY.but(verify=True), cache)
        leader = Exchange(app)
        production = await producer.called()
        await production.start()
        stamp = cache.engine.invalidation.stamp()
        await other.invalidate("t")
        if cache.engine.invalidation.stamp() != stamp:
            pytest.fail("it was heard of at once, so this shows nothing")
        late = Exchange(app)
        await turns()
        assert late.messages == []
        await production.last(b"old")
        again = await producer.called(2)
        await again.start(content=None)
        await again.last(b"new")
        assert (await late.reply()).body == b"new"
        assert (await leader.reply()).body == b"one old"
        await cache.aclose()
        await other.aclose()

    run(test())


def test_requests_of_another_variant_do_not_follow_and_one_of_them_leads_the_others() -> None:
    async def test() -> None:
        producer, (cache, _) = Producer(), _cache()
        app = ours(producer, POLICY, cache)

        def asking(language: bytes) -> Exchange:
            return Exchange(app, http_scope(headers=[(b"accept-language", language)]))

        german = asking(b"de")
        production = await producer.called()
        await production.start((b"vary", b"accept-language"))
        others, same = [asking(b"fr") for _ in range(5)], asking(b"de")
        french = await producer.called(2)
        await turns()
        assert producer.calls == 2
        await french.start((b"vary", b"accept-language"), content=b"un ")
        await french.last(b"deux")
        await production.last(b"zwei")
        assert (await german.reply()).body == (await same.reply()).body == b"one zwei"
        assert [(await each.reply()).body for each in others] == [b"un deux"] * 5
        assert producer.calls == 2

    run(test())


def test_a_request_with_credentials_does_not_follow_what_may_not_be_shared_with_it() -> None:
    async def test() -> None:
        producer, (cache, _) = Producer(), _cache()
        app = ours(producer, Policy.http(ttl=60), cache)
        Exchange(app)
        production = await producer.called()
        await production.start()
        someone = Exchange(app, http_scope(headers=[(b"cookie", b"a=1")]))
        theirs = await producer.called(2)
        await theirs.start(content=None)
        await theirs.last(b"someone's")
        assert (await someone.reply()).body == b"someone's"
        await production.last()

    run(test())


def test_a_request_with_credentials_follows_what_is_public() -> None:
    async def test() -> None:
        producer, (cache, _) = Producer(), _cache()
        app = ours(producer, Policy.http(ttl=60), cache)
        Exchange(app)
        production = await producer.called()
        await production.start((b"cache-control", b"public"))
        someone = Exchange(app, http_scope(headers=[(b"cookie", b"a=1")]))
        await someone.until(2)
        await production.last(b"two")
        assert (await someone.reply()).body == b"one two"
        assert producer.calls == 1

    run(test())


@pytest.mark.parametrize("directive", [b"no-cache", b"min-fresh=100", b"no-store"])
def test_a_request_whose_directives_rule_it_out_asks_the_handler_itself(directive: bytes) -> None:
    async def test() -> None:
        producer, (cache, _) = Producer(), _cache()
        app = ours(producer, Policy.http(ttl=60), cache)
        Exchange(app)
        production = await producer.called()
        await production.start()
        demanding = Exchange(app, http_scope(headers=[(b"cache-control", directive)]))
        theirs = await producer.called(2)
        await theirs.start(content=None)
        await theirs.last(b"their own")
        assert (await demanding.reply()).body == b"their own"
        await production.last()

    run(test())


def test_a_condition_is_answered_from_the_beginning_of_the_stream() -> None:
    async def test() -> None:
        producer, (cache, _) = Producer(), _cache()
        app = ours(producer, POLICY, cache)
        Exchange(app)
        production = await producer.called()
        await production.start((b"etag", b'"v1"'))
        knowing = Exchange(app, http_scope(headers=[(b"if-none-match", b'"v1"')]))
        await knowing.until(1)
        assert knowing.messages[0]["status"] == 304
        await production.last(b"two")
        assert (await knowing.reply()).body == b""

    run(test())


def test_head_and_parts_are_not_answered_from_a_stream() -> None:
    async def test() -> None:
        producer, (cache, _) = Producer(), _cache()
        app = ours(producer, POLICY, cache)
        Exchange(app)
        production = await producer.called()
        await production.start()
        for number, scope in enumerate([http_scope(method="HEAD"), http_scope(headers=[(b"range", b"bytes=0-1")])]):
            other = Exchange(app, scope)
            theirs = await producer.called(2 + number)
            await theirs.start(content=None)
            await theirs.last()
            assert "fwd=" in (await other.reply()).cache_status
        await production.last()

    run(test())


def test_where_dependencies_run_always_followers_wait_for_the_end() -> None:
    async def test() -> None:
        cache, _ = _cache()
        go_on, calls, asked = asyncio.Event(), list[int](), list[int]()
        app = FastAPI()
        app.add_middleware(
            TierCacheMiddleware, cache=cache, routes={"/": POLICY.but(dependencies="always", ignore=["cookie"])}
        )

        async def chunks() -> AsyncIterator[bytes]:
            yield b"one "
            await go_on.wait()
            yield b"two"

        @app.get("/", dependencies=[Depends(lambda: asked.append(1))])
        async def endpoint() -> StreamingResponse:
            calls.append(1)
            return StreamingResponse(chunks())

        leader = Exchange(app)
        await leader.until(2)
        followers = [Exchange(app) for _ in range(5)]
        await turns()
        assert all(follower.messages == [] for follower in followers)
        go_on.set()
        assert [(await each.reply()).body for each in (leader, *followers)] == [b"one two"] * 6
        assert (len(calls), len(asked)) == (1, 6)

    run(test())


def test_what_is_renewed_in_the_background_can_be_followed_also_when_it_outgrows_the_bound() -> None:
    async def test() -> None:
        producer, (cache, clock) = Producer(), _cache()
        app = ours(producer, SMALL.but(stale_while_revalidate=10), cache)
        first = Exchange(app)
        production = await producer.called()
        await production.start(content=None)
        await production.last(b"old")
        await first.reply()
        clock.tick(60)
        assert (await ask(app)).body == b"old"
        renewal = await producer.called(2)
        clock.tick(20)
        follower = Exchange(app)
        await turns()
        await renewal.start()
        await follower.until(2)
        await renewal.part(b"x" * 20)
        await renewal.last(b"end")
        assert (await follower.reply()).body == b"one " + b"x" * 20 + b"end"
        assert producer.calls == 2

    run(test())


def test_what_is_made_of_a_response_that_is_being_produced_has_the_tags_that_come_later() -> None:
    """So a request from inside another fill waits for the end (rule I2)."""

    async def test() -> None:
        cache, _ = _cache()
        go_on, texts = asyncio.Event(), list[bytes]()

        async def producing(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"one ", "more_body": True})
            await go_on.wait()
            cache.current.tag("late")
            await send({"type": "http.response.body", "body": b"two"})

        app = ours(producing, POLICY, cache)

        @cache.cached("outer", ttl=60)
        async def outer() -> int:
            texts.append((await Exchange(app).reply()).body)
            return len(texts)

        leader = Exchange(app)
        await leader.until(2)
        waiting = asyncio.create_task(outer())
        await turns()
        go_on.set()
        assert [await waiting, await outer()] == [1, 1]
        await cache.invalidate("late")
        assert await outer() == 2
        assert texts == [b"one two"] * 2

    run(test())


def test_a_handler_that_needs_what_waits_for_the_rest_of_its_own_response_does_not_wait_for_that() -> None:
    """Each would wait for the other; so the handler has it computed once more."""

    async def test() -> None:
        cache, _ = _cache()
        go_on, depth = asyncio.Event(), list[int]()

        @cache.cached("outer", ttl=60)
        async def outer() -> int:
            depth.append(1)
            return 0 if len(depth) > 1 else len((await Exchange(app).reply()).body)

        async def producing(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"one ", "more_body": True})
            await go_on.wait()
            await send({"type": "http.response.body", "body": b"%d" % await outer()})

        app = ours(producing, POLICY, cache)
        leader = Exchange(app)
        await leader.until(2)
        waiting = asyncio.create_task(outer())
        await turns()
        go_on.set()
        assert (await leader.reply()).body == b"one 0"
        assert await waiting == len(b"one 0")

    run(test())
