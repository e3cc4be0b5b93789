"""What does a cold or an ageing key cost, when a thousand ask for it at once?

    python benchmarks/stampede.py                   with a Redis of its own, from PATH
    python benchmarks/stampede.py redis://...       with this one: what else it does is counted as well
    python benchmarks/stampede.py --only 2          one of the sections

1. Several processes, each with 50 requests at the same moment for one cold key, and one Redis: handler calls, Redis
   commands, and how long the slowest client waits beside what the handler takes.
2. What it costs to wait for another one's fill: 1,000 requests in one process, beside a bare ASGI app whose 1,000
   requests wait for one future and send the same bytes; and the same of a decorated function.
3. Early refresh at 1,000 requests a second, on a ticking clock: who waits, and how often the handler is called.

About a minute. Shown are medians, and the 10th to 90th percentile.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import itertools
import multiprocessing
import random
import secrets
import statistics
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from hit import Scope, plain_headers, receive, scopes, send
from invalidation import forget, own_server
from redis import Redis

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.testing import TickingClock

PROCESSES = 4
AT_ONCE = 50
HANDLER_SECONDS = 0.3
COLD_ROUNDS = 20

FOLLOWERS = 1_000
FOLLOWER_ROUNDS = 40

TTL = 5.0
PERIODS = 40
RATE = 1_000
REQUESTS = round(PERIODS * TTL * RATE)

HEADERS = plain_headers(1024)
BODY = b"x" * 1024


def spread(numbers: Sequence[float], unit: str, digits: int = 1) -> str:
    """The median, and how far it can be trusted."""
    tenths = [f"{tenth:.{digits}f}" for tenth in statistics.quantiles(numbers, n=10)]
    return f"{statistics.median(numbers):.{digits}f} {unit} (p10 {tenths[0]}, p90 {tenths[8]})"


# ---- 1. a cold key, and several processes ----


async def cold(url: str) -> None:
    """Let the processes ask at the same moment, again and again, each time for a key that nobody has."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(PROCESSES + 1, timeout=60)
    answers: Any = context.Queue()
    namespace = f"stampede-{secrets.token_hex(4)}"
    arguments = (url, namespace, barrier, answers)
    processes = [context.Process(target=worker, args=arguments, daemon=True) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    try:
        with Redis.from_url(url) as client:
            for kind in ("responses", "values of a function"):
                rounds = [one_round(client, barrier, answers) for _ in range(COLD_ROUNDS)]
                show_cold(kind, rounds[1:])  # in the first, connections are opened
            forget(client, namespace)
    finally:
        for process in processes:
            process.join(10)
            process.terminate()


class Round(NamedTuple):
    """What came of one moment at which all processes asked for the same."""

    calls: int
    """Of the handler."""
    seconds: float
    """From the first request until the last answer, whichever process they belong to."""
    counts: dict[str, int]
    """Commands that Redis counted, by name: those of this program left out, those that scripts call included."""

    @property
    def sent(self) -> dict[str, int]:
        """The commands that the workers sent.

        A script that releases a lease calls GET, DEL and PUBLISH; one that asks where the log stands, the rest.
        """
        by_scripts = {name: self.counts.get(name, 0) for name in ("del", "publish", "time", "hmget", "hget", "info")}
        by_scripts["get"] = by_scripts["del"]
        return {name: count - by_scripts.get(name, 0) for name, count in self.counts.items()}


def one_round(client: Any, barrier: Any, answers: Any) -> Round:
    """Let all ask, and count from then on."""
    barrier.wait()  # all are ready
    client.config_resetstat()
    barrier.wait()
    told = [answers.get(timeout=60) for _ in range(PROCESSES)]
    time.sleep(0.05)  # what is sent behind the clients' backs: the entry, and the news that it is there
    counts = {name.removeprefix("cmdstat_"): each["calls"] for name, each in client.info("commandstats").items()}
    counts.pop("config|resetstat")
    return Round(sum(each[0] for each in told), max(each[2] for each in told) - min(each[1] for each in told), counts)


def show_cold(kind: str, rounds: list[Round]) -> None:
    sent = [each.sent for each in rounds]
    totals = [float(sum(each.values())) for each in sent]
    of_log = [float(each.counts.get("time", 0) + each.counts.get("xread", 0)) for each in rounds]
    all_told = [float(sum(each.counts.values())) for each in rounds]
    waits = [each.seconds / HANDLER_SECONDS for each in rounds]
    usual = {name: statistics.median(each.get(name, 0) for each in sent) for name in sorted(set().union(*sent))}
    print(f"   {kind}: handler calls {', '.join(map(str, sorted({each.calls for each in rounds})))} (goal 1)")
    print(f"      Redis commands sent {spread(totals, 'in all')}, most {max(totals):.0f} (goal 30)")
    print(f"      namely {', '.join(f'{count:g} {name.upper()}' for name, count in usual.items() if count)}")
    print(f"      of these to follow and confirm the log, which goes on all the time: {spread(of_log, 'in all')}")
    print(f"      with what scripts call {spread(all_told, 'in all')}")
    print(
        f"      first request until last answer {spread(waits, 'x', 3)} the handler, most {max(waits):.3f} (goal 1.2)"
    )


def worker(url: str, namespace: str, barrier: Any, answers: Any) -> None:
    """One process: an app, and the middleware around it."""

    async def body() -> None:
        calls = 0

        async def handler(scope: Scope, receive: Any, send: Any) -> None:
            await compute(0)
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            await send({"type": "http.response.body", "body": BODY})

        async def compute(number: int) -> str:
            nonlocal calls
            calls += 1
            await asyncio.sleep(HANDLER_SECONDS)
            return "x" * 1024

        async with TierCache.from_url(url, namespace=namespace) as cache:
            app = TierCacheMiddleware(handler, cache=cache, routes={"/cold/*": Policy(ttl=300)})
            value = cache.cached("cold:{number}", ttl=300)(compute)

            def requests(number: int) -> list[Callable[[], Awaitable[object]]]:
                return [
                    lambda scope=scope: app(scope, receive, send) for scope in scopes(AT_ONCE, f"/cold/{number}", None)
                ]

            def values(number: int) -> list[Callable[[], Awaitable[object]]]:
                return [lambda: value(number)] * AT_ONCE

            for of_round in (requests, values):
                for number in range(COLD_ROUNDS):
                    asked, calls = of_round(number), 0
                    await asyncio.to_thread(barrier.wait)
                    await asyncio.to_thread(barrier.wait)
                    begin = time.monotonic()
                    await asyncio.gather(*(ask() for ask in asked))
                    answers.put((calls, begin, time.monotonic()))

    asyncio.run(body())


# ---- 2. what a follower costs ----


async def followers() -> None:
    """Let 1,000 wait for one, in turns with 1,000 that wait for a future."""
    gate: asyncio.Future[None]

    async def answer(send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": BODY})

    async def bare(scope: Scope, receive: Any, send: Any) -> None:
        await gate
        await answer(send)

    async def compute(number: int) -> str:
        await gate
        return BODY.decode()

    async with TierCache() as cache:
        app = TierCacheMiddleware(bare, cache=cache, routes={"/*": Policy(ttl=300)})
        in_http_mode = TierCacheMiddleware(says_so(bare), cache=cache)
        value = cache.cached("value:{number}", ttl=300)(compute)
        contenders: dict[str, Callable[[Scope, int], Any]] = {
            "bare app that waits": lambda scope, _: bare(scope, receive, send),
            "request that waits for another's response": lambda scope, _: app(scope, receive, send),
            "the same in HTTP mode": lambda scope, _: in_http_mode(scope, receive, send),
            "bare function that waits": lambda _, number: compute(number),
            "call that waits for another's value": lambda _, number: value(number),
        }
        results: dict[str, list[float]] = {name: [] for name in contenders}
        gc.disable()
        for number in range(-3, FOLLOWER_ROUNDS):  # before 0, memos settle
            order = list(contenders)
            for name in random.sample(order, len(order)):
                gate = asyncio.get_running_loop().create_future()
                path = f"/{order.index(name)}/{number}"
                lead = asyncio.create_task(contenders[name](scopes(1, path, None)[0], number))
                await asyncio.sleep(0.001)
                took = await timed_followers(contenders[name], scopes(FOLLOWERS, path, None), number, gate)
                await lead
                if number >= 0:
                    results[name].append(took)
                gc.collect()
        gc.enable()
    for name, base in zip(
        list(contenders)[1:], (*["bare app that waits"] * 2, "", "bare function that waits"), strict=True
    ):
        if base:
            over = [mine - theirs for mine, theirs in zip(results[name], results[base], strict=True)]
            print(f"   {name:44} {statistics.median(results[name]):6.1f} us, over the {base} {spread(over, 'us')}")


async def timed_followers(
    ask: Callable[[Scope, int], Any], requests: list[Scope], number: int, gate: asyncio.Future[None]
) -> float:
    """Microseconds of CPU for each of those that wait for `gate`, or for who waits for it."""
    began = time.process_time()
    tasks = [asyncio.create_task(ask(scope, number)) for scope in requests]
    await asyncio.sleep(0.001)
    gate.set_result(None)
    await asyncio.gather(*tasks)
    return (time.process_time() - began) / len(requests) * 1e6


def says_so(app: Any) -> Any:
    """The app, whose responses say that they may be stored."""

    async def telling(scope: Scope, receive: Any, send: Any) -> None:
        async def tell(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"cache-control", b"public, max-age=300")]}
            await send(message)

        await app(scope, receive, tell)

    return telling


