"""What does an invalidation cost, how soon do others know, and what does it leave behind?

    python benchmarks/invalidation.py                   with a Redis of its own, from PATH
    python benchmarks/invalidation.py redis://...       with this one: what else it does enters the figures
    python benchmarks/invalidation.py --members 100000  with fewer entries, for less memory (a million take 0.7 GB)

1. A tag of one entry against one of a million, all of them really stored.
2. How soon another process's L1 is clean, measured between two processes by the clock that they share.
3. An L1 hit after ten million other tags have gone through the map of what is known.
4. What Redis does and sends for each invalidation, with 1, 8 and 64 workers that follow the log.
5. What a worker does for each invalidation that it hears of.

Shown are medians, and the 10th to 90th percentile. `docs/scaling.md` builds on these figures.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import itertools
import mmap
import multiprocessing
import os
import resource
import secrets
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hit import bare_app, plain_headers, scopes, timed
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.codec.entries import encode
from asgi_tiercache.engine.tags import key_tag, prefix_tags
from asgi_tiercache.invalidation.log import Purge, Record
from asgi_tiercache.keys.escape import frame
from asgi_tiercache.types import Entry

MEMBERS = 1_000_000
PAIRS = 1_000
ROUNDS = 1_000
OTHER_TAGS = 10_000_000
TAGS_AT_ONCE = 1_000
TAILS = (1, 8, 64)
SPACED = 150
FLAT_OUT = 3_000


def spread(numbers: Sequence[float], unit: str) -> str:
    """The median, and how far it can be trusted."""
    tenths = statistics.quantiles(numbers, n=10)
    return f"{statistics.median(numbers):8.1f} {unit} (p10 {tenths[0]:.1f}, p90 {tenths[8]:.1f})"


# ---- 1. a tag of many ----


async def members(url: str, number: int) -> None:
    """Invalidate a tag of one entry and one of `number`, in turns, and count what Redis takes for it."""
    namespace = f"members-{secrets.token_hex(4)}"
    with Redis.from_url(url) as client:
        async with TierCache.from_url(url, namespace=namespace) as cache:
            began = time.monotonic()
            store(client, cache, "many", number)
            store(client, cache, "one", 1)
            seconds = time.monotonic() - began
            print(f"   {number:,} entries stored in {seconds:.0f} s: {used_memory(client) / 1e6:,.0f} MB in Redis")
            for tag, index in (("many", 0), ("many", number // 2), ("many", number - 1), ("one", 0)):
                assert await cache.get(f"{tag}:{index:07d}") == index
            took: dict[str, list[float]] = {"one": [], "many": []}
            inside: dict[str, list[float]] = {"one": [], "many": []}
            for turn in range(PAIRS):
                for tag in ("one", "many") if turn % 2 else ("many", "one"):
                    before = script_time(client) if turn < PAIRS // 4 else 0.0
                    began = time.perf_counter()
                    receipt = await cache.invalidate(tag)
                    took[tag].append((time.perf_counter() - began) * 1e6)
                    assert receipt.durable
                    if turn < PAIRS // 4:
                        inside[tag].append(script_time(client) - before)
            for tag, index in (("many", 0), ("many", number // 2), ("many", number - 1), ("one", 0)):
                assert await cache.get(f"{tag}:{index:07d}") is None
        for tag, count in (("one", 1), ("many", number)):
            print(
                f"   tag of {count:>9,}: until it returns {spread(took[tag], 'us')}; script {spread(inside[tag], 'us')}"
            )
        forget(client, namespace)


def store(client: Any, cache: TierCache, tag: str, number: int) -> None:
    """Store `number` entries as `cache.set` would, but without an event loop for each."""
    stamp, created = cache.stamp(), time.time()
    for first in range(0, number, 1_000):
        entries = {}
        for index in range(first, min(number, first + 1_000)):
            key = f"{cache.namespace}:{tag}:{index:07d}"
            tags = (tag, key_tag(key), *prefix_tags(key, cache.namespace))
            entry = Entry(stamp, created, 3_600, frame(b"value", key.encode()), tags, body=b"%d" % index)
            entries[key] = encode(entry)
        client.mset(entries)


def forget(client: Any, namespace: str) -> None:
    """Remove what a section has left."""
    keys = client.scan_iter(f"*{namespace}*", count=10_000)
    while batch := list(itertools.islice(keys, 10_000)):
        client.unlink(*batch)


def script_time(client: Any) -> float:
    """Microseconds that Redis has spent in scripts."""
    counts = client.info("commandstats")
    return float(sum(counts[name]["usec"] for name in ("cmdstat_evalsha", "cmdstat_eval") if name in counts))


def used_memory(client: Any) -> int:
    used: int = client.info("memory")["used_memory"]
    return used


# ---- 2. other workers ----

LOADED, ROUND, CLEAN_AT, DONE = range(4)


async def others(url: str) -> None:
    """Invalidate what another process has in L1, and see when it stops giving it."""
    namespace, called, returned = f"others-{secrets.token_hex(4)}", [], []
    with tempfile.NamedTemporaryFile() as file:
        os.truncate(file.name, 4096)
        cells = shared_cells(file.name)
        reader = multiprocessing.get_context("spawn").Process(target=read_on, args=(url, namespace, file.name))
        reader.start()
        try:
            async with TierCache.from_url(url, namespace=namespace) as cache:
                for number in range(1, ROUNDS + 1):
                    await cache.set("key", number, ttl=600, tags=["tag"], since=cache.stamp())
                    await cache.engine.stack.flush()  # type: ignore[union-attr]
                    cells[ROUND] = number
                    await until(lambda number=number: cells[LOADED] == number)  # type: ignore[misc]
                    await asyncio.sleep(0.001 + number % 7 / 1000)
                    began = time.monotonic_ns()
                    await cache.invalidate("tag")
                    ended = time.monotonic_ns()
                    await until(lambda: cells[CLEAN_AT] > began)  # noqa: B023
                    called.append((cells[CLEAN_AT] - began) / 1e6)
                    returned.append((cells[CLEAN_AT] - ended) / 1e6)
        finally:
            cells[DONE] = 1
            reader.join(10)
            if reader.is_alive():
                reader.kill()
    with Redis.from_url(url) as client:
        forget(client, namespace)
    for since, times in (("was called", called), ("had returned", returned)):
        ranks = statistics.quantiles(times, n=100)
        print(
            f"   since invalidate() {since:12}: median {ranks[49]:.2f} ms, p90 {ranks[89]:.2f}, p99 {ranks[98]:.2f}, "
            f"worst {max(times):.2f} ({len(times):,} times)"
        )


def read_on(url: str, namespace: str, path: str) -> None:
    """The other process: read the key every 0.1 ms or so, and say when it is another value.

    Without the pause it would keep one core busy, which on a small machine Redis and the writer then lack.
    """

    async def body() -> None:
        cells = shared_cells(path)
        async with TierCache.from_url(url, namespace=namespace) as cache:
            while not cells[DONE]:
                number = cells[ROUND]
                if number == cells[LOADED]:
                    await asyncio.sleep(0.0002)
                    continue
                while await cache.get("key") != number:  # noqa: ASYNC110 - another process has no event to wait for
                    await asyncio.sleep(0.0002)
                cells[LOADED] = number
                while not cells[DONE]:
                    now = time.monotonic_ns()
                    if await cache.get("key") != number:
                        cells[CLEAN_AT] = now
                        break
                    await asyncio.sleep(0.0001)

    asyncio.run(body())


def shared_cells(path: str) -> Any:
    with Path(path).open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 4096)).cast("q")


async def until(holds: Callable[[], bool], *, pause: float = 0.0002) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - another process has no event to wait for
            await asyncio.sleep(pause)


# ---- 3. an L1 hit after many other tags ----


async def many_tags() -> None:
    """Two apps with one entry each: one hears of ten million tags, the other of none; hits of both in turns."""
    bare = bare_app(1024, plain_headers(1024))
    caches = {"none": TierCache(), "all": TierCache()}
    apps = {
        name: TierCacheMiddleware(bare, cache=cache, routes={"/a": Policy(ttl=600)}) for name, cache in caches.items()
    }
    for app in apps.values():
        await timed(app, scopes(100, "/a", None))
    heard = caches["all"].engine.knowledge
    resident, began = resident_mb(), time.process_time()
    half = OTHER_TAGS // 2
    middle = 0.0
    for first in range(0, OTHER_TAGS, TAGS_AT_ONCE):
        tags = tuple(f"user:{number}" for number in range(first, first + TAGS_AT_ONCE))
        position = heard.position + 1
        heard.apply(Record(heard.epoch, position, heard.position, Purge(tags)))
        if first % (10 * TAGS_AT_ONCE) == 0:
            await timed(apps["all"], scopes(1, "/a", None))  # in use meanwhile, as what is in L1 is
        if first == half:
            middle = resident_mb()
    seconds = time.process_time() - began
    print(
        f"   {OTHER_TAGS:,} tags in {seconds:.0f} s of CPU; {heard!r}\n"
        f"   resident before {resident:.0f} MB, after half of them {middle:.0f} MB, after all {resident_mb():.0f} MB"
    )
    times: dict[str, list[float]] = {"bare": [], "none": [], "all": [], "alone": [], "next": []}
    gc.disable()
    for _ in range(200):
        for name, app in (("bare", bare), *apps.items()):
            times[name].append(await timed(app, scopes(300, "/a", None)))
        times["alone"].append(await timed(apps["all"], scopes(1, "/a", None)))
        heard.apply(Record(heard.epoch, heard.position + 1, heard.position, Purge((secrets.token_hex(4),))))
        times["next"].append(await timed(apps["all"], scopes(1, "/a", None)))
    gc.enable()
    print(f"   a bare app:                         {spread(times['bare'], 'us')}")
    print(f"   L1 hit, no other tag heard of:      {spread(times['none'], 'us')}")
    print(f"   L1 hit, after all these:            {spread(times['all'], 'us')}")
    print(f"   one such hit, timed by itself:      {spread(times['alone'], 'us')}")
    print(f"   the first after one more tag:       {spread(times['next'], 'us')}")
    difference = [mine - theirs for mine, theirs in zip(times["all"], times["none"], strict=True)]
    print(f"   difference of the two, in turns:    {spread(difference, 'us')}")


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


# ---- 4. what Redis does for those who follow ----


async def tails(url: str) -> None:
    """For each number of followers: invalidations one at a time, and as fast as one worker can."""
    print("   tails  invalidations          Redis CPU each   bytes out each   XREADs each    a second")
    for number in TAILS:
        namespace = f"tails-{secrets.token_hex(4)}"
        with Redis.from_url(url) as client, following(url, namespace, number):
            async with TierCache.from_url(url, namespace=namespace) as cache:
                await cache.engine.invalidation.tail.aclose()  # only those counted follow
                for name, count, pause in (("one at a time", SPACED, 0.02), ("flat out", FLAT_OUT, 0.0)):
                    await until(lambda: len(blocked(client)) == number, pause=0.1)  # noqa: B023
                    before, began = work(client), time.monotonic()
                    await in_a_row(cache, count, pause)
                    seconds = time.monotonic() - began
                    await until(lambda: len(blocked(client)) == number, pause=0.5)  # noqa: B023 - all have read it
                    after = work(client)
                    cpu, sent, reads = ((b - a) / count for a, b in zip(before, after, strict=True))
                    print(
                        f"   {number:5}  {name:18} {cpu * 1e6:13.0f} us {sent:16,.0f} {reads:13.2f}"
                        f" {count / seconds:11,.0f}"
                    )
            forget(client, namespace)


async def in_a_row(cache: TierCache, count: int, pause: float) -> None:
    """Invalidate a tag each time; without a pause, sixteen at once."""

    async def some(number: int) -> None:
        for index in range(number):
            await cache.invalidate("user:{n}", n=index)
            if pause:
                await asyncio.sleep(pause)

    at_once = 1 if pause else 16
    await asyncio.gather(*(some(count // at_once) for _ in range(at_once)))


@contextlib.contextmanager
def following(url: str, namespace: str, number: int) -> Iterator[None]:
    """`number` workers that follow the log, in at most two processes."""
    context = multiprocessing.get_context("spawn")
    shares = [number // 2, number - number // 2] if number > 1 else [1]
    processes = [context.Process(target=follow, args=(url, namespace, share)) for share in shares]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join(10)


def follow(url: str, namespace: str, number: int) -> None:
    """Some workers in one process, each with a connection of its own."""

    async def body() -> None:
        caches = [TierCache.from_url(url, namespace=namespace) for _ in range(number)]
        for cache in caches:
            await cache.start()
        await asyncio.sleep(600)

    asyncio.run(body())


def blocked(client: Any) -> list[Any]:
    """Who waits for the next invalidation."""
    return [each for each in client.client_list() if each["cmd"] == "xread" and "b" in each["flags"]]


def work(client: Any) -> tuple[float, int, int]:
    """Seconds of CPU, bytes sent and XREADs of the server so far."""
    info, counts = client.info(), client.info("commandstats")
    cpu = info["used_cpu_user"] + info["used_cpu_sys"]
    return cpu, info["total_net_output_bytes"], counts.get("cmdstat_xread", {"calls": 0})["calls"]


# ---- 5. what a worker does ----


async def hearing(url: str) -> None:
    """Read records and apply them, a thousand at once and one at a time; ask about an entry."""
    for tags in (1, 10, 100):
        namespace = f"hearing-{secrets.token_hex(4)}"
        with Redis.from_url(url) as client:
            async with TierCache.from_url(url, namespace=namespace) as cache:
                invalidation = cache.engine.invalidation
                await invalidation.tail.aclose()
                after = (await invalidation.log.confirm()).clock
                scripts = script_time(client)
                for first in range(1_000):
                    await cache.invalidate(*(f"user:{first}:{number}" for number in range(tags)))
                scripts = (script_time(client) - scripts) / 1_000
            async with TierCache.from_url(url, namespace=namespace) as listener:
                times, inside, sent = await read_pages(listener, client, after)
                if tags == 1:
                    await read_one(listener, client)
            forget(client, namespace)
        print(
            f"   {tags:3} tags each, of a page of 1,000: worker {spread(times, 'us')}; Redis {spread(inside, 'us')} and"
            f" {statistics.median(sent):,.0f} bytes; the script that wrote it {scripts:.0f} us"
        )


async def read_one(listener: TierCache, client: Any) -> None:
    """A wake-up for one record, and a question about one entry of three tags."""
    log, knowledge = listener.engine.invalidation.log, listener.engine.knowledge
    last = (await log.read(0))[-1]

    async def wake() -> None:
        knowledge.start_anew(knowledge.epoch, last.previous)
        listener.engine.invalidation._apply(await log.follow(last.previous))

    async def ask() -> None:
        await log.ask(("user:1", "*key:user:1", "*prefix:user:"))

    for name, call in (("a wake-up for one record", wake), ("a question about an entry", ask)):
        mine, theirs = [], []
        for _ in range(20):
            before, began = work(client)[0], time.process_time()
            for _ in range(100):
                await call()
            mine.append((time.process_time() - began) * 1e4)
            theirs.append((work(client)[0] - before) * 1e4)
        print(f"   {name}: worker {spread(mine, 'us')}; Redis {spread(theirs, 'us')} of CPU")


async def read_pages(listener: TierCache, client: Any, after: int) -> tuple[list[float], list[float], list[float]]:
    """For each record of a page: the worker's and the server's microseconds, and bytes."""
    times, inside, sent = [], [], []
    knowledge, invalidation = listener.engine.knowledge, listener.engine.invalidation
    await invalidation.tail.aclose()
    read_so_far(client)
    _, before = read_so_far(client)
    questions = read_so_far(client)[1] - before  # what asking itself adds
    for _ in range(20):
        knowledge.start_anew(knowledge.epoch, after)
        usec, bytes_out = read_so_far(client)
        began = time.process_time()
        invalidation._apply(await invalidation.log.read(after))
        times.append((time.process_time() - began) * 1e3)
        now = read_so_far(client)
        inside.append((now[0] - usec) / 1_000)
        sent.append((now[1] - bytes_out - questions) / 1_000)
        assert knowledge.position > after
    return times, inside, sent


def read_so_far(client: Any) -> tuple[float, int]:
    """Microseconds that Redis has spent reading the log, and bytes that it has sent."""
    usec = client.info("commandstats").get("cmdstat_xrange", {"usec": 0})["usec"]
    return usec, client.info("stats")["total_net_output_bytes"]


# ---- all of it ----


@contextlib.contextmanager
def own_server() -> Iterator[str]:
    """A Redis from PATH, on a free loopback port, without persistence."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        raise SystemExit("no redis-server or valkey-server on PATH: give a URL")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", directory]
        process = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL)
        try:
            url = f"redis://127.0.0.1:{port}/0"
            wait_for(url)
            yield url
        finally:
            process.terminate()
            process.wait(10)


