"""Which entry a full region gives up: cachetools' orders, and the earliest expiry first."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

from cachetools import Cache, LFUCache, LRUCache

from asgi_tiercache.config import Eviction


class Expiring(Protocol):
    """What an `ExpiryCache` holds."""

    expires: float
    """The point in time from which on the value is of no use; of whatever clock, but one for all values."""


E = TypeVar("E", bound=Expiring)

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
