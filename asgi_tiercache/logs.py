"""What an operator has to hear of: a tier that is out of reach, and that it is back; and no line that somebody forged.

Messages and tracebacks quote what came from outside: paths, tags, what Redis answers, what handlers raise.
"""

from __future__ import annotations

import logging
import traceback

from asgi_tiercache.signals import BreakerChanged, Signal, TierFailed

logger = logging.getLogger("asgi_tiercache")


LONGEST_LINE = 2_000
MOST_LINES = 200
"""Characters of a line, and lines of a traceback, that are logged at the most."""


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
            record.msg, record.args = message, () = f"{record.msg} ({type(error).__name__})", ()
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


class FailureLog:
    """Logs when a tier's circuit breaker opens, with the last error, and when it closes. Subscribes to `Signals`."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<FailureLog {self._last}>"

    def __call__(self, signal: Signal) -> None:
        """Take note of `signal`."""
        if isinstance(signal, TierFailed):
            self._last[signal.tier] = f"{signal.operation}: {signal.error}"
        elif isinstance(signal, BreakerChanged):
            if signal.state == "open":
                # repr: an error may quote what somebody else wrote, line ends included.
                logger.warning("%s is out of reach, requests go without it (%r)", signal.tier, self._last[signal.tier])
            else:
                logger.warning("%s is back", signal.tier)
