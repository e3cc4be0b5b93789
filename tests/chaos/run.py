"""A chaos run: workers before a real Redis, clients, invalidations, faults; and what every answer must hold to.

    python -m tests.chaos.run --seconds 120 [--seed 7] [--workers 4] [--plant none]

It ends with 1 if anything was wrong. The seed brings back the same faults in the same order, and the same requests of
each client; not the same interleaving.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.bodies import GROUPS, ITEMS, group_of
from tests.chaos.checker import SETTLED, Checker, Promise
from tests.chaos.faults import Faults
from tests.chaos.figures import lines
from tests.chaos.fleet import GoneError, Processes
from tests.chaos.kinds import USERS, WAYS
from tests.chaos.load import Client, Figures
from tests.chaos.proxies import Proxies
from tests.chaos.timeline import Event, Timeline
from tests.chaos.versions import Versions
from tests.servers import RedisServer, find_binaries

CLIENTS = 5
"""Of each worker."""
INVALIDATIONS = 8.0
"""A second, of all workers together."""
RECOVERY = 20.0
"""Seconds within which all must be well again; the breaker tries every two seconds or so at the latest."""
QUIET = 40.0
FILES = 100
"""Connections to Redis that a worker may keep: 48 for reads, 48 for the rest, the log's, and that for messages."""
FOR_MESSAGES = ("Messages._read", "Messages._until_idle")
"""Tasks of the connection by which workers hear of each other's leases; it is closed when nobody has for 10 to 20 s."""
GROWTH = 60_000_000
"""Bytes that a process may grow by after its first quarter; its memory, its regions full, is that of the first."""


@dataclass
class Result:
    """What came of a run."""

    seconds: float
    seed: int
    violations: list[str]
    figures: Figures
    timeline: Timeline
    counts: Counter[str]
    reports: list[dict[str, Any]]
    epochs: int
    recoveries: dict[str, list[float]]
    hits_after: list[float]
    """The share of hits in the calm after each fault."""
    at_first: list[dict[str, Any]]
    growth: list[int]

    def __str__(self) -> str:
        return "\n".join(lines(self))


