"""Workers, clients, invalidations and faults, all at once; what must hold, and that the run would notice if it did not.

`make chaos` runs it alone, `SECONDS=` and `SEED=` choose for how long and which.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.run import Result, chaos
from tests.servers import RedisServer

SECONDS = float(os.environ.get("TIERCACHE_CHAOS_SECONDS", "120"))


def run(server: RedisServer, directory: Path, **options: Any) -> Result:
    seed = secrets.randbelow(1_000_000)
    sys.stdout.write(f"seed {seed}\n")  # shown where the run itself breaks off
    return asyncio.run(chaos(server, directory, seed=seed, **options))


def test_a_few_seconds_of_chaos_leave_every_answer_right(own_redis: RedisServer, tmp_path: Path) -> None:
    result = run(own_redis, tmp_path, seconds=6, workers=3, idle_connections=True)
    assert not result.violations, str(result)
    assert result.counts["versions judged"] > 50
    assert result.counts["invalidations durable"] > 5


@pytest.mark.long
def test_minutes_of_chaos_leave_every_answer_right(
    own_redis: RedisServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(own_redis, tmp_path, seconds=SECONDS)
    with capsys.disabled():
        sys.stdout.write(f"\n{result}\n")
    assert not result.violations, str(result)
    assert result.counts["versions judged"] > 20 * SECONDS
    assert result.counts["invalidations durable"] > SECONDS / 2
    assert len(result.timeline.events) > SECONDS / 20


@pytest.mark.parametrize(
    ("plant", "seen"),
    [
        ("mixes-users", "something else"),
        ("skips-invalidations", "must be"),
        pytest.param("fails", "unexpected 500", marks=pytest.mark.long),
        pytest.param("spoils-bodies", "wrong body", marks=pytest.mark.long),
        pytest.param("never-judges", "must be", marks=pytest.mark.long),
        pytest.param("deaf", "must be", marks=pytest.mark.long),
        pytest.param("serves-too-old", "s old", marks=pytest.mark.long),
        pytest.param("cuts", "cut", marks=pytest.mark.long),
    ],
)
def test_the_run_notices_a_fault(plant: str, seen: str, own_redis: RedisServer, tmp_path: Path) -> None:
    result = run(
        own_redis,
        tmp_path,
        seconds=40,
        plant=plant,
        workers=2 if plant == "deaf" else 1,
        patient=False,
        faults=None,
        idle_connections=True,
    )
    assert any(seen in violation for violation in result.violations), str(result)


@pytest.mark.parametrize(
    ("plant", "seen"),
    [("leaks-tasks", "x sleep"), pytest.param("leaks-files", "files", marks=pytest.mark.long)],
)
def test_the_run_notices_what_is_left_behind(plant: str, seen: str, own_redis: RedisServer, tmp_path: Path) -> None:
    result = run(own_redis, tmp_path, seconds=4, plant=plant, workers=1, faults=None, quiet=1.0, idle_connections=True)
    assert any(seen in violation for violation in result.violations), str(result)


@pytest.mark.long
@pytest.mark.parametrize(("plant", "faults"), [("holds-nothing", "refused"), ("ignores-epochs", "flushed")])
def test_the_run_notices_a_fault_that_only_an_outage_brings_out(
    plant: str, faults: str, own_redis: RedisServer, tmp_path: Path
) -> None:
    result = run(
        own_redis, tmp_path, seconds=90, plant=plant, workers=2, patient=False, faults=faults, idle_connections=True
    )
    assert any("must be" in violation for violation in result.violations), str(result)
