"""Faults of the network between the workers and Redis, made by the proxy before a real Redis."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from tests.engine.doubles import written
from tests.faults.company import Company
from tests.faults.network import ROWS
from tests.faults.proxy import Fault
from tests.faults.scenario import patiently, play
from tests.faults.scene import workers
from tests.faults.table import Figures, Row, Stage

Runner = Callable[[Coroutine[Any, Any, Figures]], Figures]
LASTING = 6.0


@pytest.mark.parametrize("row", [pytest.param(row, marks=[pytest.mark.long] * row.rare, id=row.name) for row in ROWS])
def test_a_fault_of_the_network(company: Company, row: Row) -> None:
    company.played(row)


@pytest.mark.long
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS])
def test_a_fault_of_the_network_that_lasts(stage: Stage, row: Row, run: Runner) -> None:
    patiently(lambda: run(play(row, stage, seconds=LASTING)))
    gc.collect()  # a connection that nobody closed warns


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
