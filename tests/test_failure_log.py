"""What the log says of tiers that fail."""

from __future__ import annotations

import asyncio
import logging

import pytest

from asgi_tiercache import TierCache
from asgi_tiercache.logs import FailureLog
from asgi_tiercache.signals import BreakerChanged, TierFailed, WriteDropped
from asgi_tiercache.testing import ScriptedTier, TickingClock


def test_a_tier_out_of_reach_is_logged_once_with_its_error(caplog: pytest.LogCaptureFixture) -> None:
    tier = ScriptedTier()
    tier.fail()

    async def body() -> None:
        async with TierCache(l2=tier) as cache:
            for number in range(10):
                await cache.get(f"k{number}")

    with caplog.at_level(logging.WARNING, "asgi_tiercache"):
        asyncio.run(body())
    (record,) = caplog.records
    assert "L2 is out of reach" in record.getMessage()
    assert "told to fail" in record.getMessage()


def test_its_return_is_logged_with_what_it_cost_and_no_line_can_be_forged(caplog: pytest.LogCaptureFixture) -> None:
    clock = TickingClock()
    log = FailureLog(clock.monotonic)
    with caplog.at_level(logging.WARNING, "asgi_tiercache"):
        log(TierFailed("L2", "get", "evil\nL2 is back"))
        log(BreakerChanged("L2", "open"))
        for _ in range(100):
            log(BreakerChanged("L2", "half_open"))
            log(TierFailed("L2", "probe", "evil\nL2 is back"))
            log(BreakerChanged("L2", "open"))
            log(WriteDropped("L2", "unavailable"))
        clock.tick(12.34)
        log(BreakerChanged("L2", "half_open"))
        log(BreakerChanged("L2", "closed"))
    opened, closed = (record.getMessage() for record in caplog.records)
    assert "\n" not in opened
    assert closed == "L2 is back after 12.3 s; 100 more failures, 100 writes dropped"


def test_a_tier_that_takes_no_writes_is_logged_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    log = FailureLog(lambda: 0.0)
    with caplog.at_level(logging.WARNING, "asgi_tiercache"):
        log(TierFailed("L2", "set", "OOM", refused=True))
        log(BreakerChanged("L2 writes", "open"))
        log(WriteDropped("L2", "put off"))
        log(BreakerChanged("L2 writes", "half_open"))
        log(BreakerChanged("L2 writes", "closed"))
    assert [record.getMessage() for record in caplog.records] == [
        "L2 takes nothing ('set: OOM')",
        "L2 takes writes again after 0.0 s; 0 more failures, 1 writes dropped",
    ]


def test_what_is_refused_is_logged_once_for_each_operation(caplog: pytest.LogCaptureFixture) -> None:
    log = FailureLog()
    with caplog.at_level(logging.WARNING, "asgi_tiercache"):
        for _ in range(10):
            log(TierFailed("L2", "get", "no permission\n", refused=True))
            log(TierFailed("L2", "lease", "no permission", refused=True))
            log(TierFailed("L2", "get", "reset"))
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "L2 refuses get ('no permission\\n'); this is logged once",
        "L2 refuses lease ('no permission'); this is logged once",
    ]


def test_what_is_refused_is_logged_again_after_the_tier_was_well(caplog: pytest.LogCaptureFixture) -> None:
    log = FailureLog()
    with caplog.at_level(logging.WARNING, "asgi_tiercache"):
        for _ in range(2):
            log(TierFailed("L2", "append", "READONLY", refused=True))
            log(BreakerChanged("L2 writes", "open"))
            log(BreakerChanged("L2 writes", "closed"))
    assert [record.getMessage() for record in caplog.records].count(
        "L2 refuses append ('READONLY'); this is logged once"
    ) == 2
