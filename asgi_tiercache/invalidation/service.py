"""Who is valid: the log, what this worker knows of it, and for how long that knowledge counts (rules I4 to I10)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from asgi_tiercache.errors import TierError
from asgi_tiercache.invalidation.held import Held
from asgi_tiercache.invalidation.knowledge import Knowledge, Verdict
from asgi_tiercache.invalidation.lease import MAX_LAG, MAX_UNVERIFIED, Lease, Trust
from asgi_tiercache.invalidation.listeners import Listeners
from asgi_tiercache.invalidation.log import MAX_PATTERNS, Answer, Appended, InvalidationLog, ProcessLog, Purge, Record
from asgi_tiercache.invalidation.tail import Tail
from asgi_tiercache.signals import Invalidated, Signals
from asgi_tiercache.tiers.loops import OneTask, PerLoop
from asgi_tiercache.types import Clock, Entry, Stamp

logger = logging.getLogger("asgi_tiercache")

T = TypeVar("T")

FIRST_RETRY = 0.5
LONGEST_RETRY = 5.0
"""Seconds between attempts to send what the log has not taken."""
MAX_PAGES = 16
"""Reads in a row to catch up with the log; a worker that is further behind treats the rest as a gap (I8)."""
CLOSE_SECONDS = 5.0
A_TICK = 0.002
"""Seconds: positions count in milliseconds, and are rounded."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What came of an invalidation."""

    durable: bool
    """True: it stands in the log, and on a replica where that was asked for. False: Redis did not take it, and it holds
    on this worker and is sent again until Redis takes it; or no replica has confirmed it in time."""
    position: int | None
    """Its id in the log; None where the log did not take it."""
    names: tuple[str, ...]
    """The tags and patterns that were invalidated; empty for everything."""


