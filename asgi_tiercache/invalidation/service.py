"""Who is valid: the log, what this worker knows of it, and for how long that knowledge counts (rules I4 to I9)."""

from __future__ import annotations

import asyncio
import enum
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from asgi_tiercache.errors import TierError
from asgi_tiercache.invalidation.knowledge import Knowledge, Verdict
from asgi_tiercache.invalidation.log import Answer, Appended, InvalidationLog, ProcessLog
from asgi_tiercache.signals import Invalidated, Signals
from asgi_tiercache.types import Clock, Entry, Stamp

T = TypeVar("T")

MAX_LAG = 1.0
MAX_UNVERIFIED = 60.0
MAX_PENDING = 10_000
FIRST_RETRY = 0.5
LONGEST_RETRY = 5.0
"""Seconds between attempts to send what the log has not taken."""


class Trust(enum.Enum):
    """How far this worker's knowledge of the log can be relied on right now."""

    VERIFIED = "verified"
    UNVERIFIED = "unverified"
    """The log is out of reach, but was heard of within `max_unverified`."""
    LAPSED = "lapsed"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What came of an invalidation."""

    durable: bool
    """True: it stands in the log. False: Redis did not take it; it holds on this worker, and is sent again until
    Redis takes it."""
    position: int | None
    """Its id in the log; None where it is not durable."""
    names: tuple[str, ...]
    """The tags that were invalidated; empty for everything."""


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
        self._log = log
        self._clock = clock
        self._signals = signals
        self._drop_memory = drop_memory
        self._max_lag = max_lag
        self._unverified_until = clock.monotonic() + max_unverified
        self._max_unverified = max_unverified
        self._leased_until = -math.inf
        self._held = 0
        self._pending: dict[str, int] = {}
        self._pending_clear = 0
        self._question: tuple[asyncio.AbstractEventLoop, asyncio.Task[bool]] | None = None
        self._retrying: tuple[asyncio.AbstractEventLoop, asyncio.Task[None]] | None = None
        self.knowledge = Knowledge()
        self.attention_at = -math.inf
        """Monotonic time from which on `confirm` must be asked before an entry is used."""
        if isinstance(log, ProcessLog):  # nobody else writes into it, and it answers at once: known for good
            self.knowledge.answered(log.answer())
            self._lease(clock.monotonic())

    def __repr__(self) -> str:
        return f"<Invalidation {self._log!r} {self.knowledge!r} pending={len(self._pending)}>"

    async def aclose(self) -> None:
        """Send what is held, if the log takes it now, and end what runs on this loop."""
        loop = asyncio.get_running_loop()
        if self._pending or self._pending_clear:
            self._renewal()
        if self._question is not None and self._question[0] is loop:
            await asyncio.wait([self._question[1]])
        if self._retrying is not None and self._retrying[0] is loop:
            self._retrying[1].cancel()
            await asyncio.wait([self._retrying[1]])

    # ---- judging ----

    def stamp(self) -> Stamp:
        """What a fill that begins now must carry; taken before anything is read (I2)."""
        return self.knowledge.stamp()

    def current(self, entry: Entry) -> bool:
        """Whether `entry` is valid by what this worker knows; one comparison where nothing changed."""
        knowledge = self.knowledge
        version = knowledge.version  # before judging: another thread may raise it meanwhile
        if entry.checked == version:
            return True
        if self._awaiting(entry) or knowledge.judge(entry) is not Verdict.VALID:
            return False
        entry.checked = version
        return True

    async def verify(self, entry: Entry) -> bool:
        """Whether `entry` is valid, asking the log where this worker cannot tell (I5)."""
        if self.current(entry):
            return True
        if self._awaiting(entry) or self.knowledge.judge(entry) is Verdict.INVALID:
            return False
        epoch = self.knowledge.epoch
        answer = await self._ask(entry.tags)
        # An answer to a question from before the worker changed its epoch is void (I7).
        if answer is None or epoch != self.knowledge.epoch or answer.epoch != epoch:
            return False
        return self.knowledge.settle(entry, answer) and not self._awaiting(entry)

    # ---- the lease ----

    async def confirm(self) -> Trust:
        """How far local judgement counts now; asks the log where the lease is over, renews it early where it ages."""
        now = self._clock.monotonic()
        if now < self._leased_until:
            self._renew_soon()
            return Trust.VERIFIED
        heard = await asyncio.shield(self._renewal())
        now = self._clock.monotonic()
        if heard and now < self._leased_until:  # else the answer has taken longer than it is good for
            return Trust.VERIFIED
        return Trust.UNVERIFIED if now < self._unverified_until else Trust.LAPSED

    def _renew_soon(self) -> None:
        self._renewal()
        self.attention_at = self._leased_until

    def _renewal(self) -> asyncio.Task[bool]:
        loop = asyncio.get_running_loop()
        if self._question is None or self._question[0] is not loop or self._question[1].done():
            self._question = loop, loop.create_task(self._renew())
        return self._question[1]

    async def _renew(self) -> bool:
        if not await self._replay():
            return False
        return await self._ask(()) is not None

    async def _ask(self, tags: Sequence[str]) -> Answer | None:
        sent = self._clock.monotonic()
        epoch, position = self.knowledge.epoch, self.knowledge.position
        try:
            answer = await self._log.ask(tags)
        except TierError:
            return None
        if epoch != self.knowledge.epoch:
            return None
        if answer.epoch == epoch and answer.clock < position:
            self._hold_clear()  # the log went back, as after a failover: what it has lost nobody can tell
            return None
        if not self.knowledge.answered(answer):
            self._drop_memory()
        if not self._pending and not self._pending_clear:
            self._lease(sent)
        return answer

    def _lease(self, sent: float) -> None:
        if not self._log.shared:
            self._leased_until = self.attention_at = math.inf
            return
        self._leased_until = max(self._leased_until, sent + self._max_lag)
        self._unverified_until = max(self._unverified_until, self._leased_until + self._max_unverified)
        # Renewed in the background from half its life on, so that no request waits for the question.
        self.attention_at = self._leased_until - self._max_lag / 2

    # ---- invalidating ----

    async def invalidate(self, tags: Sequence[str], *, kind: str = "tag") -> Receipt:
        """Make everything that carries one of `tags` invalid: for this worker before this returns."""
        tags = tuple(dict.fromkeys(tags))
        if not tags:
            return self._receipt(kind, tags, None, durable=True)
        try:
            appended = await self._append(tags)
        except BaseException:
            self._hold(tags)  # the caller gives up, but its data is committed
            raise
        if appended is None:
            self._hold(tags)
        else:
            self._send_held()
        return self._receipt(kind, tags, appended, durable=appended is not None)

    async def clear(self) -> Receipt:
        """Make everything invalid."""
        try:
            appended = await self._append_clear()
        except BaseException:
            self._hold_clear()
            raise
        if appended is None:
            self._hold_clear()
            self._drop_memory()
        else:
            self._send_held()
        return self._receipt("all", (), appended, durable=appended is not None)

    def _receipt(self, kind: str, tags: tuple[str, ...], appended: Appended | None, *, durable: bool) -> Receipt:
        self._signals.emit(Invalidated(kind, len(tags), durable))
        return Receipt(durable=durable, position=appended.id if appended else None, names=tags)

    async def _append(self, tags: Sequence[str]) -> Appended | None:
        """Write into the log, and apply it here before anything else happens; None: the log did not take it."""
        sent = self.knowledge.epoch
        appended = await self._try(lambda: self._log.append(tags))
        if appended is None:
            return None
        if self.knowledge.is_late(sent, appended.epoch):
            self._hold(tags)  # which of the two epochs is the newer, nobody can tell: it holds here until sent again
            return appended
        if not self.knowledge.appended(appended, tags):
            self._drop_memory()
        return appended

    async def _append_clear(self) -> Appended | None:
        sent = self.knowledge.epoch
        appended = await self._try(self._log.append_clear)
        if appended is None:
            return None
        if self.knowledge.is_late(sent, appended.epoch):
            self._hold_clear()
        else:
            self.knowledge.cleared(appended)
        self._drop_memory()
        return appended

    async def _try(self, call: Callable[[], Awaitable[T]]) -> T | None:
        try:
            return await call()
        except TierError:
            return None

    # ---- invalidations that the log has not taken yet (I9) ----

    def _hold(self, tags: Sequence[str]) -> None:
        self._held += 1
        self._pending.update(dict.fromkeys(tags, self._held))
        if len(self._pending) > MAX_PENDING:
            self._pending.clear()
            self._hold_clear()
        self._distrust()

    def _hold_clear(self) -> None:
        self._held += 1
        self._pending_clear = self._held
        self._distrust()

    def _distrust(self) -> None:
        self.knowledge.version += 1
        self.attention_at = self._leased_until = -math.inf
        loop = asyncio.get_running_loop()
        if self._retrying is None or self._retrying[0] is not loop or self._retrying[1].done():
            self._retrying = loop, loop.create_task(self._retry())

    async def _retry(self) -> None:
        """Send what is held until nothing is, also on a worker that is asked for nothing meanwhile."""
        pause = FIRST_RETRY
        while self._pending or self._pending_clear:
            await self._clock.sleep(pause)
            pause = min(2 * pause, LONGEST_RETRY)
            await asyncio.shield(self._renewal())

    def _send_held(self) -> None:
        """The log is in reach: now is the time."""
        if self._pending or self._pending_clear:
            self._renewal()

    def _awaiting(self, entry: Entry) -> bool:
        if not self._pending and not self._pending_clear:
            return False
        return bool(self._pending_clear) or any(tag in self._pending for tag in entry.tags)

    async def _replay(self) -> bool:
        """Send what is held; True if nothing is left to send. What is held again meanwhile stays held."""
        return await self._replay_clear() and await self._replay_tags()

    async def _replay_clear(self) -> bool:
        held = self._pending_clear
        if not held:
            return True
        if await self._append_clear() is None:
            return False
        if self._pending_clear == held:
            self._pending_clear = 0
        return not self._pending_clear

    async def _replay_tags(self) -> bool:
        held = dict(self._pending)
        if not held:
            return True
        if await self._append(tuple(held)) is None:
            return False
        for tag, number in held.items():
            if self._pending.get(tag) == number:
                del self._pending[tag]
        return not self._pending
