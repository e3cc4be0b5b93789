"""Faults that come from the state of one Redis: each is what the row of the table says."""

from __future__ import annotations

import gc
import logging

import pytest

from tests.faults import redis_states
from tests.faults.company import Company
from tests.faults.redis_states import OTHER_FIELDS, ROWS
from tests.faults.table import Row
from tests.servers import RedisServer

logger = logging.getLogger(__name__)


def holds(row: Row, company: Company) -> None:
    figures = company.played(row)
    logger.info("%s: %s", row.name, figures)
    assert figures.durable or row.receipts == "held" or figures.open_cost is not None


@pytest.mark.parametrize("row", [pytest.param(row, marks=[pytest.mark.long] * row.rare, id=row.name) for row in ROWS])
def test_a_state_of_redis(company: Company, row: Row) -> None:
    holds(row, company)


@pytest.mark.long
@pytest.mark.parametrize("row", OTHER_FIELDS, ids=lambda row: row.name)
def test_any_field_of_the_control_hash(company: Company, row: Row) -> None:
    holds(row, company)


def test_a_list_in_the_place_of_a_lease_holds_a_fill_up_once(own_redis: RedisServer) -> None:
    logger.info("%s", redis_states.list_for_a_lease(own_redis))
    gc.collect()  # a connection that nobody closed warns
