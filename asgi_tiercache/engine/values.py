"""The story of a function's value: in L1, in a lower tier, being computed by somebody else, or computed now."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from asgi_tiercache.codec.values import ValueCodec
from asgi_tiercache.engine.core import REFRESH_SECONDS, Engine, Place
from asgi_tiercache.engine.fill import Fill
from asgi_tiercache.engine.tags import MAX_TAGS, key_tag, prefix_tags, too_many
from asgi_tiercache.errors import CodecError
from asgi_tiercache.invalidation.knowledge import Verdict
from asgi_tiercache.invalidation.lease import Trust
from asgi_tiercache.signals import Answered, EntryRejected, Refreshed
from asgi_tiercache.stampede import Flight
from asgi_tiercache.types import Entry, Stamp

logger = logging.getLogger("asgi_tiercache")

DIRECT = "(direct)"
"""What values that no function made are called in statistics."""
Loader = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Call:
    """What a value is asked for by."""

    place: Place
    key: str
    canonical: bytes
    codec: ValueCodec
    tags: tuple[str, ...] = ()
    name: str = DIRECT
    """As it appears in statistics."""
    ttl: float | None = None
    """Seconds; in place of the policy's."""
    namespace: str = ""
    """What `key` begins with, if anything; no pattern is made for that alone."""
    whole: str = ""
    """What `key` was before it was cut, where it may have been: patterns find it by that, too."""


class _Made:
    """What a fill brought: the value itself for whoever led it, and what an outer fill has to take over."""

    __slots__ = ("done", "fill", "refusal", "value")

    def __init__(self, fill: Fill) -> None:
        self.fill = fill
        self.done = False
        self.refusal = ""
        self.value: Any = None


