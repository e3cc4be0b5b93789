"""For how long a worker may judge by what it last heard of the log (rule I7)."""

from __future__ import annotations

import enum
import math

MAX_LAG = 1.0
MAX_UNVERIFIED = 60.0


class Trust(enum.Enum):
    """How far this worker's knowledge of the log can be relied on right now."""

    VERIFIED = "verified"
    UNVERIFIED = "unverified"
    """The log is out of reach, but was heard of within `max_unverified`."""
    LAPSED = "lapsed"


class Lease:
    """Points of the monotonic clock, in seconds.

    Args:
        now: When the worker begins.
        max_lag: Seconds for which an answer of the log lets this worker judge by itself.
        max_unverified: Seconds for which entries may be served after that, while the log is out of reach.
    """

    def __init__(self, now: float, *, max_lag: float, max_unverified: float) -> None:
        self.max_lag = max_lag
        self.until = -math.inf
        """Until when local judgement counts."""
        self.attention_at = -math.inf
        """From when on the log must be asked, or asked anew in the background, before an entry is used."""
        self._max_unverified = max_unverified
        self._unverified_until = now + max_unverified

    def __repr__(self) -> str:
        return f"<Lease until {self.until:.3f}>"

    def trust(self, now: float) -> Trust:
        """What counts at `now`."""
        if now < self.until:
            return Trust.VERIFIED
        return Trust.UNVERIFIED if now < self._unverified_until else Trust.LAPSED

    def renew(self, sent: float) -> None:
        """The log has confirmed, by the answer to a question sent at `sent`, that nothing was missed."""
        self.until = max(self.until, sent + self.max_lag)
        self._unverified_until = max(self._unverified_until, self.until + self._max_unverified)
        # Renewed in the background from half its life on, so that no request waits for the question.
        self.attention_at = self.until - self.max_lag / 2

    def renewing(self) -> None:
        """A question is under way: nobody else need think of it before the lease is over."""
        self.attention_at = self.until

    def hold_until(self, until: float) -> None:
        """Nobody else appends to the log, so nothing can be missed before `until`."""
        self.until = self.attention_at = self._unverified_until = until

    def end(self) -> None:
        """Let the log be asked before anything is judged."""
        self.until = self.attention_at = -math.inf