def wait_for(url: str) -> None:
    """Return when the server answers."""
    with Redis.from_url(url) as client:
        for _ in range(100):
            with contextlib.suppress(RedisConnectionError):
                client.ping()
                return
            time.sleep(0.1)
    raise SystemExit("the server does not start")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?")
    parser.add_argument("--members", type=int, default=MEMBERS)
    parser.add_argument("--only", type=int, choices=range(1, 6), help="one of the sections")
    options = parser.parse_args()
    with contextlib.nullcontext(options.url) if options.url else own_server() as url:
        sections: tuple[tuple[str, Callable[[], Awaitable[None]]], ...] = (
            (
                f"1. Invalidating a tag of one entry, and one of {options.members:,}",
                lambda: members(url, options.members),
            ),
            ("2. Another process's L1 is clean", lambda: others(url)),
            (f"3. An L1 hit after {OTHER_TAGS:,} other tags", many_tags),
            ("4. Redis and those who follow", lambda: tails(url)),
            ("5. Hearing of an invalidation, and asking", lambda: hearing(url)),
        )
        for number, (title, section) in enumerate(sections, 1):
            if options.only in (None, number):
                began = time.monotonic()
                print(title)
                asyncio.run(section())  # type: ignore[arg-type]
                print(f"   ({time.monotonic() - began:.0f} s)\n")


if __name__ == "__main__":
    main()
