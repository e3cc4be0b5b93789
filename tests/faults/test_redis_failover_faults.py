"""Another server in place of the one that was asked so far: behind the same address, or for some slots of a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest

from tests.clusters import ClusterServers, ask, wait
from tests.conftest import BINARIES
from tests.engine.doubles import written
from tests.faults.proxy import FaultProxy
from tests.faults.redis_states import CONTROL, LOG
from tests.faults.scenario import nothing_left, play
from tests.faults.scene import Worker, workers
from tests.faults.table import Figures, Row, Stage
from tests.servers import RedisServer

logger = logging.getLogger(__name__)

BINARY = next(iter(BINARIES.values()))
MISSES = "misses, answered by the app; what is in memory is served"


def played(row: Row, stage: Stage, url: str | None = None) -> Figures:
    figures = asyncio.run(play(row, stage, url=url))
    logger.info("%s: %s", row.name, figures)
    gc.collect()  # a connection that nobody closed warns
    return figures


# ---- one server for another, behind one address ----


@pytest.fixture
def stage(own_redis: RedisServer) -> Iterator[Stage]:
    with FaultProxy(own_redis.port) as proxy:
        yield Stage(own_redis, proxy)


@pytest.fixture
def replica(own_redis: RedisServer) -> Iterator[RedisServer]:
    """One that has received all that `own_redis` has."""
    server = RedisServer(BINARY, {"repl-diskless-sync-delay": "0"})
    with contextlib.closing(server):
        server.start()
        ask(own_redis, "CONFIG", "SET", "repl-diskless-sync-delay", 0)
        ask(server, "REPLICAOF", "127.0.0.1", own_redis.port)
        wait(lambda: b"master_link_status:up" in ask(server, "INFO", "replication"))
        yield server


def test_a_master_that_becomes_a_replica_is_left_for_the_new_one(stage: Stage, replica: RedisServer) -> None:
    """Its connections stay open, and its address leads elsewhere: reading from it would go on for ever."""

    def fail_over(stage: Stage) -> None:
        stage.admin("REPLICAOF", "127.0.0.1", replica.port)
        ask(replica, "REPLICAOF", "NO", "ONE")
        stage.proxy.upstream = replica.port

    row = Row(
        name="failover: READONLY, and another server behind the address",
        begin=fail_over,
        end=lambda _: None,
        clients=MISSES,
        receipts="either",
        opens=None,
        seconds=0.5,
        recovery="connections are made anew; a new epoch begins",
    )
    played(row, stage)
    assert stage.admin("GET", "anything") is None


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> float:
    """The seconds until `holds()`."""
    started = time.perf_counter()
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)
    return time.perf_counter() - started


async def known(worker: Worker, item: str) -> bool:
    """Whether it serves the present version, however it is asked."""
    answers = [await worker.ask(f"/{kind}/{item}") for kind in ("item", "free", "sure")]
    return all(answer.version == worker.truth.version(item) for answer in answers)


@pytest.mark.parametrize("trusting", [False, True])
@pytest.mark.parametrize("new", ["quiet", "goes on"])
def test_an_invalidation_that_a_failover_lost_holds_where_somebody_knows_it(
    stage: Stage, replica: RedisServer, trusting: bool, new: str
) -> None:
    async def body() -> None:
        async with nothing_left(), workers(stage.proxy.url, number=3, trust_restart=trusting) as (one, two, late):
            for item in "ab":
                assert await known(one, item)
            await written(one.cache)
            wait(lambda: ask(replica, "DBSIZE") == stage.admin("DBSIZE"))
            ask(replica, "REPLICAOF", "NO", "ONE")
            assert (await one.change("a")).durable
            stage.redis.kill()
            stage.proxy.upstream = replica.port
            stage.proxy.reset()
            if new == "goes on":
                await until(lambda: durable(two, "b"))
            late.lag = 10.0  # not promised before the other has noticed
            back = await until(lambda: knows_of_it(one, late))
            logger.info("lost write, trust_restart=%s, %s: another worker knows after %.2f s", trusting, new, back)
            assert await known(one, "a")
            await until(lambda: durable(one, "a"))  # its breaker may be open for longer than the other's

    async def durable(worker: Worker, item: str) -> bool:
        return (await worker.change(item)).durable

    async def knows_of_it(one: Worker, late: Worker) -> bool:
        """Whether one that begins now does, while the one that has invalidated is asked for something else."""
        await one.ask("/item/b")
        return late.uses_redis and await known(late, "a")

    asyncio.run(body())
    gc.collect()


def test_without_trust_a_failover_that_nobody_lived_through_brings_nothing_old_back(
    stage: Stage, replica: RedisServer
) -> None:
    async def body() -> None:
        async with workers(stage.proxy.url, number=2) as (one, late):
            assert await known(one, "a")
            await written(one.cache)
            wait(lambda: ask(replica, "DBSIZE") == stage.admin("DBSIZE"))
            ask(replica, "REPLICAOF", "NO", "ONE")
            assert (await one.change("a")).durable
            await one.cache.aclose()
            stage.redis.kill()
            stage.proxy.upstream = replica.port
            assert await known(late, "a")

    asyncio.run(body())
    gc.collect()


# ---- a cluster ----


@pytest.fixture
def in_cluster(redis_cluster: ClusterServers) -> Iterator[Stage]:
    with FaultProxy(redis_cluster.nodes[0].port) as proxy:
        yield Stage(redis_cluster.nodes[0], proxy)


class Move:
    """Slots that move from the node that has `key` to another, and stay under way until the end."""

    def __init__(self, cluster: ClusterServers, key: str) -> None:
        self._source = cluster.owner(key)
        masters = [node for node in cluster.nodes if ask(node, "ROLE")[0] == b"master"]
        self._target = next(node for node in masters if node is not self._source)
        self._masters = masters
        self._ids = {node: ask(node, "CLUSTER", "MYID") for node in masters}
        self._slots: list[int] = []

    def begin(self, keys: list[bytes]) -> None:
        """`keys` alone are at the new node already."""
        for key in keys:
            slot = ask(self._source, "CLUSTER", "KEYSLOT", key)
            if slot not in self._slots:
                self._slots.append(slot)
                ask(self._target, "CLUSTER", "SETSLOT", slot, "IMPORTING", self._ids[self._source])
                ask(self._source, "CLUSTER", "SETSLOT", slot, "MIGRATING", self._ids[self._target])
            self._migrate(key)

    def end(self, _: Stage) -> None:
        for slot in self._slots:
            for key in ask(self._source, "CLUSTER", "GETKEYSINSLOT", slot, 1000):
                self._migrate(key)
            for node in (self._target, self._source, *self._masters):
                ask(node, "CLUSTER", "SETSLOT", slot, "NODE", self._ids[self._target])

    def keys(self, number: int) -> list[bytes]:
        """Of entries, at the node that they move from."""
        keys: list[bytes] = ask(self._source, "KEYS", "*api:response*")[:number]
        return keys

    def _migrate(self, key: bytes) -> None:
        ask(self._source, "MIGRATE", "127.0.0.1", self._target.port, key, 0, 5000, "REPLACE")


@pytest.mark.parametrize("first", [[CONTROL], [LOG], [CONTROL, LOG]], ids=["control first", "log first", "both"])
def test_the_slot_of_the_control_state_moves(
    redis_cluster: ClusterServers, in_cluster: Stage, first: list[str]
) -> None:
    move = Move(redis_cluster, CONTROL)
    row = Row(
        name="ASK, TRYAGAIN, MOVED: the slot of the control state moves",
        begin=lambda _: move.begin([key.encode() for key in first]),
        end=move.end,
        clients=MISSES,
        receipts="either",
        opens=None,
        seconds=0.8,
        recovery="a new epoch begins",
    )
    played(row, in_cluster, redis_cluster.url)


def test_slots_of_entries_move(redis_cluster: ClusterServers, in_cluster: Stage) -> None:
    move = Move(redis_cluster, "any")
    row = Row(
        name="ASK, MOVED: slots of entries move",
        begin=lambda _: move.begin(move.keys(10)),
        end=move.end,
        clients="nothing",
        receipts="either",
        opens=None,
        seconds=0.8,
        recovery="none is needed",
    )
    played(row, in_cluster, redis_cluster.url)


def test_an_address_of_one_node_of_a_cluster_breaks_nothing(redis_cluster: ClusterServers) -> None:
    """`redis://` in place of `redis+cluster://`: MOVED for two keys of three, the control state among them."""
    other = next(node for node in redis_cluster.nodes[:3] if node is not redis_cluster.owner(CONTROL))

    async def body() -> None:
        async with nothing_left(), workers(other.url) as (one, two):
            receipts = []
            for number in range(30):
                for worker in (one, two):
                    await worker.ask(f"/item/{number % 7}")
                receipts.append((await one.change(str(number % 7))).durable)
            assert not any(receipts)
            slowest = max(answer.seconds for worker in (one, two) for answer in worker.answers)
            logger.info("MOVED: slowest %.4f s, median open", slowest)
            assert slowest < 1.0
        assert all(count < 31 for count in (one.calls, two.calls))

    asyncio.run(body())
    gc.collect()


@pytest.mark.long
def test_a_part_of_a_cluster_is_down_and_comes_back() -> None:
    cluster = ClusterServers(BINARY)
    with contextlib.closing(cluster):
        cluster.start()
        primary = cluster.owner(CONTROL)
        mine = ask(primary, "CLUSTER", "MYID")
        down = [
            node
            for node in cluster.nodes
            if any(mine in line for line in ask(node, "CLUSTER", "NODES").splitlines() if b"myself" in line)
        ]

        def kill(_: Stage) -> None:
            for node in down:
                node.kill()

        def start(_: Stage) -> None:
            for node in down:
                node.start()

        row = Row(
            name="CLUSTERDOWN: a primary and its replica are gone",
            begin=kill,
            end=start,
            clients=MISSES,
            receipts="held",
            opens=None,
            seconds=4.0,
            recovery="a probe that all primaries answer",
        )
        up = next(node for node in cluster.nodes if node not in down)
        with FaultProxy(up.port) as proxy:
            played(row, Stage(up, proxy), cluster.url)
