"""The engine: one fill for all who want the same, here and in the fleet, and what is made anew behind their backs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import ContextVar
from typing import Any, Literal, TypeAlias, TypeVar

from asgi_tiercache import fleet
from asgi_tiercache.ageing import Random, early_at
from asgi_tiercache.engine.ahead import Ahead
from asgi_tiercache.engine.background import Background
from asgi_tiercache.engine.entries import Entries, Found, Place
from asgi_tiercache.engine.fill import IDLE, NOBODY_WAITS, Fill, IdleFill, Running, Waiting
from asgi_tiercache.engine.reclaim import Reclaimer
from asgi_tiercache.errors import NoFillError
from asgi_tiercache.invalidation.service import Invalidation
from asgi_tiercache.signals import Signals
from asgi_tiercache.stampede import Flight, Flights, Unshareable
from asgi_tiercache.tiers.leases import NO_LEASES, WITHOUT, Busy, Lease, Leases
from asgi_tiercache.tiers.loops import first
from asgi_tiercache.tiers.memory import Memory
from asgi_tiercache.tiers.stack import Stack
from asgi_tiercache.types import EVERY_KIND, Clock, Entry, Stamp

T = TypeVar("T")

REFRESH_SECONDS = 60.0
"""Seconds that a fill may take for which nobody waits; and after which nobody joins one any more."""
LEASE_SECONDS = 1.5
"""Seconds for which a worker that has died keeps the others from filling. A third of that costs most fills no renewal;
and an event loop that is held up for a second keeps its lease."""

Renewal: TypeAlias = Literal["stored", "found", "elsewhere", "nothing"]
"""What came of renewing an entry: it was made; another worker had made it, or is doing so; it may not be stored."""


class TooLateError(TimeoutError):
    """What fills has taken longer than it may."""


class Engine(Entries):
    """Entries, and the fills that make them: each once for all who wait for it."""

    def __init__(
        self,
        *,
        memory: Memory,
        stack: Stack | None,
        invalidation: Invalidation,
        signals: Signals,
        clock: Clock,
        leases: Leases = NO_LEASES,
        random: Random = random.random,
    ) -> None:
        super().__init__(
            memory=memory, stack=stack, invalidation=invalidation, signals=signals, clock=clock, random=random
        )
        self.reclaimer = Reclaimer(memory, stack, clock)
        self.fills: Flights[Entry] = Flights()
        self.unshareable = Unshareable()
        self.leases = leases
        """Who of all workers fills."""
        self.background = Background()
        self.ahead = Ahead(clock)
        self._strays: set[asyncio.Future[Any]] = set()
        """What goes on though it was cancelled; held until it ends."""
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

    def begin(self, key: str, asked: bytes = b"") -> Fill:
        """Stamp a fill, before anything is read for it (rule I2); `asked` is what others who wait have to ask, too."""
        return Fill(self.invalidation.stamp(), key=key, asked=asked, begun=self.clock.monotonic())

    def start(self, fill: Fill) -> None:
        """Stamp `fill` anew, whose handler is about to be called: another worker may have been waited for since."""
        fill.stamp = self.invalidation.stamp()
        fill.running_since = self.clock.monotonic()

    def may_wait(self, flight: Flight[Entry]) -> bool:
        """Whether what runs here can wait for `flight` without each waiting for the other in the end."""
        outer, fill = self.variable.get(), flight.owner
        return outer is None or not isinstance(fill, Fill) or not fill.needs(outer)

    def waiting(self, fill: object) -> Waiting:
        """A context in which what runs here waits for `fill`."""
        outer = self.variable.get()
        return NOBODY_WAITS if outer is None else Waiting(outer, fill)

    def running(self, fill: Fill) -> Running:
        """A context in which `fill` runs, and what ran before waits for it."""
        return Running(self.variable, self.variable.get(), fill)

    def standing_aside(self) -> Running:
        """A context for a handler whose response is not being cached."""
        outer = self.variable.get()
        return Running(self.variable, outer, IDLE if outer is None else IdleFill(IDLE.stamp))

    # ---- one fill for all who want the same ----

    def joinable(self, key: str, asked: bytes) -> Flight[Entry] | None:
        """The flight for `key` that is worth waiting for; one that takes for ever keeps nobody who comes later.

        Nor does one for another question, `asked` in canonical form: neither its time nor its failure is for whoever
        merely shares the key.
        """
        flight = self.fills.under_way(key)
        if flight is None or not isinstance(flight.owner, Fill):
            return flight
        if flight.owner.asked and flight.owner.asked != asked:
            return None
        return flight if self.clock.monotonic() - flight.owner.running_since < REFRESH_SECONDS else None

    async def once(
        self,
        place: Place,
        key: str,
        work: Callable[[Lease], Awaitable[Found | None]],
        *,
        look: Callable[[], Awaitable[Found | None]],
        stale: Found | None = None,
    ) -> Found | None:
        """What `work` makes here, or another worker of the fleet there; None: there is nothing to share.

        For the one who leads a flight. Without `lock`, or without Redis, it is `work` and nothing else.

        Args:
            place: Whose it is.
            key: What is wanted.
            work: Makes it; `keep` is given the lease, which ends with the write.
            look: Looks for what another worker has made and can be used here.
            stale: Returned rather than wait for longer than `lock_wait` and then compute all the same.
        """
        policy = place.policy
        if self.leases is NO_LEASES or not policy.lock:
            return await work(WITHOUT)
        return await fleet.once(
            self.leases,
            key,
            look=look,
            work=work,
            seconds=LEASE_SECONDS,
            patience=policy.lock_wait,
            clock=self.clock,
            stale=stale,
        )

    async def limited(
        self, load: Callable[[], Awaitable[T]], seconds: float | None, *, until: asyncio.Future[Any] | None = None
    ) -> T:
        """What `load` returns, in a task of its own; cancelled after `seconds`, or with whoever waits here.

        One that ignores that keeps nobody: it is held until it ends, and what it returns is dropped. Where `until` is
        done in time, there is no limit any more.

        Raises:
            TooLateError: `seconds` are over.
        """
        task = asyncio.ensure_future(load())
        task.add_done_callback(_retrieved)
        try:
            if seconds is None:
                await asyncio.wait({task})
            else:
                await first(task if until is None else until, self.clock, seconds)
                if until is not None and until.done():
                    await asyncio.wait({task})
            if not task.done():
                raise TooLateError(f"not done after {seconds:g} s")
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                self._strays.add(task)
                task.add_done_callback(self._strays.discard)

    # ---- making anew what is stale, or soon will be ----

    def may_refresh(self, key: str) -> bool:
        """Whether nobody fills `key` already, or is about to."""
        return self.fills.under_way(key) is None and not self.background.waits(key)

    def refresh(
        self,
        key: str,
        work: Callable[[Flight[Entry]], Coroutine[Any, Any, None]],
        *,
        owner: Fill,
        place: Place | None = None,
        entry: Entry | None = None,
    ) -> bool:
        """Begin a fill that nobody waits for, where `may_refresh` allows it: now, or when there is room for it.

        Args:
            key: What is filled.
            work: Fills it, and lands the flight.
            owner: The fill.
            place: Whose it is: each has a bound of its own.
            entry: What is renewed; nobody else will try that before it has expired.

        Returns:
            Whether it was begun, or waits; False: too many do.
        """

        def lead() -> asyncio.Task[None] | None:
            since = None if place is None else place.bucket.held.get(key)
            if self.fills.under_way(key) is not None or (entry and since and since.created > entry.created):
                return None
            flight = self.fills.lead(key, work, owner=owner)
            flight.detached = True
            return flight.task

        begun = self.background.begin(key, place, lead)
        if begun and entry is not None:
            entry.expires = min(entry.born + entry.lifetime, entry.ends)
        return begun

    async def renew(
        self,
        place: Place,
        key: str,
        canonical: bytes,
        held: Entry,
        work: Callable[[Lease], Awaitable[Found | None]],
        *,
        kinds: frozenset[int] = EVERY_KIND,
        suits: Callable[[Entry], bool] | None = None,
    ) -> Renewal:
        """Make `held` anew by `work`, unless another worker has done so, or is about to: nobody waits for that.

        The arguments are those of `once` and of `look_below`.
        """
        if self.leases is NO_LEASES or not place.policy.lock:
            return "nothing" if await work(WITHOUT) is None else "stored"
        if await self.look_below(place, key, canonical, kinds, newer_than=held, suits=suits) is not None:
            return "found"
        lease = await self.leases.acquire(key, LEASE_SECONDS)
        if isinstance(lease, Busy):
            return "elsewhere"
        made = await (work(WITHOUT) if lease is None else fleet.holding(lease, work))
        return "nothing" if made is None else "stored"

    def watch(self, place: Place, key: str, entry: Entry, renew: Callable[[Entry], object]) -> None:
        """Call `renew` shortly before `entry` expires, if `key` will probably be asked for again (refresh-ahead).

        It is not held for that: more keys are watched than L1 may have room for, and what had to go is let go.
        """
        now, created = self.clock.monotonic(), entry.created
        expires = min(entry.born + entry.lifetime, entry.ends)
        at = early_at(now, expires, place.fill_time.seconds, 1.0, self._random)

        def due() -> None:
            held = place.bucket.held.get(key)
            if held is not None and held.created <= created:
                renew(held)

        self.ahead.watch(key, at, entry.lifetime, due)

    async def aclose(self, within: float) -> None:
        """Let what is being filled come to its end, for `within` seconds, and what nobody waits for end then."""
        loop = asyncio.get_running_loop()
        until = loop.time() + within
        self.background.forget()
        await self.ahead.aclose()
        strays = [task for task in tuple(self._strays) if task.get_loop() is loop]
        if tasks := {*self.fills.tasks(), *strays}:
            await asyncio.wait(tasks, timeout=within)
        self.fills.end_unattended()
        if self.stack is not None:
            await self.stack.flush(
                max(until - loop.time(), 0.0)
            )  # those who wait for a lease are told that it is there
        await self.leases.aclose()


def _retrieved(task: asyncio.Future[Any]) -> None:
    """That nobody waits for it any more is no error."""
    if not task.cancelled():
        task.exception()
