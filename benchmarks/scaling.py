"""What invalidation costs with many workers and many invalidations, what gives way first, and what helps.

    python benchmarks/scaling.py                                    the tables of docs/scaling.md
    python benchmarks/scaling.py --workers 200 --rate 3000          for another fleet
    python benchmarks/scaling.py --record-redis 0.3 --link 3125     for other figures than those measured here

The figures come from `benchmarks/invalidation.py`; measure them on your machine and give them here. Two ways lead to
the tables: sums of what each part needs in a second, and a simulation of one Redis, the network and workers that follow
the log, event by event, for what no sum tells: how far they lag behind. Standard library only.
"""

from __future__ import annotations

import argparse
import dataclasses
import heapq
import math
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

USED = 0.8
"""The share of a core or a network that may be in use before it counts as full."""
WORKERS_SHARE = 0.1
"""The share of its core that a worker may spend on hearing of invalidations."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The fleet, and what was measured. Microseconds, bytes, and million bytes a second."""

    workers: int = 1_000
    rate: float = 10_000.0
    tags: float = 1.0
    script: float = 90.0
    """Redis: one invalidation of one tag, reading and answering the command included."""
    script_tag: float = 2.2
    """Redis: each further tag in it."""
    wake_redis: float = 25.0
    """Redis: one question of a worker that follows the log, and its answer."""
    record_redis: float = 0.5
    """Redis: one record in that answer."""
    record_redis_tag: float = 0.01
    record_bytes: float = 174.0
    record_bytes_tag: float = 14.0
    wake_worker: float = 75.0
    """Worker: one such question and its answer with one record."""
    record_worker: float = 6.3
    """Worker: each record."""
    record_worker_tag: float = 0.34
    ask_redis: float = 17.0
    """Redis: one question about one entry (HMGET)."""
    link: float = 1_250.0
    """Redis's network: 1,250 is ten Gbit/s."""
    questions: float = 100.0
    """How often in a second a worker's event loop, busy with requests, comes round to the log at the most."""
    followers_share: float = 1.0
    """Followers for each worker: less than 1 where several workers share one."""
    servers: int = 1
    """Redis servers that the namespaces, and so the invalidations, are split over; each worker follows them all."""
    memory: int = 100_000
    """Tags that a worker's map holds."""

    @property
    def followers(self) -> float:
        return self.workers * self.followers_share

    @property
    def server_rate(self) -> float:
        """Invalidations a second at one server."""
        return self.rate / self.servers

    @property
    def wakes(self) -> float:
        """Questions a second of one follower at one server."""
        return min(self.questions, self.server_rate)

    def each(self, first: float, further: float) -> float:
        return first + (self.tags - 1) * further

    @property
    def needed(self) -> dict[str, float]:
        """What a second needs however it is bundled: cores of Redis, million bytes from it, cores of each worker."""
        record = self.each(self.record_redis, self.record_redis_tag)
        redis = self.server_rate * (self.each(self.script, self.script_tag) + self.followers * record)
        sent = self.followers * self.server_rate * self.each(self.record_bytes, self.record_bytes_tag)
        heard = self.rate * self.each(self.record_worker, self.record_worker_tag)
        heard += self.servers * self.wakes * self.wake_worker
        return {"Redis": redis / 1e6, "network": sent / 1e6, "worker": heard / 1e6}

    @property
    def questions_cores(self) -> float:
        """Cores of Redis for the questions themselves, as long as it has them: later, fewer questions bring more."""
        return self.followers * self.wakes * self.wake_redis / 1e6

    @property
    def full(self) -> dict[str, float]:
        """How full each part is; above 1, it falls behind."""
        redis, sent, heard = self.needed.values()
        return {"Redis": redis / USED, "network": sent / self.link / USED, "worker": heard / WORKERS_SHARE}

    @property
    def busy(self) -> float:
        """The same of Redis with all questions; above 1 it keeps up by letting everybody wait, L2 reads included."""
        return (self.needed["Redis"] + self.questions_cores) / USED


def highest(figures: Figures, holds: Callable[[Figures], bool]) -> float:
    """The highest rate at which something holds."""
    low, high = 0.0, 1e7
    for _ in range(60):
        middle = (low + high) / 2
        if holds(with_(figures, rate=middle)):
            low = middle
        else:
            high = middle
    return low


# ---- the simulation ----


