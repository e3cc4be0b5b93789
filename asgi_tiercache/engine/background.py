"""Work that nobody waits for: so much at once, so much that waits, and a part of either for each route or function."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from asgi_tiercache.tiers.loops import PerLoop

Task: TypeAlias = "asyncio.Task[None]"

MAX_AT_ONCE = 32
"""Works of one event loop that are under way at a time."""
MAX_FOR_EACH = 16
"""Of these, those of one route or function: a slow one leaves room for the others."""
MAX_WAITING = 256
"""Works of one event loop that wait for their turn; what comes then is not done."""


class _Work(NamedTuple):
    place: object
    start: Callable[[], Task | None]


class Background:
    """Starts works one after another, in the order in which they came, as far as there is room.

    Works belong to the event loop on which they were asked for, and end with it. Each is a task that is held here until
    it ends, in an empty context: what context variables say of whoever has set it off is not in any key.

    Args:
        at_once: Works that are under way at a time.
        for_each: Of these, those of one place.
        waiting: Works that wait.
    """

    def __init__(self, *, at_once: int = MAX_AT_ONCE, for_each: int = MAX_FOR_EACH, waiting: int = MAX_WAITING) -> None:
        self._bounds = at_once, for_each, waiting
        self._loops = PerLoop(lambda: _Works(*self._bounds))

    def __repr__(self) -> str:
        return "<Background at_once={} for_each={} waiting={}>".format(*self._bounds)

    def waits(self, key: str) -> bool:
        """Whether the work of `key` waits for its turn."""
        works = self._loops.peek()
        return works is not None and key in works.waiting

    def begin(self, key: str, place: object, start: Callable[[], Task | None]) -> bool:
        """Start the work of `key`, now or later; False if there is no room for it, or if it waits already.

        Args:
            key: What is to be done.
            place: Whose work it is; None: nobody's in particular.
            start: Makes the task; None: there is nothing to do any more.
        """
        try:
            works = self._loops.get()
        except RuntimeError:
            return False  # this loop is ending
        return works.begin(key, _Work(place, start))

    def tasks(self) -> list[Task]:
        """Those of the running loop that are under way."""
        works = self._loops.peek()
        return [] if works is None else list(works.running)

    def forget(self) -> None:
        """Start nothing of what waits on the running loop."""
        works = self._loops.peek()
        if works is not None:
            works.waiting.clear()


class _Works:
    """Those of one event loop."""

    def __init__(self, at_once: int, for_each: int, limit: int) -> None:
        self.running: dict[Task, object] = {}
        """Each with its place."""
        self.waiting: dict[str, _Work] = {}
        self._at_once = at_once
        self._for_each = for_each
        self._limit = limit

    def begin(self, key: str, work: _Work) -> bool:
        if key in self.waiting or len(self.waiting) >= self._limit:
            return False
        if self._has_room_for(work.place):
            self._start(work)
        else:
            self.waiting[key] = work
        return True

    def _has_room_for(self, place: object) -> bool:
        if len(self.running) >= self._at_once:
            return False
        return place is None or sum(each is place for each in self.running.values()) < self._for_each

    def _start(self, work: _Work) -> None:
        task = contextvars.Context().run(work.start)
        if task is not None:
            self.running[task] = work.place
            task.add_done_callback(self._ended)

    def _ended(self, task: Task) -> None:
        del self.running[task]
        if task.cancelled():  # the loop is ending, or the cache is being closed
            self.waiting.clear()
        for key, work in list(self.waiting.items()):
            if self._has_room_for(work.place):
                del self.waiting[key]
                self._start(work)
