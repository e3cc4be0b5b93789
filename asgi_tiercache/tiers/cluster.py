"""A Redis Cluster."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

from redis.asyncio import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,
    MovedError,
    SlotNotCoveredError,
    TimeoutError,
    TryAgainError,
)

from asgi_tiercache.tiers.clients import Argument, Client, Command, OwnConnections

ASTRAY = (ConnectionError, TimeoutError, MovedError, ClusterDownError, SlotNotCoveredError)
"""What a command meets in a cluster whose slots are not where this client believes them to be."""
MIGRATING = (AskError, TryAgainError)
"""What it meets while its slot moves: a matter of this key alone."""


class ClusterClient(Client):
    """A cluster. Its entries are anywhere; what belongs together has one slot.

    redis-py follows a key that has moved. What it does when it cannot reach a node is left to us, since that takes
    longer than a hit may: it waits a quarter of a second, having closed every connection. We look once for the slots
    and ask once more.

    Args:
        redis: redis-py's client.
        given: Whether somebody else closes `redis`.
    """

    def __init__(self, redis: RedisCluster, *, given: bool = False) -> None:
        self.redis = redis
        self._given = given
        self._own: dict[str, OwnConnections] = {}
        """By the name of the node."""
        self._closed = False
        self._gave_up_waiting = False

    async def command(self, *command: Argument, key: Argument | None = None) -> Any:
        try:
            return await self._command(command, key)
        except ASTRAY:
            await self._refresh()
            return await self._command(command, key)

    async def each(self, commands: Sequence[Command]) -> list[Any]:
        replies = await self._pipeline(commands, {})
        astray = [number for number, reply in enumerate(replies) if isinstance(reply, ASTRAY)]
        if astray:
            await self._refresh()
            again = await self._pipeline([commands[number] for number in astray], {})
            for number, reply in zip(astray, again, strict=True):
                replies[number] = reply
        for number, reply in enumerate(replies):
            if isinstance(reply, MIGRATING):
                replies[number] = await self._follow(commands[number])
        return replies

    async def together(self, commands: Sequence[Command], key: Argument) -> list[Any]:
        replies = await self._pipeline(commands, {"target_nodes": await self._owner(key)})
        if any(isinstance(reply, ASTRAY) for reply in replies):
            await self._refresh()
            replies = await self._pipeline(commands, {"target_nodes": await self._owner(key)})
        return replies

    async def blocking(self, *command: Argument, key: Argument) -> Any:
        if self._gave_up_waiting:  # perhaps for a node that hangs, and was replaced
            await self._refresh()
            self._gave_up_waiting = False
        try:
            return await self._blocking(command, key)
        except ASTRAY:
            await self._refresh()
            return await self._blocking(command, key)
        except asyncio.CancelledError:
            self._gave_up_waiting = True
            raise

    @contextlib.asynccontextmanager
    async def listening(self, key: Argument) -> AsyncIterator[Any]:
        own = self._connections_to(await self._owner(key))
        async with own.lend() as connection:
            yield connection

    async def scan(self, match: Argument, count: int) -> AsyncGenerator[list[bytes], None]:
        await self.redis.initialize()
        for node in self.redis.get_primaries():
            cursor = -1
            while cursor:
                cursor, keys = await node.execute_command(
                    "SCAN", max(cursor, 0), "MATCH", match, "COUNT", count, "TYPE", "string"
                )
                yield keys

    async def ping(self) -> None:
        # A node that hangs says nothing of its successor: asking for the slots is how a failover is noticed then.
        # All primaries have to answer, or reads of one third of the keys would go on costing a deadline each.
        await self._refresh()
        await self.redis.execute_command("PING", target_nodes=self.redis.get_primaries())

    async def aclose(self) -> None:
        self._closed = True
        own, self._own = self._own, {}
        for connections in own.values():
            await connections.aclose()
        if self._given:
            return
        await self.redis.aclose()
        # redis-py's client does nothing of that while it believes its view of the cluster to be outdated.
        await self.redis.nodes_manager.aclose()
        await self.redis.nodes_manager.aclose("startup_nodes")

    def __repr__(self) -> str:
        return f"<ClusterClient of {len(self.redis.get_nodes())} nodes>"

    async def _command(self, command: Command, key: Argument | None) -> Any:
        if key is None:
            return await self.redis.execute_command(*command)
        return await self.redis.execute_command(*command, target_nodes=await self._owner(key))

    async def _follow(self, command: Command) -> Any:
        try:
            return await self.redis.execute_command(*command)
        except Exception as error:
            return error

    async def _pipeline(self, commands: Sequence[Command], options: dict[str, Any]) -> list[Any]:
        async with self.redis.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command, **options)
            try:
                # Redirections are followed here: redis-py would do it key by key.
                replies: list[Any] = await pipe.execute(raise_on_error=False, allow_redirections=False)
            except ASTRAY as error:
                # One node failed; which commands the others have carried out, nobody says.
                return [error] * len(commands)
            return replies

    async def _blocking(self, command: Command, key: Argument) -> Any:
        return await self._connections_to(await self._owner(key)).ask(*command)

    def _connections_to(self, node: Any) -> OwnConnections:
        own = self._own.get(node.name)
        if own is None:
            own = self._own[node.name] = OwnConnections(
                lambda: node.connection_class(**{**node.connection_kwargs, "retry": Retry(NoBackoff(), 0)}),
                node.parse_response,
            )
        return own

    async def _owner(self, key: Argument) -> Any:
        """The primary that owns the slot of `key`."""
        await self.redis.initialize()
        manager = self.redis.nodes_manager
        return manager.get_node_from_slot(self.redis.keyslot(key))

    async def _refresh(self) -> None:
        """Ask where the slots are, each time another node first: the one asked last may hang."""
        if self._closed:  # whoever was under way finds no connection any more, and must not make new ones
            raise ConnectionError("the client was closed")
        nodes = self.redis.nodes_manager.startup_nodes
        first = next(iter(nodes), None)
        if first is not None:
            nodes[first] = nodes.pop(first)
        await self.redis.initialize()
        await self.redis.nodes_manager.initialize()
