"""What a row of the table in `docs/reliability.md` says, and what was measured of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

from redis import Redis

from tests.clusters import ClusterServers
from tests.faults.proxy import Fault, FaultProxy
from tests.servers import RedisServer

Receipts = Literal["durable", "held", "either"]


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a fault is made: a real Redis, and the proxy that the workers reach it through."""

    redis: RedisServer
    proxy: FaultProxy
    replica: RedisServer | None = None
    """Of `redis`, where one is needed."""
    cluster: ClusterServers | None = None
    """Where the workers use one; `redis` is one of its nodes."""

    @property
    def url(self) -> str:
        """How the workers reach Redis."""
        return self.cluster.url if self.cluster is not None else self.proxy.url

    def admin(self, *command: Any) -> Any:
        """What Redis says to `command`, past the proxy."""
        with Redis(port=self.redis.port, socket_timeout=5) as client:
            return client.execute_command(*command)


Act = Callable[[Stage], None]
Setting = Callable[[RedisServer], AbstractContextManager[Stage]]


@contextlib.contextmanager
def alone(redis: RedisServer) -> Iterator[Stage]:
    """One server, and the proxy before it."""
    with FaultProxy(redis.port) as proxy:
        yield Stage(redis, proxy)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One fault, and what is promised of it.

    Args:
        name: As it appears in the table, and as the id of its test.
        begin: Makes the fault.
        end: Ends it.
        clients: What clients see, in words.
        receipts: Whether invalidations made meanwhile are durable.
        recovery: How it ends, in words.
        opens: Whether the circuit breaker must open; None: it may.
        seconds: How long it lasts.
        padding: Bytes of the bodies.
        setting: Builds the stage.
        rare: Played by `make test-long` alone.
        test: Where it is shown, below `tests/`.
    """

    name: str
    begin: Act
    end: Act
    clients: str
    receipts: Receipts = "held"
    recovery: str = "a probe"
    opens: bool | None = True
    seconds: float = 0.3
    padding: int = 500
    setting: Setting = alone
    rare: bool = False
    test: str = "faults.test_network_faults::test_a_fault_of_the_network"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A fault that is played in a way of its own.

    Args:
        name: As it appears in the table.
        play: Makes the fault before a Redis, holds the cache to what is promised, and tells its figure.
        clients: What clients see, in words.
        receipts: What becomes of invalidations.
        recovery: How it ends.
        test: Where it is shown, below `tests/`.
    """

    name: str
    play: Callable[[RedisServer], str]
    clients: str
    receipts: str
    recovery: str
    test: str


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run of a row has measured."""

    added: float
    """Seconds that the slowest request in flight took longer than such requests take."""
    open_cost: float | None
    """Median seconds by which a request that found the breaker open took longer than the app by itself takes; None
    where the breaker stayed closed."""
    requests: int
    """Answers that were checked."""
    recovery: float
    """Seconds from the fault's end until both workers read and write Redis, and know all that was invalidated."""
    durable: int
    held: int
    """Invalidations during the fault, by what their receipts said."""


def network(fault: Fault) -> dict[str, Any]:
    """What begins and ends `fault` in the proxy."""
    return {"begin": lambda stage: stage.proxy.begin(fault), "end": lambda stage: stage.proxy.end()}
