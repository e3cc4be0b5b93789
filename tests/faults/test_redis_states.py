"""Faults that come from the state of one Redis: each is what the row of the table says."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterator

import pytest

from tests.faults.proxy import FaultProxy
from tests.faults.redis_states import OTHER_FIELDS, ROWS
from tests.faults.scenario import play
from tests.faults.table import Row, Stage
from tests.servers import RedisServer

logger = logging.getLogger(__name__)


@pytest.fixture
def stage(own_redis: RedisServer) -> Iterator[Stage]:
    with FaultProxy(own_redis.port) as proxy:
        yield Stage(own_redis, proxy)


def holds(row: Row, stage: Stage) -> None:
    figures = asyncio.run(play(row, stage))
    logger.info("%s: %s", row.name, figures)
    assert figures.durable or row.receipts == "held" or figures.open_cost is not None
    gc.collect()  # a connection that nobody closed warns


@pytest.mark.parametrize("row", [pytest.param(row, marks=[pytest.mark.long] * row.rare, id=row.name) for row in ROWS])
def test_a_state_of_redis(stage: Stage, row: Row) -> None:
    holds(row, stage)


@pytest.mark.long
@pytest.mark.parametrize("row", OTHER_FIELDS, ids=lambda row: row.name)
def test_any_field_of_the_control_hash(stage: Stage, row: Row) -> None:
    holds(row, stage)
