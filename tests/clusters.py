"""Several Redis servers that belong together: a cluster, and a master with replicas that Sentinels watch over."""

from __future__ import annotations

import random
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from tests.servers import RedisServer

SLOTS = 16384
SERVICE = "shop"

_Connection: Any = redis.Connection
Holds = Callable[[], bool]


class ClusterServers:
    """Three primaries with a replica each.

    Args:
        binary: The server's path.
        options: Of each server, besides what makes it one of a cluster.
    """

    def __init__(self, binary: str, options: dict[str, str] | None = None) -> None:
        cluster = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": "1000",
            "cluster-replica-validity-factor": "0",  # a replica may always take over, however short the link was up
            "repl-diskless-sync-delay": "0",
            "repl-ping-replica-period": "1",  # Redis 7 does not show replicas that have received nothing yet
        }
        self.nodes = [RedisServer(binary, {**cluster, **(options or {})}, free_port=_free_pair) for _ in range(6)]

    @property
    def url(self) -> str:
        """Where clients begin: three of the nodes."""
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes[1::2])}"

    def start(self) -> ClusterServers:
        """Start the nodes, and return when all of them agree on who has what."""
        for node in self.nodes:
            node.start()
        primaries, replicas = self.nodes[:3], self.nodes[3:]
        for number, node in enumerate(self.nodes):
            ask(node, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            ask(self.nodes[0], "CLUSTER", "MEET", "127.0.0.1", node.port)
        for number, node in enumerate(primaries):
            slots = range(SLOTS * number // 3, SLOTS * (number + 1) // 3)
            ask(node, "CLUSTER", "ADDSLOTS", *slots)
        wait(lambda: all(b"cluster_known_nodes:6" in ask(node, "CLUSTER", "INFO") for node in self.nodes))
        for primary, replica in zip(primaries, replicas, strict=True):
            ask(replica, "CLUSTER", "REPLICATE", ask(primary, "CLUSTER", "MYID"))
        wait(lambda: all(self._whole(node) for node in self.nodes))
        wait(lambda: all(b"master_link_status:up" in ask(node, "INFO", "replication") for node in replicas))
        return self

    def owner(self, key: str) -> RedisServer:
        """The primary that has the slot of `key`, as most of the nodes say."""
        alive = [node for node in self.nodes if node.answers]
        slot = ask(alive[0], "CLUSTER", "KEYSLOT", key)
        ports = [
            primary[1]
            for node in alive
            for first, last, primary, *_ in ask(node, "CLUSTER", "SLOTS")
            if first <= slot <= last
        ]
        port = max(ports, key=ports.count)
        return next(node for node in self.nodes if node.port == port)

    def close(self) -> None:
        """End all of them."""
        for node in self.nodes:
            node.close()

    def _whole(self, node: RedisServer) -> bool:
        ranges = ask(node, "CLUSTER", "SLOTS")
        return (
            b"cluster_state:ok" in ask(node, "CLUSTER", "INFO")
            and sum(last - first + 1 for first, last, *_ in ranges) == SLOTS
            and all(len(nodes) == 2 for _, _, *nodes in ranges)
        )


class SentinelServer(RedisServer):
    """A Sentinel; it writes into its configuration file what it learns."""

    ready = "+monitor master"

    def __init__(self, binary: str, master: RedisServer, options: str = "") -> None:
        super().__init__(binary)
        self._master = master
        self._lines = options

    def _spawn(self) -> subprocess.Popen[str]:
        file = Path(self.directory, "sentinel.conf")
        file.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.directory}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {self._master.port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} 500\n"
            f"sentinel failover-timeout {SERVICE} 3000\n{self._lines}"
        )
        command = [self.binary, str(file), "--sentinel"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


class SentinelServers:
    """A master, two replicas, and three Sentinels that call it `shop`."""

    def __init__(self, binary: str) -> None:
        self.servers = [RedisServer(binary, {"repl-diskless-sync-delay": "0"}) for _ in range(3)]
        self.sentinels = [SentinelServer(binary, self.servers[0]) for _ in range(3)]

    @property
    def url(self) -> str:
        """Where clients begin: the Sentinels."""
        return f"redis+sentinel://{','.join(f'127.0.0.1:{sentinel.port}' for sentinel in self.sentinels)}/{SERVICE}"

    @property
    def master(self) -> RedisServer:
        """The server that the first Sentinel names."""
        _, port = ask(self.sentinels[0], "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return next(server for server in self.servers if server.port == int(port))

    def start(self) -> SentinelServers:
        """Start all, and return when the replicas follow."""
        for server in self.servers:
            server.start()
        for replica in self.servers[1:]:
            ask(replica, "REPLICAOF", "127.0.0.1", self.servers[0].port)
        for sentinel in self.sentinels:
            sentinel.start()
        wait(lambda: all(b"link_status:up" in ask(server, "INFO", "replication") for server in self.servers[1:]))
        return self

    def ready_to_fail_over(self) -> None:
        """Return when the Sentinels know each other and the replicas."""
        wait(lambda: all(self._informed(sentinel) for sentinel in self.sentinels))

    def close(self) -> None:
        """End all of them."""
        for server in (*self.sentinels, *self.servers):
            server.close()

    def _informed(self, sentinel: RedisServer) -> bool:
        flat = ask(sentinel, "SENTINEL", "MASTER", SERVICE)
        state = dict(zip(flat[::2], flat[1::2], strict=True))
        return (state[b"num-other-sentinels"], state[b"num-slaves"]) == (b"2", b"2")


def ask(server: RedisServer, *command: Any) -> Any:
    """The reply of one server, as it is."""
    connection: Any = _Connection(host="127.0.0.1", port=server.port, protocol=2, socket_timeout=5)
    try:
        connection.send_command(*command)
        return connection.read_response(disable_decoding=True)
    finally:
        connection.disconnect()


def wait(holds: Holds, seconds: float = 20.0) -> None:
    """Return when `holds()`, or fail."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "the servers do not come together"
        time.sleep(0.02)


def _free_pair() -> int:
    """A port that is free together with the one 10,000 above, which a cluster's nodes use among themselves."""
    while True:
        port = random.randrange(12_000, 22_000)  # both outside what systems hand out by themselves
        try:
            with socket.create_server(("127.0.0.1", port)), socket.create_server(("127.0.0.1", port + 10_000)):
                return port
        except OSError:
            continue