# ---- 3. early refresh ----


async def early() -> None:
    """Ask for a response, then for a value of a function."""
    for kind in ("responses", "values of a function"):
        await refreshed_early(kind)


async def refreshed_early(kind: str) -> None:
    """Ask every millisecond of a ticking clock; the handler takes its time by that clock."""
    clock = TickingClock()
    fills: list[float] = []

    async def compute(number: int) -> str:
        fills.append(clock.monotonic())
        await clock.sleep(HANDLER_SECONDS)
        return BODY.decode()

    async def handler(scope: Scope, receive: Any, send: Any) -> None:
        await compute(0)
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": BODY})

    async with TierCache(clock=clock) as cache:
        policy = Policy(ttl=TTL, early_refresh=1.0)
        app = TierCacheMiddleware(handler, cache=cache, routes={"/*": policy})
        value = cache.cached("value:{number}", policy)(compute)

        async def ask() -> None:
            if kind == "responses":
                await app(scopes(1, "/early", None)[0], receive, send)
            else:
                await value(0)

        waited = await asked_for(ask, clock)
    show_early(kind, fills, waited)


async def asked_for(ask: Callable[[], Coroutine[Any, Any, None]], clock: TickingClock) -> int:
    """Ask for some periods; how many had to wait once the first fill had ended."""
    first = asyncio.create_task(ask())
    waiting = []
    for _ in range(REQUESTS):
        clock.tick(1 / RATE)
        await settled()
        if first.done():
            task = asyncio.create_task(ask())
            await settled()
            if not task.done():
                waiting.append(task)
    clock.tick(HANDLER_SECONDS)
    await asyncio.gather(*waiting)
    return len(waiting)


