"""What the tests of the tiers put in place of listeners and tiers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from asgi_tiercache.signals import Signal, Signals
from asgi_tiercache.types import Entry, Stamp, Tier, Write

S = TypeVar("S")


class Recorder(Signals):
    """Keeps every signal."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Signal] = []
        self.subscribe(self.seen.append)

    def of(self, kind: type[S]) -> list[S]:
        return [signal for signal in self.seen if isinstance(signal, kind)]


class ScriptedTier(Tier):
    """A dictionary that answers, fails or hangs as the test says, and remembers what it was asked."""

    def __init__(self, name: str = "L2") -> None:
        self.name = name
        self.data: dict[str, tuple[bytes, float]] = {}
        self.error: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.reads: list[tuple[str, ...]] = []
        self.writes: list[list[Write]] = []
        self.pings = 0
        self.closed = 0

    @property
    def calls(self) -> int:
        return len(self.reads) + len(self.writes) + self.pings

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        self.reads.append(tuple(keys))
        await self._behave()
        return [self._alive(key) for key in keys]

    async def set_many(self, writes: Sequence[Write]) -> None:
        self.writes.append(list(writes))
        await self._behave()
        for key, data, ttl in writes:
            self.data[key] = data, time.monotonic() + ttl

    async def delete_many(self, keys: Sequence[str]) -> None:
        await self._behave()
        for key in keys:
            self.data.pop(key, None)

    async def ping(self) -> None:
        self.pings += 1
        await self._behave()

    async def aclose(self) -> None:
        self.closed += 1
        await self._behave()

    def hang(self) -> None:
        """Answer nothing until `go_on`."""
        self.open = asyncio.Event()

    def go_on(self) -> None:
        self.open.set()

    def _alive(self, key: str) -> bytes | None:
        data, until = self.data.get(key, (b"", 0.0))
        return data if time.monotonic() < until else None

    async def _behave(self) -> None:
        await self.open.wait()
        if self.error is not None:
            raise self.error


async def until(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    """Let the loop run until `holds()`."""
    async with asyncio.timeout(seconds):
        while not holds():
            await ticks(1)


async def ticks(number: int) -> None:
    """Let the loop run for some iterations."""
    for _ in range(number):
        await asyncio.sleep(0)


def an_entry(body: bytes = b"body", *, created: float = 0.0, lifetime: float = 60.0) -> Entry:
    return Entry(Stamp("epoch", 1), created, lifetime, b"GET /", status=200, body=body)
