"""What is asked of a Redis, whichever kind it is, and how one server does it. One client for each event loop."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from redis.exceptions import ConnectionError, InvalidResponse, ReadOnlyError

Argument = bytes | str | int | float
Command = Sequence[Argument]

LEAVE_EVERY = 1.0
"""Seconds between two times that connections to a read-only server are closed."""


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
            if await _has_unread(connection):  # closed by the server, or more than the reply to the last command
                await connection.disconnect(nowait=True)
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

    @contextlib.asynccontextmanager
    async def lend(self) -> AsyncIterator[Any]:
        """An open connection for whoever reads more from it than one reply to each command; closed afterwards."""
        connection = self._make()
        connection.socket_timeout = None  # a client that was given may have one, but silence is no failure here
        self._busy.add(connection)
        try:
            await connection.connect()
            if connection not in self._busy:
                raise ConnectionError("told to end before it was connected")
            yield connection
        finally:
            self._busy.discard(connection)
            await connection.disconnect(nowait=True)

    async def aclose(self) -> None:
        """Close all of them, those in use included."""
        connections = [*self._idle, *self._busy]
        self._idle.clear()
        self._busy.clear()
        for connection in connections:
            await connection.disconnect(nowait=True)

    def __repr__(self) -> str:
        return f"<OwnConnections idle={len(self._idle)} busy={len(self._busy)}>"


async def _has_unread(connection: Any) -> bool:
    # Up to redis-py 8 it had the other name, and its `can_read` took a timeout.
    check = connection.can_read if hasattr(type(connection), "can_read") else connection.can_read_destructive
    unread: bool = await check()
    return unread


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
    def listening(self, key: Argument) -> AbstractAsyncContextManager[Any]:
        """A connection of redis-py's, open, to hear what is published; to the owner of `key`, in a cluster."""

    @abstractmethod
    def scan(self, match: Argument, count: int) -> AsyncGenerator[list[bytes], None]:
        """Keys of strings that fit `match`, in batches of about `count`."""

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
        self.on_leave: Callable[[], object] | None = None
        """Called when the server is to be connected to anew, for those connections that the pool lends for good."""
        self._left_at = -LEAVE_EVERY

    async def command(self, *command: Argument, key: Argument | None = None) -> Any:
        try:
            return await self.redis.execute_command(*command)
        except ReadOnlyError:
            await self._leave()
            raise

    async def each(self, commands: Sequence[Command]) -> list[Any]:
        async with self.redis.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            # Raised by the pipeline itself, an error would quote the command, hence the entry's bytes.
            replies: list[Any] = await pipe.execute(raise_on_error=False)
        if any(isinstance(reply, ReadOnlyError) for reply in replies):
            await self._leave()
        return replies

    async def together(self, commands: Sequence[Command], key: Argument) -> list[Any]:
        return await self.each(commands)

    async def blocking(self, *command: Argument, key: Argument) -> Any:
        return await self._own.ask(*command)

    def listening(self, key: Argument) -> AbstractAsyncContextManager[Any]:
        return self._own.lend()

    async def scan(self, match: Argument, count: int) -> AsyncGenerator[list[bytes], None]:
        cursor = -1
        while cursor:
            cursor, keys = await self.redis.execute_command(
                "SCAN", max(cursor, 0), "MATCH", match, "COUNT", count, "TYPE", "string"
            )
            yield keys

    async def ping(self) -> None:
        if await self.redis.execute_command("PING") not in (True, b"PONG"):  # redis-py makes one of the other
            raise InvalidResponse("no PONG")

    async def aclose(self) -> None:
        await self._own.aclose()
        if not self._given:
            await self.redis.aclose()

    async def _leave(self) -> None:
        """Use no more connections to a master that has become a replica: its address may lead to the new one by now.

        One that is in use is closed after its reply: what is read there is none the worse. Of a client that was given
        those alone that nobody uses.
        """
        now = asyncio.get_running_loop().time()
        if now < self._left_at + LEAVE_EVERY:
            return
        self._left_at = now
        pool = self.redis.connection_pool
        if not self._given and hasattr(pool, "update_active_connections_for_reconnect"):  # not in redis-py 7.0
            await pool.update_active_connections_for_reconnect()
        if self.on_leave is not None:
            self.on_leave()
        for connection in tuple(getattr(pool, "_available_connections", ())):
            await connection.disconnect(nowait=True)  # the pool's own `disconnect` waits, and lends them meanwhile
        await self._own.aclose()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.redis.connection_pool!r}>"
