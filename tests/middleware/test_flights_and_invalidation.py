"""What is being made while it is invalidated, and what is asked for afterwards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from asgi_tiercache import Policy, TierCache
from asgi_tiercache.testing import ScriptedTier
from tests.middleware.apps import Gated, Handler, app_of
from tests.middleware.asgi import Exchange, ask, run, turns, until

POLICY = Policy(ttl=60)

Invalidate = Callable[[TierCache], Awaitable[object]]
WAYS: dict[str, Invalidate] = {
    "tag": lambda cache: cache.invalidate("all"),
    "path": lambda cache: cache.invalidate_path("/"),
    "route": lambda cache: cache.invalidate_route("/"),
    "clear": lambda cache: cache.clear(),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("l2", [True, False])
def test_what_was_being_made_while_it_was_invalidated_is_never_served_afterwards(way: str, l2: bool) -> None:
    data = ["old"]
    cache = TierCache(l2=ScriptedTier() if l2 else None)
    gated = Gated(lambda: data[0])
    app = app_of(gated.handler, Policy(ttl=60, tags=("all",)), cache=cache)

    async def test() -> None:
        early = Exchange(app)
        await gated.entered()
        waiting = Exchange(app)
        await turns()
        data[0] = "new"
        await WAYS[way](cache)
        late = Exchange(app)
        await turns()
        gated.open.set()
        assert (await early.reply()).body == b"old"  # it began before
        assert (await waiting.reply()).body in (b"old", b"new")  # it arrived before
        assert (await late.reply()).body == b"new"
        assert (await ask(app)).body == b"new"

    run(test())


@pytest.mark.parametrize("way", WAYS)
def test_an_invalidation_makes_the_next_request_a_miss(way: str) -> None:
    cache, handler = TierCache(l2=ScriptedTier()), Handler()
    app = app_of(handler, Policy(ttl=60, tags=("all",)), cache=cache)

    async def test() -> None:
        for number in (b"answer 1", b"answer 2"):
            assert (await ask(app)).body == number
            reply = await ask(app)
            assert (reply.hit, reply.body) == (True, number)
            await WAYS[way](cache)

    run(test())


def test_one_user_is_invalidated_and_no_other() -> None:
    cache, handler = TierCache(), Handler()
    app = app_of(handler, Policy(ttl=60, query=(), user=lambda scope: scope["query_string"]), cache=cache)

    async def test() -> None:
        for user in (b"ann", b"bob"):
            await ask(app, query=user)
        await cache.invalidate_user("ann")
        assert not (await ask(app, query=b"ann")).hit
        assert (await ask(app, query=b"bob")).hit

    run(test())


def test_a_key_given_to_invalidate_key_is_invalidated() -> None:
    tier = ScriptedTier()
    cache, handler = TierCache(l2=tier, namespace="shop"), Handler()
    app = app_of(handler, POLICY, cache=cache)

    async def test() -> None:
        await ask(app)
        await until(lambda: bool(tier.data))
        (key,) = tier.data
        await cache.invalidate_key(key.removeprefix("shop:"))
        assert not (await ask(app)).hit

    run(test())
