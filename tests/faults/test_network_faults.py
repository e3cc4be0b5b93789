"""Faults of the network between the workers and Redis, made by the proxy before a real Redis."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop

from tests.engine.doubles import written
from tests.faults.network import ROWS
from tests.faults.proxy import Fault, FaultProxy
from tests.faults.scenario import play
from tests.faults.scene import workers
from tests.faults.table import Figures, Row, Stage
from tests.servers import RedisServer

Runner = Callable[[Coroutine[Any, Any, Figures]], Figures]
LASTING = 6.0


@pytest.fixture
def stage(own_redis: RedisServer) -> Iterator[Stage]:
    with FaultProxy(own_redis.port) as proxy:
        yield Stage(own_redis, proxy)


@pytest.mark.parametrize("row", [pytest.param(row, marks=[pytest.mark.long] * row.rare, id=row.name) for row in ROWS])
def test_a_fault_of_the_network(stage: Stage, row: Row) -> None:
    asyncio.run(play(row, stage))
    gc.collect()  # a connection that nobody closed warns


@pytest.mark.long
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS])
def test_a_fault_of_the_network_that_lasts(stage: Stage, row: Row, run: Runner) -> None:
    run(play(row, stage, seconds=LASTING))
    gc.collect()


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_the_answer_to_another_request_is_never_served(stage: Stage, at_once: int) -> None:
    """As on a connection that is out of step: each gets an entry, whole and valid, that answers another request."""

    async def body() -> None:
        async with workers(stage.proxy.url) as (one, two):
            await one.ask("/mine/1", "ann")
            await one.ask("/item/0")
            await written(one.cache)
            assert "; hit" in (await two.ask("/item/0")).told
            (key,) = (key for key in stage.admin("KEYS", "*mine*"))
            bulk = b"$%d\r\n%s\r\n" % (stage.admin("STRLEN", key), stage.admin("GET", key))
            stage.proxy.begin(Fault(garbage=bulk if at_once == 1 else b"*%d\r\n%s" % (at_once, bulk * at_once)))
            await asyncio.gather(*(two.ask("/mine/1", f"user {number}") for number in range(at_once)))
            await two.ask("/item/1")
            stage.proxy.end()

    asyncio.run(body())
    gc.collect()
