"""Writes to a lower tier, behind the client's back: a bounded queue that nobody waits for."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence

from asgi_tiercache.signals import Signals, WriteDropped
from asgi_tiercache.tiers.breaker import describe
from asgi_tiercache.tiers.loops import PerLoop
from asgi_tiercache.types import Tier, Write

Told = Callable[[bool], None]
"""Told, on whichever thread, whether a write has reached the tier, or one that took its place; it must not raise."""

BATCH_ENTRIES = 64
BATCH_BYTES = 1024 * 1024
"""What one call carries at the most, so that it fits into the tier's deadline; a larger entry goes alone."""
AT_LOOP_END = 1.0
"""Seconds that an event loop that ends without a call of `aclose` is held up for what is still queued."""


class _Worker:
    """What the queue keeps for one event loop."""

    __slots__ = ("task", "turn")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.turn = asyncio.Lock()
        """Held while the tier is written to, so that a write and a deletion never overtake each other."""

    @property
    def idle(self) -> bool:
        return self.task is None or self.task.done()


class _Queued:
    """A write, and whoever wants to know what becomes of it."""

    __slots__ = ("told", "write")

    def __init__(self, write: Write, told: tuple[Told, ...]) -> None:
        self.write = write
        self.told = told

    def tell(self, written: bool) -> None:
        for told in self.told:
            told(written)