async def settled() -> None:
    """Let all go on that need not wait for the clock."""
    for _ in range(8):
        await asyncio.sleep(0)


def show_early(kind: str, fills: list[float], waited: int) -> None:
    within = [sum(begun <= other < begun + TTL for other in fills) for begun in fills]
    apart = [later - sooner for sooner, later in itertools.pairwise(fills)]
    print(f"   {kind}: of {REQUESTS:,} requests {waited} waited after the first fill (goal 0)")
    print(
        f"      {len(fills)} fills in {PERIODS} periods, {spread(apart, 's apart')}; in any {TTL:g} s at most"
        f" {max(within) - 1} beside the one that is due (goal 2)"
    )


# ---- all of it ----


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?")
    parser.add_argument("--only", type=int, choices=range(1, 4), help="one of the sections")
    options = parser.parse_args()
    if options.only in (None, 1):
        print(
            f"1. {PROCESSES} processes, {AT_ONCE} clients each, a cold key, a handler of {HANDLER_SECONDS * 1e3:g} ms"
        )
        with contextlib.nullcontext(options.url) if options.url else own_server() as url:
            asyncio.run(cold(url))
    if options.only in (None, 2):
        print(f"2. {FOLLOWERS:,} that wait for one (goal 15 us each)")
        asyncio.run(followers())
    if options.only in (None, 3):
        print(f"3. {RATE:,} requests a second, fresh for {TTL:g} s, a handler of {HANDLER_SECONDS:g} s, early refresh")
        asyncio.run(early())


if __name__ == "__main__":
    main()