class Invalidation:
    """Judges entries, stamps fills and makes invalidations.

    Args:
        log: Where invalidations are recorded.
        clock: Lifetimes of the lease are measured by its `monotonic`.
        signals: Receives `Invalidated`.
        drop_memory: Empties L1; called when the control state is another one than L1 was filled under.
        max_lag: Seconds for which an answer of the log lets this worker judge by itself (the lease, I7).
        max_unverified: Seconds for which entries may be served after the lease, while the log is out of reach.
    """

    def __init__(
        self,
        log: InvalidationLog,
        *,
        clock: Clock,
        signals: Signals,
        drop_memory: Callable[[], None],
        max_lag: float = MAX_LAG,
        max_unverified: float = MAX_UNVERIFIED,
    ) -> None:
        self.log = log
        self._clock = clock
        self._signals = signals
        self._drop_memory = drop_memory
        self._held = Held()
        self._settled_at = -math.inf
        """Monotonic clock at which the last invalidation that this worker dated ahead begins to count as past."""
        self._question: tuple[asyncio.AbstractEventLoop, asyncio.Task[bool]] | None = None
        self._retrying = PerLoop(OneTask, OneTask.aclose)
        self.knowledge = Knowledge()
        self.lease = Lease(clock.monotonic(), max_lag=max_lag, max_unverified=max_unverified)
        self.listeners = Listeners(signals)
        self.tail = Tail(log, self.knowledge, clock, self._apply, self._hear_of_it)
        if isinstance(log, ProcessLog):  # nobody else writes into it, and it answers at once: known for good
            self.knowledge.heard(log.answer())
            self._renew_lease(clock.monotonic())

    def __repr__(self) -> str:
        return f"<Invalidation {self.log!r} {self.knowledge!r} pending={len(self._held)}>"

    @property
    def held(self) -> int:
        """How many invalidations wait for the log to take them."""
        return len(self._held)

    async def start(self) -> None:
        """Hear of the log, and follow it."""
        await self.confirm()
        self.tail.start()

    async def aclose(self, within: float = CLOSE_SECONDS) -> None:
        """Send what is held, if the log takes it now, and end what runs on this loop.

        Callbacks may go on for `within` seconds.
        """
        loop = asyncio.get_running_loop()
        await self.tail.aclose()
        if self._held:
            self._renewal()
        if self._question is not None and self._question[0] is loop:
            await asyncio.wait([self._question[1]])
        await self._retrying.aclose()
        await self.listeners.aclose(within)

    # ---- judging ----

    def stamp(self) -> Stamp:
        """What a fill that begins now must carry; taken before anything is read (I2)."""
        return self.knowledge.stamp()

    def current(self, entry: Entry) -> bool:
        """Whether `entry` is fresh by what this worker knows; one comparison where nothing changed."""
        return entry.checked == self.knowledge.version or self.judge_here(entry) is Verdict.FRESH

    async def judge(self, entry: Entry, *, strict: bool = False) -> Verdict:
        """FRESH, STALE or INVALID, asking the log where this worker cannot tell, or always if `strict` (I5)."""
        verdict = self.judge_here(entry)
        if verdict is Verdict.INVALID or (verdict is not Verdict.UNKNOWN and not strict):
            return verdict
        leased = self._clock.monotonic() < self.lease.until
        if strict and not leased and await self.confirm() is not Trust.VERIFIED:
            return Verdict.INVALID  # what answers may be a replica that is cut off
        sent = self.knowledge.stamp()
        answer = await self._try(lambda: self.log.ask(entry.tags))
        if answer is None or not self._hear(answer, sent) or answer.epoch != sent.epoch:
            return Verdict.INVALID
        held = self._held.judge(entry)
        return _worse(held, self.knowledge.learn(entry, answer))

    def judge_here(self, entry: Entry) -> Verdict:
        """What this worker can say of `entry` by itself; UNKNOWN where it would have to ask."""
        knowledge = self.knowledge
        version = knowledge.version  # before judging: another thread may raise it meanwhile
        if entry.checked == version:
            return Verdict.FRESH
        # What is held first: once it is sent, the map knows of it.
        held = self._held.judge(entry) if self._held.waiting else None
        verdict = knowledge.judge(entry)
        if held is not None:
            verdict = _worse(held, verdict)
        if verdict is Verdict.FRESH:
            entry.checked = version
        return verdict

    # ---- the lease ----

    async def confirm(self) -> Trust:
        """How far local judgement counts now; asks the log where the lease is over, renews it early where it ages."""
        if self._clock.monotonic() < self.lease.until:
            self.tail.start()  # this loop has lived for a while: worth a connection of its own
            self._renewal()
            self.lease.renewing()
            return Trust.VERIFIED
        if self.log.out_of_reach:  # each hit comes here meanwhile: a task for the question would be felt
            return self.lease.trust(self._clock.monotonic())
        heard = await self._hear_of_it()
        trust = self.lease.trust(self._clock.monotonic())
        if trust is Trust.VERIFIED and not heard:
            return Trust.UNVERIFIED
        return trust  # not verified, too, if the answer has taken longer than it is good for

    async def _hear_of_it(self) -> bool:
        return await asyncio.shield(self._renewal())

    def _renewal(self) -> asyncio.Task[bool]:
        loop = asyncio.get_running_loop()
        if self._question is None or self._question[0] is not loop or self._question[1].done():
            self._question = loop, loop.create_task(self._renew())
        return self._question[1]

    async def _renew(self) -> bool:
        """Send what is held, ask, and read what was missed; whether all that has been done."""
        if not await self._replay():
            return False
        asked_at, sent = self._clock.monotonic(), self.knowledge.stamp()
        answer = await self._try(self.log.confirm)
        if answer is None or not self._hear(answer, sent) or not await self._catch_up(answer):
            return False
        if not self._held:
            self._renew_lease(asked_at)
        return True

    def _hear(self, answer: Answer, sent: Stamp) -> bool:
        """Take over what an answer says; False if it cannot count.

        An answer to a question that was sent before the worker changed its epoch is void (I7).
        """
        if sent.epoch != self.knowledge.epoch:
            return False
        if answer.epoch == sent.epoch and answer.clock < sent.position:
            self._hold(Purge(everything=True))  # the log went back, as in a failover: nobody can tell what it lost
            return False
        if not self.knowledge.heard(answer):
            self._drop_memory()
        return True

    async def _catch_up(self, answer: Answer) -> bool:
        """Apply what the log holds up to the answer's clock; what it no longer holds is a gap (I8)."""
        knowledge = self.knowledge
        for _ in range(MAX_PAGES):
            position = knowledge.position
            if position >= answer.clock:
                break
            records = await self._try(lambda after=position: self.log.read(after))  # type: ignore[misc]
            if records is None or knowledge.epoch != answer.epoch:
                return False
            self._apply(records)
            if knowledge.position == position:
                break
        if knowledge.epoch != answer.epoch:
            return False
        knowledge.skip_to(answer.clock)
        return True

    def _apply(self, records: Sequence[Record]) -> None:
        """Apply what was read of the log (I5)."""
        for record in records:
            same = record.epoch == self.knowledge.epoch
            new = record.id > self.knowledge.position or not same
            if same and record.previous < self.knowledge.position < record.id:
                self._hold(Purge(everything=True))  # the log went back, and has gone on since without what it lost
            if not self.knowledge.apply(record):
                self._drop_memory()
            if new and not record.own:
                self.listeners.tell(record.purge, record.id, here=False)

    def _renew_lease(self, sent: float) -> None:
        if self.log.shared:
            self.lease.renew(sent)
        else:
            now = self._clock.monotonic()  # while something is dated ahead, the log's clock moves on each second
            self.lease.hold_until(min(self._settled_at, now + 1.0) if self._settled_at > now else math.inf)

    # ---- invalidating ----

    async def invalidate(
        self,
        tags: Sequence[str],
        *,
        patterns: Sequence[str] = (),
        kind: str = "tag",
        soft: bool = False,
        settle: float = 0.0,
        replicate: bool = False,
    ) -> Receipt:
        """Make what carries one of `tags` or matches one of `patterns` invalid: for this worker before this returns.

        Args:
            tags: Exact tags, implicit ones included.
            patterns: Globs over keys.
            kind: What it is called in statistics.
            soft: Make stale rather than invalid.
            settle: Seconds for which what is read at the origin still counts as older.
            replicate: Let it be durable only if a replica has confirmed it.
        """
        purge = Purge(tuple(dict.fromkeys(tags)), tuple(dict.fromkeys(patterns)), False, soft, settle)
        return await self._purge(purge, kind, replicate=replicate)

    async def clear(self, *, soft: bool = False, settle: float = 0.0, replicate: bool = False) -> Receipt:
        """Make everything invalid, or stale."""
        return await self._purge(Purge(everything=True, soft=soft, settle=settle), "all", replicate=replicate)

    async def holds_only(self, since: Stamp, positions: Sequence[int]) -> bool:
        """Whether the log, from just behind `since` up to the last of `positions`, holds these invalidations alone.

        Asks the log, since what others have appended may not have been applied here. False where it cannot tell.
        """
        records = await self._try(lambda: self.log.read(since.position))
        chain = since.position
        for record in records or ():
            if record.previous != chain or record.epoch != since.epoch or record.id not in positions:
                return False
            chain = record.id
            if chain == positions[-1]:
                return True
        return False

    async def _purge(self, purge: Purge, kind: str, *, replicate: bool) -> Receipt:
        names = purge.tags + purge.patterns
        if not purge:
            return Receipt(durable=True, position=None, names=names)
        try:
            appended = await self._append(purge, replicate=replicate)
        except BaseException:
            self._hold(purge)  # the caller gives up, but its data is committed
            raise
        if appended is None:
            self._hold(purge)
        elif self._held:  # the log is in reach: now is the time
            self._renewal()
        if purge.everything and not purge.soft:
            self._drop_memory()
        durable = appended is not None and appended.replicated
        self._signals.emit(Invalidated(kind, len(names), durable))
        return Receipt(durable=durable, position=appended.id if appended else None, names=names)

    async def _append(self, purge: Purge, *, replicate: bool = False) -> Appended | None:
        """Write into the log, and apply it here before anything else happens; None: the log did not take it."""
        sent = self.knowledge.epoch
        appended = await self._try(lambda: self.log.append(purge, replicate=replicate))
        if appended is None:
            return None
        self.listeners.tell(purge, appended.id, here=True)
        if appended.everything and not purge.everything:  # more than was asked for is never silent
            logger.warning("more than %d patterns to be told apart: %r made all invalid", MAX_PATTERNS, purge.patterns)
        if self.knowledge.is_late(sent, appended.epoch):
            self._hold(purge)  # which of the two epochs is the newer, nobody can tell: it holds here until sent again
            return appended
        if not self.knowledge.appended(appended, purge):
            self._drop_memory()
        if self.knowledge.position < appended.id:
            self._fell_behind()
        if purge.settle and not self.log.shared:
            self._settled_at = max(self._settled_at, self._clock.monotonic() + purge.settle + A_TICK)
            self._renew_lease(self._clock.monotonic())
        return appended

    def _fell_behind(self) -> None:
        """Others have appended before: until that is read, what is filled here counts as older than what they did."""
        if not self.log.shared:
            self.lease.end()
        elif not self.tail.running:
            self._renewal()

    async def _try(self, call: Callable[[], Awaitable[T]]) -> T | None:
        try:
            return await call()
        except TierError:
            return None

    # ---- invalidations that the log has not taken yet (I9) ----

    def _hold(self, purge: Purge) -> None:
        self._held.add(purge)
        self.knowledge.look_again()
        self.lease.end()
        with contextlib.suppress(RuntimeError):  # a loop that is ending: whoever uses the cache next sends it
            self._retrying.get().begin(self._retry)

    async def _retry(self) -> None:
        """Send what is held until nothing is, also on a worker that is asked for nothing meanwhile."""
        pause = FIRST_RETRY
        while self._held:
            await self._clock.sleep(pause)
            pause = min(2 * pause, LONGEST_RETRY)
            await asyncio.shield(self._renewal())

    async def _replay(self) -> bool:
        """Send what is held; True if nothing is left to send. What is held again meanwhile stays held."""
        for purge, claims in self._held.batches():
            if await self._append(purge) is None:
                return False
            if purge.everything and not purge.soft:
                self._drop_memory()
            self._held.sent(claims)
        return not self._held


_ORDER = (Verdict.INVALID, Verdict.UNKNOWN, Verdict.STALE, Verdict.FRESH)


def _worse(one: Verdict, other: Verdict) -> Verdict:
    return one if _ORDER.index(one) < _ORDER.index(other) else other
