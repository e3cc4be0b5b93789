"""What does a hit cost, and what does passing by cost, beside a bare ASGI app?

CPU time of one process, every contender in turn within each round, many short rounds; shown are the median over the
rounds and its 10th to 90th percentile. Every request has objects of its own, as a server makes them: nothing is hashed
beforehand.

    python benchmarks/hit.py                    L1 hits and passing by
    python benchmarks/hit.py redis://...        L2 hits as well, beside one plain redis-py GET of the same bytes
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware

ROUNDS = 1_000
REQUESTS = 40
L2_ROUNDS = 400
L2_REQUESTS = 40
AT_ONCE = 50

Scope = dict[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]

HEADERS = [
    (b"host", b"example.org"),
    (b"connection", b"keep-alive"),
    (b"sec-ch-ua", b'"Chromium";v="138", "Not)A;Brand";v="8"'),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/138.0 Safari/537.36"),
    (b"accept", b"application/json, text/plain, */*"),
    (b"sec-fetch-site", b"same-origin"),
    (b"sec-fetch-mode", b"cors"),
    (b"referer", b"https://example.org/videos"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"accept-language", b"en-GB,en;q=0.9"),
]


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: dict[str, Any]) -> None:
    pass


def fresh(data: bytes) -> bytes:
    """The same bytes as a new object, whose hash is not known yet."""
    return bytes(bytearray(data))


def scopes(number: int, path: str, app: object, **more: Any) -> list[Scope]:
    return [
        {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "server": ("127.0.0.1", 8000),
            "client": ("127.0.0.1", 50_000),
            "scheme": "http",
            "method": "GET",
            "root_path": "",
            "path": fresh(path.encode()).decode(),
            "raw_path": fresh(path.encode()),
            "query_string": fresh(b"page=2&q=cats"),
            "headers": [(fresh(name), fresh(value)) for name, value in HEADERS],
            "state": {},
            **({"app": app} if app is not None else {}),
            **more,
        }
        for _ in range(number)
    ]


def bare_app(size: int, headers: list[tuple[bytes, bytes]]) -> App:
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    body = {"type": "http.response.body", "body": b"x" * size}

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send(start)
        await send(body)

    return app


def plain_headers(size: int) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", b"application/json"), (b"content-length", b"%d" % size)]


async def timed(app: App, requests: list[Scope]) -> float:
    """Microseconds of CPU for each request."""
    began = time.process_time()
    for scope in requests:
        await app(scope, receive, send)
    return (time.process_time() - began) / len(requests) * 1e6


async def compare(contenders: dict[str, tuple[App, str, object]]) -> dict[str, list[float]]:
    """The microseconds of each contender, round by round."""
    results: dict[str, list[float]] = {name: [] for name in contenders}
    for app, path, owner in contenders.values():  # fill, and let memos settle
        await timed(app, scopes(20, path, owner))
    gc.disable()
    for _ in range(ROUNDS):
        for name, (app, path, owner) in contenders.items():
            requests = scopes(REQUESTS, path, owner)
            results[name].append(await timed(app, requests))
    gc.enable()
    return results


def table(results: dict[str, list[float]], base: str, goals: dict[str, str]) -> None:
    floor = results[base]
    print(f"{'':44} {'us':>7} {'over bare':>10} {'p10':>7} {'p90':>7}  goal")
    for name, times in results.items():
        over = [mine - theirs for mine, theirs in zip(times, floor, strict=True)]
        tenths = statistics.quantiles(over, n=10)
        print(
            f"{name:44} {statistics.median(times):7.2f} {statistics.median(over):10.2f} "
            f"{tenths[0]:7.2f} {tenths[8]:7.2f}  {goals.get(name, '')}"
        )


def fastapi_app(cache: TierCache) -> tuple[FastAPI, TierCacheMiddleware]:
    """An app of 30 routes; its router never runs, but the middleware has to choose as it would."""
    api = FastAPI()
    for number in range(30):
        api.get(f"/things{number}/{{thing_id}}")(cache.response(ttl=300, tags=["thing:{thing_id}"])(endpoint(number)))
    return api, TierCacheMiddleware(bare_app(1024, plain_headers(1024)), cache=cache)


def endpoint(number: int) -> Callable[[int], Any]:
    async def get(thing_id: int, page: int = 1, q: str = "") -> dict[str, int]:
        return {"thing": thing_id}

    get.__name__ = f"get{number}"
    return get


async def in_process() -> None:
    cache = TierCache()
    routes = {"/small": Policy(ttl=300), "/large": Policy(ttl=300), "/never": None}
    small, large = bare_app(1024, plain_headers(1024)), bare_app(65_536, plain_headers(65_536))
    says_so = bare_app(1024, [*plain_headers(1024), (b"cache-control", b"public, max-age=300")])
    varies = bare_app(
        1024, [*plain_headers(1024), (b"cache-control", b"public, max-age=300"), (b"vary", b"accept-encoding")]
    )
    api, in_fastapi = fastapi_app(cache)

    def cached(app: App) -> App:
        return TierCacheMiddleware(app, cache=cache, routes=routes)

    contenders: dict[str, tuple[App, str, object]] = {
        "bare app, 1 KB": (small, "/small", None),
        "L1 hit, 1 KB": (cached(small), "/small", None),
        "L1 hit, 64 KB": (cached(large), "/large", None),
        "L1 hit, 1 KB, of a FastAPI app of 30 routes": (in_fastapi, "/things29/42", api),
        "L1 hit, 1 KB, HTTP mode": (cached(says_so), "/http", None),
        "L1 hit, 1 KB, HTTP mode, Vary": (cached(varies), "/varies", None),
        "passing by: a route never cached": (cached(small), "/never", None),
        "passing by: nothing says it may be stored": (cached(small), "/silent", None),
    }
    goals = dict.fromkeys((name for name in contenders if name.startswith("L1 hit")), "<= 4, better 2.5")
    goals |= dict.fromkeys((name for name in contenders if name.startswith("passing")), "<= 5")
    table(await compare(contenders), "bare app, 1 KB", goals)


async def lower_tier(url: str) -> None:
    """An L2 hit reads, checks and decodes the entry, judges it, puts it into L1 and sends it.

    Every entry is asked for once in a round; L1 is emptied between the rounds, which is not measured. The two
    contenders take turns every few milliseconds, and who begins changes, so that what else the machine does meets both.
    """
    client = Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=None)
    paths = [f"/l2/{number}" for number in range(max(L2_REQUESTS, AT_ONCE))]
    async with TierCache.from_url(url, namespace="benchmark") as cache:
        app = TierCacheMiddleware(bare_app(1024, plain_headers(1024)), cache=cache, routes={"/l2/*": Policy(ttl=300)})
        stack = cache.engine.stack
        assert stack is not None
        for path in paths:
            await app(scopes(1, path, None)[0], receive, send)
        await stack.flush()
        keys = [key async for key in client.scan_iter("benchmark:api:response:*")]
        assert len(keys) == len(paths)

        async def plain() -> float:
            began = time.process_time()
            for key in keys[:L2_REQUESTS]:
                await client.get(key)
            return (time.process_time() - began) / L2_REQUESTS * 1e6

        async def ours() -> float:
            cache.engine.memory.clear()
            return await timed(app, [scopes(1, path, None)[0] for path in paths[:L2_REQUESTS]])

        results: dict[str, list[float]] = {"plain": [], "ours": []}
        contenders = [("plain", plain), ("ours", ours)]
        for number in range(-10, L2_ROUNDS):
            for name, contender in contenders if number % 2 else reversed(contenders):
                time_taken = await contender()
                if number >= 0:  # before, memos settle
                    results[name].append(time_taken)
        hits = cache.stats()["tiers"]["L2"]["hits"]
        assert hits == (L2_ROUNDS + 10) * L2_REQUESTS
        commands = await commands_for(app, cache, client, paths[:AT_ONCE])
        await client.delete(*keys)
    await client.aclose()
    ratios = [mine / theirs for mine, theirs in zip(results["ours"], results["plain"], strict=True)]
    tenths = statistics.quantiles(ratios, n=10)
    print(
        f"\nL2 hit: {statistics.median(results['ours']):.1f} us, "
        f"one redis-py GET: {statistics.median(results['plain']):.1f} us, "
        f"ratio {statistics.median(ratios):.2f} (p10 {tenths[0]:.2f}, p90 {tenths[8]:.2f}); goal 1.15, at most 1.3"
    )
    print(f"{AT_ONCE} L2 hits at once: {commands} Redis commands; goal: one each, fewer under concurrency")


async def commands_for(app: App, cache: TierCache, client: Any, paths: list[str]) -> int:
    """The reads that Redis counts while `paths` are asked for at the same time."""
    cache.engine.memory.clear()
    before = await reads_so_far(client)
    await asyncio.gather(*(app(scopes(1, path, None)[0], receive, send) for path in paths))
    return await reads_so_far(client) - before


async def reads_so_far(client: Any) -> int:
    counts = await client.info("commandstats")
    return sum(counts[name]["calls"] for name in ("cmdstat_get", "cmdstat_mget") if name in counts)


if __name__ == "__main__":
    asyncio.run(in_process())
    if len(sys.argv) > 1:
        asyncio.run(lower_tier(sys.argv[1]))
