"""A tier that never raises: deadline, bulkhead and circuit breaker around a tier that may."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence

from asgi_tiercache.errors import TierError
from asgi_tiercache.signals import Signals, TierFailed, TierRead, WriteDropped
from asgi_tiercache.tiers.breaker import Breaker, describe
from asgi_tiercache.tiers.causes import Cause, cause_of
from asgi_tiercache.types import Clock, ScannableTier, Tier, Write

REPORTED = 16
"""Reads that one signal tells of: one for each would be felt."""


class Guarded(Tier):
    """`tier`, with every failure a miss, no call longer than the breaker's deadline, and not too many at once.

    Args:
        tier: Does the work; raises whatever it likes.
        breaker: Decides whether the tier is asked at all.
        clock: Times the reads.
        signals: Receives `TierRead` of the reads that were made, and a `WriteDropped` for each write that the tier
            does not have; what failed is reported by the breaker.
    """

    def __init__(self, tier: Tier, breaker: Breaker, *, clock: Clock, signals: Signals) -> None:
        self.name = tier.name
        self.breaker = breaker
        self._tier = tier
        self._clock = clock
        self._signals = signals
        self._reads = self._hits = self._misses = 0
        self._report_at = 1

    @property
    def available(self) -> bool:
        """Whether the tier is being asked."""
        return not self.breaker.is_open

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The bytes under each key; None, too, where the tier could not say."""
        breaker = self.breaker
        if breaker.is_open:
            breaker.refuse(self._tier.ping)
            return [None] * len(keys)
        started = self._clock.monotonic()
        try:  # as in `breaker.run`, without a call that would be felt in every hit
            with breaker.deadline.limit() as limit:
                if limit.waits:
                    await breaker.turn(limit, self._tier.ping)
                found = await self._tier.get_many(keys)
        except Exception as error:
            breaker.failed("get", error)
            found = [None] * len(keys)
        else:
            breaker.answers += 1
            if breaker.convalescent:
                breaker.answered()
        if len(found) != len(keys):
            self._signals.emit(TierFailed(self.name, "get", f"{len(found)} answers to {len(keys)} questions"))
            found = [None] * len(keys)
        misses = found.count(None)
        self._hits += len(found) - misses
        self._misses += misses
        self._reads += 1
        if self._reads >= self._report_at:
            self._report_at = REPORTED
            self.report(self._clock.monotonic() - started)
        return found

    def report(self, seconds: float = 0.0) -> None:
        """Tell of the reads that no signal has told of yet; `seconds`: how long the last took."""
        reads, hits, misses = self._reads, self._hits, self._misses
        self._reads = self._hits = self._misses = 0
        if reads:
            self._signals.emit(TierRead(self.name, hits, misses, seconds, reads))

    async def set_many(self, writes: Sequence[Write]) -> bool:
        """Keep each of `writes`, if the tier can; whether it could.

        Where it cannot, though it answers, only writes are put off: what it has can be read all the same.
        """
        breaker = self.breaker
        if breaker.is_open:
            breaker.refuse(self._tier.ping)
            return self._drop(writes, "unavailable")
        if not breaker.writes.admits():
            return self._drop(writes, "put off")
        answers = breaker.answers
        try:
            with breaker.writes.deadline.limit():
                await self._tier.set_many(writes)
        except Exception as error:
            cause = cause_of(error)
            if cause is Cause.REFUSAL or (cause is Cause.FAILURE and breaker.answers > answers):
                # Refused; or it has failed while others were answered, as what is too large may do.
                self._signals.emit(TierFailed(self.name, "set", describe(error), cause is Cause.REFUSAL))
                breaker.writes.failed()
            else:
                breaker.failed("set", error)
            return self._drop(writes, "failed")
        breaker.writes.worked()
        breaker.answers += 1
        if breaker.convalescent:
            breaker.answered()
        return True

    async def delete_many(self, keys: Sequence[str]) -> None:
        """Forget each of `keys`, if the tier can."""
        try:
            await self.breaker.run("delete", self._tier.delete_many, keys, probe=self._tier.ping)
        except TierError:
            return

    async def scan(
        self, beginning: str, wanted: Callable[[str], bool], size: int
    ) -> AsyncGenerator[list[tuple[str, bytes]], None]:
        """What the tier finds, as long as it can; nothing where it is not a `ScannableTier`.

        A failure ends it and is counted, but opens no breaker: it may be that only this is not permitted.
        """
        if not isinstance(self._tier, ScannableTier):
            return
        async with contextlib.aclosing(self._tier.scan(beginning, wanted, size)) as batches:
            while self.available:
                try:
                    with self.breaker.writes.deadline.limit():  # nobody waits for it, either
                        batch = await anext(batches, None)
                except Exception as error:
                    self._signals.emit(TierFailed(self.name, "scan", describe(error)))
                    return
                if batch is None:
                    return
                yield batch

    async def ping(self) -> None:
        """Ask the tier whether it answers; `available` says what came of it."""
        try:
            await self.breaker.run("ping", self._tier.ping, probe=self._tier.ping)
        except TierError:
            return

    def _drop(self, writes: Sequence[Write], reason: str) -> bool:
        for _ in writes:
            self._signals.emit(WriteDropped(self.name, reason))
        return False

    async def aclose(self) -> None:
        """Let go of what the tier holds for the running loop, within the deadline."""
        await self.breaker.aclose()
        try:
            async with asyncio.timeout(self.breaker.deadline.seconds):
                await self._tier.aclose()
        except Exception as error:
            self._signals.emit(TierFailed(self.name, "close", describe(error)))

    def __repr__(self) -> str:
        return f"<Guarded {self._tier!r}, breaker {self.breaker.state}>"
