"""Facts that the lower layers report, and the hub that hands them on.

Statistics, logging and metrics subscribe; nothing that emits a signal knows who listens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

logger = logging.getLogger("asgi_tiercache")

WRITES = " writes"
"""Stands behind a tier's name where only what is written there is meant."""


class Answered(NamedTuple):
    """A request or a function call was answered."""

    route: str
    """The route's template, or the function's name."""
    outcome: str
    """`"hit"`, `"miss"`, or `"pass"` where the cache stood aside."""
    detail: str
    """Of a hit: the tier (`"L1"`, `"L2"`, `"L3"`, `"flight"`); of a miss: `""` or why it was not stored;
    of a pass: the reason."""
    seconds: float
    """From arrival to the answer's end; 0.0 where it was not measured."""
    times: int = 1
    """How many answers this stands for: hits are reported by sixteens, with the time of the last."""


class TierRead(NamedTuple):
    """A lower tier was asked for entries. The first read is reported at once, the rest by sixteens."""

    tier: str
    hits: int
    misses: int
    seconds: float
    """How long the last of these reads took; 0.0 where it was not measured."""
    reads: int = 1
    """How many times it was asked."""


class TierFailed(NamedTuple):
    """A tier failed, refused or ran into its deadline; the operation counted as a miss."""

    tier: str
    operation: str
    error: str
    refused: bool = False
    """Whether the tier is well, and only would not do this."""


class BreakerChanged(NamedTuple):
    """A tier's circuit breaker opened or closed, or there is a try whether it can be closed."""

    tier: str
    """The tier; with `" writes"` behind it: that of its writes alone, where the tier is well but takes none."""
    state: str
    """`"open"`, `"half_open"` or `"closed"`."""


class EntryRejected(NamedTuple):
    """Bytes found in a lower tier were not a usable entry; they counted as a miss."""

    tier: str
    reason: str


class WriteDropped(NamedTuple):
    """A write to a lower tier was given up."""

    tier: str
    reason: str
    """`"queue full"`, `"too large"`, `"closed"`; `"failed"`; `"put off"`: the tier takes no writes; `"unavailable"`: it
    is out of reach; or why there were no bytes to write."""


class Evicted(NamedTuple):
    """A region of L1 made room."""

    region: str
    entries: int


class Invalidated(NamedTuple):
    """An invalidation was made on this worker."""

    kind: str
    """`"tag"`, `"key"`, `"path"`, `"route"`, `"user"`, `"pattern"`, `"event"` or `"all"`."""
    names: int
    """How many tags, keys, ... were named."""
    durable: bool


class Refreshed(NamedTuple):
    """What was stale, or soon would be, was made anew, behind the back of whoever was served it."""

    route: str
    """The route's template, or the function's name."""
    outcome: str
    """`"stored"`; `"failed"`; `"found"`: another worker had stored it; `"elsewhere"`: another worker is at it;
    `"dropped"`: too many wait; or why the new one was not stored."""


class CallbackFailed(NamedTuple):
    """A callback of the user's raised, or was too slow to be told."""

    name: str
    problem: str
    """The exception's type, or `"dropped"`."""


Signal = (
    Answered
    | TierRead
    | TierFailed
    | BreakerChanged
    | EntryRejected
    | WriteDropped
    | Evicted
    | Invalidated
    | Refreshed
    | CallbackFailed
)
Listener = Callable[[Signal], None]


class Signals:
    """Hands each signal to every listener of its kind, in the order in which they subscribed."""

    def __init__(self) -> None:
        self._listeners: tuple[tuple[Listener, tuple[type, ...]], ...] = ()
        self._of_kind: dict[type, tuple[Listener, ...]] = {}
        """What `emit` needs: a listener costs nothing where it does not listen."""

    def subscribe(self, listener: Listener, *kinds: type) -> None:
        """Call `listener` with every signal from now on, on the thread that emits it; with `kinds`, with these only."""
        self._listeners = (*self._listeners, (listener, kinds))
        self._of_kind = {}

    def emit(self, signal: Signal) -> None:
        """Report `signal`. A listener that raises is logged; it fails nobody's request."""
        kind = type(signal)
        listeners = self._of_kind.get(kind)
        if listeners is None:
            listeners = tuple(each for each, kinds in self._listeners if not kinds or kind in kinds)
            self._of_kind[kind] = listeners
        for listener in listeners:
            try:
                listener(signal)
            except Exception:
                logger.exception("listener %r failed on %s", listener, kind.__name__)
