"""Fixtures of the tests of faults."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.company import Company
from tests.faults.table import Stage, alone
from tests.servers import RedisServer


@pytest.fixture
def stage(own_redis: RedisServer) -> Iterator[Stage]:
    with alone(own_redis) as stage:
        yield stage


@pytest.fixture(scope="module")
def company(request: pytest.FixtureRequest) -> Iterator[Company]:
    """The rows that the tests of this module, as far as they were chosen, ask for."""
    rows: list[Any] = [
        item.callspec.params["row"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.path == request.path and "company" in item.fixturenames
    ]
    company = Company(rows)
    yield company
    company.close()
    gc.collect()  # a connection that nobody closed warns
