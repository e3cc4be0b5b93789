"""What an operator has to hear of: a tier that is out of reach, and that it is back; and no line that somebody forged.

Messages and tracebacks quote what came from outside: paths, tags, what Redis answers, what handlers raise.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from time import monotonic

from asgi_tiercache.signals import WRITES, BreakerChanged, Signal, TierFailed, WriteDropped

logger = logging.getLogger("asgi_tiercache")

LONGEST_LINE = 2_000
MOST_LINES = 200
"""Characters of a line, and lines of a traceback, that are logged at the most."""
MAX_REFUSED = 64
"""Kinds of operations whose refusal is logged."""


class OneLineEach(logging.Filter):
    """Escapes what could look like another line of the log, or command a terminal, and bounds what is long.

    A message becomes one line of printable characters. The lines of a traceback are indented, so that none that an
    exception's text begins stands where a log line would.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, escaped."""
        try:
            message = record.getMessage()
        except Exception as error:  # the `repr` of somebody's object, which must fail nobody's request
            message = f"{record.msg} ({type(error).__name__})"
            record.msg, record.args = message, ()
        if not message.isprintable() or len(message) > LONGEST_LINE:
            record.msg, record.args = _line(message), ()
        if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
            lines = "".join(traceback.format_exception(record.exc_info[1])).splitlines()
            if len(lines) > MOST_LINES:
                lines[MOST_LINES // 2 : -MOST_LINES // 2] = ["[...]"]
            record.exc_text = "\n".join(f"  {_line(line)}" for line in lines)
        return True


ONE_LINE_EACH = OneLineEach()
"""The filter of the package's logger, once there is a cache."""


def _line(text: str) -> str:
    cut = text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]}[...]"
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)


class _Outage:
    """What one tier has cost since its breaker opened."""

    __slots__ = ("dropped", "failures", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.failures = 0
        self.dropped = 0


class FailureLog:
    """Logs when a tier's circuit breaker opens, with the last error, and when it closes, with what that cost.

    What a tier refuses though it is well is logged once for each kind of operation, until a breaker of the tier has
    closed. Subscribes to `Signals`.

    Args:
        clock: Monotonic, in seconds.
    """

    KINDS = (BreakerChanged, TierFailed, WriteDropped)

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._last: dict[str, str] = {}
        self._refused: set[tuple[str, str]] = set()
        self._outages: dict[str, _Outage] = {}
        """By what the breaker is called."""

    def __repr__(self) -> str:
        return f"<FailureLog {self._last}>"

    def __call__(self, signal: Signal) -> None:
        """Take note of `signal`."""
        if isinstance(signal, TierFailed):
            self._failed(signal)
        elif isinstance(signal, WriteDropped):
            for outage in self._outages_of(signal.tier):
                outage.dropped += 1
        elif isinstance(signal, BreakerChanged):
            if signal.state == "open" and signal.tier not in self._outages:
                self._opened(signal.tier)
            elif signal.state == "closed":
                self._closed(signal.tier)

    def _failed(self, signal: TierFailed) -> None:
        # repr, here and below: an error may quote what somebody else wrote, line ends included.
        tier, operation, error, refused = signal
        self._last[tier] = f"{operation}: {error}"
        for outage in self._outages_of(tier):
            outage.failures += 1
        kind = (tier, operation)
        if refused and operation != "set" and kind not in self._refused and len(self._refused) < MAX_REFUSED:
            self._refused.add(kind)
            logger.warning("%s refuses %s (%r); this is logged once", tier, operation, error)

    def _opened(self, name: str) -> None:
        self._outages[name] = _Outage(self._clock())
        problem = "takes nothing" if name.endswith(WRITES) else "is out of reach, requests go without it"
        tier = name.removesuffix(WRITES)
        logger.warning("%s %s (%r)", tier, problem, self._last.get(tier))

    def _closed(self, name: str) -> None:
        outage = self._outages.pop(name, None)
        if outage is None:
            return
        tier = name.removesuffix(WRITES)
        self._refused = {kind for kind in self._refused if kind[0] != tier}
        logger.warning(
            "%s %s after %.1f s; %d more failures, %d writes dropped",
            tier,
            "takes writes again" if name.endswith(WRITES) else "is back",
            self._clock() - outage.since,
            outage.failures,
            outage.dropped,
        )

    def _outages_of(self, tier: str) -> list[_Outage]:
        return [self._outages[name] for name in (tier, tier + WRITES) if name in self._outages]
