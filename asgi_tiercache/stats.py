"""What the cache did, in numbers: a listener that counts signals and sums them up on demand.

Counting happens on the path of every hit, so it takes no lock. Under the GIL a count is lost only where two threads
meet between the reading and the writing of one counter; a free-threaded build may lose more. Numbers that an operator
reads as rates and percentiles bear that; a lock on each hit would not pay.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

from asgi_tiercache import signals
from asgi_tiercache.errors import ConfigError

T = TypeVar("T")

MAX_ROUTES = 1_000
"""Routes with a row of their own."""
MAX_REASONS = 64
"""Distinct names in any other count."""
MAX_NAME = 80
"""Characters in a name that is counted by itself; what is longer, or not printable, is free text, such as an error's
message."""
OTHER = "(other)"
"""Where everything beyond these bounds is counted."""

_FINEST = 250e-9
_PER_OCTAVE = 4
_OCTAVES = 28
BOUNDS = tuple(_FINEST * 2 ** (step / _PER_OCTAVE) for step in range(_OCTAVES * _PER_OCTAVE + 1))
"""Upper bounds of the latency buckets, in seconds: 250 ns to 67 s, each 19 % above the one before."""


class RegionSize(NamedTuple):
    """How full a region of L1 is."""

    name: str
    entries: int
    bytes: int
    max_entries: int
    max_bytes: int
    evictions: int
    """Entries that gave way to others since the region was made."""


class Histogram:
    """Durations in a fixed set of buckets: about 1 KB, however many are recorded."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)

    def record(self, seconds: float) -> None:
        """Count one duration. Below the first bound it counts in the first bucket, above the last in the last."""
        self._counts[bisect_left(BOUNDS, seconds)] += 1

    def merge(self, other: Histogram) -> None:
        """Add what `other` has recorded."""
        self._counts = [mine + theirs for mine, theirs in zip(self._counts, other._counts, strict=True)]

    @property
    def count(self) -> int:
        """How many durations were recorded."""
        return sum(self._counts)

    def percentile(self, q: float) -> float | None:
        """The duration, in seconds, that a share `q` of all durations did not exceed; None where there are none.

        It is the upper bound of the bucket, so at most 19 % too high; above 67 s it is 67 s.

        Raises:
            ConfigError: `q` is not between 0 and 1.
        """
        if not 0 <= q <= 1:
            raise ConfigError("q", f"must be a share between 0 and 1, not {q!r}")
        counts = self._counts.copy()
        total = sum(counts)
        if not total:
            return None
        bucket = bisect_left(list(accumulate(counts)), max(1, math.ceil(q * total)))
        return BOUNDS[min(bucket, len(BOUNDS) - 1)]

    def summary(self) -> dict[str, float | None]:
        """Median, 90th and 99th percentile in seconds, as `p50`, `p90` and `p99`."""
        return {"p50": self.percentile(0.5), "p90": self.percentile(0.9), "p99": self.percentile(0.99)}


class Tally(dict[str, int]):
    """Counts by name, for at most `MAX_REASONS` names; further ones and free text count under `OTHER`."""

    __slots__ = ()

    def add(self, name: str, count: int = 1) -> None:
        """Count `name`, `count` times."""
        if name not in self and (len(self) >= MAX_REASONS or len(name) > MAX_NAME or not name.isprintable()):
            name = OTHER
        self[name] = self.get(name, 0) + count


class _Rows(dict[str, T]):
    """Makes a row for each new name, up to `limit` of them; every further name shares the row `OTHER`."""

    __slots__ = ("_limit", "_make")

    def __init__(self, make: Callable[[], T], limit: int = MAX_REASONS) -> None:
        super().__init__()
        self._make = make
        self._limit = limit

    def __missing__(self, name: str) -> T:
        return self.setdefault(name if len(self) < self._limit else OTHER, self._make())


class _Route:
    """How the requests of one route, or the calls of one function, were answered."""

    __slots__ = ("hits", "misses", "not_stored", "passes")

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        self.not_stored = Tally()
        self.passes = Tally()

    def add(self, other: _Route) -> None:
        self.hits += other.hits
        self.misses += other.misses
        for mine, theirs in ((self.not_stored, other.not_stored), (self.passes, other.passes)):
            for reason, count in theirs.copy().items():
                mine.add(reason, count)

    def summary(self) -> dict[str, Any]:
        passes = self.passes.copy()
        answers = {"hits": self.hits, "misses": self.misses, "passes": sum(passes.values())}
        return {
            "answers": {**answers, "hit_rate": _hit_rate(self.hits, self.misses)},
            "passes": passes,
            "not_stored": self.not_stored.copy(),
        }