class Values:
    """Function values and directly stored ones, over the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def get(self, call: Call) -> tuple[Any] | None:
        """The value in a tuple of one, since None is a value; None where there is no value."""
        started = self._engine.clock.monotonic()
        if await self._engine.trust(call.place.policy) is not Trust.LAPSED:
            hit = await self._find(call, started, None)
            if hit is not None:
                return hit
        self._report(call, "miss", "", started)
        return None

    async def get_or_fill(self, call: Call, load: Loader) -> Any:
        """The value, from the cache or from `load`, which runs once for all who wait.

        Raises:
            CodecError: what `load` returned would not come back from the cache as it is.
        """
        started = self._engine.clock.monotonic()
        arrived = self._engine.fills.begun
        if await self._engine.trust(call.place.policy) is Trust.LAPSED:
            return await self._uncached(call, load, started)
        hit = await self._find(call, started, load)
        if hit is not None:
            return hit[0]
        flight = self._engine.fills.under_way(call.key)
        for _ in range(2):
            if flight is None:
                hit = self._recall(call, started)  # a fill may have landed since this call looked
                return hit[0] if hit is not None else await self._lead(call, load, started)
            if not self._engine.may_wait(flight):  # it is part of what waits for this
                break
            with self._engine.waiting(flight.owner):
                entry = await flight.outcome()
            if entry is None or entry.canonical != call.canonical:
                break
            # A flight that began after this call arrived is good as it is; an older one is judged like a hit (I6).
            young = flight.number > arrived
            verdict = await self._judge(call, entry, young=young)
            if verdict is not Verdict.INVALID:
                self._answer(call, entry, "flight", started, fresh=verdict is Verdict.FRESH)
                return call.codec.load(entry.body)
            flight = self._engine.fills.under_way(call.key)
        return await self._uncached(call, load, started)

    async def set(self, call: Call, value: Any, *, ttl: float, since: Stamp | None = None) -> None:
        """Store `value`, read when the log stood at `since`.

        Raises:
            CodecError: the value would not come back as it is, or it carries too many tags.
        """
        await self._engine.trust(call.place.policy)  # a first contact with the log would make what is stored worthless
        fill = Fill(since or self._engine.invalidation.stamp())
        fill.ttl = ttl
        if self._refusal(call, fill):
            raise CodecError(f"{call.key}: more than {MAX_TAGS} tags")
        self._engine.keep(call.place, call.key, self._entry(call, fill, self._dump(call, value)))

    # ---- steps ----

    async def _find(self, call: Call, started: float, load: Loader | None) -> tuple[Any] | None:
        """What is cached; a stale value only with a `load` that makes it anew."""
        hit = self._recall(call, started)
        if hit is not None:
            return hit
        found = await self._engine.fetch(call.place, call.key, call.canonical)
        if found is None or (found.stale and load is None):
            return None
        if found.stale and load is not None and self._engine.may_refresh(call.key):
            self._refresh(call, load)
        return self._loaded(call, found.entry, found.tier, started, fresh=not found.stale)

    async def _judge(self, call: Call, entry: Entry, *, young: bool) -> Verdict:
        """A young flight's entry is good, but nobody judged it: UNKNOWN."""
        if young:
            return Verdict.UNKNOWN
        return await self._engine.invalidation.judge(entry, strict=call.place.policy.verify)

    def _recall(self, call: Call, started: float) -> tuple[Any] | None:
        if call.place.policy.verify:
            return None
        now = self._engine.clock.monotonic()
        entry = self._engine.recall(call.place.bucket, call.key, call.canonical, now)
        return None if entry is None else self._loaded(call, entry, "L1", started)

    def _loaded(self, call: Call, entry: Entry, tier: str, started: float, *, fresh: bool = True) -> tuple[Any] | None:
        try:
            value = call.codec.load(entry.body)
        except CodecError:  # stored by another version of the function, or by hand
            self._engine.signals.emit(EntryRejected(tier, "no value of this kind"))
            return None
        self._answer(call, entry, tier, started, fresh=fresh)
        return (value,)

    async def _lead(self, call: Call, load: Loader, started: float) -> Any:
        made = _Made(self._engine.begin(call.key))

        async def work(flight: Flight[Entry]) -> None:
            await self._fill(call, load, made, flight)

        with self._engine.waiting(made.fill):
            await self._engine.fills.lead(call.key, work, owner=made.fill).outcome()
        if not made.done:
            raise asyncio.CancelledError(f"{call.name} was cancelled")
        self._engine.inherit(self._tags(call, made.fill), made.fill.stamp, fresh=False)
        self._report(call, "miss", made.refusal, started)
        return made.value

    async def _fill(self, call: Call, load: Loader, made: _Made, flight: Flight[Entry]) -> None:
        self._engine.variable.set(made.fill)
        made.value = await load()
        made.done = True
        made.refusal = self._refusal(call, made.fill)
        if not made.refusal:
            entry = self._entry(call, made.fill, self._dump(call, made.value))
            self._engine.keep(call.place, call.key, entry)
            flight.land(entry)

    def _refresh(self, call: Call, load: Loader) -> None:
        """Make a stale value anew, behind the back of whoever was given it."""
        made = _Made(self._engine.begin(call.key))

        async def work(flight: Flight[Entry]) -> None:
            try:
                async with asyncio.timeout(REFRESH_SECONDS):
                    await self._fill(call, load, made, flight)
            except Exception:
                logger.exception("%s failed while its stale value was being made anew", call.name)
                made.refusal = "failed"
            else:
                if made.refusal:  # what is not to be stored any more is not to be served any more
                    await self._engine.forget(call.key)
            self._engine.signals.emit(Refreshed(call.name, made.refusal or "stored"))

        self._engine.refresh(call.key, work, owner=made.fill)

    async def _uncached(self, call: Call, load: Loader, started: float) -> Any:
        fill = self._engine.begin(call.key)
        with self._engine.running(fill):
            value = await load()
        self._engine.inherit(self._tags(call, fill), fill.stamp, fresh=False)
        self._report(call, "miss", "not-shared", started)
        return value

    # ---- entries ----

    def _entry(self, call: Call, fill: Fill, body: bytes) -> Entry:
        return Entry(
            stamp=fill.stamp,
            created=self._engine.clock.time(),
            lifetime=self._lifetime(call, fill),
            canonical=call.canonical,
            tags=self._tags(call, fill),
            body=body,
        )

    def _refusal(self, call: Call, fill: Fill) -> str:
        """Why the value is not stored; empty if it is."""
        if fill.refused:
            return "no-store"
        if self._lifetime(call, fill) <= 0:
            return "ttl"
        return "too-many-tags" if too_many(self._tags(call, fill)) else ""

    @staticmethod
    def _dump(call: Call, value: Any) -> bytes:
        try:
            return call.codec.dump(value)
        except CodecError as error:
            if call.name == DIRECT:
                raise CodecError(f"{call.key}: {error}") from None
            raise

    @staticmethod
    def _lifetime(call: Call, fill: Fill) -> float:
        for ttl in (fill.ttl, call.ttl, call.place.policy.ttl):
            if ttl is not None:
                return ttl
        return 0.0

    @staticmethod
    def _tags(call: Call, fill: Fill) -> tuple[str, ...]:
        whole = call.whole or call.key
        implicit = (key_tag(call.key), key_tag(whole), *prefix_tags(whole, call.namespace))
        return tuple(dict.fromkeys((*call.tags, *fill.tags, *implicit)))

    def _answer(self, call: Call, entry: Entry, tier: str, started: float, *, fresh: bool) -> None:
        self._engine.inherit(entry.tags, entry.stamp, fresh=fresh)
        self._report(call, "hit", tier, started)

    def _report(self, call: Call, outcome: str, detail: str, started: float) -> None:
        seconds = self._engine.clock.monotonic() - started
        self._engine.signals.emit(Answered(call.name, outcome, detail, seconds))
