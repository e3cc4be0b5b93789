"""Stale responses that stand in for errors, and those that are used while they are validated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.middleware import Middleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.responses import StreamingResponse
from starlette.testclient import TestClient

from asgi_tiercache import Policy, Region, TierCache
from asgi_tiercache.testing import TickingClock
from tests.engine.doubles import Fleet, alone, written
from tests.middleware.apps import Handler, app_of
from tests.middleware.asgi import Exchange, ask, http_scope, run, turns, until
from tests.middleware.origins import Origin

HTTP = Policy.http(tags=("t",))
RFC = Policy.rfc9111(tags=("t",))
EXPLICIT = Policy(ttl=10, tags=("t",))
FAILED = [500, 502, 503, 504, RuntimeError("down")]


async def idle(cache: TierCache) -> None:
    """Wait until nothing is being made anew."""
    await turns()
    await until(lambda: not cache.engine.fills.tasks())


@pytest.mark.parametrize("fails", FAILED)
def test_what_was_invalidated_while_the_handler_ran_does_not_stand_in_for_its_error(fails: int | Exception) -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin()
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app)
        clock.tick(11)
        origin.open.clear()
        exchange = Exchange(app)
        await until(lambda: origin.handler.calls == 2)
        await cache.invalidate("t")
        origin.fails = fails
        origin.open.set()
        if isinstance(fails, Exception):
            with pytest.raises(RuntimeError):
                await exchange.reply()
        else:
            assert (await exchange.reply()).status == fails

    run(test())


def test_what_was_invalidated_while_a_request_waited_is_not_asked_about_and_stands_in_for_nothing() -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin()
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app)
        clock.tick(11)
        origin.open.clear()
        first = Exchange(app)
        await until(lambda: origin.handler.calls == 2)
        waiting = Exchange(app)
        await turns()
        await cache.invalidate("t")
        origin.fails = 503
        origin.open.set()
        await first.reply()
        assert (await waiting.reply()).status == 503
        assert "if-none-match" not in origin.handler.seen.headers

    run(test())


@pytest.mark.parametrize("policy", [HTTP, RFC])
@pytest.mark.parametrize("fails", [503, RuntimeError("down")])
def test_an_outage_does_not_turn_a_route_away_from_what_is_stored(policy: Policy, fails: int | Exception) -> None:
    async def test() -> None:
        cache, _ = alone()
        origin = Origin("max-age=100")
        app = app_of(origin.handler, policy, cache=cache)
        await ask(app)
        origin.fails = fails
        for number in range(8):
            try:
                await ask(app, query=b"%d" % number)
            except RuntimeError:
                assert isinstance(fails, Exception)
        reply = await ask(app)
        assert (reply.status, reply.hit) == (200, True)

    run(test())


def test_a_route_without_anything_to_store_looks_again_once_it_fails() -> None:
    """Other responses of the route may be stored, and are of use then."""

    async def test() -> None:
        cache, _ = alone()
        origin = Origin("max-age=100")
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app)
        origin.fails = 404
        for number in range(8):
            await ask(app, query=b"%d" % number)
        origin.fails = 503
        await ask(app, query=b"x")
        reply = await ask(app)
        assert (reply.status, reply.hit) == (200, True)

    run(test())


# ---- in place of errors ----


@pytest.mark.parametrize("policy", [HTTP, RFC])
@pytest.mark.parametrize("fails", FAILED)
def test_a_stale_response_stands_in_for_an_error_and_stays_what_it_was(policy: Policy, fails: int | Exception) -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin()
        app = app_of(origin.handler, policy, cache=cache)
        await ask(app)
        clock.tick(11)
        origin.fails = fails
        for _ in range(6):
            reply = await ask(app)
            assert (reply.status, reply.body) == (200, b"version 1")
            status = f"fwd-status={fails}; " if isinstance(fails, int) else ""
            assert reply.cache_status == f"tiercache; fwd=stale; {status}detail=stale-if-error"
            assert dict(reply.messages[0]["headers"])[b"age"] == b"11"
        assert origin.handler.calls == 7, "it is not stored as fresh"
        origin.fails = None
        assert "fwd-status=304" in (await ask(app)).cache_status
        assert (await ask(app)).hit

    run(test())


def test_an_error_that_is_no_failure_is_told_as_it_is() -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin()
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app)
        clock.tick(11)
        origin.fails = 501
        assert (await ask(app)).status == 501

    run(test())


@pytest.mark.parametrize(
    "cache_control",
    [
        "max-age=10, must-revalidate",
        "max-age=10, proxy-revalidate",
        "s-maxage=10",
        "no-cache",
        "max-age=10, must-revalidate, stale-if-error=100",
        "max-age=10, stale-if-error=5",
    ],
)
@pytest.mark.parametrize("policy", [HTTP, RFC])
def test_what_forbids_it_is_obeyed(policy: Policy, cache_control: str) -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin(cache_control)
        app = app_of(origin.handler, policy, cache=cache)
        await ask(app)
        clock.tick(16)
        origin.fails = 503
        assert (await ask(app)).status == 503
        origin.fails = None
        assert "fwd-status=304" in (await ask(app)).cache_status, "it is still there to be validated"

    run(test())


@pytest.mark.parametrize(("after", "status"), [(19, 200), (21, 503)])
def test_an_explicit_policy_lets_a_response_permit_it_itself(after: int, status: int) -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin("max-age=1, stale-if-error=10")
        app = app_of(origin.handler, EXPLICIT, cache=cache)
        await ask(app)
        clock.tick(after)
        origin.fails = 503
        assert (await ask(app)).status == status

    run(test())


def test_retention_under_an_explicit_policy_permits_validation_and_nothing_stale() -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin()
        app = app_of(origin.handler, EXPLICIT.but(retention=30), cache=cache)
        await ask(app)
        clock.tick(39)
        origin.fails = 503
        assert (await ask(app)).status == 503
        origin.fails = None
        assert "fwd-status=304" in (await ask(app)).cache_status
        clock.tick(41)
        assert (await ask(app)).cache_status == "tiercache; fwd=uri-miss; stored"

    run(test())


@pytest.mark.parametrize("fails", [503, RuntimeError("down")])
def test_all_who_wait_for_a_fill_that_fails_are_given_the_stale_response(fails: int | Exception) -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin()
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app)
        clock.tick(11)
        origin.open.clear()
        exchanges = [Exchange(app) for _ in range(20)]
        await until(lambda: origin.handler.calls == 2)
        await turns()
        origin.fails = fails
        origin.open.set()
        replies = [await exchange.reply() for exchange in exchanges]
        assert {(reply.status, reply.body) for reply in replies} == {(200, b"version 1")}
        assert origin.handler.calls == 2
        assert {reply.cache_status for reply in replies[1:]} == {
            "tiercache; fwd=stale; ttl=-1; collapsed; detail=flight-stale"
        }

    run(test())


@pytest.mark.parametrize(("cache_control", "stands_in"), [("max-age=10", True), ("max-age=10, must-revalidate", False)])
def test_who_waits_for_a_response_that_breaks_off_is_given_the_stale_one(cache_control: str, stands_in: bool) -> None:
    async def test() -> None:
        cache, clock = alone()
        broken = asyncio.Event()

        async def chunks() -> AsyncIterator[bytes]:
            yield b"begun"
            if handler.calls > 1:
                await broken.wait()
                raise RuntimeError("down")

        lines = {"cache-control": cache_control, "etag": '"1"'}
        handler = Handler(lambda _: StreamingResponse(chunks(), headers=lines))
        app = app_of(handler, HTTP, cache=cache)
        await ask(app)
        clock.tick(11)
        leader = Exchange(app)
        await leader.until(2)
        waiting = Exchange(app)
        await turns()
        broken.set()
        with pytest.raises(RuntimeError):
            await leader.reply()
        if stands_in:
            assert (await waiting.reply()).body == b"begun"
            assert (await waiting.reply()).cache_status.endswith("ttl=-1; collapsed; detail=flight-stale")
        else:  # it has had the beginning, too
            with pytest.raises(OSError, match="ended too early"):
                await waiting.reply()

    run(test())


def test_who_waits_and_wants_validation_is_not_given_what_stands_in() -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin()
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app)
        clock.tick(11)
        origin.open.clear()
        leader = Exchange(app)
        await until(lambda: origin.handler.calls == 2)
        waiting = Exchange(app, http_scope(headers=[(b"cache-control", b"no-cache")]))
        await turns()
        origin.fails = 503
        origin.open.set()
        assert (await leader.reply()).status == 200
        assert (await waiting.reply()).status == 503

    run(test())


def test_who_waits_with_a_credential_is_not_given_what_is_not_for_it() -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin()
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app)
        clock.tick(11)
        origin.open.clear()
        leader = Exchange(app)
        await until(lambda: origin.handler.calls == 2)
        waiting = Exchange(app, http_scope(headers=[(b"cookie", b"a=b")]))
        await turns()
        origin.fails = 503
        origin.open.set()
        assert (await leader.reply()).status == 200
        assert (await waiting.reply()).status == 503

    run(test())


def test_an_error_after_the_response_began_is_an_error() -> None:
    async def test() -> None:
        cache, clock = alone()

        async def chunks() -> AsyncIterator[bytes]:
            yield b"begun"
            if handler.calls > 1:
                raise RuntimeError("down")

        lines = {"cache-control": "max-age=10", "etag": '"1"'}
        handler = Handler(lambda _: StreamingResponse(chunks(), headers=lines))
        app = app_of(handler, HTTP, cache=cache)
        await ask(app)
        clock.tick(11)
        with pytest.raises(RuntimeError):
            await ask(app)
        assert "if-none-match" in handler.seen.headers
        clock.tick(1)
        with pytest.raises(RuntimeError):
            await ask(app)

    run(test())


@pytest.mark.parametrize("policy", [HTTP, EXPLICIT])
def test_a_client_that_leaves_during_a_validation_spoils_nothing(policy: Policy) -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin("max-age=10, stale-if-error=100")
        app = app_of(origin.handler, policy, cache=cache)
        await ask(app)
        clock.tick(11)
        origin.open.clear()
        leaving = Exchange(app)
        await until(lambda: origin.handler.calls == 2)
        staying = Exchange(app)
        await turns()
        leaving.disconnect()
        await leaving.cancel()
        origin.open.set()
        assert (await staying.reply()).body == b"version 1"
        assert (await ask(app)).hit
        assert origin.handler.calls == 2

    run(test())


def test_starlettes_server_error_middleware_above_hears_of_nothing_and_below_is_stood_in_for() -> None:
    clock = TickingClock()
    for below in ([], [Middleware(ServerErrorMiddleware)]):
        origin = Origin()
        client = TestClient(app_of(origin.handler, HTTP, cache=TierCache(clock=clock), below=below))
        client.get("/")
        clock.tick(11)
        origin.fails = RuntimeError("down")
        assert client.get("/").text == "version 1"


def test_what_stands_in_overwrites_nothing_in_the_lower_tier() -> None:
    async def test() -> None:
        fleet = Fleet()
        one, two = fleet.worker(), fleet.worker()
        origin = Origin()
        await ask(app_of(origin.handler, HTTP, cache=one))
        await written(one)
        before = dict(fleet.tier.data)
        fleet.clock.tick(11)
        origin.fails = 503
        reply = await ask(app_of(origin.handler, HTTP, cache=two))
        assert reply.body == b"version 1", "found in the lower tier alone"
        await written(two)
        assert fleet.tier.data == before
        await one.aclose()
        await two.aclose()

    run(test())


@pytest.mark.parametrize(("after", "status"), [(3_609, 200), (3_611, 503)])
@pytest.mark.parametrize("l1_ttl", [None, 5])
def test_what_is_kept_past_its_freshness_is_kept_for_so_long_in_both_tiers(
    l1_ttl: int | None, after: int, status: int
) -> None:
    async def test() -> None:
        fleet = Fleet()
        cache = fleet.worker()
        origin = Origin()
        app = app_of(origin.handler, HTTP.but(l1_ttl=l1_ttl), cache=cache)
        await ask(app)
        await written(cache)
        fleet.clock.tick(after)
        origin.fails = 503
        assert (await ask(app)).status == status
        await cache.aclose()

    run(test())


def test_a_region_that_gives_up_what_expires_first_gives_up_the_stale() -> None:
    async def test() -> None:
        cache, clock = alone()
        region = Region(name="small", max_entries=2, eviction="ttl")
        origin = Origin()
        app = app_of(origin.handler, HTTP.but(region=region), cache=cache)
        await ask(app)
        clock.tick(11)
        await ask(app, query=b"1")
        await ask(app, query=b"2")
        origin.fails = 503
        assert [(await ask(app, query=query)).status for query in (b"1", b"2", b"")] == [200, 200, 503]
        bucket = cache.engine.memory.bucket(region)
        assert bucket.bytes == sum(entry.weight for _, entry in bucket.entries())

    run(test())


# ---- while they are validated ----

REVALIDATED = "max-age=10, stale-while-revalidate=20"


@pytest.mark.parametrize("policy", [HTTP, RFC, EXPLICIT])
def test_it_is_used_at_once_while_one_request_validates_it(policy: Policy) -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin(REVALIDATED)
        app = app_of(origin.handler, policy, cache=cache)
        await ask(app)
        clock.tick(25)
        origin.open.clear()
        for _ in range(5):
            reply = await ask(app)
            assert (reply.body, reply.cache_status) == (b"version 1", "tiercache; hit; ttl=-15; detail=L1-stale")
        await until(lambda: origin.handler.calls == 2)
        assert origin.handler.seen.headers["if-none-match"] == '"v1"'
        origin.open.set()
        await idle(cache)
        assert (await ask(app)).cache_status == "tiercache; hit; ttl=10; detail=L1"
        assert origin.answers == [200, 304]

    run(test())


@pytest.mark.parametrize("fails", FAILED)
def test_where_the_validation_fails_what_is_stored_stays(fails: int | Exception) -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin(REVALIDATED)
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app)
        clock.tick(25)
        origin.fails = fails
        for _ in range(6):
            assert "L1-stale" in (await ask(app)).cache_status
            await idle(cache)
        assert origin.handler.calls == 7

    run(test())


@pytest.mark.parametrize("credential", [(b"cookie", b"a=b"), (b"authorization", b"Basic eA==")])
def test_a_request_with_a_credential_has_it_validated_for_itself(credential: tuple[bytes, bytes]) -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin(f"{REVALIDATED}, public")
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app)
        clock.tick(15)
        reply = await ask(app, headers=[credential])
        assert reply.cache_status == "tiercache; fwd=stale; fwd-status=304; stored"

    run(test())


def test_head_is_given_what_is_stale_and_starts_nothing() -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin(REVALIDATED)
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app)
        clock.tick(15)
        assert (await ask(app, method="HEAD")).hit
        await idle(cache)
        assert origin.handler.calls == 1

    run(test())


def test_a_hard_invalidation_ends_it() -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin(REVALIDATED)
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app)
        clock.tick(15)
        await cache.invalidate("t")
        origin.version = 2
        reply = await ask(app)
        assert (reply.body, reply.cache_status) == (b"version 2", "tiercache; fwd=uri-miss; stored")

    run(test())


def test_a_hard_invalidation_while_it_is_validated_holds() -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin(REVALIDATED)
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app)
        clock.tick(15)
        origin.open.clear()
        await ask(app)
        await until(lambda: origin.handler.calls == 2)
        await cache.invalidate("t")
        origin.open.set()  # it may have looked before the change, and says that nothing has changed
        await idle(cache)
        origin.version = 2
        assert (await ask(app)).body == b"version 2"

    run(test())


# ---- by the request's leave ----


def test_a_request_that_accepts_what_is_stale_is_given_it_up_to_its_limit() -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin()
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app)
        clock.tick(15)

        async def asked(directives: bytes) -> str:
            return (await ask(app, headers=[(b"cache-control", directives)])).cache_status

        assert await asked(b"max-stale=5") == "tiercache; hit; ttl=-5; detail=L1-stale"
        assert await asked(b"only-if-cached, max-stale") == "tiercache; hit; ttl=-5; detail=L1-stale"
        assert (await ask(app, headers=[(b"cache-control", b"only-if-cached")])).status == 504
        assert origin.handler.calls == 1
        assert "fwd-status=304" in await asked(b"max-stale=4")

    run(test())
