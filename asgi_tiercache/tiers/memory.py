"""L1: entries in this process, in regions with bounds of their own. Serves every event loop and thread."""

from __future__ import annotations

import threading
from operator import attrgetter

from asgi_tiercache.config import Region
from asgi_tiercache.errors import ConfigError
from asgi_tiercache.eviction import Probation, make_cache, mapping_of
from asgi_tiercache.signals import Evicted, Signals
from asgi_tiercache.types import Entry

ENTRY_OVERHEAD = 600
"""Bytes that an entry costs beyond its own: the objects, their places in the dictionaries and in the order."""


class Bucket:
    """One region: at most `max_entries` entries and `max_bytes` bytes, each entry until it `ends`."""

    def __init__(self, region: Region, *, signals: Signals) -> None:
        self.region = region
        self.evictions = 0
        """How many entries made room for others so far."""
        self._signals = signals
        self._lock = threading.Lock()
        # cachetools asks for the size of the value alone; put() knows the key as well.
        self._cache = make_cache(region.eviction, region.max_bytes, attrgetter("weight"))
        self._probation = Probation(region.max_entries, region.max_bytes)
        self.held = mapping_of(self._cache)
        """What is in it, those past their time included; looking there does not touch the eviction order."""

    def get(self, key: str, now: float) -> Entry | None:
        """The entry under `key` that may be used as it is at `now`, a point of the monotonic clock."""
        if key not in self.held:  # the first thing that each request for a lower tier does
            return None
        # Also reading moves the key in the eviction order, hence the lock.
        with self._lock:
            entry: Entry | None = self._cache[key]
            if entry is None:
                return None
            if now < entry.expires:
                entry.used = True
                return entry
            if now >= entry.ends:
                self._remove(key)
                if entry.used:
                    self._probation.remember(key)
            return None

    def retained(self, key: str, now: float) -> Entry | None:
        """The entry under `key` that is of any use at `now`, if only to be validated, without touching the order."""
        entry = self.held.get(key)
        return entry if entry is not None and now < entry.ends else None

    def put(self, key: str, entry: Entry) -> bool:
        """Keep `entry`, in place of others where there is no room; False if it is larger than the whole region."""
        region = self.region
        entry.weight = entry.size + len(key) + ENTRY_OVERHEAD
        if entry.weight > region.max_bytes:
            self.discard(key)
            return False
        held, evicted = self.held, 0
        with self._lock:
            while (key not in held and len(held) >= region.max_entries) or self._grown(key, entry) > region.max_bytes:
                self._give_up()
                evicted += 1
            if key in held:
                self._probation.leave(key)
            else:
                self._probation.enter(key, entry.weight)
            self._cache[key] = entry
            self.evictions += evicted
        if evicted:
            self._signals.emit(Evicted(region.name, evicted))
        return True

    def discard(self, key: str, entry: Entry | None = None) -> None:
        """Forget the entry under `key`, if there is one; with `entry`, only that one."""
        with self._lock:
            held = self.held.get(key)
            if held is not None and (entry is None or held is entry):
                self._remove(key)

    def entries(self) -> list[tuple[str, Entry]]:
        """Every key and entry held, those past their time included; the eviction order is not touched."""
        with self._lock:
            return [(key, self.held[key]) for key in self.held]

    def clear(self) -> None:
        """Forget every entry."""
        with self._lock:
            self._cache.clear()
            self._probation.clear()

    def _grown(self, key: str, entry: Entry) -> float:
        """Bytes held once `entry` is under `key`."""
        before = self.held.get(key)
        return self._cache.currsize + entry.weight - (0 if before is None else before.weight)

    def _give_up(self) -> None:
        """Let one entry go: of those on probation, if they are too many, the oldest that nobody has asked for."""
        while (key := self._probation.longest()) is not None:
            if not self.held[key].used:
                del self._cache[key]
                return
        key, _ = self._cache.popitem()
        self._probation.leave(key)

    def _remove(self, key: str) -> None:
        del self._cache[key]
        self._probation.leave(key)

    @property
    def bytes(self) -> int:
        """Bytes held, the estimated overhead included."""
        return int(self._cache.currsize)

    def __len__(self) -> int:
        return len(self.held)

    def __repr__(self) -> str:
        region = self.region
        return (
            f"<Bucket {region.name!r}: {len(self)} of {region.max_entries} entries,"
            f" {self.bytes} of {region.max_bytes} bytes, {region.eviction}>"
        )


class Memory:
    """The regions of L1, each made when it is first named."""

    def __init__(self, *, signals: Signals) -> None:
        self._signals = signals
        self._buckets: dict[str, Bucket] = {}

    def bucket(self, region: Region) -> Bucket:
        """The bucket of `region`.

        Raises:
            ConfigError: a region of that name with other bounds exists.
        """
        bucket = self._buckets.setdefault(region.name, Bucket(region, signals=self._signals))
        if bucket.region != region:
            raise ConfigError("region", f"{region.name!r} is defined twice: {bucket.region!r} and {region!r}")
        return bucket

    def buckets(self) -> tuple[Bucket, ...]:
        """Every bucket made so far."""
        return tuple(self._buckets.values())

    def discard(self, key: str) -> None:
        """Forget the entry under `key` in every region."""
        for bucket in self.buckets():
            bucket.discard(key)

    def clear(self) -> None:
        """Forget every entry of every region."""
        for bucket in self.buckets():
            bucket.clear()

    def __repr__(self) -> str:
        return f"<Memory: {', '.join(map(repr, self.buckets())) or 'empty'}>"
