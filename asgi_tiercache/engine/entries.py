"""Entries: where one is looked for, who judges it, and how a new one is kept."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from asgi_tiercache.admission import Admission, Doorkeepers
from asgi_tiercache.ageing import FillTime, Random, early_at, jittered
from asgi_tiercache.config import LONGEST_LIFETIME, Policy
from asgi_tiercache.engine.fill import Fill
from asgi_tiercache.errors import CodecError
from asgi_tiercache.invalidation.knowledge import Verdict
from asgi_tiercache.invalidation.lease import Trust
from asgi_tiercache.invalidation.service import Invalidation
from asgi_tiercache.keys.request import Memos
from asgi_tiercache.signals import EntryRejected, Signals, WriteDropped
from asgi_tiercache.stampede import SharedReads
from asgi_tiercache.tiers.leases import WITHOUT, Ended, Lease
from asgi_tiercache.tiers.memory import Bucket, Memory
from asgi_tiercache.tiers.stack import Stack
from asgi_tiercache.tiers.writes import Told
from asgi_tiercache.types import EVERY_KIND, MARKER, Clock, Entry

logger = logging.getLogger("asgi_tiercache")

TOO_MANY_KEYS = "too-many-keys"
"""Why something was not stored that could have been."""
MAX_SKEW = 3_600.0
"""Seconds that another machine's wall clock may be ahead of this one's; what is dated later would never grow old."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where the entries of a route or a function live, and what is known of making them."""

    bucket: Bucket
    policy: Policy
    admission: Admission | None = None
    """Which of its new keys are stored; None: all."""
    fill_time: FillTime = field(default_factory=FillTime)


class Found(NamedTuple):
    """An entry that was found, and where."""

    entry: Entry
    tier: str
    stale: bool = False
    """Invalidated softly: to be served while it is made anew (I10)."""

    def usable(self, now: float) -> bool:
        """Whether nothing better need be looked for; `now` is the monotonic clock."""
        return not self.stale and now < self.entry.expires

    def early(self, now: float) -> bool:
        """Whether it is fresh, and yet the time has come to renew it behind the back of whoever is given it."""
        entry = self.entry
        return not self.stale and entry.expires <= now < min(entry.born + entry.lifetime, entry.ends)


