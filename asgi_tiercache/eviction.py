"""Which entry a full region gives up: first of those that nobody has asked for again, then by the region's order.

The orders are cachetools', and the earliest expiry first.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

from cachetools import Cache, LFUCache, LRUCache

from asgi_tiercache.admission import Doorkeeper
from asgi_tiercache.config import Eviction


class Expiring(Protocol):
    """What an `ExpiryCache` holds."""

    expires: float
    """The point in time from which on the value is of no use; of whatever clock, but one for all values."""


E = TypeVar("E", bound=Expiring)

PROBATION = 0.1
"""The share of a full region, in entries and in bytes, for what nobody has asked for again."""
REMEMBERED = 4
"""Keys that were on probation, for each entry of a region, that it remembers at the least."""

_Due = tuple[float, int, str]
"""Expiry, insertion number (so that keys are never compared), key."""


class _Lenient(Cache[str, E]):
    """A cache in which what is not there is None: an exception for each miss costs three times the look-up."""

    def __missing__(self, key: str) -> Any:
        return None


class ExpiryCache(_Lenient[E]):
    """A cachetools cache that gives up the value that expires first; among equals, the oldest.

    The expiry counts as it was when the value was put in.
    """

    def __init__(self, maxsize: float, getsizeof: Callable[[E], float] | None = None) -> None:
        super().__init__(maxsize, getsizeof)
        # A heap cannot drop from its middle: what was deleted or replaced stays in it until it surfaces, and is told
        # by `_due` naming another tuple for its key, or none.
        self._heap: list[_Due] = []
        self._due: dict[str, _Due] = {}
        self._numbers = itertools.count()

    def __setitem__(self, key: str, value: E) -> None:
        super().__setitem__(key, value)
        due = self._due[key] = (value.expires, next(self._numbers), key)
        heapq.heappush(self._heap, due)
        self._compact()

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        del self._due[key]
        self._compact()

    def popitem(self) -> tuple[str, E]:
        """Remove and return the key and the value that expire first.

        Raises:
            KeyError: the cache is empty.
        """
        while self._heap:
            due = heapq.heappop(self._heap)
            key = due[2]
            if self._due.get(key) is due:
                return key, self.pop(key)
        raise KeyError("the cache is empty")

    def clear(self) -> None:
        """Remove everything."""
        super().clear()
        self._heap.clear()
        self._due.clear()

    def _compact(self) -> None:
        """Rebuild the heap once more than half of it is leftovers: constant time per change, amortised."""
        if len(self._heap) > 2 * len(self._due) + 16:
            self._heap = list(self._due.values())
            heapq.heapify(self._heap)


class Probation:
    """Keys of a region that nobody has asked for since they came: at most a tenth of it, once it is full.

    A sweep by keys that are asked for once, such as an attacker's or a crawler's, pushes out its like and nothing else.
    As the small queue of S3-FIFO (Yang et al., SOSP 2023), before whatever order the region has; what had to go and
    comes again soon is not on probation a second time. A region of fewer than ten entries has none.

    Args:
        max_entries: What the region holds.
        max_bytes: Likewise.
    """

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._share_of_entries = int(max_entries * PROBATION)
        self._share_of_bytes = max_bytes * PROBATION
        self._weights: dict[str, int] = {}
        """By key, in the order in which they came."""
        self._bytes = 0
        self._known: Doorkeeper | None = None
        """Keys that were on probation before; there is none until the region is full for the first time."""

    def __len__(self) -> int:
        return len(self._weights)

    def __repr__(self) -> str:
        return f"<Probation of {len(self)} keys, {self._bytes} bytes>"

    def enter(self, key: str, weight: int) -> None:
        """`key` is new in the region, and weighs so many bytes."""
        if self._share_of_entries and (self._known is None or not self._known.holds(key)):
            self._weights[key] = weight
            self._bytes += weight

    def leave(self, key: str) -> None:
        """`key` has left the region, or was asked for again."""
        self._bytes -= self._weights.pop(key, 0)

    def longest(self) -> str | None:
        """The key that was on probation for longest, and is so no more; None while it is for less than its share."""
        if len(self._weights) < (self._share_of_entries or math.inf) and self._bytes < self._share_of_bytes:
            return None
        key = next(iter(self._weights))
        self.leave(key)
        self.remember(key)
        return key

    def remember(self, key: str) -> None:
        """`key` need not be on probation when it comes again."""
        if self._known is None:
            keys = REMEMBERED * self._max_entries
            self._known = Doorkeeper(keys, words=keys)
        self._known.add(key)

    def clear(self) -> None:
        """The region was emptied."""
        self._weights.clear()
        self._bytes = 0


class _LRU(_Lenient[E], LRUCache[str, E]):
    pass


class _LFU(_Lenient[E], LFUCache[str, E]):
    pass


def mapping_of(cache: Cache[str, E]) -> Mapping[str, E]:
    """What `cache` holds, to be looked at without a word to its eviction order.

    The dictionary inside, where cachetools has one as we know it: asking the cache itself takes several calls. If not,
    its own look-up, which the orders do not override.
    """
    inside = getattr(cache, "_Cache__data", None)
    return inside if isinstance(inside, dict) else _Peeking(cache)


class _Peeking(Mapping[str, E]):
    """A cache as a mapping that does not touch its order."""

    def __init__(self, cache: Cache[str, E]) -> None:
        self._cache = cache

    def __getitem__(self, key: str) -> E:
        if key not in self._cache:
            raise KeyError(key)
        return Cache.__getitem__(self._cache, key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._cache)

    def __len__(self) -> int:
        return len(self._cache)


_ORDERS: dict[Eviction, type[Cache[str, Any]]] = {"lru": _LRU, "lfu": _LFU, "ttl": ExpiryCache}


def make_cache(eviction: Eviction, max_bytes: int, getsizeof: Callable[[E], int]) -> Cache[str, E]:
    """An empty cache of at most `max_bytes`, as `getsizeof` counts them, that gives up values by `eviction`.

    Indexing it with a key that it does not hold gives None.
    """
    return _ORDERS[eviction](max_bytes, getsizeof)
