"""What the log says of tiers that fail."""

from __future__ import annotations

import asyncio
import logging

import pytest

from asgi_tiercache import TierCache
from asgi_tiercache.logs import FailureLog
from asgi_tiercache.signals import BreakerChanged, TierFailed
from asgi_tiercache.testing import ScriptedTier


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


def test_its_return_is_logged_and_no_line_can_be_forged(caplog: pytest.LogCaptureFixture) -> None:
    log = FailureLog()
    with caplog.at_level(logging.WARNING, "asgi_tiercache"):
        log(TierFailed("L2", "get", "evil\nL2 is back"))
        log(BreakerChanged("L2", "open"))
        log(BreakerChanged("L2", "closed"))
    opened, closed = (record.getMessage() for record in caplog.records)
    assert "\n" not in opened
    assert closed == "L2 is back"
