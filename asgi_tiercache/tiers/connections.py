"""Connections that stay out of redis-py's pool between the commands that hits are made of.

redis-py opens them, with TLS, authentication and all that a URL can ask for. From then on their bytes are written and
parsed here: lending a connection from the pool, its stream and its reply reader cost several times as much as the
reply itself.
"""

from __future__ import annotations

import asyncio
from typing import Any

import hiredis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse

BUFFER = 64 * 1024
"""Bytes that a connection can receive at once."""


class KeptConnections:
    """Connections of one event loop to one server; each is used by one command at a time.

    Args:
        client: Its pool makes the connections, counts them, and closes them when it is closed.
        limit: How many are open at the most.
    """

    def __init__(self, client: Redis, *, limit: int) -> None:
        self._client = client
        self._pool = client.connection_pool
        self._limit = limit
        self._idle: list[_Line] = []
        self._lines: set[_Line] = set()
        self._open = 0
        """How many there are, those that are being made included."""

    def __repr__(self) -> str:
        return f"<KeptConnections open={self._open} idle={len(self._idle)}>"

    @property
    def available(self) -> bool:
        """Whether a command would find a connection, or may open one."""
        return bool(self._idle) or self._open < self._limit

    async def ask(self, *command: bytes) -> Any:
        """The reply to `command`, undecoded.

        Raises:
            RedisError: the server refused the command, or the connection failed.
        """
        idle = self._idle
        line = idle.pop() if idle else await self._connect()
        while line is not None and line.closed:  # by the server, while nobody asked
            await self._drop(line)
            line = idle.pop() if idle else await self._connect()
        if line is None:
            return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]
        try:
            reply = await line.send(command)
        except BaseException:
            # Cancellation, too: half a reply may still come, and must not answer the next command.
            await self._drop(line)
            raise
        idle.append(line)
        if isinstance(reply, Exception):  # the server refused the command: a whole reply, nothing is left on the way
            raise reply
        return reply

    def leave(self) -> None:
        """Use each connection for nothing more than the reply that it waits for."""
        for line in self._lines:
            line.closed = True

    async def _connect(self) -> _Line | None:
        """A new connection; None where redis-py is not made as we know it: then all goes through the pool."""
        self._open += 1
        try:
            connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
            if _is_familiar(connection):
                line = _Line(connection)
                self._lines.add(line)
                return line
            await self._pool.release(connection)
        except BaseException:
            self._open -= 1
            raise
        self._open -= 1
        self._limit = 0
        return None

    async def _drop(self, line: _Line) -> None:
        self._lines.discard(line)
        try:
            await line.connection.disconnect(nowait=True)
            await self._pool.release(line.connection)
        finally:
            self._open -= 1  # not before: a newcomer would take the place of whoever goes on to connect anew


def _is_familiar(connection: Any) -> bool:
    """Whether `connection` has the parts that a `_Line` takes over; they are private to redis-py."""
    reader = getattr(getattr(connection, "_parser", None), "_reader", None)
    return isinstance(reader, hiredis.Reader) and isinstance(getattr(connection, "_writer", None), asyncio.StreamWriter)


class _Line(asyncio.BufferedProtocol):
    """A connection of redis-py's whose bytes come here, past its stream.

    It is parsed with the connection's own hiredis reader, which makes redis-py's errors of what the server refuses.
    The bytes are received into a buffer that stays: for any other protocol asyncio allocates 256 KiB for each read,
    which costs more than all the rest of it.

    Args:
        connection: An open one, with nothing unread on it; the pool lends no other.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._reader: hiredis.Reader = connection._parser._reader
        self._incomplete = self._reader.gets(False)
        """What the reader gives where there is no whole reply."""
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[Any] | None = None
        self._buffer = memoryview(bytearray(BUFFER))
        self._transport: asyncio.Transport = connection._writer.transport
        self._stream = self._transport.get_protocol()
        """redis-py's own, which has to hear of the end: whoever closes the connection waits for that."""
        self._transport.set_protocol(self)
        self.closed = self._transport.is_closing()
        """Whether nothing more can be asked; where it has ended before, only the stream was told."""

    def send(self, command: tuple[bytes, ...]) -> asyncio.Future[Any]:
        """Send `command`; the future is its reply, an exception as a value where the server refuses."""
        waiter = self._waiter = self._loop.create_future()
        self._transport.write(hiredis.pack_command(command))  # type: ignore[arg-type] # its stub wants a tuple of one
        return waiter

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        waiter = self._waiter
        if waiter is None:  # nobody has asked for this, so whose answer the next one is cannot be told
            self._close()
            return
        reader = self._reader
        try:
            reader.feed(self._buffer[:nbytes])  # type: ignore[arg-type] # its stub knows only bytes
            reply = reader.gets(False)
            while type(reply) is hiredis.PushNotification:
                reply = reader.gets(False)
        except Exception as error:
            self._fail(error)
            return
        if reply is self._incomplete:
            return
        if reader.has_data():
            self._fail(InvalidResponse("more than the reply to one command"))
            return
        self._waiter = None
        if not waiter.done():
            waiter.set_result(reply)

    def eof_received(self) -> None:
        self.closed = True  # and the transport closes itself

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self._stream.connection_lost(error)
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(RedisConnectionError("the server closed the connection"))

    def _fail(self, error: Exception) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)
        self._close()

    def _close(self) -> None:
        self.closed = True
        self._transport.abort()
