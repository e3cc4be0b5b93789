"""What does a request cost while Redis is out of reach, beside the same app without a cache, and with Redis well?

CPU and elapsed time of one process, every contender in turn within each round, many short rounds; shown are the median
over the rounds, and the 90th percentile and the worst round of the elapsed time. Every request has objects of its own.
What is written and made known behind the client's back counts for the CPU, so a request that is stored costs more.

    python benchmarks/faults.py                    Redis refuses connections, and is left alone by the breaker
    python benchmarks/faults.py redis://...        the same requests with a Redis that is well, too
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import socket
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from hit import App, bare_app, plain_headers, receive, scopes, send

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware

ROUNDS = 300
REQUESTS = 40
SIZE = 1024
POLICY = Policy(ttl=300, tags=["thing:{id}"])
_paths = itertools.count()


@dataclass
class Contender:
    """An app, and whether each of its requests is for something new."""

    app: App
    new: bool
    cache: TierCache | None = None
    cpu: list[float] = field(default_factory=list)
    elapsed: list[float] = field(default_factory=list)

    def requests(self) -> list[dict[str, Any]]:
        paths = [f"/things/{next(_paths)}" if self.new else "/things/same" for _ in range(REQUESTS)]
        return [scopes(1, path, None)[0] for path in paths]

    async def round(self, *, counts: bool) -> None:
        """Send the requests of one round, one after another."""
        requests = self.requests()
        cpu, elapsed = time.process_time(), time.perf_counter()
        for scope in requests:
            await self.app(scope, receive, send)
        cpu, elapsed = time.process_time() - cpu, time.perf_counter() - elapsed
        if counts:
            self.cpu.append(cpu / REQUESTS * 1e6)
            self.elapsed.append(elapsed / REQUESTS * 1e6)
        if self.new and self.cache is not None:  # L1 must not fill up: that has a price of its own
            self.cache.engine.memory.clear()


def cached(cache: TierCache, *, new: bool) -> Contender:
    app = bare_app(SIZE, plain_headers(SIZE))
    return Contender(TierCacheMiddleware(app, cache=cache, routes={"/things/{id}": POLICY}), new, cache)


def out_of_reach() -> str:
    """The URL of a Redis that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"redis://127.0.0.1:{listener.getsockname()[1]}/0"


async def compare(contenders: dict[str, Contender]) -> None:
    gc.disable()
    for number in range(-10, ROUNDS):
        for contender in contenders.values():
            await contender.round(counts=number >= 0)
    gc.enable()


def table(contenders: dict[str, Contender]) -> None:
    print(f"{'us for each request':44} {'CPU':>7} {'over bare':>10} {'elapsed':>8} {'p90':>7} {'worst':>8}  goal")
    floor = next(iter(contenders.values())).cpu
    for name, contender in contenders.items():
        over = statistics.median(mine - theirs for mine, theirs in zip(contender.cpu, floor, strict=True))
        print(
            f"{name:44} {statistics.median(contender.cpu):7.1f} {over:10.1f} "
            f"{statistics.median(contender.elapsed):8.1f} {statistics.quantiles(contender.elapsed, n=10)[8]:7.1f} "
            f"{max(contender.elapsed):8.1f}  {'< 1000' if 'open' in name else ''}"
        )


async def main(url: str | None) -> None:
    memory, lost = TierCache(), TierCache.from_url(out_of_reach(), namespace="benchmark")
    async with memory, lost:
        contenders = {
            "bare app, 1 KB": Contender(bare_app(SIZE, plain_headers(SIZE)), new=True),
            "memory alone, miss": cached(memory, new=True),
            "memory alone, hit": cached(memory, new=False),
            "breaker open, miss": cached(lost, new=True),
            "breaker open, hit in memory": cached(lost, new=False),
        }
        if url is None:
            await compare(contenders)
        else:
            async with TierCache.from_url(url, namespace="benchmark") as well:
                contenders |= {
                    "Redis well, miss": cached(well, new=True),
                    "Redis well, hit in memory": cached(well, new=False),
                }
                await compare(contenders)
        state = lost.stats()["breakers"]["L2"]["state"]
        assert state != "closed", state
    table(contenders)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else None))
