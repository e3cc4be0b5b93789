"""The way of a call whose value is not at hand: from a lower tier, of another's fill, or computed now."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from asgi_tiercache.engine.calls import Call
from asgi_tiercache.engine.core import REFRESH_SECONDS, Engine
from asgi_tiercache.engine.entries import TOO_MANY_KEYS, Found
from asgi_tiercache.engine.fill import Fill
from asgi_tiercache.errors import CodecError, TierCacheError
from asgi_tiercache.http.reuse import NO_DIRECTIVES, Use, judge, may_stand_in
from asgi_tiercache.invalidation.knowledge import Verdict
from asgi_tiercache.signals import Answered, EntryRejected, Refreshed
from asgi_tiercache.stampede import Flight
from asgi_tiercache.tiers.leases import WITHOUT, Lease
from asgi_tiercache.types import VALUES, Entry

logger = logging.getLogger("asgi_tiercache")

Loader = Callable[[], Awaitable[Any]]

_MADE = "made"
_FLIGHT = "flight"


class _Made:
    """What a fill brought: the value itself for whoever led it, and what an outer fill has to take over."""

    __slots__ = ("done", "error", "fill", "found", "refusal", "unattended", "value")

    def __init__(self, fill: Fill, *, unattended: bool = False) -> None:
        self.fill = fill
        self.unattended = unattended
        """Whether nobody waits for it."""
        self.done = False
        """Whether the function has answered, with a value or with an exception that is stored."""
        self.error: Exception | None = None
        self.found: Found | None = None
        self.refusal = ""
        self.value: Any = None


class Computing:
    """One call.

    1. Something usable is in a lower tier, or stale in memory and may be used while it is made anew.
    2. Values of this key lately could not be shared: compute it, for this call alone.
    3. Somebody is computing it: wait, and judge what comes; but not where that waits for this call.
    4. Otherwise: compute it for all who want it, here or, as the lease says, on another worker.

    What is stale and yet permitted stands in for a computation that fails, or takes too long.

    Args:
        engine: Looks up, judges, fills and stores.
        call: What is asked for.
        load: Computes it.
        unattended: Computes it where nobody waits.
        started: When the call arrived, by the monotonic clock.
        arrived: How many flights had begun by then.
    """

    __slots__ = ("_arrived", "_call", "_engine", "_load", "_stale", "_started", "_unattended")

    def __init__(
        self, engine: Engine, call: Call, load: Loader, unattended: Loader, *, started: float, arrived: int
    ) -> None:
        self._engine = engine
        self._call = call
        self._load = load
        self._unattended = unattended
        self._stale: Found | None = None
        """What is stored, valid, and not to be used as it is."""
        self._started = started
        self._arrived = arrived

    async def value(self) -> Any:
        """The value, one way or another."""
        engine, call = self._engine, self._call
        # Whoever leads a flight for what is not in memory has looked further down.
        flight = None if call.key in call.place.bucket.held else engine.joinable(call.key, call.canonical)
        found = None if flight is not None else await engine.fetch(call.place, call.key, call.canonical, VALUES)
        if found is not None:
            hit = self._used(found)
            if hit is not None:
                return hit[0]
        for _ in range(2):
            if engine.unshareable.holds(call.key, engine.clock.monotonic()):
                break
            flight = flight or engine.joinable(call.key, call.canonical)
            if flight is None:
                hit = recall(engine, call, self._started)  # a fill may have landed since this call looked
                return hit[0] if hit is not None else await self._lead()
            if not engine.may_wait(flight):  # it is part of what waits for this
                break
            hit = await self._follow(flight)
            if hit is not None:
                return hit[0]
            flight = None
        return await self.alone()

    async def alone(self, *, store: bool = True) -> Any:
        """The value, computed for this call and nobody else, and stored if that is possible."""
        engine, call = self._engine, self._call
        made = _Made(engine.begin(call.key))
        with engine.running(made.fill):
            await self._make_or_stand_in(made, partial(self._make, made, None, WITHOUT, store=store))
        return self._answered(made, "" if made.found is not None else made.refusal or "not-shared")

    def renew(self, held: Entry) -> None:
        """Make `held` anew, behind the back of whoever was given it."""
        engine, call = self._engine, self._call
        if not engine.may_refresh(call.key):
            return
        made = _Made(engine.begin(call.key), unattended=True)

        async def work(flight: Flight[Entry]) -> None:
            engine.signals.emit(Refreshed(call.name, await self._renewed(held, made, flight)))

        if not engine.refresh(call.key, work, owner=made.fill, place=call.place, entry=held):
            engine.signals.emit(Refreshed(call.name, "dropped"))

    # ---- what is stored ----

    def _used(self, found: Found) -> tuple[Any] | None:
        """The value of what was found, as far as it may be used."""
        engine, call = self._engine, self._call
        use = use_of(engine, found)
        if use is Use.VALIDATE:
            self._stale = found
            return None
        due = use is Use.WHILE_REVALIDATED or found.early(engine.clock.monotonic())
        hit = loaded(engine, call, found, self._started, fresh=use is Use.FRESH, before=self.renew if due else None)
        if hit is not None and found.tier != "L1":
            self._watch(found.entry)
        return hit

    async def _stand_in(self) -> Found | None:
        """What may be returned in place of an error: what was stored before, unless it was invalidated (I10)."""
        engine, call, stale = self._engine, self._call, self._stale
        if stale is None or not _may_stand_in(engine, stale.entry):
            return None
        found = await engine.judged(stale, call.place, call.canonical)
        return found._replace(stale=True) if found is not None and self._suits(found.entry) else None

    def _suits(self, entry: Entry) -> bool:
        """Whether there is a value of this function in it: another version of it may have stored something else."""
        try:
            self._call.restored(entry)
        except CodecError:
            return False
        return True

    # ---- somebody else's fill ----

    async def _follow(self, flight: Flight[Entry]) -> tuple[Any] | None:
        """The value that the flight brings, if it is good for this call, too."""
        engine, call = self._engine, self._call
        found = await self._outcome(flight)
        if found is None or found.entry.canonical != call.canonical:
            return None
        if found.tier != _FLIGHT:
            return loaded(engine, call, found, self._started, fresh=False)
        # A flight that began after this call arrived is good as it is; an older one is judged like a hit (I6).
        verdict = Verdict.UNKNOWN
        if flight.number <= self._arrived or _has_failed(flight):
            verdict = await engine.invalidation.judge(found.entry, strict=call.place.policy.verify)
            if verdict is Verdict.INVALID:
                return None
        return loaded(engine, call, found, self._started, fresh=verdict is Verdict.FRESH and not _has_failed(flight))

    async def _outcome(self, flight: Flight[Entry]) -> Found | None:
        """What the flight brings; what may stand in for it, where that takes longer than `soft_timeout`."""
        engine, policy = self._engine, self._call.place.policy
        try:
            with engine.waiting(flight.owner):
                if self._stale is not None and not await self._lands_in_time(flight):
                    stand_in = await self._stand_in()
                    if stand_in is not None:
                        flight.detached = True
                        return stand_in
                entry = await flight.outcome()
        except asyncio.CancelledError:
            if not policy.finish:
                flight.abandon()
            raise
        return None if entry is None else Found(entry, _FLIGHT)

    async def _lands_in_time(self, flight: Flight[Entry]) -> bool:
        soft, owner = self._call.place.policy.soft_timeout, flight.owner
        if soft is None or not isinstance(owner, Fill):
            return True
        clock = self._engine.clock
        return await flight.lands_within(owner.begun + soft - clock.monotonic(), clock)

    # ---- its own ----

    async def _lead(self) -> Any:
        engine, call = self._engine, self._call
        made = _Made(engine.begin(call.key, call.canonical))

        async def work(flight: Flight[Entry]) -> None:
            engine.variable.set(made.fill)
            await self._make_or_stand_in(made, partial(self._make_once, made, flight))
            if made.found is not None:
                flight.land(made.found.entry)

        outcome = await self._outcome(engine.fills.lead(call.key, work, owner=made.fill))
        if outcome is not None and outcome.tier != _FLIGHT:
            made.found = outcome  # it could wait no longer
            made.done = False
        return self._answered(made)

    async def _make_once(self, made: _Made, flight: Flight[Entry]) -> Found | None:
        """What this worker makes, or another one."""
        engine, call = self._engine, self._call
        stale = self._stale if self._stale is not None and _may_stand_in(engine, self._stale.entry) else None
        make = partial(self._make, made, flight)
        look = partial(engine.look_below, call.place, call.key, call.canonical, VALUES, suits=self._suits)
        found = await engine.once(call.place, call.key, make, look=look, stale=stale)
        if found is not None and found is stale:  # it waited long enough
            made.fill.failed = True
            found = await self._stand_in() or await make(WITHOUT)
        return found

    async def _make_or_stand_in(self, made: _Made, make: Callable[[], Awaitable[Found | None]]) -> None:
        try:
            made.found = await make()
        except Exception as error:
            stand_in = None if isinstance(error, TierCacheError) else await self._stand_in()
            if stand_in is None:
                raise
            logger.warning("%s failed, and what it returned before stands in: %r", self._call.name, error)
            made.found, made.refusal, made.fill.failed = stand_in, "failed", True

    async def _make(
        self, made: _Made, flight: Flight[Entry] | None, lease: Lease, *, store: bool = True
    ) -> Found | None:
        """What the function returns, or raises and is to be stored, kept and given to whoever waits."""
        engine, call = self._engine, self._call
        engine.start(made.fill)
        entry = None
        try:
            made.value = await self._run(made)
        except Exception as error:
            entry = call.failure_entry(made.fill, error, engine.clock.time()) if store else None
            if entry is None:
                raise
            made.error = error
        else:
            made.refusal = call.refusal(made.fill)
            if store and not made.refusal:
                entry = call.entry(made.fill, made.value, engine.clock.time())
        made.done, made.fill.failed = True, False
        if entry is None:
            if store:
                engine.unshareable.remember(call.key, engine.clock.monotonic())
            return None
        engine.unshareable.forget(call.key)
        if self._is_admitted(made, entry):
            engine.keep(call.place, call.key, entry, lease=lease, fill=made.fill)
            self._watch(entry)
        else:
            made.refusal = TOO_MANY_KEYS
            engine.give(call.place, entry, lease=lease, fill=made.fill)
        if flight is not None:
            flight.land(entry)
        return Found(entry, _MADE)

    def _is_admitted(self, made: _Made, entry: Entry) -> bool:
        """Whether it is stored already, or there is room for one more."""
        engine, call = self._engine, self._call
        if made.unattended or self._stale is not None:
            return True
        return engine.admits(call.place, call.key, entry.lifetime + entry.retention, call.name)

    async def _run(self, made: _Made) -> Any:
        """What the function returns; in a task of its own where somebody may have to go on without it."""
        policy = self._call.place.policy
        seconds = policy.hard_timeout
        if made.unattended:
            return await self._engine.limited(self._unattended, min(seconds or REFRESH_SECONDS, REFRESH_SECONDS))
        if seconds is None and policy.finish:
            return await self._load()
        return await self._engine.limited(self._load, seconds)

    def _answered(self, made: _Made, refusal: str = "") -> Any:
        """What this call returns, or raises, in the end."""
        engine, call = self._engine, self._call
        if made.done:
            engine.inherit(call.tags_of(made.fill), made.fill.stamp, fresh=False)
            report(engine, call, "miss", refusal or made.refusal, self._started)
            if made.error is not None:
                raise made.error
            return made.value
        if made.found is None:
            raise asyncio.CancelledError(f"{call.name} was cancelled")
        hit = loaded(engine, call, made.found, self._started, fresh=not made.found.stale, failed=made.refusal)
        if hit is None:
            raise CodecError(f"{call.name}: another worker has stored what is no value of this function")
        return hit[0]

    # ---- behind everybody's back ----

    async def _renewed(self, held: Entry, made: _Made, flight: Flight[Entry]) -> str:
        engine, call = self._engine, self._call
        engine.variable.set(made.fill)
        make = partial(self._make, made, flight)
        try:
            renewal = await engine.renew(
                call.place, call.key, call.canonical, held, make, kinds=VALUES, suits=self._suits
            )
        except Exception:
            logger.exception("%s failed while its stale value was being made anew", call.name)
            return "failed"
        if renewal == "found" and (found := call.place.bucket.held.get(call.key)) is not None:
            self._watch(found)
        if renewal != "nothing":
            return renewal
        await engine.forget(call.key)  # what is not to be stored any more is not to be served any more
        return made.refusal

    def _watch(self, entry: Entry) -> None:
        """Have `entry` renewed ahead of time, where the policy wants that."""
        call = self._call
        if call.place.policy.refresh_ahead:
            again = Computing(self._engine, call, self._unattended, self._unattended, started=0.0, arrived=0)
            self._engine.watch(call.place, call.key, entry, again.renew)


def use_of(engine: Engine, found: Found) -> Use:
    """What a call may have of a valid stored value."""
    entry = found.entry
    age, revalidate = engine.clock.monotonic() - entry.born, entry.stale_while_revalidate
    use = judge(NO_DIRECTIVES, age=age, lifetime=entry.lifetime, stale_while_revalidate=revalidate)
    return Use.WHILE_REVALIDATED if found.stale and use is Use.FRESH else use


def _may_stand_in(engine: Engine, entry: Entry) -> bool:
    """Whether a stored value may be returned where the function fails."""
    age = engine.clock.monotonic() - entry.born
    return may_stand_in(NO_DIRECTIVES, age=age, lifetime=entry.lifetime, stale_if_error=entry.stale_if_error)


def recall(engine: Engine, call: Call, started: float) -> tuple[Any] | None:
    """The value in memory, if this worker can say at once that it is good."""
    if call.place.policy.verify:
        return None
    entry = engine.recall(call.place.bucket, call.key, call.canonical, engine.clock.monotonic())
    return None if entry is None else loaded(engine, call, Found(entry, "L1"), started)


def loaded(
    engine: Engine,
    call: Call,
    found: Found,
    started: float,
    *,
    fresh: bool = True,
    failed: str = "",
    before: Callable[[Entry], None] | None = None,
) -> tuple[Any] | None:
    """The value of `found`, reported as the answer; None where there is none in it.

    Args:
        engine: Is told of it.
        call: What was asked for.
        found: What answers it.
        started: When it arrived.
        fresh: Whether it was judged fresh, for the tags that an outer fill takes over (rule I2).
        failed: Why it stands in for another value.
        before: Called with the entry, once it is clear that there is a value in it.
    """
    try:
        value, error = call.restored(found.entry)
    except CodecError:  # stored by another version of the function, or by hand
        engine.signals.emit(EntryRejected(found.tier, "no value of this kind"))
        return None
    if before is not None:
        before(found.entry)
    engine.inherit(found.entry.tags, found.entry.stamp, fresh=fresh)
    report(engine, call, "miss" if failed else "hit", failed or found.tier, started)
    if error is not None:
        raise error
    return (value,)


def report(engine: Engine, call: Call, outcome: str, detail: str, started: float) -> None:
    """Tell how the call was answered."""
    engine.signals.emit(Answered(call.name, outcome, detail, engine.clock.monotonic() - started))


def _has_failed(flight: Flight[Entry]) -> bool:
    """Whether what the flight brought stands in for an error."""
    return isinstance(flight.owner, Fill) and flight.owner.failed
