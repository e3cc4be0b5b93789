"""What an operator has to hear of: a tier that is out of reach, and that it is back."""

from __future__ import annotations

import logging

from asgi_tiercache.signals import BreakerChanged, Signal, TierFailed

logger = logging.getLogger("asgi_tiercache")


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