class Simulation:
    """One Redis that serves one thing at a time, its network, and workers that follow the log.

    An invalidation wakes every worker that waits. One that is at work finds the rest with its next question, all in one
    answer: the busier everybody is, the more invalidations share a question.
    """

    def __init__(self, figures: Figures, seconds: float, seed: int = 1) -> None:
        self._figures = figures
        self._end = seconds
        self._random = Random(seed)
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = 0
        self._free_at = 0.0
        self._sent_at = 0.0
        self._log: list[float] = []
        self._read = [0] * max(1, round(figures.followers))
        self._waiting: deque[int] = deque()
        self.lags: list[float] = []
        """Of the oldest record in each answer: from when the log had it until a worker has applied it."""
        self.late: list[float] = []
        """How long an invalidation takes to return."""

    def run(self) -> Simulation:
        for worker in range(len(self._read)):
            self._at(self._random.uniform(0, 0.01), lambda now, worker=worker: self._ask(now, worker))  # type: ignore[misc]
        self._at(0.01, self._invalidate)
        while self._events and self._events[0][0] < self._end:
            now, _, event = heapq.heappop(self._events)
            event(now)
        return self

    def _at(self, when: float, event: Callable[[float], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, event))

    def _serve(self, now: float, microseconds: float) -> float:
        """When Redis has done this; it does one thing after another."""
        self._free_at = max(now, self._free_at) + microseconds / 1e6
        return self._free_at

    def _invalidate(self, now: float) -> None:
        self._at(now + self._random.expovariate(self._figures.server_rate), self._invalidate)
        done = self._serve(now, self._figures.each(self._figures.script, self._figures.script_tag))
        self._at(done, self._logged)
        self.late.append(done - now)

    def _logged(self, now: float) -> None:
        self._log.append(now)
        for _ in range(len(self._waiting)):
            self._answer(now, self._waiting.popleft())

    def _ask(self, now: float, worker: int) -> None:
        if self._read[worker] < len(self._log):
            self._answer(now, worker)
        else:
            self._waiting.append(worker)

    def _answer(self, now: float, worker: int) -> None:
        figures, first = self._figures, self._read[worker]
        number = min(1_000, len(self._log) - first)
        self._read[worker] = first + number
        record = figures.each(figures.record_redis, figures.record_redis_tag)
        done = self._serve(now, figures.wake_redis + number * record)
        size = number * figures.each(figures.record_bytes, figures.record_bytes_tag)
        self._sent_at = max(done, self._sent_at) + size / (figures.link * 1e6)
        took = figures.wake_worker + number * figures.each(figures.record_worker, figures.record_worker_tag)
        applied = self._sent_at + took / 1e6
        self.lags.append(applied - self._log[first])
        pause = max(0.0, self._random.uniform(0, 2 / figures.questions) - took / 1e6)
        self._at(applied + pause, lambda later: self._ask(later, worker))

    def lag(self) -> str:
        """Median and 99th percentile in the second half, unless it grew all the time."""
        lags, half = self.lags, len(self.lags) // 2
        if half < 100:
            return "no answer in time"
        early, late = statistics.median(lags[half // 2 : half]), statistics.median(lags[-half // 2 :])
        if late > 0.05 and late > 1.3 * early:
            return "falls behind"
        ranks = statistics.quantiles(lags[half:], n=100)
        return f"{ranks[49] * 1e3:,.1f} / {ranks[98] * 1e3:,.1f} ms"


# ---- the map of what a worker knows ----


def asking(figures: Figures, entries: int, reads: float) -> tuple[float, float, float]:
    """For a worker whose entries are read like 1/n: seconds in which an entry must be read; share of reads; of Redis.

    An entry that was not read while three quarters of the map went by (the oldest half goes at once) is asked about.
    """
    keeps = figures.memory * 0.75 / (figures.rate * figures.tags)
    total = sum(1 / n for n in range(1, entries + 1))
    asked = sum(reads / n / total * math.exp(-reads / n / total * keeps) for n in range(1, entries + 1))
    return keeps, asked / reads, figures.workers * asked * figures.ask_redis / 1e6


# ---- tables ----


HEAD = """
| | Redis: scripts, records | Redis: questions | sent, MB/s | worker | falls behind first | lag, median / p99 | \
a command waits |
|---|---|---|---|---|---|---|---|"""


def row(name: str, figures: Figures) -> str:
    """One line: what is needed, and what the simulation says."""
    needed, full = figures.needed, figures.full
    first = max(full, key=lambda part: full[part])
    simulation = Simulation(figures, max(2.0, 20 / figures.questions)).run()
    half = simulation.late[len(simulation.late) // 2 :]
    waits = f"{statistics.median(half) * 1e3:,.1f} ms" if simulation.lag() != "falls behind" and half else "-"
    return (
        f"| {name} | {needed['Redis']:.2f} | {figures.questions_cores:.2f} | {needed['network']:,.0f} "
        f"| {needed['worker'] * 100:.1f} % | {first if full[first] > 1 else '-'} | {simulation.lag()} | {waits} |"
    )


def sizes(figures: Figures) -> None:
    """Fleets of several sizes."""
    print(f"What a fleet needs, in cores\n{HEAD}")
    for workers, rate in ((4, 100), (16, 1_000), (64, 1_000), (250, 100), (250, 1_000), (1_000, 10), (1_000, 1_000)):
        print(row(f"{workers:,} workers, {rate:,}/s", with_(figures, workers=workers, rate=rate)))
    print(row(f"{figures.workers:,} workers, {figures.rate:,.0f}/s", figures))


def limits(figures: Figures) -> None:
    """Where each part ends."""
    print(
        "\nInvalidations a second up to which ...\n\n"
        "| workers | questions leave Redis room | Redis keeps up | its network does | a worker does |\n"
        "|---|---|---|---|---|"
    )
    for workers in (1, 8, 64, 250, 1_000, 4_000):
        each = with_(figures, workers=workers)
        rates = [highest(each, lambda some: some.busy <= 1)]
        rates += [highest(each, lambda some, part=part: some.full[part] <= 1) for part in each.full]  # type: ignore[misc]
        print(f"| {workers:,} | " + " | ".join(f"{rate:,.0f}" for rate in rates) + " |")


def remedies(figures: Figures) -> None:
    """One change at a time, then two together."""
    print(f"\nWhat helps, with {figures.workers:,} workers and {figures.rate:,.0f} tags a second\n{HEAD}")
    hundred = with_(figures, rate=figures.rate / 100, tags=100)
    for name, changed in (
        ("as it is", figures),
        ("a tenth of the tags, coarser", with_(figures, rate=figures.rate / 10)),
        ("10 tags in each invalidation", with_(figures, rate=figures.rate / 10, tags=10)),
        ("100 tags in each invalidation", hundred),
        ("each worker asks twice a second", with_(figures, questions=2)),
        ("one follower for 16 workers", with_(figures, followers_share=1 / 16)),
        ("4 Redis servers", with_(figures, servers=4)),
        ("16 Redis servers", with_(figures, servers=16)),
        ("100 tags each, asks twice a second", with_(hundred, questions=2)),
        ("100 tags each, one follower for 16", with_(hundred, followers_share=1 / 16)),
    ):
        print(row(name, changed))


def maps(figures: Figures, entries: int, reads: float) -> None:
    print(
        f"\nThe map: {entries:,} entries in L1 read like 1/n, {reads:,.0f} hits a second in each of {figures.workers:,}"
        " workers\n\n| tags a second | map of | asked about if not read for | share of hits that ask"
        " | cores of Redis for that |\n|---|---|---|---|---|"
    )
    for rate in (100, 1_000, 10_000):
        for memory in (100_000, 1_000_000):
            keeps, share, cores = asking(with_(figures, rate=rate, memory=memory), entries, reads)
            print(f"| {rate:,} | {memory:,} | {keeps:,.1f} s | {share * 100:.1f} % | {cores:.2f} |")


def with_(figures: Figures, **changes: float) -> Figures:
    return dataclasses.replace(figures, **changes)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in dataclasses.fields(Figures):
        kind = int if isinstance(field.default, int) else float
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    parser.add_argument("--entries", type=int, default=10_000, help="in L1, for the table about the map")
    parser.add_argument("--reads", type=float, default=1_000.0, help="hits a second of each worker, for the same")
    options = vars(parser.parse_args())
    entries, reads = options.pop("entries"), options.pop("reads")
    figures = Figures(**options)
    sizes(figures)
    limits(figures)
    remedies(figures)
    maps(figures, entries, reads)


if __name__ == "__main__":
    main()