class _Place:
    """What was found, or not, in one place, and how long that took."""

    __slots__ = ("hits", "latency", "misses", "times")

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        self.times = 0
        """How often a lower tier was asked."""
        self.latency = Histogram()


class _Breaker:
    """One tier's circuit breaker, as last heard of."""

    __slots__ = ("changes", "state")

    def __init__(self) -> None:
        self.state = "closed"
        self.changes = 0
        """How often it ceased to be closed, or became so again."""

    def summary(self) -> dict[str, Any]:
        return {"state": self.state, "changes": self.changes}


class Stats:
    """Counts signals; `Stats().listen_to(signals)` sets it going.

    Memory is bounded whatever it is told: 1,000 routes, and 64 names in every other count.

    Args:
        regions: Says, when asked, how full each region of L1 is.
        held: Says, when asked, how many invalidations wait for the log to take them.
    """

    def __init__(self, regions: Callable[[], Iterable[RegionSize]] = tuple, held: Callable[[], int] = int) -> None:
        self._regions = regions
        self._held = held
        self._routes = _Rows(_Route, MAX_ROUTES)
        self._places = _Rows(_Place)
        self._reads = _Rows(_Place)
        self._fills = Histogram()
        self._failures = _Rows(Tally)
        self._breakers = _Rows(_Breaker)
        self._rejected = _Rows(Tally)
        self._dropped = _Rows(Tally)
        self._evictions = Tally()
        self._durable = Tally()
        self._not_durable = Tally()
        self._refreshes = Tally()
        self._callbacks = Tally()
        self._handlers: dict[type[signals.Signal], Callable[[Any], None]] = {
            signals.Answered: self._answered,
            signals.TierRead: self._tier_read,
            signals.TierFailed: self._tier_failed,
            signals.BreakerChanged: self._breaker_changed,
            signals.EntryRejected: self._entry_rejected,
            signals.WriteDropped: self._write_dropped,
            signals.Evicted: self._evicted,
            signals.Invalidated: self._invalidated,
            signals.Refreshed: self._refreshed,
            signals.CallbackFailed: self._callback_failed,
        }

    def listen_to(self, emitted: signals.Signals) -> None:
        """Count what is emitted there from now on."""
        for kind, handler in self._handlers.items():
            emitted.subscribe(handler, kind)

    def __repr__(self) -> str:
        total = self._total().summary()["answers"]
        return f"<Stats hits={total['hits']} misses={total['misses']} passes={total['passes']}>"

    def snapshot(self, *, routes: bool) -> dict[str, Any]:
        """Everything counted so far, ready for JSON. Latencies are seconds, rates None where nothing was asked.

        - `answers`: `hits`, `misses`, `passes`, `hit_rate`. `passes`, `not_stored`: by reason.
        - `latency`: of `hits` and of `misses`, as `p50`, `p90`, `p99`.
        - `tiers`: by name `hits`, `misses`, `hit_rate`, and the `latency` of the answers that came from there.
          `L1` counts each answer that did not pass by, and tells `entries`, `bytes` and `regions`. A lower tier counts
          the entries that it was asked for, with `reads` (commands) and `read_latency`, and the `answers` made of
          them: an entry that was found and then judged invalid is a hit of the tier, yet no answer.
        - `flight`: `hits` that waited for another request's fill, and their `latency`.
        - `failures`, `breakers`, `rejected`, `writes`: by lower tier.
        - `evictions`: entries by region. `invalidations`: by whether they were durable, then by kind;
          `held`: those that wait for the log now.
        - `refreshes`: of what was stale or soon would be, by outcome. `callbacks_failed`: those of `on_invalidate`, by
          exception.
        - `routes`, only where asked for: by route its `answers`, `passes` and `not_stored`.

        Args:
            routes: Tell of single routes, too. Without it nothing in the result names a route, a key or a tag.
        """
        total = self._total()
        snapshot = {
            **total.summary(),
            "latency": {"hits": self._hit_latency(), "misses": self._fills.summary()},
            "tiers": {"L1": self._memory(total), **{name: self._lower(name) for name in self._lower_tiers()}},
            "flight": self._from("flight"),
            "failures": _copies(self._failures),
            "breakers": {tier: breaker.summary() for tier, breaker in self._breakers.copy().items()},
            "rejected": _copies(self._rejected),
            "writes": {"dropped": _copies(self._dropped)},
            "evictions": self._evictions.copy(),
            "invalidations": {
                "durable": self._durable.copy(),
                "not_durable": self._not_durable.copy(),
                "held": self._held(),
            },
            "refreshes": self._refreshes.copy(),
            "callbacks_failed": self._callbacks.copy(),
        }
        if routes:
            snapshot["routes"] = {name: route.summary() for name, route in self._routes.copy().items()}
        return snapshot

    def _answered(self, signal: signals.Answered) -> None:
        route, outcome, detail, seconds, times = signal
        row = self._routes[route]
        if outcome == "hit":
            row.hits += times
            place = self._places[detail]
            place.hits += times
            if seconds > 0:
                place.latency.record(seconds)
        elif outcome == "miss":
            row.misses += times
            if detail:
                row.not_stored.add(detail, times)
            if seconds > 0:
                self._fills.record(seconds)
        else:
            row.passes.add(detail)

    def _tier_read(self, signal: signals.TierRead) -> None:
        tier, hits, misses, seconds, times = signal
        reads = self._reads[tier]
        reads.hits += hits
        reads.misses += misses
        reads.times += times
        if seconds > 0:
            reads.latency.record(seconds)

    def _tier_failed(self, signal: signals.TierFailed) -> None:
        # The error's text may quote an address or a key: it belongs in the log, not in numbers that anyone may read.
        self._failures[signal.tier].add(signal.operation)

    def _breaker_changed(self, signal: signals.BreakerChanged) -> None:
        breaker = self._breakers[signal.tier]
        breaker.changes += (breaker.state == "closed") != (signal.state == "closed")
        breaker.state = signal.state

    def _entry_rejected(self, signal: signals.EntryRejected) -> None:
        self._rejected[signal.tier].add(signal.reason)

    def _write_dropped(self, signal: signals.WriteDropped) -> None:
        self._dropped[signal.tier].add(signal.reason)

    def _evicted(self, signal: signals.Evicted) -> None:
        self._evictions.add(signal.region, signal.entries)

    def _invalidated(self, signal: signals.Invalidated) -> None:
        (self._durable if signal.durable else self._not_durable).add(signal.kind, signal.names)

    def _refreshed(self, signal: signals.Refreshed) -> None:
        self._refreshes.add(signal.outcome)

    def _callback_failed(self, signal: signals.CallbackFailed) -> None:
        self._callbacks.add(signal.problem)

    def _total(self) -> _Route:
        total = _Route()
        for route in self._routes.copy().values():
            total.add(route)
        return total

    def _hit_latency(self) -> dict[str, float | None]:
        hits = Histogram()
        for place in self._places.copy().values():
            hits.merge(place.latency)
        return hits.summary()

    def _from(self, name: str) -> dict[str, Any]:
        place = self._places.get(name) or _Place()
        return {"hits": place.hits, "latency": place.latency.summary()}

    def _memory(self, total: _Route) -> dict[str, Any]:
        found = self._from("L1")
        misses = total.misses + sum(place.hits for name, place in self._places.copy().items() if name != "L1")
        sizes = list(self._regions())
        return {
            **found,
            "misses": misses,
            "hit_rate": _hit_rate(found["hits"], misses),
            "entries": sum(size.entries for size in sizes),
            "bytes": sum(size.bytes for size in sizes),
            "regions": dict(map(_named, sizes)),
        }

    def _lower_tiers(self) -> list[str]:
        return sorted({*self._reads.copy(), *self._places.copy()} - {"L1", "flight"})

    def _lower(self, tier: str) -> dict[str, Any]:
        answers = self._from(tier)
        reads = self._reads.get(tier) or _Place()
        return {
            "hits": reads.hits,
            "misses": reads.misses,
            "hit_rate": _hit_rate(reads.hits, reads.misses),
            "latency": answers["latency"],
            "answers": answers["hits"],
            "reads": reads.times,
            "read_latency": reads.latency.summary(),
        }


def _hit_rate(hits: int, misses: int) -> float | None:
    asked = hits + misses
    return hits / asked if asked else None


def _copies(rows: _Rows[Tally]) -> dict[str, dict[str, int]]:
    return {name: tally.copy() for name, tally in rows.copy().items()}


def _named(size: RegionSize) -> tuple[str, dict[str, int]]:
    fields = size._asdict()
    return fields.pop("name"), fields
