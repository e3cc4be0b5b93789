"""Invalidations that the log has not taken yet: they hold on this worker, and are sent again (rule I9)."""

from __future__ import annotations

import threading
from typing import NamedTuple

from asgi_tiercache.invalidation.knowledge import Verdict
from asgi_tiercache.invalidation.log import MAX_PATTERNS, Purge
from asgi_tiercache.invalidation.patterns import matches
from asgi_tiercache.types import Entry

MAX_HELD = 10_000
"""Names that wait at the most; one more, and everything is invalidated instead."""


class _Name(NamedTuple):
    kind: str
    """`"tag"`, `"pattern"` or `"everything"`."""
    soft: bool
    name: str = ""


class _Claim(NamedTuple):
    number: int
    """Which hold it is of: what is held again while it is sent stays held."""
    settle: float


_EVERYTHING = _Name("everything", False)


class Held:
    """What waits, one of each name. Loops in several threads may use it.

    More than 10,000 become one `clear()`; so do more than 64 patterns, since each is tried on every entry that is
    judged, and the log would make a `clear()` of them in the end.
    """

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._number = 0
        self.waiting: dict[_Name, _Claim] = {}

    def __repr__(self) -> str:
        return f"<Held {len(self)}{', everything' if _EVERYTHING in self.waiting else ''}>"

    def __len__(self) -> int:
        return len(self.waiting)

    def add(self, purge: Purge) -> None:
        """Hold `purge`."""
        with self._changing:
            self._number += 1
            for name in _names(purge):
                settle = max(purge.settle, self.waiting[name].settle if name in self.waiting else 0.0)
                self.waiting[name] = _Claim(self._number, settle)
            patterns = purge.patterns and sum(name.kind == "pattern" for name in self.waiting)
            if len(self.waiting) > MAX_HELD or (patterns and patterns > MAX_PATTERNS):
                settle = max(claim.settle for claim in self.waiting.values())
                self.waiting = {_EVERYTHING: _Claim(self._number, settle)}

    def judge(self, entry: Entry) -> Verdict:
        """What the held invalidations make of `entry`: FRESH where they do not concern it."""
        if not self.waiting:
            return Verdict.FRESH
        for soft, verdict in ((False, Verdict.INVALID), (True, Verdict.STALE)):
            if self._concerns(entry, soft):
                return verdict
        return Verdict.FRESH

    def batches(self) -> list[tuple[Purge, dict[_Name, _Claim]]]:
        """What to send, hard ones first, each with what `sent` has to be told once it is done."""
        batches, waiting = [], tuple(self.waiting.items())
        for soft in (False, True):
            claims = {name: claim for name, claim in waiting if name.soft is soft}
            if claims:
                named = {kind: tuple(name.name for name in claims if name.kind == kind) for kind in ("tag", "pattern")}
                everything = _Name("everything", soft) in claims
                settle = max(claim.settle for claim in claims.values())
                batches.append((Purge(named["tag"], named["pattern"], everything, soft, settle), claims))
        return batches

    def sent(self, claims: dict[_Name, _Claim]) -> None:
        """Let go of what was sent, but not of what was held again meanwhile."""
        with self._changing:
            for name, claim in claims.items():
                if self.waiting.get(name) == claim:
                    del self.waiting[name]

    def _concerns(self, entry: Entry, soft: bool) -> bool:
        waiting = self.waiting
        if _Name("everything", soft) in waiting or any(_Name("tag", soft, tag) in waiting for tag in entry.tags):
            return True
        globs = [name.name for name in tuple(waiting) if name.kind == "pattern" and name.soft is soft]
        return any(matches(glob, entry.tags) for glob in globs)


def _names(purge: Purge) -> list[_Name]:
    names = [_Name("tag", purge.soft, tag) for tag in purge.tags]
    names += [_Name("pattern", purge.soft, glob) for glob in purge.patterns]
    return [*names, _Name("everything", purge.soft)] if purge.everything else names
