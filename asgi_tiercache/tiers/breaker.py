"""The circuit breaker: after a tier failed, requests go without it until it was found well again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar, TypeVarTuple

from asgi_tiercache.errors import TierError
from asgi_tiercache.signals import WRITES, BreakerChanged, Signals, TierFailed
from asgi_tiercache.tiers.causes import Cause, cause_of
from asgi_tiercache.tiers.deadline import Deadline, Limit
from asgi_tiercache.tiers.loops import PerLoop, end
from asgi_tiercache.types import Clock

T = TypeVar("T")
Args = TypeVarTuple("Args")
Probe = Callable[[], Awaitable[object]]
State = Literal["closed", "open", "half_open"]

FAILURES = 3
"""Failures in a row that open the breaker; one timeout does it alone, since each further one would cost a deadline."""
FIRST_BACK_OFF = 0.25
LONGEST_BACK_OFF = 2.0
AT_ONCE = 48
"""Calls of one event loop that are under way at a time."""
AT_FIRST = 4
"""The same just after an outage: each answer then lets one more in, for all workers come back at once."""


class BackOff:
    """When to try again: after half to the whole of a time that doubles, so that workers do not come back in step."""

    def __init__(self, clock: Clock, random: Callable[[], float]) -> None:
        self._clock = clock
        self._random = random
        self._tries = 0
        self._due = 0.0

    @property
    def over(self) -> bool:
        """Whether it is time to try."""
        return self._clock.monotonic() >= self._due

    def begin(self) -> None:
        """Back off for the first time."""
        self._tries = 0
        self._wait()

    def go_on(self) -> None:
        """Back off for longer: it was tried in vain."""
        self._tries = min(self._tries + 1, 16)
        self._wait()

    def trying(self, seconds: float) -> None:
        """Somebody tries: nobody else need do so within `seconds`."""
        self._due = self._clock.monotonic() + seconds

    def _wait(self) -> None:
        longest = min(FIRST_BACK_OFF * 2.0**self._tries, LONGEST_BACK_OFF)
        self._due = self._clock.monotonic() + longest * (1 + self._random()) / 2


class Breaker:
    """Runs calls to one tier under a deadline, and refuses them while the tier is known to fail.

    - Closed: calls are made. A timeout, or three other failures in a row, opens it. What the tier has refused is no
      failure, for it has answered; nor is what it was never asked, for want of room or of a loop (see `causes`).
    - Open: calls are refused. When the back-off is over, the next one starts a probe in the background.
    - Half-open: the probe runs; if it is answered quickly, calls are made again, few at a time. The first that is
      answered closes the breaker, and each lets one more in; the first that fails opens it, for longer.

    The state is that of the process: every event loop shares it. Nothing here is locked; two threads that pass at
    the same instant cost one probe too many.

    Args:
        tier: The tier's name, for signals and messages.
        deadline: Seconds of real time that a call may take.
        clock: Measures the back-off between probes.
        signals: Receives `TierFailed` and `BreakerChanged`.
        at_once: Calls of one event loop that are under way at a time; others wait for their turn.
        random: Jitter: returns a number from 0 up to 1.
    """

    def __init__(
        self,
        *,
        tier: str,
        deadline: float = 0.3,
        clock: Clock,
        signals: Signals,
        at_once: int = AT_ONCE,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.tier = tier
        self.deadline = Deadline(deadline, at_once=at_once, impatient=True)
        """Limits each call."""
        self.writes = WriteBreaker(tier, deadline=deadline, clock=clock, signals=signals, random=random)
        """Whether the tier takes what it is given to keep."""
        self.state: State = "closed"
        self.is_open = False
        """Whether calls are refused."""
        self.failures = 0
        """Calls that failed in a row."""
        self.answers = 0
        """Calls that were answered, ever; whoever makes a call adds it."""
        self.convalescent = False
        """Whether an answer is news, so that `answered` must be called; else it need not be."""
        self._signals = signals
        self._at_once = at_once
        self._back_off = BackOff(clock, random)
        self._probe_deadline = Deadline(deadline)
        self._probes: PerLoop[set[asyncio.Task[None]]] = PerLoop(set, _cancel)

    async def run(
        self,
        operation: str,
        call: Callable[[*Args], Awaitable[T]],
        *args: *Args,
        probe: Probe,
        patient: bool = True,
    ) -> T:
        """What `call(*args)` returns.

        Args:
            operation: Names the call in signals.
            call: The call itself; awaited under the deadline.
            args: Handed to it.
            probe: Finds out whether the tier works again; run in the background, not on the caller's time.
            patient: Wait for a turn, though others have waited for theirs for long.

        Raises:
            TierError: the breaker is open, or the call failed or took too long.
        """
        if self.is_open:
            raise self.refuse(probe)
        try:
            with self.deadline.limit() as limit:
                if limit.waits:
                    await self.turn(limit, probe, patient=patient)
                result = await call(*args)
        except Exception as error:
            failure = self.failed(operation, error)
            if failure is error:
                raise
            raise failure from error
        self.answers += 1
        if self.convalescent:
            self.answered()
        return result

    # What `run` is made of, for a caller who is felt in every hit of a lower tier.

    def refuse(self, probe: Probe) -> TierError:
        """What a call gets while the breaker is open; starts `probe` if it is time for one."""
        self._consider(probe)
        return _RefusedError(f"{self.tier}: not asked, it failed a moment ago")

    async def turn(self, limit: Limit, probe: Probe, *, patient: bool = False) -> None:
        """Return when the call may be made that has to wait; raises where it may not any more."""
        await limit.turn(patient=patient)
        if self.is_open:
            raise self.refuse(probe)

    def answered(self) -> None:
        """A call was answered: nothing before it counts any more."""
        self.failures = 0
        self.deadline.at_once = min(self.deadline.at_once + 1, self._at_once)
        self.convalescent = self.deadline.at_once < self._at_once
        if self.state == "half_open" and not self.is_open:
            self._change("closed")

    def failed(self, operation: str, error: Exception) -> TierError:
        """Take note of a call that raised `error`; returns it as a `TierError`.

        Every Exception counts: redis-py raises a bare RuntimeError on a dead uvloop transport, for one.
        """
        if isinstance(error, _RefusedError):
            return error
        cause = cause_of(error)
        self._signals.emit(TierFailed(self.tier, operation, describe(error), cause is Cause.REFUSAL))
        if cause is Cause.REFUSAL:
            self.answered()
        elif cause is Cause.FAILURE:
            self.failures += 1
            self.convalescent = True
            if not self.is_open and (self.failures >= FAILURES or isinstance(error, TimeoutError)):
                self._open()
        return error if isinstance(error, TierError) else TierError(f"{self.tier}: {describe(error)}")

    def note(self, operation: str, error: Exception) -> None:
        """Report a reply of which nothing could be made: the tier answers, so that opens nothing."""
        self._signals.emit(TierFailed(self.tier, operation, describe(error)))

    async def aclose(self) -> None:
        """End the running loop's probes."""
        await self._probes.aclose()

    def __repr__(self) -> str:
        return f"<Breaker {self.tier}: {self.state}, {self.failures} failures in a row>"

    def _open(self) -> None:
        if self.state == "half_open":
            self._back_off.go_on()  # that the probe was answered meant nothing
        else:
            self._back_off.begin()
        self.is_open = True
        self._change("open")

    def _change(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self._signals.emit(BreakerChanged(self.tier, state))

    def _consider(self, probe: Probe) -> None:
        """Start a probe if it is time for one."""
        if not self._back_off.over:
            return
        # No other probe while this one may run, but no longer: its loop may end and take it along.
        self._back_off.trying(self.deadline.seconds)
        try:
            probes = self._probes.get()
        except RuntimeError:
            return  # this loop is ending
        self._change("half_open")
        task = asyncio.get_running_loop().create_task(self._probe(probe), name=f"probe of {self.tier}")
        probes.add(task)
        task.add_done_callback(probes.discard)

    async def _probe(self, probe: Probe) -> None:
        try:
            with self._probe_deadline.limit() as limit:
                await probe()
            if limit.slow:
                raise TierError("answers too slowly")
        except asyncio.CancelledError:  # the loop is ending: another one may find out
            if self.is_open:
                self._change("open")
            raise
        except Exception as error:
            if cause_of(error) is not Cause.UNASKED:
                self._back_off.go_on()
            self._signals.emit(TierFailed(self.tier, "probe", describe(error)))
            if self.is_open:
                self._change("open")
        else:
            self._admit()

    def _admit(self) -> None:
        """Let few calls in."""
        if self.is_open:
            self.deadline.at_once = min(AT_FIRST, self._at_once)
            self.failures = FAILURES - 1
            self.convalescent = True
            self.is_open = False
            self._change("half_open")  # another probe may have failed meanwhile


class WriteBreaker:
    """Whether a tier takes writes: one that answers all else may refuse them, being full, a replica, or read-only.

    No probe can tell, for whatever is not a write is answered. So when the back-off is over, one write is let through.

    Args:
        tier: The tier's name; `BreakerChanged` names it with `" writes"` behind it.
        deadline: Seconds of real time that a write may take.
        clock: Measures the back-off.
        signals: Receives `BreakerChanged`.
        random: Jitter: returns a number from 0 up to 1.
    """

    def __init__(
        self, tier: str, *, deadline: float, clock: Clock, signals: Signals, random: Callable[[], float]
    ) -> None:
        self.deadline = Deadline(deadline)
        """Limits each write. Nobody waits for one, so that it is slow says little."""
        self.state: State = "closed"
        self._tier = tier + WRITES
        self._signals = signals
        self._back_off = BackOff(clock, random)

    def __repr__(self) -> str:
        return f"<WriteBreaker {self._tier}: {self.state}>"

    def admits(self) -> bool:
        """Whether a write may be made now; one that may be has to be followed by `failed` or `worked`."""
        if self.state == "closed":
            return True
        if not self._back_off.over:
            return False
        self._back_off.trying(self.deadline.seconds)
        self._change("half_open")
        return True

    def failed(self) -> None:
        """The tier did not take a write."""
        if self.state == "closed":
            self._back_off.begin()
        else:
            self._back_off.go_on()
        self._change("open")

    def worked(self) -> None:
        """The tier took a write."""
        self._change("closed")

    def _change(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self._signals.emit(BreakerChanged(self._tier, state))


class _RefusedError(TierError):
    """The breaker is open: no news for anybody."""


def describe(error: BaseException) -> str:
    """`error` as text: with its type, which is all that a timeout has, unless it was translated already."""
    text = str(error)
    if isinstance(error, TierError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


async def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    for task in tuple(tasks):  # each takes itself out as it ends
        await end(task)
