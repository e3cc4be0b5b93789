"""A TCP proxy that stands before a Redis and does to its connections what networks do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

T = TypeVar("T")
Which = Literal["all", "open", "new"]
CHUNK = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is done to the bytes that come from the server; counted for each connection, from the fault's beginning.

    Args:
        delay: Seconds by which whatever the server sends is held up.
        rate: Bytes per second that pass.
        silent: Nothing passes in either direction, and no connection is closed: a black hole.
        silent_after: Bytes of replies that still pass; then likewise.
        closed_after: Bytes of replies that still pass before the connection is ended (FIN): a truncated reply.
        reset_after: Bytes of replies that still pass before the connection is reset (RST); 0: as a reply begins.
        garbage: Sent in place of whatever the server sends.
        before: Sent before whatever the server sends.
        again_after: Seconds after which whatever the server sends is sent once more; 0: together with it.
        on: The connections that it befalls: those open when it begins, those made later, or all.
    """

    delay: float = 0.0
    rate: float | None = None
    silent: bool = False
    silent_after: int | None = None
    closed_after: int | None = None
    reset_after: int | None = None
    garbage: bytes | None = None
    before: bytes = b""
    again_after: float | None = None
    on: Which = "all"


class FaultProxy:
    """Passes connections on to `port`, with the fault that is set; in a thread with an event loop of its own.

    What it does can be changed from any thread, and is done when the call returns.

    Args:
        port: The loopback port of the server behind it.
    """

    def __init__(self, port: int) -> None:
        self.upstream = port
        self.port = 0
        self.accepted = 0
        """Connections made so far."""
        self._fault: Fault | None = None
        self._pipes: set[_Pipe] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)

    @property
    def url(self) -> str:
        """Where clients of Redis connect."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def open(self) -> int:
        """Connections that pass through it now."""
        return len(self._pipes)

    def start(self) -> FaultProxy:
        """Accept connections, on a free port."""
        self._thread.start()
        self._do(self._listen())
        return self

    def begin(self, fault: Fault) -> None:
        """Do `fault` to the connections, in place of the one before."""
        self._do(self._begin(fault))

    def end(self) -> None:
        """Pass everything on again; connections that a fault made useless stay open and silent, as in life."""
        self._do(self._begin(None))

    def refuse(self) -> None:
        """Reset every connection and refuse new ones."""
        self._do(self._refuse())

    def accept(self) -> None:
        """Accept connections again, on the same port."""
        self._do(self._listen())

    def reset(self) -> None:
        """Reset every connection (RST) once; new ones are accepted."""
        self._do(self._reset())

    def close(self) -> None:
        """End every connection and the thread."""
        self._do(self._refuse())
        self._do(self._finish())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> FaultProxy:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _do(self, action: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(action, self._loop).result(timeout=10)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _begin(self, fault: Fault | None) -> None:
        self._fault = fault
        for pipe in self._pipes:
            pipe.befall(fault if fault is None or fault.on != "new" else None)

    async def _refuse(self) -> None:
        if self._server is not None:
            # What is being accepted first: asyncio would leave it open if the server were closed under it.
            for listener in self._server.sockets:
                self._loop.remove_reader(listener.fileno())
            for _ in range(3):
                await asyncio.sleep(0)
            self._server.close()
            self._server = None
        await self._reset()

    async def _reset(self) -> None:
        pipes = tuple(self._pipes)
        for pipe in pipes:
            pipe.reset()
        await asyncio.gather(*(pipe.ended.wait() for pipe in pipes))

    async def _finish(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for pipe in self._pipes:  # whose task was cancelled before it began
            pipe.reset()
        await asyncio.sleep(0)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        pipe = _Pipe(reader, writer)
        pipe.befall(self._fault if self._fault is None or self._fault.on != "open" else None)
        self._pipes.add(pipe)
        if self._server is None:  # refused since
            pipe.reset()
        pipe.task = asyncio.create_task(self._run(pipe))

    async def _run(self, pipe: _Pipe) -> None:
        try:
            await pipe.run(self.upstream)
        finally:
            self._pipes.discard(pipe)


class _Pipe:
    """One connection of a client's, and the one to the server that belongs to it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.ended = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self._reader = reader
        self._writer = writer
        self._fault: Fault | None = None
        self._passed = 0
        self._cut = False  # whether part of a reply was swallowed,
        self._mute = False  # so that nothing which came later could make sense
        self._changed = asyncio.Event()
        self._stopped = asyncio.Event()

    def befall(self, fault: Fault | None) -> None:
        """From now on, `fault`; a reply of which a part is missing is not made whole by its end."""
        self._mute = self._cut
        self._fault = fault
        self._passed = 0
        self._changed.set()
        self._changed = asyncio.Event()

    def reset(self) -> None:
        """End the client's connection with RST."""
        sock = self._writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
        self._stopped.set()

    async def run(self, port: int) -> None:
        """Pass on until either side ends."""
        upstream: asyncio.StreamWriter | None = None
        pumps: list[asyncio.Task[Any]] = []
        try:
            await self._while_silent()
            replies, upstream = await asyncio.open_connection("127.0.0.1", port)
            pumps = [
                asyncio.create_task(self._up(upstream)),
                asyncio.create_task(self._down(replies)),
                asyncio.create_task(self._stopped.wait()),
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            self.reset()
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for writer in (upstream, self._writer):
                if writer is not None:
                    writer.close()
            self.ended.set()

    async def _while_silent(self) -> None:
        while self._mute or (self._fault is not None and self._fault.silent):
            changed = asyncio.ensure_future(self._changed.wait())
            stopped = asyncio.ensure_future(self._stopped.wait())
            try:
                await asyncio.wait({changed, stopped}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                changed.cancel()
                stopped.cancel()
            if self._stopped.is_set():
                raise ConnectionResetError

    async def _up(self, upstream: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await self._reader.read(CHUNK):
                await self._while_silent()
                upstream.write(data)
                await upstream.drain()

    async def _down(self, replies: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while data := await replies.read(CHUNK):
                await self._while_silent()
                if not await self._pass(data):
                    return

    async def _pass(self, data: bytes) -> bool:
        """Send the client what the fault leaves of `data`; whether the connection goes on."""
        fault = self._fault
        if fault is None:
            return await self._send(data)
        if fault.delay:
            await asyncio.sleep(fault.delay)
        if fault.garbage is not None:
            return await self._send(fault.garbage)
        if fault.rate is not None:
            return await self._trickle(data, fault.rate)
        if fault.again_after is not None:
            return await self._twice(data, fault.again_after)
        for limit in (fault.silent_after, fault.closed_after, fault.reset_after):
            if limit is not None:
                return await self._up_to(limit, data, fault)
        return await self._send(fault.before + data)

    async def _send(self, data: bytes) -> bool:
        self._writer.write(data)
        await self._writer.drain()
        return True

    async def _trickle(self, data: bytes, rate: float) -> bool:
        step = max(1, int(rate / 50))
        for start in range(0, len(data), step):
            await self._send(data[start : start + step])
            await asyncio.sleep(step / rate)
        return True

    async def _twice(self, data: bytes, after: float) -> bool:
        if not after:
            return await self._send(data + data)
        await self._send(data)
        # Later, whatever else has been sent by then: that is what makes it the answer to another question.
        asyncio.get_running_loop().call_later(after, self._writer.write, data)
        return True

    async def _up_to(self, limit: int, data: bytes, fault: Fault) -> bool:
        part = data[: max(0, limit - self._passed)]
        self._passed += len(part)
        if part:
            await self._send(part)
        if len(part) == len(data):
            return True
        if fault.silent_after is not None:
            self._cut = True
            return True
        if fault.reset_after is not None:
            await asyncio.sleep(0.01)  # the part has to leave before the reset overtakes it
            self.reset()
        return False
