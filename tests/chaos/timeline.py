"""What was done to whom, and when."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

GRACE = 10.0
"""Seconds after a fault for which Redis may still count as out of reach, if the worker does not say otherwise."""
STOPS = ("worker paused", "worker blocked", "worker killed")


@dataclass(slots=True)
class Event:
    """A fault.

    Args:
        name: What it is.
        worker: Whom it befalls; None: all of them.
        began: When, by the monotonic clock; `ended` likewise.
        recovered: When all was well again.
    """

    name: str
    worker: int | None
    began: float
    ended: float | None = None
    recovered: float | None = None


class Timeline:
    """All faults of a run."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.events: list[Event] = []

    @contextmanager
    def event(self, name: str, worker: int | None) -> Iterator[Event]:
        """A fault that lasts as long as the block."""
        event = Event(name, worker, time.monotonic())
        self.events.append(event)
        try:
            yield event
        finally:
            event.ended = time.monotonic()

    def over(self, event: Event) -> float | None:
        """Until when a fault is felt; None: still."""
        return event.recovered if event.recovered is not None else event.ended and event.ended + GRACE

    def touched(self, worker: int | None, since: float, until: float) -> bool:
        """Whether a fault was felt by `worker` (None: by anyone) at some time from `since` to `until`."""
        return any(
            event.began < until and (self.over(event) is None or self.over(event) > since)  # type: ignore[operator]
            for event in reversed(self.events)
            if worker is None or event.worker in (None, worker)
        )

    def stopped(self, worker: int | None, since: float, until: float) -> float:
        """Seconds, between `since` and `until`, for which a process stood still: this worker, or any."""
        return sum(
            max(0.0, min(until, event.ended or until) - max(since, event.began))
            for event in self.events
            if event.name in STOPS and (worker is None or event.worker in (None, worker))
        )

    def near(self, at: float) -> str:
        """What happened around a moment, in seconds since the run began."""
        lines = [
            f"{event.name} ({'all' if event.worker is None else event.worker}) "
            f"{event.began - self.started:.2f}-{'' if event.ended is None else f'{event.ended - self.started:.2f}'}"
            for event in self.events
            if event.began < at + 1 and (event.ended is None or event.ended > at - 10)
        ]
        return f"at {at - self.started:.2f} s: " + ("; ".join(lines) or "nothing for 10 s")
