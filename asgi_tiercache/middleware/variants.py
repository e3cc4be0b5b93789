"""`Vary` below one key: a marker under the key names the fields, each variant has a key of its own (RFC 9111, 4.1)."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import Scope

from asgi_tiercache.engine.core import Engine
from asgi_tiercache.http.vary import variant
from asgi_tiercache.keys.escape import digest, frame
from asgi_tiercache.keys.request import RequestKey
from asgi_tiercache.middleware.route import Route
from asgi_tiercache.types import Entry

MARKER = 1
"""The `status` of an entry that only names the fields of a `Vary`."""
MAX_VARIANTS = 32


class VariantKey:
    """The key of one variant: that of the request and the normalised values of the fields that `Vary` names."""

    __slots__ = ("canonical", "name", "text")

    def __init__(self, key: RequestKey, vary: Sequence[str], scope: Scope) -> None:
        values = variant(vary, scope["headers"])
        self.name = digest(values)
        self.text = f"{key.text}:{self.name}"
        self.canonical = frame(key.canonical, *(name.encode("latin-1") for name in vary), values)


class Variants:
    """Stores a response under its key, or as one of a bounded number of variants below it."""

    def __init__(self, engine: Engine, route: Route) -> None:
        self._engine = engine
        self._route = route

    def keep(self, entry: Entry, key: RequestKey, scope: Scope, vary: Sequence[str]) -> bool:
        """Store `entry`; False if its key has too many variants already."""
        # What the handler did not receive cannot have made a difference; what is keyed makes one already.
        entry.vary = tuple(name for name in vary if self._route.keys.varies(name))
        if not entry.vary:
            self._engine.keep(self._route.place, key.text, entry)
            return True
        chosen = VariantKey(key, entry.vary, scope)
        names = self._names(key, entry.vary)
        if chosen.name not in names:
            if len(names) >= MAX_VARIANTS:
                return False
            names = (*names, chosen.name)
        entry.canonical = chosen.canonical
        self._engine.keep(self._route.place, chosen.text, entry)
        self._engine.keep(self._route.place, key.text, self._marker(entry, key, names))
        return True

    def _names(self, key: RequestKey, vary: tuple[str, ...]) -> tuple[str, ...]:
        """The variants that are known to be stored below `key`."""
        now = self._engine.clock.monotonic()
        marker = self._engine.recall(self._route.place.bucket, key.text, key.canonical, now)
        if marker is None or marker.status != MARKER or marker.vary != vary:
            return ()
        return tuple(value.decode("ascii") for _, value in marker.headers)

    @staticmethod
    def _marker(entry: Entry, key: RequestKey, names: Sequence[str]) -> Entry:
        return Entry(
            stamp=entry.stamp,
            created=entry.created,
            lifetime=entry.lifetime,
            canonical=key.canonical,
            status=MARKER,
            headers=tuple((b"variant", name.encode("ascii")) for name in names),
            vary=entry.vary,
        )