class Entries:
    """Look up, judge, store: over one L1, the lower tiers and one invalidation log."""

    def __init__(
        self,
        *,
        memory: Memory,
        stack: Stack | None,
        invalidation: Invalidation,
        signals: Signals,
        clock: Clock,
        random: Random = random.random,
    ) -> None:
        self.memory = memory
        self.stack = stack
        self.invalidation = invalidation
        self.knowledge = invalidation.knowledge
        self.lease = invalidation.lease
        self.signals = signals
        self.clock = clock
        self.reads: SharedReads[Found | None] = SharedReads()
        """What is being read from lower tiers."""
        self.memos = Memos()
        """Bounds what routes remember of keys."""
        self._doorkeepers = Doorkeepers()
        self._random = random
        self._kept = 0
        """How many entries have been stored; tells a read whether it may have been overtaken."""

    def place(self, policy: Policy) -> Place:
        """A place for the entries of one route or function.

        Raises:
            ConfigError: the region of that name has other bounds.
        """
        most = policy.max_keys
        admission = None if most is None else Admission(most, self._doorkeepers)
        return Place(self.memory.bucket(policy.region), policy, admission)

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

    async def fetch(self, place: Place, key: str, canonical: bytes, kinds: frozenset[int] = EVERY_KIND) -> Found | None:
        """The entry in L1, asking the log about it where need be, or in a lower tier; valid in each case.

        One that is not to be used as it is, being stale or past its freshness, is returned only where no tier has a
        better one: another worker may have made it anew.

        Args:
            place: Whose it is.
            key: Where it is looked for.
            canonical: What it has to answer.
            kinds: Every `status` that it may have.
        """
        found = None
        if key in place.bucket.held:  # most who ask have looked, and found nothing; a miss costs more than this
            now = self.clock.monotonic()
            held = place.bucket.get(key, now) or place.bucket.retained(key, now)
            found = None if held is None else await self.judged(Found(held, "L1"), place, canonical)
        stack = self.stack
        if stack is None:
            return found
        if found is not None:
            now = self.clock.monotonic()
            if found.usable(now) or found.early(now):  # who renews it looks below; nobody waits for that
                return found
        read = await self.reads.read(key, self._read, stack, place, key, canonical, kinds)
        # A read may be shared by requests that arrived while it was under way, so each judges what it gets (I6).
        if (
            read is not None
            and read.entry.checked == self.knowledge.version
            and read.entry.canonical == canonical
            and not place.policy.verify
        ):
            return read
        lower = None if read is None else await self.judged(read, place, canonical)
        return self._better(found, lower)

    def _better(self, found: Found | None, lower: Found | None) -> Found | None:
        """The one to use; of two that need a word from the handler, the one made later."""
        if found is None or lower is None:
            return found or lower
        if lower.usable(self.clock.monotonic()):
            return lower
        return found if found.entry.created >= lower.entry.created else lower

    async def look_below(
        self,
        place: Place,
        key: str,
        canonical: bytes,
        kinds: frozenset[int] = EVERY_KIND,
        *,
        newer_than: Entry | None = None,
        suits: Callable[[Entry], bool] | None = None,
    ) -> Found | None:
        """What another worker has stored meanwhile, fresh and valid; asks a lower tier once, for this caller alone.

        Args:
            place: Whose it is.
            key: Where it is looked for.
            canonical: What it has to answer.
            kinds: Every `status` that it may have.
            newer_than: What is at hand already.
            suits: Says of an entry whether the caller can use it.
        """
        stack, kept = self.stack, self._kept
        located = None if stack is None else await stack.get(key)
        if located is None:
            return None
        entry, tier = located
        if not self._answers(entry, tier, canonical, kinds):
            return None
        older = newer_than is not None and entry.created <= newer_than.created
        if older or not (suits is None or suits(entry)) or not self._timed(entry, place):
            return None
        found = await self.judged(Found(entry, tier), place, canonical)
        now = self.clock.monotonic()
        if found is None or not found.usable(now):
            return None
        if kept != self._kept:
            since = place.bucket.retained(key, now)
            if since is not None and since.created >= entry.created:
                return None
        self._admit(place.bucket, key, entry)
        return found

    async def judged(self, found: Found, place: Place, canonical: bytes) -> Found | None:
        """`found` with what the log says of it now; None if it is not valid any more, or never was the answer."""
        if found.entry.canonical != canonical:
            return None
        strict = place.policy.verify
        if not strict and self.invalidation.current(found.entry):
            return found
        verdict = await self.invalidation.judge(found.entry, strict=strict)
        if verdict is Verdict.INVALID:
            return None
        return found._replace(stale=True) if verdict is Verdict.STALE else found

    async def _read(
        self, alone: bool, stack: Stack, place: Place, key: str, canonical: bytes, kinds: frozenset[int]
    ) -> Found | None:
        kept = self._kept
        located = await stack.get(key, alone=alone)
        if located is None:
            return None
        entry, tier = located
        if not self._answers(entry, tier, canonical, kinds):
            return None
        if not self._timed(entry, place):
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

    def _answers(self, entry: Entry, tier: str, canonical: bytes, kinds: frozenset[int]) -> bool:
        """Whether what was found in a lower tier can be what was asked for; anybody may have put it there."""
        if entry.canonical != canonical:
            reason = "another request's"
        elif entry.status not in kinds:
            reason = "another kind"
        elif entry.created - self.clock.time() > MAX_SKEW:
            reason = "dated ahead"
        else:
            return True
        self.signals.emit(EntryRejected(tier, reason))
        return False

    # ---- storing ----

    def admits(self, place: Place, key: str, lifetime: float, name: str) -> bool:
        """Whether there is room for one more key; to be asked once for each response or value that may be stored.

        Args:
            place: Where it would live.
            key: What it would be found by; nothing is known to be stored there, but perhaps in memory.
            lifetime: Seconds for which it would be kept.
            name: What the place is called in the log.
        """
        admission = place.admission
        if admission is None or key in place.bucket.held:
            return True
        if admission.admits(key, self.clock.monotonic(), min(lifetime, LONGEST_LIFETIME)):
            return True
        if admission.tell():
            logger.warning(
                "%r has more keys than are stored at first sight (max_keys=%d): of further ones, for now, at most those"
                " that are asked for again",
                name,
                place.policy.max_keys,
            )
        return False

    def give(self, place: Place, entry: Entry, *, lease: Lease = WITHOUT, fill: Fill | None = None) -> None:
        """Make ready an entry that is not stored, and is given to those who wait for it; arguments as for `keep`."""
        if fill is not None:
            place.fill_time.add(self.clock.monotonic() - fill.running_since)
        self._timed(entry, place)
        lease.end(Ended.NOTHING)

    def keep(self, place: Place, key: str, entry: Entry, *, lease: Lease = WITHOUT, fill: Fill | None = None) -> None:
        """Store a new entry: in L1 before this returns, in the lower tiers behind the caller's back.

        Args:
            place: Where it lives.
            key: What it is found by.
            entry: What is stored.
            lease: Ends once others find the entry in the tier that they share, or it turns out that they will not.
            fill: What made it, if that was just now: how long it took is learned, and chance shortens the lifetime
                where the policy has `jitter`.
        """
        if fill is not None:
            place.fill_time.add(self.clock.monotonic() - fill.running_since)
            if place.policy.jitter:
                entry.lifetime = jittered(entry.lifetime, place.policy.jitter, self._random)
        entry.lifetime = min(entry.lifetime, LONGEST_LIFETIME)
        entry.retention = min(entry.retention, LONGEST_LIFETIME - entry.lifetime)
        if not self._timed(entry, place):
            lease.end(Ended.NOTHING)
            return
        self._kept += 1
        if not self._admit(place.bucket, key, entry):
            place.bucket.discard(key)  # what it replaces must not go on answering
        if self.stack is None:
            lease.end(Ended.NOTHING)
        else:
            remaining = entry.created + entry.lifetime + entry.retention - self.clock.time()
            try:
                self.stack.put(key, entry, compress=place.policy.compress, ttl=remaining, told=_ending(lease))
            except CodecError as error:
                lease.end(Ended.NOTHING)
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

    def _timed(self, entry: Entry, place: Place) -> bool:
        """Give the entry its place on this process's monotonic clock; False if it is of no use any more.

        Where the policy has it renewed early, it `expires` when the time for that has come, and is fresh until
        `born + lifetime` all the same.
        """
        policy = place.policy
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
        if policy.early_refresh and entry.status != MARKER:
            beta = policy.early_refresh
            early = early_at(now, now + fresh, place.fill_time.seconds, beta, self._random)
            entry.expires = min(entry.expires, early)
        entry.ends = now + kept
        return kept > 0

    def _admit(self, bucket: Bucket, key: str, entry: Entry) -> bool:
        """Let an entry into L1 if this worker can say what it is worth, and only then (rule I5)."""
        verdict = self.invalidation.judge_here(entry)
        return (verdict is Verdict.FRESH or verdict is Verdict.STALE) and bucket.put(key, entry)


def _ending(lease: Lease) -> Told | None:
    """What ends `lease` once it is known whether the entry was written; on the event loop that the lease belongs to."""
    if lease is WITHOUT:
        return None
    loop = asyncio.get_running_loop()

    def told(written: bool) -> None:
        with contextlib.suppress(RuntimeError):  # that loop is closed, and its leases with it
            loop.call_soon_threadsafe(lease.end, Ended.STORED if written else Ended.NOTHING)

    return told
