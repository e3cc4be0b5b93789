"""Random requests without end: nothing that a cache holds grows with their number."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import types
from collections.abc import Iterable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Message, Scope

from asgi_tiercache import Policy, Region, TierCache, TierCacheMiddleware
from tests.middleware.asgi import http_scope

REQUESTS = 100_000
STEP = 10_000
SMALL = Region(name="small", max_entries=500)
_NOT_OURS = (types.ModuleType, type, types.CodeType, types.FrameType, asyncio.AbstractEventLoop, asyncio.Task)


def held_by(*roots: object) -> tuple[int, str]:
    """How many bytes can be reached from `roots`, and what the largest containers are."""
    seen: set[int] = set()
    ahead: list[object] = list(roots)
    taken, containers = 0, []
    while ahead:
        held = ahead.pop()
        if id(held) in seen or isinstance(held, _NOT_OURS):
            continue
        seen.add(id(held))
        taken += sys.getsizeof(held)
        if isinstance(held, dict | list | set | tuple) and len(held) > 1_000:
            containers.append((len(held), type(held).__name__, repr(next(iter(held)))[:80]))
        ahead += referents(held)
    return taken, "\n".join(map(str, sorted(containers, reverse=True)[:20]))


def referents(held: object) -> Iterable[Any]:
    if isinstance(held, types.FunctionType):  # not its globals
        return [cell.cell_contents for cell in held.__closure__ or () if cell.cell_contents is not None]
    return gc.get_referents(held)


def an_app(cache: TierCache, chance: random.Random) -> TierCacheMiddleware:
    """Routes on which everything happens that remembers something of a key."""
    speaking = ("no-store", "max-age=60", "max-age=60, stale-while-revalidate=5")

    @cache.cached("kept:{text}", ttl=60, region=SMALL, refresh_ahead=True)
    async def kept(text: str) -> str:
        return text

    @cache.cached("refused:{text}", ttl=60, region=SMALL)
    async def refused(text: str) -> str:
        cache.current.no_store()
        return text

    async def plain(_: Request) -> Response:
        return Response(b"plain")

    async def varying(_: Request) -> Response:
        return PlainTextResponse("varying", headers={"vary": "accept-language"})

    async def open_(_: Request) -> Response:
        return Response(b"open", headers={"cache-control": chance.choice(speaking)})

    async def functions(request: Request) -> Response:
        text = request.query_params["q"]
        return PlainTextResponse(await kept(text) + await refused(text))

    app = Starlette(
        routes=[
            Route("/varying", varying),
            Route("/ahead", plain),
            Route("/paths/{path}", plain),
            Route("/open", open_),
            Route("/functions", functions),
        ]
    )
    policies = {
        "/varying": Policy(ttl=60, region=SMALL, tags=["q:{q}"], early_refresh=1),
        "/ahead": Policy(ttl=60, region=SMALL, refresh_ahead=True, vary_on=["x-any"], ignore=["cookie"]),
        "/paths/{path}": Policy(ttl=60, region=SMALL, hash_path=True, jitter=0.1),
    }
    return TierCacheMiddleware(app, cache=cache, routes=policies, default=Policy.http(region=SMALL))


def a_request(chance: random.Random) -> Scope:
    text = f"{chance.getrandbits(64):x}"
    path = chance.choice(("/varying", "/ahead", f"/paths/{text}", "/open", "/functions", f"/nowhere/{text}"))
    lines = [(b"accept-language", text.encode()), (b"x-any", text.encode()), (b"cookie", b"a=" + text.encode())]
    method = "HEAD" if chance.random() < 0.02 else "GET"
    return http_scope(
        path, method=method, query=b"q=" + text.encode(), headers=chance.sample(lines, chance.randrange(3))
    )


@pytest.mark.long
def test_nothing_grows_with_the_number_of_different_requests() -> None:
    chance = random.Random(7)
    cache = TierCache()
    app = an_app(cache, chance)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_: Message) -> None:
        pass

    async def test() -> None:
        taken, largest = [], ""
        async with cache:
            for number in range(1, REQUESTS + 1):
                await app(a_request(chance), receive, send)
                if number % STEP == 0:
                    await asyncio.sleep(0.1)
                    gc.collect()
                    now, largest = held_by(cache, app)
                    taken.append(now)
        print([f"{each / 1e6:.1f} MB" for each in taken])  # noqa: T201 - what was measured
        half = len(taken) // 2
        assert max(taken[half:]) < 1.2 * max(taken[:half]), largest
        assert max(taken) < 150e6, largest

    asyncio.run(test())
