"""How what is stored grows old: when to renew it, how long it lives, and which of it will be asked for again.

Nothing here waits, reads a clock or draws a random number by itself; times are seconds of the monotonic clock, and
`random` is like `random.random`: at least 0, below 1.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Generic, NamedTuple, TypeAlias, TypeVar, cast

from asgi_tiercache.errors import TierCacheError

T = TypeVar("T")
Random: TypeAlias = Callable[[], float]

UNTOUCHED = 1 / 3
"""The part of a lifetime in which nothing is renewed early, however long fills take: at most two more in each."""
MARGIN = 1.5
"""Fill times before the expiry at which a renewal begins at the latest, where `beta` is 1."""
PROBABLE = 0.63
"""How probable the next request has to be for a key to be renewed without one."""
MAX_RHYTHMS = 10_000
"""Keys of which the rhythm is known."""

_SMOOTHING = 1 / 8
_DEVIATION_SMOOTHING = 1 / 4
_DEVIATIONS = 4
_UNKNOWN = -1.0
_CHANCES = 8


def early_at(now: float, expires: float, fill_seconds: float, beta: float, random: Random) -> float:
    """From when on a request for what is stored at `now` begins to renew it, and is answered from it all the same.

    After XFetch (Vattani, Chierichetti and Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015),
    in which each request draws an `x` with P(x >= g) = exp(-g), and renews if `x * fill_seconds * beta` is more than
    what is left. That lets requests that know nothing of each other decide at different times. Those of one process
    do know of each other, so here one draw decides for all of them: a hit costs a comparison and no logarithm, and how
    early the renewal begins does not grow with the number of requests. What remains independent are processes.

    A draw below 1 would begin a fill that ends after the expiry, with requests waiting, and one just above it leaves no
    time until the next request comes or for a fill that is slower than most: what is below `MARGIN` would be drawn
    again. An exponential `x` of which `x >= m` is known is `m + x` (it has no memory), so that is what is used: in the
    mean 2.5 times `fill_seconds * beta` before the expiry, and never less than 1.5 times.

    Args:
        now: When this process got hold of what is stored.
        expires: When a request would have to wait for a fill; returned where nothing is to be early.
        fill_seconds: How long a fill takes, such as `FillTime.seconds`; 0: not known, so not early.
        beta: 1 as in the paper; more begins earlier.
        random: Drawn from once.
    """
    gap = fill_seconds * beta * (MARGIN - math.log(1.0 - random()))
    return min(expires, max(expires - gap, now + (expires - now) * UNTOUCHED))


def jittered(seconds: float, jitter: float, random: Random) -> float:
    """A lifetime of `seconds`, of which chance takes up to the part `jitter`, below 1.

    It only ever takes: `seconds` is what a policy or a response promises at the most (nobody has to use a response for
    as long as it is fresh). What clients are told is the response's own, and stays as it is.
    """
    return seconds * (1.0 - jitter * random())


def failure_ttl(error: BaseException, negative: Mapping[type[Exception], float]) -> float:
    """How long what a function raised is stored in place of a value, by the nearest of its classes; 0: not at all.

    What the cache itself raises is somebody's mistake, and never stored.
    """
    if isinstance(error, TierCacheError):
        return 0.0
    return next((negative[kind] for kind in type(error).__mro__ if kind in negative), 0.0)


def will_be_asked(ttl: float, gap: float) -> bool:
    """Whether one more request within `ttl` is probable, if they come `gap` apart and know nothing of each other."""
    return gap <= 0.0 or -math.expm1(-ttl / gap) >= PROBABLE


class FillTime:
    """How long the fills of a route or a function take: what was measured, smoothed, with a margin for the next one.

    The margin is four mean deviations, as in TCP, which has to know the same of its answers (RFC 6298, section 2):
    where fills take equally long it shrinks to nothing.
    """

    __slots__ = ("_deviation", "_mean")

    def __init__(self) -> None:
        self._mean = 0.0
        self._deviation = 0.0

    def __repr__(self) -> str:
        return f"<FillTime {self._mean:.3g} s, deviation {self._deviation:.3g} s>"

    @property
    def seconds(self) -> float:
        """What the next fill will hardly exceed; 0 before the first."""
        return self._mean + _DEVIATIONS * self._deviation

    def add(self, seconds: float) -> None:
        """A fill that brought something took `seconds`."""
        if not self._mean:
            self._mean, self._deviation = seconds, seconds / 2
            return
        self._deviation += (abs(seconds - self._mean) - self._deviation) * _DEVIATION_SMOOTHING
        self._mean += (seconds - self._mean) * _SMOOTHING


class Due(NamedTuple, Generic[T]):
    """A key to be renewed now."""

    key: str
    what: T
    """What was given to `watch`."""


class Rhythms(Generic[T]):
    """In which rhythm keys are asked for, and which of them are to be renewed before they are asked for again.

    Bounded: where a new key finds no room, the one that came first goes, unless it was asked for since. Keys that are
    asked for once cannot drive out the others.

    Args:
        limit: How many keys are known at the most.
    """

    def __init__(self, *, limit: int = MAX_RHYTHMS) -> None:
        self._limit = limit
        self._beats: OrderedDict[str, _Beat[T]] = OrderedDict()
        self._beat = self._beats.get
        # Like that of `ExpiryCache`: leftovers stay until they surface, told by their number being no beat's any more.
        self._heap: list[tuple[float, int, str]] = []
        self._watched = 0
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Rhythms of {len(self._beats)} keys, {self._watched} watched>"

    def __len__(self) -> int:
        return len(self._beats)

    def seen(self, key: str, now: float) -> None:
        """`key` was asked for, and hit or missed. Called on every request of the route; without a lock."""
        beat = self._beat(key)
        if beat is None:
            return self._admit(key, now)
        # Threads that meet here may lose one gap of many.
        known = beat.gap
        gap = now - beat.last
        beat.last = now
        beat.gap = known + (gap - known) * _SMOOTHING if known >= 0.0 else gap

    def watch(self, key: str, at: float, ttl: float, what: T) -> None:
        """`key` was stored for `ttl` and is to be renewed from `at` on, if it will be asked for again then.

        A key that nobody has asked for, or that had to go, is not watched.
        """
        with self._lock:
            beat = self._beats.get(key)
            if beat is None:
                return
            self._watched += not beat.number
            beat.number, beat.ttl, beat.what = next(self._numbers), ttl, what
            heapq.heappush(self._heap, (at, beat.number, key))
            self._compact()

    def due(self, now: float, limit: int) -> list[Due[T]]:
        """At most `limit` keys to be renewed, in the order in which their time came; each once for each `watch`."""
        found: list[Due[T]] = []
        with self._lock:
            while len(found) < limit and self._heap and self._heap[0][0] <= now:
                _, number, key = heapq.heappop(self._heap)
                beat = self._beats.get(key)
                if beat is None or beat.number != number:
                    continue
                if beat.gap >= 0.0 and will_be_asked(beat.ttl, max(beat.gap, now - beat.last)):
                    found.append(Due(key, cast(T, beat.what)))
                self._unwatch(beat)
        return found

    def next_at(self) -> float | None:
        """When it is worth calling `due` again; None while nothing is watched."""
        return self._heap[0][0] if self._heap else None

    def clear(self) -> None:
        """Forget every key."""
        with self._lock:
            self._beats.clear()
            self._heap.clear()
            self._watched = 0

    def _admit(self, key: str, now: float) -> None:
        with self._lock:
            if len(self._beats) >= self._limit:
                self._make_room()
            self._beats.setdefault(key, _Beat(now))

    def _make_room(self) -> None:
        """Second chances for those asked for since they came to stand where they do; not without end."""
        for _ in range(_CHANCES):
            key, beat = self._beats.popitem(last=False)
            if beat.last == beat.placed:
                break
            beat.placed = beat.last
            self._beats[key] = beat
        else:
            key, beat = self._beats.popitem(last=False)
        self._unwatch(beat)

    def _unwatch(self, beat: _Beat[T]) -> None:
        self._watched -= bool(beat.number)
        beat.number, beat.what = 0, None

    def _compact(self) -> None:
        """Rebuild the heap once more than half of it is leftovers: constant time per change, amortised."""
        if len(self._heap) > 2 * self._watched + 16:
            known = self._beats
            self._heap = [due for due in self._heap if due[2] in known and known[due[2]].number == due[1]]
            heapq.heapify(self._heap)


class _Beat(Generic[T]):
    """What is known of one key."""

    __slots__ = ("gap", "last", "number", "placed", "ttl", "what")

    def __init__(self, now: float) -> None:
        self.last = now
        self.gap = _UNKNOWN
        """Smoothed seconds between two requests."""
        self.placed = now
        """What `last` was when it came to stand where it does."""
        self.number = 0
        """Of its place in the heap; 0: not watched."""
        self.ttl = 0.0
        self.what: T | None = None
