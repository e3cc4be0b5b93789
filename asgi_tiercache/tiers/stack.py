"""The lower tiers in their order: what one finds, those before it get, too."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence

from asgi_tiercache.codec.entries import HEAD, Rejected, decode, encode, stamp_of
from asgi_tiercache.config import LONGEST_LIFETIME
from asgi_tiercache.signals import EntryRejected, Signals
from asgi_tiercache.tiers.batch import Batched
from asgi_tiercache.tiers.writes import Told, WriteQueue
from asgi_tiercache.types import Clock, Entry, ScannableTier, Stamp, Tier, Write

Located = tuple[Entry, str]
"""An entry, and the name of the tier that had it."""


class _Level:
    """One tier, with what the stack keeps beside it."""

    __slots__ = ("batched", "name", "queue", "tier")

    def __init__(self, tier: Tier, *, signals: Signals, max_queued: int, max_queued_bytes: int) -> None:
        self.name = tier.name
        self.tier = tier
        self.batched = Batched(tier)
        self.queue = WriteQueue(tier, signals=signals, max_entries=max_queued, max_bytes=max_queued_bytes)


class Stack:
    """L2, then L3: reads go down until one tier has the entry; writes go to all, behind the caller's back.

    Args:
        tiers: Guarded tiers, the fastest first.
        clock: Its wall clock tells how long an entry found may still live further up.
        signals: Receives `EntryRejected` and `WriteDropped`.
        max_queued: Writes that wait for one tier at the most.
        max_queued_bytes: Bytes that wait for one tier at the most.
    """

    def __init__(
        self,
        tiers: Sequence[Tier],
        *,
        clock: Clock,
        signals: Signals,
        max_queued: int = 1000,
        max_queued_bytes: int = 32 * 1024 * 1024,
    ) -> None:
        self._clock = clock
        self._signals = signals
        self._levels = [
            _Level(tier, signals=signals, max_queued=max_queued, max_queued_bytes=max_queued_bytes) for tier in tiers
        ]

    async def get(self, key: str, *, alone: bool = True) -> Located | None:
        """The entry under `key`, undecided whether it is still fresh or valid.

        Args:
            key: What it was put in under.
            alone: Ask at once; if not, together with whoever else comes in this tick of the loop.
        """
        for depth, level in enumerate(self._levels):
            # What is on its way to the tier counts as there: a worker reads its own writes.
            data = level.queue.peek(key)
            if data is None:
                data = (await level.tier.get_many((key,)))[0] if alone else await level.batched.get(key)
            if data is None:
                continue
            entry = decode(data)
            if isinstance(entry, Rejected):
                self._signals.emit(EntryRejected(level.name, entry.reason))
                continue
            if depth:
                self._promote(depth, key, data, entry)
            return entry, level.name
        return None

    def put(self, key: str, entry: Entry, *, compress: bool, ttl: float, told: Told | None = None) -> None:
        """Queue `entry` for every tier; returns at once.

        Args:
            key: Where it will be found.
            entry: What is kept.
            compress: Deflate its body.
            ttl: Seconds after which the tiers may forget it, above 0.
            told: Called, on whichever thread, once it is known whether the first tier has it: the one that is shared.

        Raises:
            CodecError: the entry cannot be written as bytes.
        """
        if not self._levels:
            if told is not None:
                told(False)
            return
        write = Write(key, encode(entry, compress=compress), ttl)
        first, *rest = self._levels
        first.queue.put(write, told)
        for level in rest:
            level.queue.put(write)

    async def delete(self, keys: Sequence[str]) -> None:
        """Forget `keys` in every tier, and what is queued under them."""
        for level in self._levels:
            await level.queue.delete(keys)

    async def sweep(
        self, beginning: str, wanted: Callable[[str], bool], worthless: Callable[[Stamp], bool]
    ) -> AsyncGenerator[int, None]:
        """Delete the entries that are `wanted` by key and `worthless` by stamp, tier by tier, in batches.

        Yields after each batch, which may be empty, how many went. What is no entry of this version stays: it may be
        somebody else's. Tiers that cannot be looked through are left alone. A newer entry that is written under the
        same key at this moment may go, too.

        Args:
            beginning: That of every key in question.
            wanted: Decides by the key, in which a `{` may be a `%7B`.
            worthless: Decides by the stamp.
        """
        for level in self._levels:
            if not isinstance(level.tier, ScannableTier):
                continue
            async with contextlib.aclosing(level.tier.scan(beginning, wanted, HEAD)) as batches:
                async for batch in batches:
                    stamps = [(key, stamp_of(head)) for key, head in batch]
                    keys = [key for key, stamp in stamps if stamp is not None and worthless(stamp)]
                    if keys:
                        await level.tier.delete_many(keys)
                    yield len(keys)

    async def flush(self, within: float = 5.0) -> None:
        """Return when what was queued has reached the tiers, or after `within` seconds."""
        await asyncio.gather(*(level.queue.flush(within) for level in self._levels))

    async def aclose(self, within: float = 5.0) -> None:
        """Flush for at most `within` seconds, and let go of what the tiers hold for the running event loop."""
        await asyncio.gather(*(level.queue.aclose(within) for level in self._levels))
        await asyncio.gather(*(level.tier.aclose() for level in self._levels))

    def __repr__(self) -> str:
        return f"<Stack {' then '.join(level.name for level in self._levels) or 'without tiers'}>"

    def _promote(self, depth: int, key: str, data: bytes, entry: Entry) -> None:
        """Queue what was found for the tiers before, for as long as it still lives."""
        remaining = min(entry.created + entry.lifetime + entry.retention - self._clock.time(), LONGEST_LIFETIME)
        if remaining > 0:
            for level in self._levels[:depth]:
                level.queue.put(Write(key, data, remaining))
