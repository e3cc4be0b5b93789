"""One run of the handler for all who wait, and who may be given its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.testing import ScriptedTier
from tests.middleware.apps import Gated, Handler, app_of
from tests.middleware.asgi import Exchange, ask, http_scope, run, turns, until

POLICY = Policy(ttl=60)


@pytest.mark.parametrize("l2", [True, False])
@pytest.mark.parametrize("policy", [POLICY, Policy.http(ttl=60)])
def test_twenty_concurrent_misses_run_the_handler_once(policy: Policy, l2: bool) -> None:
    gated = Gated()
    app = app_of(gated.handler, policy, cache=TierCache(l2=ScriptedTier() if l2 else None))

    async def test() -> None:
        under_way = [Exchange(app) for _ in range(20)]
        await gated.entered()
        await turns()
        gated.open.set()
        replies = [await each.reply() for each in under_way]
        assert {reply.body for reply in replies} == {b"text"}
        assert sum("detail=flight" in reply.cache_status for reply in replies) == 19
        assert gated.handler.calls == 1

    run(test())


def test_different_keys_do_not_wait_for_each_other() -> None:
    gated = Gated()
    app = app_of(gated.handler, POLICY)

    async def test() -> None:
        under_way = [Exchange(app, http_scope(query=query)) for query in (b"a=1", b"a=2")]
        await gated.entered(2)
        gated.open.set()
        assert [(await each.reply()).hit for each in under_way] == [False, False]

    run(test())


def test_a_cancelled_leader_leaves_followers_an_answer_and_an_entry() -> None:
    gated = Gated()
    app = app_of(gated.handler, POLICY)

    async def test() -> None:
        leader = Exchange(app)
        await gated.entered()
        follower = Exchange(app)
        await turns()
        await leader.cancel()
        assert leader.messages == []
        gated.open.set()
        assert (await follower.reply()).body == b"text"
        assert (await ask(app)).hit
        assert gated.handler.calls == 1

    run(test())


def test_a_cancelled_leader_without_followers_leaves_an_entry() -> None:
    gated = Gated()
    app = app_of(gated.handler, POLICY)

    async def test() -> None:
        leader = Exchange(app)
        await gated.entered()
        await leader.cancel()
        gated.open.set()
        assert "hit" in (await ask(app)).cache_status
        assert gated.handler.calls == 1

    run(test())


def test_a_cancelled_follower_leaves_the_others_alone() -> None:
    gated = Gated()
    app = app_of(gated.handler, POLICY)

    async def test() -> None:
        under_way = [Exchange(app) for _ in range(3)]
        await gated.entered()
        await turns()
        await under_way[1].cancel()
        gated.open.set()
        assert [(await under_way[each].reply()).body for each in (0, 2)] == [b"text", b"text"]

    run(test())


@pytest.mark.parametrize("headers", [{"cache-control": "no-store"}, {"set-cookie": "a=1"}, {"vary": "*"}])
def test_a_response_that_cannot_be_shared_releases_all_at_once(headers: Mapping[str, str]) -> None:
    """The second handler begins before the first response has ended."""
    last, calls = asyncio.Event(), list[int]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append(1)
        lines = [(name.encode(), value.encode()) for name, value in headers.items()]
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": lines})
        await last.wait()
        await send({"type": "http.response.body", "body": b"text"})

    ours = TierCacheMiddleware(app, cache=TierCache(), routes={"/": POLICY})

    async def test() -> None:
        under_way = [Exchange(ours) for _ in range(20)]
        await until(lambda: len(calls) == 20)
        last.set()
        assert {(await each.reply()).body for each in under_way} == {b"text"}

    run(test())


def test_later_requests_do_not_queue_for_what_could_not_be_shared() -> None:
    gated = Gated(headers={"cache-control": "no-store"})
    app = app_of(gated.handler, POLICY)

    async def test() -> None:
        gated.open.set()
        await ask(app)
        gated.open.clear()
        under_way = [Exchange(app) for _ in range(5)]
        await gated.entered(6)
        gated.open.set()
        for each in under_way:
            await each.reply()

    run(test())


@pytest.mark.parametrize(("status", "runs"), [(503, 2), (404, 6)])
def test_after_an_error_of_the_server_requests_wait_for_one_again(status: int, runs: int) -> None:
    """It is over sooner than what is by its nature not to be shared."""
    go_on = asyncio.Event()

    async def respond(_: Request) -> PlainTextResponse:
        first = handler.calls == 1
        await go_on.wait()
        return PlainTextResponse("text", status_code=status if first else 200)

    handler = Handler(respond)
    app = app_of(handler, POLICY)

    async def test() -> None:
        go_on.set()
        await ask(app)
        go_on.clear()
        under_way = [Exchange(app) for _ in range(5)]
        await turns()
        go_on.set()
        for each in under_way:
            assert (await each.reply()).status == 200
        assert handler.calls == runs

    run(test())


def test_a_key_that_could_not_be_shared_is_stored_once_it_can() -> None:
    headers = {"cache-control": "no-store"}
    handler = Handler(lambda _: PlainTextResponse("text", headers=headers))
    app = app_of(handler, POLICY)

    async def test() -> None:
        await ask(app)
        headers.clear()
        await ask(app)
        assert (await ask(app)).hit

    run(test())


def test_a_failing_fill_fails_for_all_who_waited_for_it() -> None:
    go_on = asyncio.Event()

    async def respond(_: Request) -> PlainTextResponse:
        await go_on.wait()
        raise LookupError("as it is")

    handler = Handler(respond)
    app = app_of(handler, POLICY)

    async def test() -> None:
        under_way = [Exchange(app) for _ in range(5)]
        await until(lambda: handler.calls == 1)
        await turns()
        go_on.set()
        for each in under_way:
            with pytest.raises(LookupError, match="as it is"):
                await each.reply()
        assert handler.calls == 1

    run(test())


def test_after_a_failing_fill_the_next_request_tries_again() -> None:
    def respond(_: Request) -> PlainTextResponse:
        if handler.calls == 1:
            raise LookupError
        return PlainTextResponse("text")

    handler = Handler(respond)
    app = app_of(handler, POLICY)

    async def test() -> None:
        with pytest.raises(LookupError):
            await ask(app)
        assert (await ask(app)).body == b"text"

    run(test())
