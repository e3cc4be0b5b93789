"""The engine: where an entry is looked for, who judges it, and how a new one is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

from asgi_tiercache.config import LONGEST_LIFETIME, Policy
from asgi_tiercache.engine.fill import IDLE, Fill, IdleFill, Running, Waiting
from asgi_tiercache.engine.reclaim import Reclaimer
from asgi_tiercache.errors import CodecError, NoFillError
from asgi_tiercache.invalidation.knowledge import Verdict
from asgi_tiercache.invalidation.lease import Trust
from asgi_tiercache.invalidation.service import Invalidation
from asgi_tiercache.signals import Signals, WriteDropped
from asgi_tiercache.stampede import Flight, Flights, SharedReads, Unshareable
from asgi_tiercache.tiers.memory import Bucket, Memory
from asgi_tiercache.tiers.stack import Stack
from asgi_tiercache.types import Clock, Entry, Stamp

MAX_REFRESHES = 32
"""Fills at the same time that nobody waits for."""


REFRESH_SECONDS = 60.0
"""Real time that such a fill may take."""


class Place(NamedTuple):
    """Where the entries of a route or a function live."""

    bucket: Bucket
    policy: Policy


class Found(NamedTuple):
    """An entry that was found, and where."""

    entry: Entry
    tier: str
    stale: bool = False
    """Invalidated softly: to be served while it is made anew (I10)."""

    def usable(self, now: float) -> bool:
        """Whether nothing better need be looked for; `now` is the monotonic clock."""
        return not self.stale and now < self.entry.expires


class Engine:
    """Look up, judge, fill once, store: over one L1, the lower tiers and one invalidation log."""

    def __init__(
        self,
        *,
        memory: Memory,
        stack: Stack | None,
        invalidation: Invalidation,
        signals: Signals,
        clock: Clock,
    ) -> None:
        self.memory = memory
        self.stack = stack
        self.invalidation = invalidation
        self.knowledge = invalidation.knowledge
        self.lease = invalidation.lease
        self.signals = signals
        self.clock = clock
        self.reclaimer = Reclaimer(memory, stack, clock)
        self.fills: Flights[Entry] = Flights()
        self.unshareable = Unshareable()
        self._refreshing = 0
        self._kept = 0
        """How many entries have been stored; tells a read whether it may have been overtaken."""
        self.reads: SharedReads[Found | None] = SharedReads()
        """What is being read from lower tiers."""
        self.reporters: list[Callable[[], None]] = []
        """Called before statistics are read: who has signals to catch up on emits them."""
        self.variable: ContextVar[Fill | None] = ContextVar("asgi_tiercache.current", default=None)
        """The variable behind `current`."""

    def __repr__(self) -> str:
        return f"<Engine {self.memory!r} {self.stack!r} {self.invalidation!r}>"

    # ---- the fill that is running ----

    @property
    def current(self) -> Fill:
        """The fill that is running in this context.

        Raises:
            NoFillError: there is none; this is neither a handler nor a cached function.
        """
        fill = self.variable.get()
        if fill is None:
            raise NoFillError("cache.current is there while a handler or a cached function runs, and only then")
        return fill

    def inherit(self, tags: Sequence[str], stamp: Stamp, *, fresh: bool) -> None:
        """Hand the tags of a value that was just read to the fill that reads it, if there is one (rule I2)."""
        outer = self.variable.get()
        if outer is not None:
            outer.inherit(tags, stamp, fresh=fresh)

    def begin(self, key: str) -> Fill:
        """Stamp a fill, before anything is read for it (rule I2)."""
        return Fill(self.invalidation.stamp(), key=key)

    def may_wait(self, flight: Flight[Entry]) -> bool:
        """Whether what runs here can wait for `flight` without each waiting for the other in the end."""
        outer, fill = self.variable.get(), flight.owner
        return outer is None or not isinstance(fill, Fill) or not fill.needs(outer)

    def waiting(self, fill: object) -> Waiting:
        """A context in which what runs here waits for `fill`."""
        return Waiting(self.variable.get(), fill)

    def running(self, fill: Fill) -> Running:
        """A context in which `fill` runs, and what ran before waits for it."""
        return Running(self.variable, self.variable.get(), fill)

    def standing_aside(self) -> Running:
        """A context for a handler whose response is not being cached."""
        outer = self.variable.get()
        return Running(self.variable, outer, IDLE if outer is None else IdleFill(IDLE.stamp))

    # ---- looking up ----

    def recall(self, bucket: Bucket, key: str, canonical: bytes, now: float) -> Entry | None:
        """The entry in L1, if this worker can say at once that it is good; `now` is the monotonic clock."""
        entry = bucket.get(key, now)
        if entry is None or entry.canonical != canonical:
            return None
        if entry.checked == self.knowledge.version or self.invalidation.current(entry):
            return entry
        return None

    async def trust(self, policy: Policy) -> Trust:
        """How far entries may be used right now: the lease, and what the policy says without it (rule I7)."""
        if self.clock.monotonic() < self.lease.attention_at:
            return Trust.VERIFIED
        trust = await self.invalidation.confirm()
        return Trust.LAPSED if trust is Trust.UNVERIFIED and policy.unverified == "bypass" else trust

    async def fetch(self, place: Place, key: str, canonical: bytes) -> Found | None:
        """The entry in L1, asking the log about it where need be, or in a lower tier; valid in each case.

        One that is not to be used as it is, being stale or past its freshness, is returned only where no tier has a
        better one: another worker may have made it anew.
        """
        found = None
        if key in place.bucket.held:  # most who ask have looked, and found nothing; a miss costs more than this
            now = self.clock.monotonic()
            held = place.bucket.get(key, now) or place.bucket.retained(key, now)
            found = None if held is None else await self._judged(Found(held, "L1"), place, canonical)
        stack = self.stack
        if stack is None or (found is not None and found.usable(self.clock.monotonic())):
            return found
        read = await self.reads.read(key, self._read, stack, place, key, canonical)
        # A read may be shared by requests that arrived while it was under way, so each judges what it gets (I6).
        if (
            read is not None
            and read.entry.checked == self.knowledge.version
            and read.entry.canonical == canonical
            and not place.policy.verify
        ):
            return read
        lower = None if read is None else await self._judged(read, place, canonical)
        return self._better(found, lower)

    def _better(self, found: Found | None, lower: Found | None) -> Found | None:
        """The one to use; of two that need a word from the handler, the one made later."""
        if found is None or lower is None:
            return found or lower
        if lower.usable(self.clock.monotonic()):
            return lower
        return found if found.entry.created >= lower.entry.created else lower

    async def _judged(self, found: Found, place: Place, canonical: bytes) -> Found | None:
        if found.entry.canonical != canonical:
            return None
        strict = place.policy.verify
        if not strict and self.invalidation.current(found.entry):
            return found
        verdict = await self.invalidation.judge(found.entry, strict=strict)
        if verdict is Verdict.INVALID:
            return None
        return found._replace(stale=True) if verdict is Verdict.STALE else found

    async def _read(self, alone: bool, stack: Stack, place: Place, key: str, canonical: bytes) -> Found | None:
        kept = self._kept
        located = await stack.get(key, alone=alone)
        if located is None or located[0].canonical != canonical:
            return None
        entry, tier = located
        if not self._timed(entry, place.policy):
            return None
        current = self.invalidation.judge_here(entry) is Verdict.FRESH
        stale = False
        if not current:
            verdict = await self.invalidation.judge(entry)
            if verdict is Verdict.INVALID:
                return None
            stale = verdict is Verdict.STALE
        now = self.clock.monotonic()
        if stale or kept != self._kept or now >= entry.expires:
            since = place.bucket.retained(key, now)
            if since is not None and since.created >= entry.created:
                return Found(since, "L1")  # perhaps stored while this was being read; or stale, but less so
        if current:
            place.bucket.put(key, entry)
        else:
            self._admit(place.bucket, key, entry)
        return Found(entry, tier)

    # ---- making anew what is stale ----

    def may_refresh(self, key: str) -> bool:
        """Whether a fill that nobody waits for may begin: none is under way already, nor are too many of them."""
        return self._refreshing < MAX_REFRESHES and self.fills.under_way(key) is None

    def refresh(self, key: str, work: Callable[[Flight[Entry]], Coroutine[Any, Any, None]], *, owner: Fill) -> None:
        """Begin a fill that nobody waits for, where `may_refresh` allows it."""
        self._refreshing += 1
        self.fills.lead(key, work, owner=owner).task.add_done_callback(self._refreshed)

    def _refreshed(self, task: object) -> None:
        self._refreshing -= 1

    # ---- storing ----

    def keep(self, place: Place, key: str, entry: Entry) -> None:
        """Store a new entry: in L1 before this returns, in the lower tiers behind the caller's back."""
        entry.lifetime = min(entry.lifetime, LONGEST_LIFETIME)
        entry.retention = min(entry.retention, LONGEST_LIFETIME - entry.lifetime)
        if not self._timed(entry, place.policy):
            return
        self._kept += 1
        if not self._admit(place.bucket, key, entry):
            place.bucket.discard(key)  # what it replaces must not go on answering
        if self.stack is not None:
            remaining = entry.created + entry.lifetime + entry.retention - self.clock.time()
            try:
                self.stack.put(key, entry, compress=place.policy.compress, ttl=remaining)
            except CodecError as error:
                self.signals.emit(WriteDropped("L2", str(error)))

    async def make_stale(self, place: Place, key: str, entry: Entry) -> None:
        """End the freshness of a stored entry, which may go on being validated; of no use without that, it goes."""
        if not entry.retention:
            return await self.forget(key)
        age = max(0.0, self.clock.time() - entry.created)
        self.keep(place, key, dataclasses.replace(entry, lifetime=min(entry.lifetime, age)))

    async def forget(self, *keys: str) -> None:
        """Drop what is stored under `keys`, in every tier that this worker reaches."""
        for key in keys:
            self.memory.discard(key)
        if self.stack is not None:
            await self.stack.delete(keys)

    def _timed(self, entry: Entry, policy: Policy) -> bool:
        """Give the entry its place on this process's monotonic clock; False if it is of no use any more."""
        clock = self.clock
        now = clock.monotonic()
        age = clock.time() - entry.created
        age = max(age, 0.0)
        lifetime, bound = entry.lifetime, policy.l1_ttl
        fresh = (lifetime if lifetime < LONGEST_LIFETIME else LONGEST_LIFETIME) - age
        kept = lifetime + entry.retention
        kept = (kept if kept < LONGEST_LIFETIME else LONGEST_LIFETIME) - age
        if bound is not None and bound < kept:
            kept = bound
        entry.at = entry.stamp.position
        entry.born = now - age
        entry.expires = now + (fresh if fresh < kept else kept)
        entry.ends = now + kept
        return kept > 0

    def _admit(self, bucket: Bucket, key: str, entry: Entry) -> bool:
        """Let an entry into L1 if this worker can say what it is worth, and only then (rule I5)."""
        verdict = self.invalidation.judge_here(entry)
        return (verdict is Verdict.FRESH or verdict is Verdict.STALE) and bucket.put(key, entry)
