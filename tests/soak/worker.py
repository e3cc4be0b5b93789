"""One worker process of the soak: reads, fills, commits and invalidates, and checks each read against the truth.

    python -m tests.soak.worker --url redis://... --namespace N --truth FILE --number 0 [--plant NAME]

It runs until the truth says stop, and writes what it has counted to standard output, as JSON. What is checked:

- what an invalidation has promised when it returned here, durable or not, binds every read that begins here from then
  on;
- what a durable one has promised binds reads on other workers that begin `max_lag` after it has returned, where the
  policy says "bypass"; `max_lag + max_unverified` after, where it says "serve"; at once, where it says "verify".
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import uvloop
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_tiercache import Policy, Receipt, TierCache, TierCacheMiddleware
from asgi_tiercache.config import Region
from tests.middleware.asgi import http_scope
from tests.soak.plants import PLANTS
from tests.soak.truth import (
    DIRECT,
    EVERY_KIND,
    FACTS,
    GROUPS,
    PAGE,
    TAGGED,
    VALUE,
    WORKERS,
    Binding,
    Truth,
    group_of,
    members,
)

MAX_LAG = 0.5
MAX_UNVERIFIED = 1.5
TTL = 600
READERS = 24
WRITERS = 2
INVALIDATIONS_PER_SECOND = 12
"""Of each writer."""
SMALL = partial(Region, max_entries=FACTS // 3)
"""L1 holds a third of what there is, so that the rest comes from Redis."""


class Got(NamedTuple):
    """What a read says of one fact."""

    kind: int
    fact: int
    version: int


class Reader(NamedTuple):
    """One way to read."""

    weight: int
    binding: str
    """Which promises count: "bypass", "serve" or "verify"."""
    read: Callable[[int], Awaitable[list[Got]]]


class Worker:
    """A cache, the functions and the app behind it, and what was seen.

    Args:
        cache: Shared with the other workers through Redis.
        truth: Shared with them, too.
        number: Which worker this is.
    """

    def __init__(self, cache: TierCache, truth: Truth, number: int) -> None:
        self.cache = cache
        self.truth = truth
        self.number = number
        self.random = Random()  # no seed would bring the same order of events back
        lags = {"verify": 0.0, "bypass": MAX_LAG, "serve": MAX_LAG + MAX_UNVERIFIED}
        self.bindings = {name: Binding(truth, int(lag * 1e9)) for name, lag in lags.items()}
        self.counts: Counter[str] = Counter()
        self.invalidations: Counter[str] = Counter()
        self.worst_lag = 0
        self.violations: list[str] = []
        self.epochs: set[str] = set()
        self.value, self.pair, self.exact, self.plain = self._functions()
        self.app = self._app()
        self.readers = {
            "value": Reader(8, "bypass", self._read_value),
            "pair": Reader(5, "bypass", self._read_pair),
            "direct": Reader(4, "serve", self._read_direct),
            "many": Reader(1, "serve", self._read_many),
            "page": Reader(4, "serve", self._read_page),
            "overview": Reader(3, "serve", self._read_overview),
            "exact": Reader(1, "verify", self._read_exact),
            "plain": Reader(1, "bypass", self._read_plain),
        }
        self.actions: tuple[tuple[float, Callable[[], Awaitable[None]]], ...] = (
            (60, self._by_tag),
            (10, self._by_tags),
            (3, self._by_tag_ahead),
            (4, self._by_group),
            (8, self._by_key),
            (6, self._by_path),
            (2, self._by_prefix),
            (2, self._by_glob),
            (0.3, self._by_route),
            (0.2, self._clear),
            (12, self._softly),
        )

    # ---- what is cached ----

    def _functions(self) -> tuple[Any, Any, Any, Any]:
        cached = partial(self.cache.cached, ttl=TTL, unverified="bypass")
        tags = ["fact:{fact}", "group:{group}"]

        @cached("value:{group}:{fact}", tags=tags, region=SMALL(name="values"))
        async def value(group: int, fact: int) -> int:
            return await self._origin(fact)

        @cached("pair:{fact}", region=SMALL(name="pairs"))  # its only tags are those of what it reads
        async def pair(fact: int) -> list[int]:
            other = partner(fact)
            first = await value(group_of(fact), fact)
            await self._pause()
            return [first, await value(group_of(other), other)]

        @cached("exact:{group}:{fact}", tags=tags, region=SMALL(name="exact"), verify=True)
        async def exact(group: int, fact: int) -> int:
            return await self._origin(fact)

        @cached("plain:{group}:{fact}", tags=tags, region=SMALL(name="plain"))
        def plain(group: int, fact: int) -> int:
            version = self.truth.version(fact)
            time.sleep(self.random.choice((0, 0.001, 0.03)))
            return version

        return value, pair, exact, plain

    def _app(self) -> Starlette:
        async def page(request: Request) -> JSONResponse:
            return JSONResponse(await self._origin(int(request.path_params["fact"])))

        async def overview(request: Request) -> JSONResponse:
            return JSONResponse(await self.pair(int(request.path_params["fact"])))

        pages = Policy(ttl=TTL, tags=["fact:{fact}"], region=SMALL(name="pages"))
        overviews = Policy(ttl=TTL, region=SMALL(name="overviews"))
        routes = {"/facts/{fact}": pages, "/overviews/{fact}": overviews}
        return Starlette(
            routes=[Route("/facts/{fact}", page), Route("/overviews/{fact}", overview)],
            middleware=[Middleware(TierCacheMiddleware, cache=self.cache, routes=routes)],
        )

    async def _origin(self, fact: int) -> int:
        await self._pause()
        version = self.truth.version(fact)
        await self._pause()
        return version

    async def _pause(self) -> None:
        """Mostly short; some are long enough for several invalidations to happen meanwhile."""
        await asyncio.sleep(self.random.choices((0, 0.001, 0.01, 0.1, 0.7), (50, 30, 15, 4, 1))[0])

    # ---- ways to read ----

    async def _read_value(self, fact: int) -> list[Got]:
        return [Got(VALUE, fact, await self.value(group_of(fact), fact))]

    async def _read_pair(self, fact: int) -> list[Got]:
        return _both(fact, await self.pair(fact))

    async def _read_exact(self, fact: int) -> list[Got]:
        return [Got(TAGGED, fact, await self.exact(group_of(fact), fact))]

    async def _read_plain(self, fact: int) -> list[Got]:
        """In a thread; invalidated by the same names as what is always verified."""
        return [Got(TAGGED, fact, await asyncio.to_thread(self.plain, group_of(fact), fact))]

    async def _read_page(self, fact: int) -> list[Got]:
        return [Got(PAGE, fact, await self._respond(f"/facts/{fact}"))]

    async def _read_overview(self, fact: int) -> list[Got]:
        return _both(fact, await self._respond(f"/overviews/{fact}"))

    async def _read_direct(self, fact: int) -> list[Got]:
        version = await self.cache.get(_direct(fact))
        if version is not None:
            return [Got(DIRECT, fact, version)]
        since = self.cache.stamp()
        version = await self._origin(fact)
        tags = [f"fact:{fact}", f"group:{group_of(fact)}"]
        await self.cache.set(_direct(fact), version, ttl=TTL, tags=tags, since=since)
        return []

    async def _read_many(self, fact: int) -> list[Got]:
        names = {_direct(member): member for member in members(group_of(fact))}
        found = await self.cache.get_many(names)
        return [Got(DIRECT, names[key], version) for key, version in found.items()]

    async def _respond(self, path: str) -> Any:
        body = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            body.append(message.get("body", b""))

        await self.app(http_scope(path), receive, send)
        return json.loads(b"".join(body))

    # ---- reading and checking ----

    async def keep_reading(self) -> None:
        names, weights = list(self.readers), [reader.weight for reader in self.readers.values()]
        for turn in itertools.count():
            if self.truth.stopped:
                return
            name = self.random.choices(names, weights)[0]
            fact = min(self.random.randrange(FACTS), self.random.randrange(FACTS))  # some are asked for more often
            await self._check(name, self.readers[name], fact)
            await asyncio.sleep(0 if turn % 8 else 0.005)

    async def _check(self, name: str, reader: Reader, fact: int) -> None:
        began = time.monotonic_ns()
        for binding in self.bindings.values():
            binding.advance(began)
        # Copies: what is promised while the read is under way does not bind it.
        binding, newest = self.bindings[reader.binding], self.bindings["verify"]
        facts = {fact, partner(fact), *(members(group_of(fact)) if name == "many" else ())}
        must = {(kind, each): binding.versions[kind][each] for kind in range(4) for each in facts}
        promised = {at: (newest.versions[at[0]][at[1]], newest.since[at[0]][at[1]]) for at in must}
        knew = repr(self.cache.engine.invalidation)
        for kind, each, version in await reader.read(fact):
            self.counts[name] += 1
            if version < must[kind, each]:
                self._found(f"{name} gives {version} of fact {each}, must give {must[kind, each]}", began, knew)
            elif version < promised[kind, each][0]:
                self.worst_lag = max(self.worst_lag, began - promised[kind, each][1])
        self.epochs.add(self.cache.engine.knowledge.epoch)
        self.truth.count_reads(self.counts.total())

    def _found(self, what: str, began: int, knew: str) -> None:
        took = (time.monotonic_ns() - began) / 1e6
        knows = repr(self.cache.engine.invalidation)
        self.violations.append(f"worker {self.number}: {what}; took {took:.1f} ms; knew {knew}, knows {knows}")
        self.truth.stop()

    # ---- committing and invalidating ----

    async def keep_invalidating(self) -> None:
        weights = [weight for weight, _ in self.actions]
        while not self.truth.stopped:
            await asyncio.sleep(self.random.expovariate(INVALIDATIONS_PER_SECOND))
            await self.random.choices(self.actions, weights)[0][1]()

    def _mine(self, facts: list[int]) -> list[int]:
        return [fact for fact in facts if fact % WORKERS == self.number]

    async def _promise(self, kinds: int, facts: list[int], call: Callable[[], Awaitable[Receipt]]) -> None:
        """Commit what of `facts` is ours to commit, invalidate, and bind everybody to what stood there before."""
        for fact in self._mine(facts):
            self.truth.commit(fact)
        versions = {fact: self.truth.version(fact) for fact in facts}
        receipt = await call()
        at = time.monotonic_ns()
        for binding in self.bindings.values():
            for fact, version in versions.items():
                binding.bind(kinds, fact, version, at)
        if receipt.durable:
            self.truth.promise(kinds, versions)
        self.invalidations["durable" if receipt.durable else "not durable"] += 1

    def _own(self, number: int = 1) -> list[int]:
        return self.random.sample(range(self.number, FACTS, WORKERS), number)

    async def _by_tag(self) -> None:
        facts = self._own()
        await self._promise(EVERY_KIND, facts, lambda: self.cache.invalidate(f"fact:{facts[0]}"))

    async def _by_tag_ahead(self) -> None:
        facts = self._own()
        await self._promise(EVERY_KIND, facts, lambda: self.cache.invalidate(f"fact:{facts[0]}", settle=0.1))

    async def _by_tags(self) -> None:
        facts = self._own(3)
        await self._promise(EVERY_KIND, facts, lambda: self.cache.invalidate(*(f"fact:{fact}" for fact in facts)))

    async def _by_group(self) -> None:
        group = self.random.randrange(GROUPS)
        kinds = 1 << VALUE | 1 << DIRECT | 1 << TAGGED  # pages do not carry the tag
        await self._promise(kinds, members(group), lambda: self.cache.invalidate("group:{group}", group=group))

    async def _by_key(self) -> None:
        (fact,) = self._own()
        key = f"value:{group_of(fact)}:{fact}"
        await self._promise(1 << VALUE, [fact], lambda: self.cache.invalidate_key(key))

    async def _by_path(self) -> None:
        (fact,) = self._own()
        await self._promise(1 << PAGE, [fact], lambda: self.cache.invalidate_path(f"/facts/{fact}"))

    async def _by_prefix(self) -> None:
        group = self.random.randrange(GROUPS)
        await self._promise(1 << VALUE, members(group), lambda: self.cache.invalidate_pattern(f"value:{group}:*"))

    async def _by_glob(self) -> None:
        group = self.random.randrange(GROUPS)
        await self._promise(
            1 << DIRECT, members(group), lambda: self.cache.invalidate_pattern(f"direct:{group}:*[0-9]")
        )

    async def _by_route(self) -> None:
        await self._promise(1 << PAGE, list(range(FACTS)), lambda: self.cache.invalidate_route("/facts/{fact}"))

    async def _clear(self) -> None:
        await self._promise(EVERY_KIND, list(range(FACTS)), self.cache.clear)

    async def _softly(self) -> None:
        """Binds nobody, and must not take back what a hard one has made invalid."""
        (fact,) = self._own()
        self.truth.commit(fact)
        await self.cache.invalidate(f"fact:{fact}", soft=True)
        self.invalidations["soft"] += 1


def partner(fact: int) -> int:
    """The other fact of a pair: of another group, committed by another worker."""
    return (fact + 7) % FACTS


def _direct(fact: int) -> str:
    return f"direct:{group_of(fact)}:{fact}"


def _both(fact: int, versions: list[int]) -> list[Got]:
    return [Got(VALUE, fact, versions[0]), Got(VALUE, partner(fact), versions[1])]


def report(worker: Worker) -> dict[str, Any]:
    """What the driver sums up."""
    stats = worker.cache.stats()
    return {
        "reads": worker.counts.total(),
        "by_kind": worker.counts,
        "invalidations": worker.invalidations,
        "worst_lag": worker.worst_lag / 1e9,
        "violations": worker.violations[:5],
        "epochs": len(worker.epochs),
        "L1": stats["tiers"]["L1"]["hits"],
        "L2": stats["tiers"].get("L2", {"answers": 0})["answers"],
        "misses": stats["answers"]["misses"],
        "flights": stats["flight"]["hits"],
        "evictions": sum(stats["evictions"].values()),
        "failures": stats["failures"],
        "refreshes": stats["refreshes"],
    }


async def run(options: argparse.Namespace) -> None:
    """Work until the truth says stop."""
    truth = Truth(options.truth, options.number)
    cache = TierCache.from_url(options.url, namespace=options.namespace, max_lag=MAX_LAG, max_unverified=MAX_UNVERIFIED)
    PLANTS[options.plant](cache)
    async with cache:
        worker = Worker(cache, truth, options.number)
        async with asyncio.TaskGroup() as group:
            for _ in range(READERS):
                group.create_task(worker.keep_reading())
            for _ in range(WRITERS):
                group.create_task(worker.keep_invalidating())
    sys.stdout.write(json.dumps(report(worker)))


def main() -> None:
    """Read the command line and work."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--plant", choices=PLANTS, default="none")
    options = parser.parse_args()
    # Every other worker on the loop that production servers use: connections fail differently there.
    factory = uvloop.new_event_loop if options.number % 2 else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(run(options))


if __name__ == "__main__":
    main()
