"""Four worker processes and one real Redis: no read is older than what was promised when it began.

`TIERCACHE_SOAK_READS` says how many reads are checked in each run; `make test-long` asks for 200,000.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.servers import RedisServer
from tests.soak.truth import WORKERS, Truth

READS = int(os.environ.get("TIERCACHE_SOAK_READS", "10000"))
LONG = READS >= 100_000
VERBOSE = LONG or "TIERCACHE_SOAK_READS" in os.environ
SECONDS = 60.0 if LONG else 3.0
"""How long a run takes at the least; it goes on until enough reads have been checked."""
AT_MOST = SECONDS * 10 + 90
ROOT = Path(__file__).parents[2]


class Soak:
    """The workers, while they run.

    Args:
        server: Their Redis.
        directory: Where the shared file goes.
        plant: The fault in each of them.
    """

    def __init__(self, server: RedisServer, directory: Path, plant: str = "none") -> None:
        path = directory / "truth"
        self.truth = Truth.create(path)
        self._faulty = plant != "none"
        self.began = time.monotonic()
        """From when on all of them read."""
        self.namespace = f"soak-{secrets.token_hex(4)}"
        shared = ["--url", server.url, "--namespace", self.namespace, "--truth", str(path)]
        command = [sys.executable, "-W", "error", "-m", "tests.soak.worker", *shared, "--plant", plant]
        self._processes = [
            subprocess.Popen(
                [*command, "--number", str(number)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
            for number in range(WORKERS)
        ]

    def wait_until_all_read(self) -> None:
        """Processes take their time to start, some more than others."""
        while not self.truth.all_read and not self.over:
            time.sleep(0.02)
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self.began

    @property
    def over(self) -> bool:
        """Whether enough was read, something was found, or a worker has ended; of a fault, there is never enough."""
        enough = not self._faulty and self.truth.reads >= READS and self.seconds >= SECONDS
        ended = any(process.poll() is not None for process in self._processes)
        return enough or self.truth.stopped or ended or self.seconds > AT_MOST

    def ended(self) -> list[dict[str, Any]]:
        """Let the workers end, and return what they report."""
        self.truth.stop()
        outputs = [process.communicate(timeout=60) for process in self._processes]
        for process, (_, errors) in zip(self._processes, outputs, strict=True):
            assert process.returncode == 0, errors
        return [json.loads(output) for output, _ in outputs]

    def close(self) -> None:
        """End what still runs."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.communicate(timeout=60)
        self.truth.close()


@contextmanager
def soaking(server: RedisServer, directory: Path, plant: str = "none") -> Iterator[Soak]:
    """A `Soak` that ends with the block."""
    soak = Soak(server, directory, plant)
    try:
        soak.wait_until_all_read()
        yield soak
    finally:
        soak.close()


def summed(reports: list[dict[str, Any]]) -> Counter[str]:
    """The counts of all workers, those of invalidations by their kind."""
    total: Counter[str] = Counter()
    for report in reports:
        total.update({name: report[name] for name in ("reads", "L1", "L2", "misses", "flights", "evictions")})
        total.update(report["invalidations"])
    return total


def lines(reports: list[dict[str, Any]], seconds: float) -> str:
    """What a run says of itself."""
    total = summed(reports)
    lags = ", ".join(f"{report['worst_lag'] * 1000:.1f}" for report in reports)
    counts = ", ".join(f"{count:,} {name}" for name, count in total.items())
    epochs = [report["epochs"] for report in reports]
    return f"\n{seconds:.0f} s: {counts}; worst lag behind others, ms: {lags}; epochs {epochs}\n"


def check(reports: list[dict[str, Any]], *, disturbed: bool) -> None:
    """Nothing stale, and enough of everything for that to mean something; there is less of it without Redis."""
    assert [violation for report in reports for violation in report["violations"]] == []
    total = summed(reports)
    assert total["reads"] >= READS
    assert total["L1"] > READS / (100 if disturbed else 20)
    assert total["L2"] > READS / (1000 if disturbed else 100)
    assert total["misses"] > READS / 50
    assert total["flights"] > READS / 1000
    assert total["evictions"] > READS / (1000 if disturbed else 100)
    assert total["durable"] > (5 if disturbed else 10) * SECONDS
    assert total["soft"] > SECONDS
    assert all(report["reads"] > READS / 40 for report in reports)
    assert all((report["epochs"] > 1) is disturbed for report in reports)


def disturb(soak: Soak, server: RedisServer) -> None:
    """Every few seconds one of what can happen to a Redis; in the short form, the first few."""
    kinds = ("hang", "restart", "reset connections", "lose control", "reset connections", "trim", "reset connections")
    for kind in cycle((*kinds, "flush")):
        time.sleep(3.0 if LONG else 0.7)
        if soak.over:
            return
        if kind == "restart":
            server.restart()
        elif kind == "hang":
            server.pause()
            time.sleep(1.0)
            server.resume()
        else:
            with Redis.from_url(server.url) as client:
                _disturb(client, kind, f"{{{soak.namespace}}}")


def _disturb(client: Any, kind: str, slot: str) -> None:
    if kind == "lose control":
        client.delete(f"{slot}:control")
    elif kind == "trim":
        client.xtrim(f"{slot}:log", maxlen=0, approximate=False)
    elif kind == "flush":
        client.flushall()
    else:
        client.client_kill_filter(_type="normal", skipme=True)


def test_no_worker_reads_what_was_invalidated(
    own_redis: RedisServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with soaking(own_redis, tmp_path) as soak:
        while not soak.over:
            time.sleep(0.05)
        seconds, reports = soak.seconds, soak.ended()
    with capsys.disabled():
        sys.stdout.write(lines(reports, seconds) if VERBOSE else "")
    check(reports, disturbed=False)


def test_no_worker_does_while_redis_restarts_hangs_and_resets_connections(
    own_redis: RedisServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What Redis has acknowledged goes with its memory; but then all that was stored before counts no more."""
    with soaking(own_redis, tmp_path) as soak:
        disturb(soak, own_redis)
        seconds, reports = soak.seconds, soak.ended()
    with capsys.disabled():
        sys.stdout.write(lines(reports, seconds) if VERBOSE else "")
    check(reports, disturbed=True)
    assert summed(reports)["not durable"] > 0


@pytest.mark.parametrize(
    "plant",
    [
        "stamp-at-store",
        "deaf",
        pytest.param("never-judges", marks=pytest.mark.long),
        pytest.param("inherits-nothing", marks=pytest.mark.long),
    ],
)
def test_the_soak_notices_a_fault(plant: str, own_redis: RedisServer, tmp_path: Path) -> None:
    with soaking(own_redis, tmp_path, plant) as soak:
        while not soak.over:
            time.sleep(0.05)
        reports = soak.ended()
    assert any("must give" in violation for report in reports for violation in report["violations"])


@pytest.mark.long
@pytest.mark.parametrize("plant", ["holds-nothing", "ignores-epochs"])
def test_the_soak_notices_a_fault_that_only_an_outage_brings_out(
    plant: str, own_redis: RedisServer, tmp_path: Path
) -> None:
    with soaking(own_redis, tmp_path, plant) as soak:
        disturb(soak, own_redis)
        reports = soak.ended()
    assert any("must give" in violation for report in reports for violation in report["violations"])
