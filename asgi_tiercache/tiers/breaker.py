"""The circuit breaker: after a tier failed, requests go without it until a probe found it well again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

from asgi_tiercache.errors import TierError
from asgi_tiercache.signals import BreakerChanged, Signals, TierFailed
from asgi_tiercache.tiers.deadline import Deadline
from asgi_tiercache.tiers.loops import PerLoop, end
from asgi_tiercache.types import Clock

T = TypeVar("T")
Args = TypeVarTuple("Args")
Probe = Callable[[], Awaitable[object]]

FAILURES = 3
"""Failures in a row that open the breaker; one timeout does it alone, since each further one would cost a deadline."""
FIRST_BACK_OFF = 0.25
LONGEST_BACK_OFF = 4.0


class Breaker:
    """Runs calls to one tier under a deadline, and refuses them while the tier is known to fail.

    The state is that of the process: every event loop shares it. Nothing here is locked; two threads that pass at
    the same instant cost one probe too many.

    Args:
        tier: The tier's name, for signals and messages.
        deadline: Seconds of real time that a call may take.
        clock: Measures the back-off between probes.
        signals: Receives `TierFailed` and `BreakerChanged`.
        random: Jitter: returns a number from 0 up to 1.
    """

    def __init__(
        self,
        *,
        tier: str,
        deadline: float = 0.3,
        clock: Clock,
        signals: Signals,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.tier = tier
        self.deadline = Deadline(deadline)
        """Limits each call."""
        self._clock = clock
        self._signals = signals
        self._random = random
        self.is_open = False
        """Whether calls are refused."""
        self.failures = 0
        """Calls that failed in a row; whoever makes a call sets it to 0 when that worked."""
        self._probes_failed = 0
        self._probe_at = 0.0
        self._probes: PerLoop[set[asyncio.Task[None]]] = PerLoop(set, _cancel)

    @property
    def state(self) -> str:
        """`"open"`: calls are refused. `"closed"`: they are made."""
        return "open" if self.is_open else "closed"

    async def run(self, operation: str, call: Callable[[*Args], Awaitable[T]], *args: *Args, probe: Probe) -> T:
        """What `call(*args)` returns.

        Args:
            operation: Names the call in signals.
            call: The call itself; awaited under the deadline.
            args: Handed to it.
            probe: Finds out whether the tier works again; run in the background, not on the caller's time.

        Raises:
            TierError: the breaker is open, or the call failed or took too long.
        """
        if self.is_open:
            raise self.refuse(probe)
        try:
            with self.deadline.limit():
                result = await call(*args)
        except Exception as error:
            raise self.failed(operation, error) from error
        self.failures = 0
        return result

    # What `run` is made of, for a caller who is felt in every hit of a lower tier.

    def refuse(self, probe: Probe) -> TierError:
        """What a call gets while the breaker is open; starts `probe` if it is time for one."""
        self._consider(probe)
        return TierError(f"{self.tier}: not asked, it failed a moment ago")

    def failed(self, operation: str, error: Exception) -> TierError:
        """Count a call that raised `error`; returns it as a `TierError`.

        Every Exception counts: redis-py raises a bare RuntimeError on a dead uvloop transport, for one.
        """
        self._signals.emit(TierFailed(self.tier, operation, describe(error)))
        self.failures += 1
        if not self.is_open and (self.failures >= FAILURES or isinstance(error, TimeoutError)):
            self.is_open = True
            self._probes_failed = 0
            self._back_off()
            self._signals.emit(BreakerChanged(self.tier, "open"))
        return error if isinstance(error, TierError) else TierError(f"{self.tier}: {describe(error)}")

    def note(self, operation: str, error: Exception) -> None:
        """Report a reply of which nothing could be made: the tier answers, so that opens nothing."""
        self._signals.emit(TierFailed(self.tier, operation, describe(error)))

    async def aclose(self) -> None:
        """End the running loop's probes."""
        await self._probes.aclose()

    def __repr__(self) -> str:
        return f"<Breaker {self.tier}: {self.state}, {self.failures} failures in a row>"

    def _back_off(self) -> None:
        """Put the next probe off, by half to the whole of a time that doubles: workers must not come back in step."""
        longest = min(FIRST_BACK_OFF * 2.0**self._probes_failed, LONGEST_BACK_OFF)
        self._probe_at = self._clock.monotonic() + longest * (1 + self._random()) / 2

    def _consider(self, probe: Probe) -> None:
        """Start a probe if it is time for one."""
        now = self._clock.monotonic()
        if now < self._probe_at:
            return
        # No other probe while this one may run, but no longer: its loop may end and take it along.
        self._probe_at = now + self.deadline.seconds
        try:
            probes = self._probes.get()
        except RuntimeError:
            return  # this loop is ending
        task = asyncio.get_running_loop().create_task(self._probe(probe), name=f"probe of {self.tier}")
        probes.add(task)
        task.add_done_callback(probes.discard)

    async def _probe(self, probe: Probe) -> None:
        try:
            with self.deadline.limit():
                await probe()
        except Exception as error:
            self._probes_failed = min(self._probes_failed + 1, 16)
            self._back_off()
            self._signals.emit(TierFailed(self.tier, "probe", describe(error)))
        else:
            self._recovered()

    def _recovered(self) -> None:
        self.failures = 0
        if self.is_open:
            self.is_open = False
            self._signals.emit(BreakerChanged(self.tier, "closed"))


def describe(error: BaseException) -> str:
    """`error` as text: with its type, which is all that a timeout has, unless it was translated already."""
    text = str(error)
    if isinstance(error, TierError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


async def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    for task in tuple(tasks):  # each takes itself out as it ends
        await end(task)
