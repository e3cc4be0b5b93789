"""The server that holds a lease fails: nobody waits for long, and afterwards leases and messages work as before."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Iterator

import pytest

from asgi_tiercache.tiers.leases import Busy, Ended, Lease
from tests.clusters import ClusterServers
from tests.test_redis_failovers import BINARY, HOWS, Cluster, Sentinels, Servers
from tests.tiers.test_redis_leases import Worker, name, workers

pytestmark = pytest.mark.long

LEASE = 2.0
DEADLINE = 0.3
BACK = 20.0
"""Seconds within which a busy machine's servers have agreed on another primary, and breakers have closed."""


@pytest.fixture(params=["cluster", "sentinel"])
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    made = Cluster(BINARY) if request.param == "cluster" else Sentinels(BINARY)
    with contextlib.closing(made):
        made.start()
        if isinstance(made, Sentinels):
            made.ready_to_fail_over()
        yield made


def key_on_the_primary(servers: Servers) -> str:
    for number in itertools.count():
        key = f"lease-test:{number}"
        if not isinstance(servers, ClusterServers) or servers.owner(name(key)) is servers.primary():
            return key
    raise AssertionError


async def heard(first: Worker, second: Worker, key: str) -> bool:
    """Whether one can hold a lease that the other waits for, and hears the end of."""
    lease = await first.leases.acquire(key, LEASE)
    if not isinstance(lease, Lease):
        return False
    busy = await second.leases.acquire(key, LEASE)
    if not isinstance(busy, Busy):  # each may have asked a master of its own
        for each in (lease, busy):
            if isinstance(each, Lease):
                each.end(Ended.GONE)
        return False
    waiting = asyncio.create_task(busy.wait(LEASE))
    await asyncio.sleep(0.2)
    lease.end(Ended.STORED)
    return await waiting is Ended.STORED


async def well(first: Worker, second: Worker, key: str) -> None:
    """Return once they hear each other."""
    async with asyncio.timeout(BACK):
        for _ in itertools.count():
            if await heard(first, second, key):
                return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("how", HOWS)
def test_whoever_waits_goes_on_and_leases_come_back(servers: Servers, how: str) -> None:
    async def body() -> None:
        async with workers(servers.url, deadline=DEADLINE) as (first, second):
            key = key_on_the_primary(servers)
            await well(first, second, key)
            lease = await first.wins(key, LEASE)
            waiting = await second.waits(key, 30.0, LEASE)
            failed = time.monotonic()
            await asyncio.to_thread(HOWS[how], servers, servers.primary())
            await asyncio.wait([waiting], timeout=BACK)
            if not waiting.done():
                assert how == "gives up"  # then the new primary may know the lease, and go on renewing it
            else:
                assert how == "gives up" or time.monotonic() - failed < 2 * LEASE + DEADLINE
            lease.end(Ended.STORED)
            await well(first, second, key)
            waiting.cancel()

    asyncio.run(asyncio.wait_for(body(), 90))
