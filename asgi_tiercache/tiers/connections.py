"""Connections that stay out of redis-py's pool between the commands that hits are made of.

The pool's way of lending a connection and taking it back costs twice as much as the command itself: measured, 35 us for
a `GET` through the client and 13 us on a connection that is at hand.
"""

from __future__ import annotations

from typing import Any

from redis.asyncio import ConnectionPool
from redis.exceptions import ResponseError


class KeptConnections:
    """Connections of one event loop to one server; each is used by one command at a time.

    Args:
        pool: Makes the connections, counts them, and closes them when it is closed.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._idle: list[Any] = []

    def __repr__(self) -> str:
        return f"<KeptConnections idle={len(self._idle)}>"

    async def ask(self, *command: bytes) -> Any:
        """The reply to `command`, undecoded.

        Raises:
            RedisError: the server refused the command, or the connection failed.
        """
        connection = await self._take()
        try:
            await connection.send_packed_command(connection.pack_command(*command), check_health=False)
            reply = await connection.read_response(disable_decoding=True)
        except ResponseError:
            self._idle.append(connection)  # a whole reply: nothing is left on the way
            raise
        except BaseException:
            # Cancellation, too: half a reply may still come, and must not answer the next command.
            await self._drop(connection)
            raise
        self._idle.append(connection)
        return reply

    async def _take(self) -> Any:
        while self._idle:
            connection = self._idle.pop()
            # What the server has closed meanwhile would fail; redis-py has no other way to ask that does not read.
            reader = getattr(connection, "_reader", None)
            if reader is not None and not reader.at_eof():
                return connection
            await self._drop(connection)
        return await self._pool.get_connection()  # type: ignore[no-untyped-call]

    async def _drop(self, connection: Any) -> None:
        await connection.disconnect(nowait=True)
        await self._pool.release(connection)
