"""Messages that one event loop waits for, by Redis's `SUBSCRIBE`, all on one connection."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections import deque
from collections.abc import Iterator
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from asgi_tiercache.tiers.loops import OneTask
from asgi_tiercache.tiers.redis import RedisLink
from asgi_tiercache.types import Clock

IDLE = 10.0
"""Seconds after which a connection that nobody listens to is closed; twice that at the most."""

Message = asyncio.Future[bytes | None]
"""One message; None: none will come any more, for the connection is gone."""


class Messages:
    """What one event loop waits to hear.

    The connection is opened when the first one listens. `UNSUBSCRIBE` for what nobody waits for any more goes along
    with the next `SUBSCRIBE`: mostly the connection is closed before, and that costs no command.

    Args:
        link: Where Redis is.
        clock: Measures how long nobody has listened.
        patience: Seconds of real time that opening the connection may take.
    """

    def __init__(self, link: RedisLink, clock: Clock, patience: float) -> None:
        self._link = link
        self._clock = clock
        self._patience = patience
        self._waiting: dict[bytes, set[Message]] = {}
        self._subscribed: set[bytes] = set()
        self._unanswered: deque[asyncio.Future[None]] = deque()
        """One for each command that was sent, in their order, which is that of the replies."""
        self._opened: asyncio.Future[Any] | None = None
        self._reader = OneTask()
        self._watch = OneTask()
        self._used = False

    def __repr__(self) -> str:
        return f"<Messages waiting={sum(map(len, self._waiting.values()))} subscribed={len(self._subscribed)}>"

    @property
    def connected(self) -> bool:
        """Whether there is a connection, or one is being opened."""
        return self._opened is not None

    @property
    def awaited(self) -> bool:
        """Whether anybody waits for one."""
        return bool(self._waiting)

    @contextlib.contextmanager
    def waiting(self, channel: bytes) -> Iterator[Message]:
        """A context for whoever waits for the next message on `channel`, once that was subscribed to."""
        message: Message = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(channel, set()).add(message)
        try:
            yield message
        finally:
            waiting = self._waiting[channel]
            waiting.discard(message)
            if not waiting:
                del self._waiting[channel]
            self._used = True

    async def subscribe(self, channel: bytes) -> None:
        """Return once the server has confirmed that it sends what is published on `channel` from here on.

        It is asked each time: only its reply tells that the connection still carries anything.

        Raises:
            RedisError: the server refuses, or the connection failed.
            TimeoutError: it could not be opened in time.
        """
        self._used = True
        connection = await self._connection(channel)
        if not connection.is_connected:  # redis-py would open it anew by itself, and nobody would read from it
            raise RedisConnectionError("the server closed the connection")
        idle = self._subscribed - self._waiting.keys() - {channel}
        commands = [*(("UNSUBSCRIBE", each) for each in idle), ("SUBSCRIBE", channel)]
        answers = [asyncio.get_running_loop().create_future() for _ in commands]
        self._unanswered.extend(answers)
        self._subscribed = (self._subscribed - idle) | {channel}
        # Nothing is awaited before the commands are on their way: they leave in the order of `_unanswered`.
        await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        await answers[-1]

    async def aclose(self) -> None:
        """Close the connection; whoever waits hears nothing any more."""
        await self._watch.aclose()
        await self._reader.aclose()

    async def _connection(self, channel: bytes) -> Any:
        if self._opened is None:
            self._opened = opened = asyncio.get_running_loop().create_future()
            nobodys = contextvars.Context()  # the tasks outlive the request that happens to be the first
            nobodys.run(self._reader.begin, lambda: self._read(channel, opened))
            nobodys.run(self._watch.begin, self._until_idle)
        return await asyncio.shield(self._opened)

    async def _read(self, channel: bytes, opened: asyncio.Future[Any]) -> None:
        """Open the connection, and hand on what comes, until it is closed."""
        error: Exception = RedisConnectionError("the connection was closed")
        try:
            async with contextlib.AsyncExitStack() as stack:
                async with asyncio.timeout(self._patience):
                    connection = await stack.enter_async_context(self._link.listening(channel))
                opened.set_result(connection)
                while True:
                    try:
                        self._take(await connection.read_response(push_request=True))
                    except ResponseError as refusal:
                        self._answer(refusal)
        except Exception as failure:
            error = failure
        finally:
            self._lose(opened, error)

    def _take(self, reply: Any) -> None:
        kind, channel, content = reply
        if kind == b"message":
            for message in self._waiting.get(channel, ()):
                if not message.done():
                    message.set_result(content)
        else:
            self._answer(None)

    def _answer(self, error: Exception | None) -> None:
        answer = self._unanswered.popleft()
        if answer.done():  # cancelled: nobody waits for it any more
            return
        if error is None:
            answer.set_result(None)
        else:
            _fail(answer, error)

    def _lose(self, opened: asyncio.Future[Any], error: Exception) -> None:
        for future in (opened, *self._unanswered):
            if not future.done():
                _fail(future, error)
        for messages in self._waiting.values():
            for message in messages:
                if not message.done():
                    message.set_result(None)
        self._unanswered.clear()
        self._subscribed.clear()
        self._opened = None

    async def _until_idle(self) -> None:
        while self.connected:
            while self._used or self._waiting:
                self._used = False
                await self._clock.sleep(IDLE)
            # Whoever listens while the reader is ending finds the connection closed, or has opened another.
            await self._reader.aclose()


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    future.set_exception(error)
    future.exception()  # retrieved here: that nobody waits is no error
