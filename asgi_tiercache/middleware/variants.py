"""`Vary` below one key: a marker under the key names the fields, each variant has a key of its own (RFC 9111, 4.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from starlette.types import Scope

from asgi_tiercache.engine.core import Engine
from asgi_tiercache.engine.entries import Place
from asgi_tiercache.engine.fill import Fill
from asgi_tiercache.http.vary import variant
from asgi_tiercache.keys.escape import digest, frame
from asgi_tiercache.keys.request import RequestKey
from asgi_tiercache.tiers.leases import WITHOUT, Ended, Lease
from asgi_tiercache.types import MARKER, Entry

MAX_VARIANTS = 32
"""Of one key, in memory and in its marker; what had to go is left in lower tiers for its time, where it is one key of
those that a route may have."""
MAX_OTHERS = 8
"""Stored responses of other variants that a handler is asked about at the most."""
_BY_MIDDLEWARE = frozenset({"accept-encoding", "origin"})
_REMEMBERED = 4_096
_REMEMBERED_BYTES = 1_024


class VariantKey(NamedTuple):
    """The key of one variant: that of the request and the normalised values of the fields that `Vary` names."""

    text: str
    canonical: bytes
    name: str
    """What sets the variant apart from the others of its key."""


class Variants:
    """The variants of one route's responses: chooses among them, and stores them in a bounded number.

    Args:
        engine: Stores.
        place: Where the route's entries live.
        varies: Whether a request field, named in lower case, can make a difference that the key does not make.
    """

    def __init__(self, engine: Engine, place: Place, varies: Callable[[str], bool]) -> None:
        self._engine = engine
        self._place = place
        self._varies = varies
        self._remembered: dict[tuple[object, ...], VariantKey] = {}
        engine.memos.join(self)

    def forget(self) -> None:
        """Forget which requests were found to choose which variant."""
        self._remembered.clear()

    def choose(self, key: RequestKey, vary: Sequence[str], scope: Scope) -> VariantKey:
        """The variant that answers the request, once it is known which fields matter."""
        names = [name.encode("latin-1") for name in vary]
        lines = tuple([line for line in scope["headers"] if line[0] in names])
        sent = (key.text, key.canonical, vary, lines)
        chosen = self._remembered.get(sent)
        if chosen is None:
            chosen = self._made(key, vary, scope)
            # Not what is long: clients must not be able to fill memory with URLs, or with lines without a value.
            weight = len(key.canonical) + sum(len(name) + len(value) for name, value in lines)
            if weight <= _REMEMBERED_BYTES:
                if len(self._remembered) >= _REMEMBERED:
                    self.forget()
                self._engine.memos.take(2 * weight)  # once more in what was made of them
                self._remembered[sent] = chosen
        return chosen

    @staticmethod
    def _made(key: RequestKey, vary: Sequence[str], scope: Scope) -> VariantKey:
        values = variant(vary, scope["headers"])
        name = digest(values)
        return VariantKey(f"{key.text}:{name}", frame(key.canonical, values), name)

    def keep(
        self,
        entry: Entry,
        key: RequestKey,
        scope: Scope,
        vary: Sequence[str],
        *,
        lease: Lease = WITHOUT,
        fill: Fill | None = None,
    ) -> None:
        """Store `entry`; `lease` and `fill` as for `Engine.keep`.

        Where others are stored by other fields, the latest by their date decide which fields those are (RFC 9111,
        section 4.1). A response that names none, because its request had none of them, is just one more variant.
        """
        entry.vary = self._telling(vary)
        marker = self._marker_of(key)
        if marker is not None and entry.vary != marker.vary:
            if not entry.vary and self._has_room(key, scope, marker.vary):
                entry.vary = marker.vary
            elif entry.created < marker.created:
                lease.end(Ended.NOTHING)
                return
        if not entry.vary:
            self._engine.keep(self._place, key.text, entry, lease=lease, fill=fill)
            return
        chosen = self.choose(key, entry.vary, scope)
        names = self._with(chosen.name, key, entry.vary)
        entry.canonical = chosen.canonical
        until = _end(entry) if marker is None or marker.vary != entry.vary else max(_end(entry), _end(marker))
        self._engine.keep(self._place, chosen.text, entry, fill=fill)
        self._engine.keep(self._place, key.text, self._marker(entry, key, names, until), lease=lease)

    def give(
        self,
        entry: Entry,
        key: RequestKey,
        scope: Scope,
        vary: Sequence[str],
        *,
        lease: Lease = WITHOUT,
        fill: Fill | None = None,
    ) -> None:
        """Make ready `entry`, which is not stored, for those who wait for it; arguments as for `keep`."""
        entry.vary, entry.canonical = self.place(key, scope, vary)
        self._engine.give(self._place, entry, lease=lease, fill=fill)

    def key_of(self, key: RequestKey, scope: Scope, vary: Sequence[str]) -> str:
        """What a response that names `vary` is stored by."""
        telling = self._telling(vary)
        return self.choose(key, telling, scope).text if telling else key.text

    def place(self, key: RequestKey, scope: Scope, vary: Sequence[str]) -> tuple[tuple[str, ...], bytes]:
        """By which fields a response that names `vary` is found, and what it answers."""
        telling = self._telling(vary)
        return telling, self.choose(key, telling, scope).canonical if telling else key.canonical

    def others(self, key: RequestKey, marker: Entry) -> list[Entry]:
        """Valid responses in memory for other variants: the handler may say that one of them answers this request, too.

        That is how section 4.3.1 uses several validators. It relies on entity tags that differ from variant to variant
        (RFC 9110, section 8.8.3), and many a handler gives its version the same one in each language, or for each
        user. So only the exact shared cache asks; and even that not where the fields are those by which middleware
        makes variants of what a handler has tagged: bytes in another encoding are of no use to the client.
        """
        if self._place.policy.mode != "rfc9111" or not _BY_MIDDLEWARE.isdisjoint(marker.vary):
            return []
        now = self._engine.clock.monotonic()
        ours = frame(key.canonical)
        found = []
        for _, name in marker.headers:
            entry = self._place.bucket.retained(f"{key.text}:{name.decode('ascii')}", now)
            if entry is not None and entry.canonical.startswith(ours) and self._engine.invalidation.current(entry):
                found.append(entry)
                if len(found) == MAX_OTHERS:
                    break
        return found

    def _telling(self, vary: Sequence[str]) -> tuple[str, ...]:
        """The fields of `vary` that tell variants apart.

        What the handler did not receive cannot have made a difference; what is keyed makes one already.
        """
        return tuple(name for name in vary if self._varies(name))

    def _known(self, key: RequestKey, vary: tuple[str, ...]) -> tuple[str, ...]:
        """The variants that are known to be stored below `key`."""
        marker = self._marker_of(key)
        if marker is None or marker.vary != vary:
            return ()
        return tuple(value.decode("ascii") for _, value in marker.headers)

    def _has_room(self, key: RequestKey, scope: Scope, fields: tuple[str, ...]) -> bool:
        """Whether one more response may be stored below `key` without another having to go."""
        known = self._known(key, fields)
        return len(known) < MAX_VARIANTS or self.choose(key, fields, scope).name in known

    def _with(self, name: str, key: RequestKey, vary: tuple[str, ...]) -> tuple[str, ...]:
        """The variants below `key` once `name` is one.

        Of too many, one goes that nobody has asked for again, or the oldest: were the new one refused, whoever comes
        first with values of no use could keep out all others.
        """
        known = self._known(key, vary)
        if name in known:
            return known
        if len(known) >= MAX_VARIANTS:
            held = self._place.bucket.held
            copies = {each: held.get(f"{key.text}:{each}") for each in known}
            gone = next((each for each, copy in copies.items() if copy is None or not copy.used), known[0])
            self._place.bucket.discard(f"{key.text}:{gone}")
            known = tuple(each for each in known if each != gone)
        return (*known, name)

    def _marker_of(self, key: RequestKey) -> Entry | None:
        now = self._engine.clock.monotonic()
        marker = self._engine.recall(self._place.bucket, key.text, key.canonical, now)
        return marker if marker is not None and marker.status == MARKER else None

    @staticmethod
    def _marker(entry: Entry, key: RequestKey, names: Sequence[str], until: float) -> Entry:
        return Entry(
            stamp=entry.stamp,
            created=entry.created,
            lifetime=until - entry.created,  # as long as any of the variants may be of use
            canonical=key.canonical,
            tags=entry.tags,  # invalidated along with what it points to, which leaves room for others
            status=MARKER,
            headers=tuple((b"variant", name.encode("ascii")) for name in names),
            vary=entry.vary,
        )


def _end(entry: Entry) -> float:
    """Wall clock from which on `entry` is of no use."""
    return entry.created + entry.lifetime + entry.retention
