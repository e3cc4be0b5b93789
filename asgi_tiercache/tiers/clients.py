"""What the kinds of Redis differ in: one server, a master that Sentinel names, a cluster. One client for each loop."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from redis.asyncio import RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,
    MovedError,
    RedisError,
    SlotNotCoveredError,
    TimeoutError,
    TryAgainError,
)

Argument = bytes | str | int | float
Command = Sequence[Argument]

ASTRAY = (ConnectionError, TimeoutError, MovedError, ClusterDownError, SlotNotCoveredError)
"""What a command meets in a cluster whose slots are not where this client believes them to be."""
MIGRATING = (AskError, TryAgainError)
"""What it meets while its slot moves: a matter of this key alone."""

LOOK_EVERY = 1.0
"""Seconds after which Sentinel is asked again who is the master."""
LOOK_AT_MOST = 0.15
"""Seconds that this may hold a command up."""


class Script:
    """A Lua script, with the digest by which servers know it."""

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def __repr__(self) -> str:
        return f"<Script {self.digest}>"


class OwnConnections:
    """Connections that no pool counts, for commands that wait: each is used by one command at a time.

    Args:
        make: Makes a connection, without connecting it.
        parse: Reads the reply to the command that it is told.
    """

    def __init__(self, make: Callable[[], Any], parse: Callable[[Any, Any], Awaitable[Any]]) -> None:
        self._make = make
        self._parse = parse
        self._idle: list[Any] = []
        self._busy: set[Any] = set()

    async def ask(self, *command: Argument) -> Any:
        """The reply to `command`; the connection is closed if there is none, cancellation included."""
        connection = self._idle.pop() if self._idle else self._make()
        self._busy.add(connection)
        try:
            await connection.connect()
            await connection.send_command(*command)
            reply = await self._parse(connection, command[0])
        except BaseException:
            self._busy.discard(connection)
            await connection.disconnect(nowait=True)
            raise
        if connection in self._busy:
            self._busy.discard(connection)
            self._idle.append(connection)
        else:  # told to end meanwhile, perhaps before it was connected
            await connection.disconnect(nowait=True)
        return reply

    async def aclose(self) -> None:
        """Close all of them, those in use included."""
        connections = [*self._idle, *self._busy]
        self._idle.clear()
        self._busy.clear()
        for connection in connections:
            await connection.disconnect(nowait=True)

    def __repr__(self) -> str:
        return f"<OwnConnections idle={len(self._idle)} busy={len(self._busy)}>"


class Client(ABC):
    """One event loop's client of one Redis, of whichever kind. Replies are those of redis-py's `execute_command`."""

    redis: Any
    """redis-py's client."""

    @abstractmethod
    async def command(self, *command: Argument, key: Argument | None = None) -> Any:
        """The reply to one command; `key` says whose owner is asked, where the command itself names no key."""

    @abstractmethod
    async def each(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to commands with one key each, wherever the keys are; an error stands in its reply's place."""

    @abstractmethod
    async def together(self, commands: Sequence[Command], key: Argument) -> list[Any]:
        """Likewise, to commands sent on one connection to the owner of `key`."""

    @abstractmethod
    async def blocking(self, *command: Argument, key: Argument) -> Any:
        """The reply to a command that may wait, on a connection that nobody else uses meanwhile."""

    @abstractmethod
    def scan(self, match: str, count: int) -> AsyncIterator[list[bytes]]:
        """Keys that fit `match`, in batches of about `count`."""

    @abstractmethod
    async def ping(self) -> None:
        """Return if Redis answers where keys are read and written; look first for where that is."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close what this object has opened."""


class SingleClient(Client):
    """One server.

    Args:
        redis: redis-py's client.
        given: Whether somebody else closes `redis`.
    """

    def __init__(self, redis: Any, *, given: bool = False) -> None:
        self.redis = redis
        self._given = given
        self._own = OwnConnections(redis.connection_pool.make_connection, redis.parse_response)

    async def command(self, *command: Argument, key: Argument | None = None) -> Any:
        return await self.redis.execute_command(*command)

    async def each(self, commands: Sequence[Command]) -> list[Any]:
        async with self.redis.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            # Raised by the pipeline itself, an error would quote the command, hence the entry's bytes.
            replies: list[Any] = await pipe.execute(raise_on_error=False)
            return replies

    async def together(self, commands: Sequence[Command], key: Argument) -> list[Any]:
        return await self.each(commands)

    async def blocking(self, *command: Argument, key: Argument) -> Any:
        return await self._own.ask(*command)

    async def scan(self, match: str, count: int) -> AsyncIterator[list[bytes]]:
        cursor = -1
        while cursor:
            cursor, keys = await self.redis.execute_command("SCAN", max(cursor, 0), "MATCH", match, "COUNT", count)
            yield keys

    async def ping(self) -> None:
        await self.redis.execute_command("PING")

    async def aclose(self) -> None:
        await self._own.aclose()
        if not self._given:
            await self.redis.aclose()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.redis.connection_pool!r}>"


