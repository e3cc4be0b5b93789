"""Faults of the network between the workers and Redis, made by the proxy before a real Redis."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from tests.faults.network import ROWS
from tests.faults.proxy import FaultProxy
from tests.faults.scenario import play
from tests.faults.table import Row, Stage
from tests.servers import RedisServer


@pytest.fixture
def stage(own_redis: RedisServer) -> Iterator[Stage]:
    with FaultProxy(own_redis.port) as proxy:
        yield Stage(own_redis, proxy)


@pytest.mark.parametrize("row", [pytest.param(row, marks=[pytest.mark.long] * row.rare, id=row.name) for row in ROWS])
def test_a_fault_of_the_network(stage: Stage, row: Row) -> None:
    asyncio.run(play(row, stage))
    gc.collect()  # a connection that nobody closed warns


@pytest.mark.long
@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS])
def test_a_fault_of_the_network_that_lasts(stage: Stage, row: Row) -> None:
    asyncio.run(play(row, stage, seconds=6.0))
    gc.collect()