class WriteQueue:
    """Hands writes to `tier` in batches, from a task that runs while there are any.

    The queue is the process's: whichever event loop puts a write in drains it.

    Args:
        tier: Where the writes go.
        signals: Receives a `WriteDropped` for each write given up.
        max_entries: Writes that wait at the most; one more, and the oldest is dropped.
        max_bytes: Bytes that wait at the most; likewise. A write that is larger by itself is dropped alone.
    """

    def __init__(
        self,
        tier: Tier,
        *,
        signals: Signals,
        max_entries: int = 1000,
        max_bytes: int = 32 * 1024 * 1024,
    ) -> None:
        self.bytes = 0
        """Bytes that wait."""
        self._tier = tier
        self._signals = signals
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._waiting: dict[str, _Queued] = {}
        self._leaving: dict[str, _Queued] = {}
        """Handed to the tier, which has not answered yet."""
        self._workers = PerLoop(_Worker, self._end)

    def put(self, write: Write, told: Told | None = None) -> None:
        """Queue `write`, in place of one under the same key; returns at once.

        Args:
            write: What is to be kept.
            told: Called once, with True when the tier has it, with False when it was given up.
        """
        queued = _Queued(write, () if told is None else (told,))
        if len(write.data) > self._max_bytes:
            self.discard(write.key)  # what it replaces must not come in its stead
            self._drop([queued], "too large")
            return
        with self._lock:
            self._add(queued)
            dropped = self._overflow()
        self._drop(dropped, "queue full")
        self._start()

    def peek(self, key: str) -> bytes | None:
        """The bytes on their way under `key`."""
        queued = self._waiting.get(key) or self._leaving.get(key)
        return queued.write.data if queued else None

    def discard(self, key: str) -> None:
        """Take the write under `key` out of the queue, if it still waits."""
        with self._lock:
            queued = self._remove(key)
        if queued is not None:
            queued.tell(False)

    async def delete(self, keys: Sequence[str]) -> None:
        """Forget what is queued under `keys`, then delete them in the tier.

        A write that is under way is waited for: it would bring the entry back.
        """
        for key in keys:
            self.discard(key)
        async with self._workers.get().turn:
            await self._tier.delete_many(keys)

    async def flush(self, within: float = 5.0) -> None:
        """Return when everything queued has been handed to the tier, or after `within` seconds."""
        if self._waiting:
            self._start()
        worker = self._workers.peek()
        if worker is not None and worker.task is not None:
            await asyncio.wait({worker.task}, timeout=within)

    async def aclose(self, within: float = 5.0) -> None:
        """Flush, and drop what is not written after `within` seconds."""
        await self.flush(within)
        self._drop(self._clear(), "closed")
        await self._workers.aclose()
        self._drop(self._clear(), "closed")  # what was just being written, and has not come through at the second try

    def __len__(self) -> int:
        return len(self._waiting)

    def __repr__(self) -> str:
        return f"<WriteQueue to {self._tier.name}: {len(self)} writes, {self.bytes} bytes>"

    def _add(self, queued: _Queued) -> None:
        write = queued.write
        before = self._waiting.get(write.key)
        self._waiting[write.key] = queued
        self.bytes += len(write.data)
        if before is not None:
            self.bytes -= len(before.write.data)
            queued.told = (*before.told, *queued.told)

    def _remove(self, key: str) -> _Queued | None:
        queued = self._waiting.pop(key, None)
        if queued is not None:
            self.bytes -= len(queued.write.data)
        return queued

    def _clear(self) -> list[_Queued]:
        with self._lock:
            left = list(self._waiting.values())
            self._waiting.clear()
            self.bytes = 0
        return left

    def _overflow(self) -> list[_Queued]:
        """Take out the oldest writes until the bounds hold."""
        dropped = []
        while len(self._waiting) > self._max_entries or self.bytes > self._max_bytes:
            oldest = self._remove(next(iter(self._waiting)))
            assert oldest is not None
            dropped.append(oldest)
        return dropped

    def _drop(self, dropped: Sequence[_Queued], reason: str) -> None:
        for queued in dropped:
            self._signals.emit(WriteDropped(self._tier.name, reason))
            queued.tell(False)

    def _start(self) -> None:
        try:
            worker = self._workers.get()
        except RuntimeError:
            return  # no loop, or one that is ending: the next loop that puts something in takes the rest along
        if worker.idle:
            worker.task = asyncio.get_running_loop().create_task(
                self._work(worker), name=f"writes to {self._tier.name}"
            )

    async def _work(self, worker: _Worker) -> None:
        try:
            await self._drain(worker)
        except asyncio.CancelledError:
            # The loop is ending. Its connections are closed after its tasks, so this is the last chance.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AT_LOOP_END):
                    await self._drain(worker)
            raise

    async def _drain(self, worker: _Worker) -> None:
        while self._waiting:
            async with worker.turn:
                if batch := self._take():
                    await self._write(batch)

    async def _write(self, batch: list[_Queued]) -> None:
        try:
            written = await self._tier.set_many([queued.write for queued in batch])
        except Exception as error:  # more than a TierError, of a tier without a guard
            self._drop(batch, describe(error))
        except asyncio.CancelledError:
            self._put_back(batch)
            raise
        else:
            for queued in batch:
                queued.tell(written is not False)
        finally:
            self._settle(batch)

    def _take(self) -> list[_Queued]:
        """The oldest writes, as many as one batch carries; they count as leaving."""
        batch: list[_Queued] = []
        size = 0
        with self._lock:
            for queued in self._waiting.values():
                size += len(queued.write.data)
                if batch and (size > BATCH_BYTES or len(batch) == BATCH_ENTRIES):
                    break
                batch.append(queued)
            for queued in batch:
                self._leaving[queued.write.key] = queued
                self._remove(queued.write.key)
        return batch

    def _put_back(self, batch: Sequence[_Queued]) -> None:
        """Let an interrupted batch wait again, at the front; a newer write under the same key stays."""
        with self._lock:
            newer = self._waiting
            self._waiting = {}
            self.bytes = 0
            for queued in (*batch, *newer.values()):
                self._add(queued)

    def _settle(self, batch: Sequence[_Queued]) -> None:
        with self._lock:
            for queued in batch:
                if self._leaving.get(queued.write.key) is queued:
                    del self._leaving[queued.write.key]

    async def _end(self, worker: _Worker) -> None:
        """Let the worker go, with the loop or on closing."""
        if worker.task is not None and not worker.task.done():
            worker.task.cancel()
            await asyncio.wait({worker.task})