class MasterPool(SentinelConnectionPool):
    """Connections to the master that Sentinel names.

    When another one is named, redis-py closes those that lie idle in the pool. Here all of them end: those kept for
    reads count as in use, and would go on asking a master that hangs, or that was cut off and knows nothing new.
    """

    on_move: Callable[[], Awaitable[None]] | None = None
    """Called when the master has changed."""

    async def get_master_address(self) -> Any:
        before = self.master_address
        address = await super().get_master_address()  # type: ignore[no-untyped-call]
        if before is not None and before != address:
            await self.disconnect()
            if self.on_move is not None:
                await self.on_move()
        return address


class SentinelClient(SingleClient):
    """The master that Sentinel names.

    A master that was cut off, or replaced and not told, would go on answering as if nothing had been invalidated
    since. So Sentinel is asked again before commands, each second; reads past the pool profit from what it says.
    """

    def __init__(self, redis: Any, *, given: bool = False) -> None:
        super().__init__(redis, given=given)
        self._looked_at = 0.0
        if isinstance(redis.connection_pool, MasterPool):
            redis.connection_pool.on_move = self._own.aclose

    async def command(self, *command: Argument, key: Argument | None = None) -> Any:
        await self._look()
        return await super().command(*command)

    async def together(self, commands: Sequence[Command], key: Argument) -> list[Any]:
        await self._look()
        return await super().together(commands, key)

    async def blocking(self, *command: Argument, key: Argument) -> Any:
        await self._look()
        return await super().blocking(*command, key=key)

    async def ping(self) -> None:
        # A master that hangs would not name its successor.
        await self.redis.connection_pool.get_master_address()
        await super().ping()

    async def aclose(self) -> None:
        await super().aclose()
        if not self._given:
            for sentinel in self.redis.connection_pool.sentinel_manager.sentinels:
                await sentinel.aclose()

    async def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._looked_at + LOOK_EVERY:
            return
        self._looked_at = now
        with contextlib.suppress(RedisError, OSError):  # TimeoutError included: the master may be well without Sentinel
            async with asyncio.timeout(LOOK_AT_MOST):
                await self.redis.connection_pool.get_master_address()


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

    async def scan(self, match: str, count: int) -> AsyncIterator[list[bytes]]:
        await self.redis.initialize()
        for node in self.redis.get_primaries():
            cursor = -1
            while cursor:
                cursor, keys = await node.execute_command("SCAN", max(cursor, 0), "MATCH", match, "COUNT", count)
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
        node = await self._owner(key)
        own = self._own.get(node.name)
        if own is None:
            own = self._own[node.name] = OwnConnections(
                lambda: node.connection_class(**{**node.connection_kwargs, "retry": Retry(NoBackoff(), 0)}),
                node.parse_response,
            )
        return await own.ask(*command)

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