class Run:
    """One run.

    Args:
        server: Its Redis, which it may do anything to.
        directory: For the output of the workers.
        seconds: How long faults and requests go on.
        seed: Of all that is left to chance here.
        workers: Their number.
        plant: What is wrong with them.
        patient: Go on though something was found.
        faults: Those alone whose names hold this; None: none.
        quiet: Seconds within which nothing may be left of what requests have set off.
        idle_connections: Whether the connection for messages may be left all the same, so as not to wait for its end.
    """

    def __init__(
        self,
        server: RedisServer,
        directory: Path,
        *,
        seconds: float,
        seed: int,
        workers: int = 4,
        plant: str = "none",
        patient: bool = True,
        faults: str | None = "",
        quiet: float = QUIET,
        idle_connections: bool = False,
    ) -> None:
        self.seconds = seconds
        self.seed = seed
        self.number = workers
        self._patient = patient
        self._with_faults = faults is not None
        self._quiet = quiet
        self._allowed = FOR_MESSAGES if idle_connections else ()
        self._random = Random(seed)
        self._namespace = f"chaos-{secrets.token_hex(3)}"
        self._timeline = Timeline()
        self._checker = Checker(self._timeline, SETTLED if self._with_faults else 1.0)
        self._figures = Figures()
        self._counts = self._checker.counts
        self._versions = Versions(directory / "versions", create=True)
        self._proxies = Proxies(server.port, workers)
        urls = [f"redis://127.0.0.1:{port}/0" for port in self._proxies.ports]
        self._fleet = Processes(urls, directory, namespace=self._namespace, seed=seed, plant=plant)
        self._faults = Faults(
            server,
            self._proxies,
            self._fleet,
            self._timeline,
            Random(seed + 1),
            number=workers,
            namespace=self._namespace,
            only=faults or "",
        )
        self._at_first: list[dict[str, Any]] = []
        """What the workers hold before the first request."""
        self._states: list[dict[str, Any]] = [{} for _ in range(workers)]
        self._epochs: set[str] = set()
        self._held: dict[int, tuple[frozenset[str], dict[int, int], Promise]] = {}
        self._rss: dict[str, int] = {}
        self._recoveries: dict[str, list[float]] = {}
        self._hits_after: list[float] = []
        self._stopped = asyncio.Event()
        """Nothing more is asked for."""
        self._over = asyncio.Event()
        """Nobody looks any more."""

    def close(self) -> None:
        """End what still runs."""
        self._fleet.close()
        self._proxies.close()

    async def run(self) -> Result:
        """Let it happen."""
        await self._fleet.ready()
        self._at_first = [await self._fleet.tell(number, "report") for number in range(self.number)]
        self._timeline.started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(self.number):
                group.create_task(self._watch(number))
            group.create_task(self._settle())
            async with asyncio.TaskGroup() as asking:
                for number in range(self.number):
                    for client in range(CLIENTS):
                        asking.create_task(self._client(number, client).run(self._stopped))
                    asking.create_task(self._keep_invalidating(number))
                asking.create_task(self._go_on())
            reports = await self._until_quiet()
            self._over.set()
        seconds = time.monotonic() - self._timeline.started
        growth = self._look_at(reports)
        self._checker.settle(all_of_it=True)
        codes = await self._fleet.stop()
        if any(code not in (0, -signal.SIGTERM) for code in codes):
            self._checker.found(f"workers ended with {codes}")
        for complaint in self._fleet.complaints():
            self._checker.found(f"written by a worker: {complaint}")
        return Result(
            seconds,
            self.seed,
            self._checker.violations,
            self._figures,
            self._timeline,
            self._counts,
            reports,
            len(self._epochs),
            self._recoveries,
            self._hits_after,
            self._at_first,
            growth,
        )

    # ---- faults and calm ----

    async def _go_on(self) -> None:
        """Faults, and calm between them, until the time is over; then a last calm."""
        try:
            await self._calm([])
            while not self._enough and self._with_faults:
                number = 2 if self._random.random() < 0.25 else 1
                events = await asyncio.gather(*(self._faults.one() for _ in range(number)))
                await self._calm(list(events))
            while not self._enough:  # noqa: ASYNC110 - a time, and findings, have no event
                await asyncio.sleep(0.1)
        finally:
            await asyncio.to_thread(self._faults.mend)
            self._stopped.set()

    @property
    def _enough(self) -> bool:
        over = time.monotonic() - self._timeline.started > self.seconds
        return over or (not self._patient and bool(self._checker.violations))

    async def _calm(self, events: list[Event]) -> None:
        """Until all is well again, and a while longer."""
        since = time.monotonic()
        # What the workers say of themselves has no event.
        while not (well := self._all_well(since)) and time.monotonic() - since < RECOVERY:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        now = time.monotonic()
        for event in events:
            event.recovered = now
            self._recoveries.setdefault(event.name, []).append(now - since)
        if not well:
            self._checker.found(f"not well {RECOVERY} s after {[event.name for event in events]}: {self._states}")
        if dead := self._fleet.dead:
            self._checker.found(f"workers {dead} have ended by themselves")
        self._figures.recent.clear()
        await asyncio.sleep(self._random.uniform(1.0, 2.0))
        recent = self._figures.recent
        if recent.total():
            self._hits_after.append(recent["hits"] / recent.total())

    def _all_well(self, since: float) -> bool:
        """Whether each has said, after `since`, that it uses Redis, has nothing to send, and knows what is valid."""
        return all(
            state
            and state["at"] > since
            and not state["pending"]
            and state["verified"]
            and all(breaker == "closed" for breaker in state["breakers"].values())
            for state in self._states
        )

    async def _watch(self, number: int) -> None:
        """Ask a worker again and again how it is."""
        control = self._fleet.control(number)
        while not self._over.is_set():
            at = time.monotonic()
            with contextlib.suppress(GoneError, TimeoutError):
                state = await control.tell("state")
                self._states[number] = {**state, "at": at}
                self._epochs.add(state["epoch"])
                self._rss.setdefault(state["life"], 0)
                if time.monotonic() - self._timeline.started < self.seconds / 4 or not self._rss[state["life"]]:
                    self._rss[state["life"]] = max(self._rss[state["life"]], state["rss"])
                self._bind_replayed(state["replayed"])
            await asyncio.sleep(0.05)
        control.close()

    # ---- requests and invalidations ----

    def _client(self, number: int, client: int) -> Client:
        return Client(
            number,
            self._fleet.ports[number],
            Random(self.seed * 1000 + number * 100 + client),
            versions=self._versions,
            checker=self._checker,
            timeline=self._timeline,
            figures=self._figures,
            counts=self._counts,
            changed=self._changed,
        )

    def _changed(self, worker: int, item: int, version: int, life: str) -> None:
        """A PUT has been answered, so its worker knows; whether Redis does, nobody has said."""
        promise = Promise(time.monotonic(), 0, worker, life, durable=False)
        self._checker.promise(frozenset({"page"}), {item: version}, promise)
        self._counts["invalidations by PUT"] += 1

    async def _keep_invalidating(self, number: int) -> None:
        random = Random(self.seed * 1000 + number * 100 + 99)
        control = self._fleet.control(number)
        changes = range(number, sys.maxsize, self.number)
        for change in changes:
            if self._stopped.is_set():
                break
            await asyncio.sleep(random.expovariate(INVALIDATIONS / self.number))
            with contextlib.suppress(GoneError, TimeoutError):
                await self._invalidate(control, number, change, random)
        control.close()

    async def _invalidate(self, control: Any, number: int, change: int, random: Random) -> None:
        """Commit, invalidate in one of the ways, and bind everybody to what stood there before."""
        way = random.choices(list(WAYS), [weight for weight, _ in WAYS.values()])[0]
        item, user = random.randrange(ITEMS), random.choice(USERS)
        items = [item]
        if way == "tags":
            items = random.sample(range(ITEMS), 3)
        elif way == "pattern":
            items = [each for each in range(ITEMS) if group_of(each) == item % GROUPS]
        elif way in ("route", "user", "clear"):
            items = list(range(ITEMS))
        for each in items if len(items) < 4 else random.sample(items, 3):
            self._versions.commit(each)
        versions = {each: self._versions[each] for each in items}
        said = await control.tell("invalidate", way=way, item=item, items=items, user=user, change=change)
        if "error" in said:
            self._checker.found(f"an invalidation by {way} raised: {said['error']}")
            return
        promise = Promise(said["at"], 0, number, said["life"], said["durable"], user if way == "user" else None)
        kinds = WAYS[way][1]
        self._checker.promise(kinds, versions, promise)
        self._counts["invalidations durable" if said["durable"] else "invalidations not durable"] += 1
        self._counts[f"by {way}"] += 1
        if not said["durable"]:
            self._held[change] = kinds, versions, promise

    def _bind_replayed(self, replayed: list[list[int]]) -> None:
        """What Redis had not taken, it has now: that binds everybody."""
        for change, at in replayed:
            if (held := self._held.pop(change, None)) is not None:
                kinds, versions, promise = held
                late = Promise(at / 1e9, 0, promise.worker, promise.life, durable=True, user=promise.user)
                self._checker.promise(kinds, versions, late)
                self._counts["invalidations replayed"] += 1

    async def _settle(self) -> None:
        while not self._over.is_set():
            self._checker.settle()
            await asyncio.sleep(0.2)

    # ---- the end ----

    async def _until_quiet(self) -> list[dict[str, Any]]:
        """What the workers hold when nobody asks them for anything any more."""
        until = time.monotonic() + self._quiet
        while True:
            reports = [await self._fleet.tell(number, "report") for number in range(self.number)]
            if not any(map(self._leaks, reports)) or time.monotonic() > until:
                return reports
            await asyncio.sleep(0.25)

    def _look_at(self, reports: list[dict[str, Any]]) -> list[int]:
        growth = []
        for report in reports:
            for leak in self._leaks(report):
                self._checker.found(f"worker {report['life']} {leak}")
            growth.append(report["rss"] - self._rss.get(report["life"], report["rss"]))
            if growth[-1] > GROWTH:
                self._checker.found(f"worker {report['life']} grew by {growth[-1]:,} bytes")
        return growth

    def _leaks(self, report: dict[str, Any]) -> list[str]:
        """What a worker holds that it should have let go of."""
        at_first = self._at_first[int(report["life"].split(".")[0])]
        more = Counter(report["tasks"]) - Counter(at_first["tasks"])
        found = [f"leaked {count} x {name}" for name, count in more.items() if name not in self._allowed]
        if (files := report["fds"] - at_first["fds"]) > FILES:
            found.append(f"leaked {files} files")
        return found + [f"has {report[what]} {what} left" for what in ("flights", "queued", "pending") if report[what]]


async def chaos(server: RedisServer, directory: Path, **options: Any) -> Result:
    """One run, from start to end."""
    run = Run(server, directory, **options)
    try:
        return await run.run()
    finally:
        run.close()


def main() -> int:
    """Read the command line, run, and say what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--plant", default="none")
    parser.add_argument("--faults", default="", help="those alone whose names hold this; '-': none")
    options = parser.parse_args()
    sys.stdout.write(f"chaos: {options.seconds:.0f} s, seed {options.seed}\n")
    sys.stdout.flush()
    server = RedisServer(next(iter(find_binaries().values()))).start()
    try:
        with tempfile.TemporaryDirectory(prefix="tiercache-chaos-") as directory:
            result = asyncio.run(
                chaos(
                    server,
                    Path(directory),
                    seconds=options.seconds,
                    seed=options.seed,
                    workers=options.workers,
                    plant=options.plant,
                    faults=None if options.faults == "-" else options.faults,
                )
            )
    finally:
        server.close()
    sys.stdout.write(f"{result}\n")
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
