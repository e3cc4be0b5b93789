"""Another server in place of the one that was asked so far: behind the same address, or for some slots of a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator

from tests.clusters import ClusterServers, ask, wait
from tests.engine.doubles import written
from tests.faults.proxy import FaultProxy
from tests.faults.redis_states import CONTROL, LOG, MISSES, NEW_EPOCH, nothing
from tests.faults.scenario import nothing_left
from tests.faults.scene import Worker, workers
from tests.faults.table import Case, Row, Stage
from tests.servers import RedisServer, find_binaries

FIRST = {"the hash first": (CONTROL,), "the log first": (LOG,), "both": (CONTROL, LOG)}
"""What of the control state is at the new node already, while its slot moves."""


# ---- one server for another, behind one address ----


@contextlib.contextmanager
def with_replica(redis: RedisServer) -> Iterator[Stage]:
    """`redis`, and a replica that has received all that it has."""
    replica = RedisServer(redis.binary, {"repl-diskless-sync-delay": "0"})
    with contextlib.closing(replica), FaultProxy(redis.port) as proxy:
        replica.start()
        ask(redis, "CONFIG", "SET", "repl-diskless-sync-delay", 0)
        ask(replica, "REPLICAOF", "127.0.0.1", redis.port)
        wait(lambda: b"master_link_status:up" in ask(replica, "INFO", "replication"))
        yield Stage(redis, proxy, replica=replica)


def fail_over(stage: Stage) -> None:
    """The address leads to the replica, which is a master now, and the master its replica."""
    assert stage.replica is not None
    stage.admin("REPLICAOF", "127.0.0.1", stage.replica.port)
    ask(stage.replica, "REPLICAOF", "NO", "ONE")
    stage.proxy.upstream = stage.replica.port


def lost_write(redis: RedisServer, *, trusting: bool, new: str = "quiet") -> str:
    """An invalidation that a failover lost holds where somebody knows it, and reaches the others from there.

    Args:
        redis: Is killed.
        trusting: `trust_restart`.
        new: Whether the new master `goes on` to take invalidations before anybody has noticed, or is `quiet`.
    """

    async def body(stage: Stage) -> str:
        async with nothing_left(), workers(stage.proxy.url, number=3, trust_restart=trusting) as (one, two, late):
            for item in "ab":
                assert await known(one, item)
            await _replicated(one, stage)
            assert (await one.change("a")).durable
            _kill(stage)
            stage.proxy.reset()
            if new == "goes on":
                await until(lambda: durable(two, "b"))
            late.lag = 10.0  # not promised before the other has noticed
            back = await until(lambda: knows_of_it(one, late))
            assert await known(one, "a")
            await until(lambda: durable(one, "a"))
            return f"all workers know of it after {back:.2f} s"

    async def durable(worker: Worker, item: str) -> bool:
        return (await worker.change(item)).durable

    async def knows_of_it(one: Worker, late: Worker) -> bool:
        """Whether one that begins now does, while the one that has invalidated is asked for something else."""
        await one.ask("/item/b")
        return late.uses_redis and await known(late, "a")

    with with_replica(redis) as stage:
        return asyncio.run(body(stage))


def lost_write_that_nobody_knows(redis: RedisServer) -> str:
    """Without trust, a failover that no worker lived through brings nothing old back."""

    async def body(stage: Stage) -> str:
        async with workers(stage.proxy.url) as (one, late):
            assert await known(one, "a")
            await _replicated(one, stage)
            assert (await one.change("a")).durable
            await one.cache.aclose()
            _kill(stage)
            assert await known(late, "a")
            return f"0 of {len(late.answers)} answers too old"

    with with_replica(redis) as stage:
        return asyncio.run(body(stage))


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


async def _replicated(worker: Worker, stage: Stage) -> None:
    """Let the replica have all there is, and nothing of what comes."""
    replica = stage.replica
    assert replica is not None
    await written(worker.cache)

    async def all_there() -> bool:
        """But for leases, which nobody would be left to end."""
        return not stage.admin("KEYS", "*lease") and ask(replica, "DBSIZE") == stage.admin("DBSIZE")

    await until(all_there)
    ask(replica, "REPLICAOF", "NO", "ONE")


def _kill(stage: Stage) -> None:
    assert stage.replica is not None
    stage.redis.kill()
    stage.proxy.upstream = stage.replica.port


# ---- a cluster ----


@contextlib.contextmanager
def in_cluster(cluster: ClusterServers) -> Iterator[Stage]:
    """A cluster, of which the proxy has no part."""
    with FaultProxy(cluster.nodes[0].port) as proxy:
        yield Stage(cluster.nodes[0], proxy, cluster=cluster)


@contextlib.contextmanager
def own_cluster(_: RedisServer) -> Iterator[Stage]:
    """A cluster that may be broken; the server alone is not needed."""
    cluster = ClusterServers(next(iter(find_binaries().values())))
    with contextlib.closing(cluster), in_cluster(cluster.start()) as stage:
        yield stage


class Move:
    """Slots that move from the node that has `key` to another, and stay under way until the end.

    Args:
        key: Chooses the node.
        first: Keys that are at the new node at once; default: ten of entries.
    """

    def __init__(self, key: str, first: tuple[str, ...] = ()) -> None:
        self._key = key
        self._first = first

    def begin(self, stage: Stage) -> None:
        cluster = stage.cluster
        assert cluster is not None
        self._source = cluster.owner(self._key)
        self._masters = [node for node in cluster.nodes if ask(node, "ROLE")[0] == b"master"]
        self._target = next(node for node in self._masters if node is not self._source)
        self._ids = {node: ask(node, "CLUSTER", "MYID") for node in self._masters}
        self._slots: list[int] = []
        for key in self._first or ask(self._source, "KEYS", "*api:response*")[:10]:
            self._begin(key)

    def end(self, _: Stage) -> None:
        for slot in self._slots:
            for key in ask(self._source, "CLUSTER", "GETKEYSINSLOT", slot, 1000):
                self._migrate(key)
            for node in (self._target, self._source, *self._masters):
                ask(node, "CLUSTER", "SETSLOT", slot, "NODE", self._ids[self._target])

    def _begin(self, key: str | bytes) -> None:
        slot = ask(self._source, "CLUSTER", "KEYSLOT", key)
        if slot not in self._slots:
            self._slots.append(slot)
            ask(self._target, "CLUSTER", "SETSLOT", slot, "IMPORTING", self._ids[self._source])
            ask(self._source, "CLUSTER", "SETSLOT", slot, "MIGRATING", self._ids[self._target])
        self._migrate(key)

    def _migrate(self, key: str | bytes) -> None:
        ask(self._source, "MIGRATE", "127.0.0.1", self._target.port, key, 0, 5000, "REPLACE")


class Down:
    """The primary that has the control state is gone, and so is its replica."""

    def begin(self, stage: Stage) -> None:
        cluster = stage.cluster
        assert cluster is not None
        mine = ask(cluster.owner(CONTROL), "CLUSTER", "MYID")
        self._nodes = [node for node in cluster.nodes if mine in _own_line(node)]
        for node in self._nodes:
            node.kill()

    def end(self, _: Stage) -> None:
        for node in self._nodes:
            node.start()


def _own_line(node: RedisServer) -> bytes:
    lines: list[bytes] = ask(node, "CLUSTER", "NODES").splitlines()
    return next(line for line in lines if b"myself" in line)


def one_node_alone(cluster: ClusterServers) -> str:
    """`redis://` in place of `redis+cluster://`: MOVED for two keys of three, the control state among them."""
    other = next(node for node in cluster.nodes[:3] if node is not cluster.owner(CONTROL))

    async def body() -> str:
        async with nothing_left(), workers(other.url) as (one, two):
            receipts = []
            for number in range(30):
                for worker in (one, two):
                    await worker.ask(f"/item/{number % 7}")
                receipts.append((await one.change(str(number % 7))).durable)
            assert not any(receipts)
            slowest = max(answer.seconds for worker in (one, two) for answer in worker.answers)
            assert slowest < 1.0
        assert all(count < 31 for count in (one.calls, two.calls))
        return f"slowest of {len(one.answers) + len(two.answers)} requests {slowest * 1000:.0f} ms, 30 of 30 held"

    return asyncio.run(body())


def one_node_of_its_own_cluster(redis: RedisServer) -> str:
    """Likewise."""
    with own_cluster(redis) as stage:
        assert stage.cluster is not None
        return one_node_alone(stage.cluster)


_TEST = "faults.test_redis_failover_faults::"
_DOWN = Down()
FAILED_OVER = Row(
    name="failover: READONLY, and another server behind the address",
    setting=with_replica,
    begin=fail_over,
    end=nothing,
    clients=MISSES,
    receipts="either",
    opens=None,
    seconds=0.5,
    recovery="connections are made anew; a new epoch begins",
    test=f"{_TEST}test_a_master_that_becomes_a_replica_is_left_for_the_new_one",
)
CONTROL_MOVES = tuple(
    Row(
        name=f"MOVED, ASK, TRYAGAIN: the slot of the control state moves, {name}",
        setting=own_cluster,
        begin=(move := Move(CONTROL, first)).begin,
        end=move.end,
        clients=MISSES,
        receipts="either",
        opens=None,
        seconds=0.8,
        recovery=NEW_EPOCH,
        rare=name != "the log first",
        test=f"{_TEST}test_the_slot_of_the_control_state_moves",
    )
    for name, first in FIRST.items()
)
_ENTRIES = Move("any")
ENTRIES_MOVE = Row(
    name="MOVED, ASK: slots of entries move",
    setting=own_cluster,
    begin=_ENTRIES.begin,
    end=_ENTRIES.end,
    clients="nothing",
    receipts="either",
    opens=None,
    seconds=0.8,
    recovery="none is needed",
    test=f"{_TEST}test_slots_of_entries_move",
)
PARTLY_DOWN = Row(
    name="CLUSTERDOWN: a primary and its replica are gone",
    setting=own_cluster,
    begin=_DOWN.begin,
    end=_DOWN.end,
    clients=MISSES,
    receipts="held",
    opens=None,
    seconds=4.0,
    recovery="a probe that all primaries answer",
    test=f"{_TEST}test_a_part_of_a_cluster_is_down_and_comes_back",
)
ROWS = (FAILED_OVER, *CONTROL_MOVES, ENTRIES_MOVE, PARTLY_DOWN)
CASES = (
    Case(
        name="failover that loses an invalidation",
        play=lambda redis: lost_write(redis, trusting=False),
        clients="on the worker that made it: nothing older; elsewhere as before, until that one notices the new server",
        receipts="durable, and lost; the worker that made it begins a new epoch",
        recovery=NEW_EPOCH,
        test=f"{_TEST}test_an_invalidation_that_a_failover_lost_holds_where_somebody_knows_it",
    ),
    Case(
        name="failover that loses an invalidation, `trust_restart=True`",
        play=lambda redis: lost_write(redis, trusting=True),
        clients="likewise",
        receipts="durable, and lost; the worker that made it has read further than the log goes, and raises the floor",
        recovery="entries from before the floor are misses",
        test=f"{_TEST}test_an_invalidation_that_a_failover_lost_holds_where_somebody_knows_it",
    ),
    Case(
        name="failover that loses an invalidation, and no worker that knew of it is left",
        play=lost_write_that_nobody_knows,
        clients="misses: another server is another epoch, unless `trust_restart=True`",
        receipts="durable, and lost",
        recovery=NEW_EPOCH,
        test=f"{_TEST}test_without_trust_a_failover_that_nobody_lived_through_brings_nothing_old_back",
    ),
    Case(
        name="MOVED: `redis://` of one node of a cluster",
        play=one_node_of_its_own_cluster,
        clients="what is in memory; misses, answered by the app",
        receipts="held, and said to be not durable each time",
        recovery="with the right address, `redis+cluster://`",
        test=f"{_TEST}test_an_address_of_one_node_of_a_cluster_breaks_nothing",
    ),
)
