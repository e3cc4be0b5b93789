"""Which keys are worth storing, where clients choose them: those that were asked for before, and some of the others.

Nothing here waits or reads a clock; times are seconds of the monotonic clock.
"""

from __future__ import annotations

import secrets
import threading
import weakref
from array import array

FIRST_SIGHT = 10_000
"""New keys of a route that are stored at first sight in one window."""
SHORTEST_WINDOW = 60.0
"""Seconds that a window lasts at the least."""
MOST_WORDS = 8 * 1024 * 1024
"""Words of eight bytes in which all routes of a cache remember keys; beyond that they share what there is."""

_WORD = (1 << 64) - 1
_KEYS_PER_WORD = 4
_TWO_BITS = tuple(1 << one | 1 << other for one in range(64) for other in range(64))
_GROWTH = 4
_FIRST_WORDS = 1024


class Doorkeeper:
    """Remembers keys in fixed memory: the last ones for certain, up to twice as many, and a few by mistake.

    Two generations of a Bloom filter (as the doorkeeper of TinyLFU, Einziger, Friedman and Manes 2017, which has one):
    a full one becomes the old one, and the new one is larger, up to the limit. All bits of a key are in one word, so
    that a look-up is one operation; of a hundred keys, one may be taken for one that was there.

    Which bits these are no client can know: texts are hashed by a secret of the process (SipHash), and by one more in
    case that one was given away (`PYTHONHASHSEED`).

    Args:
        keys: How many are remembered at the least, once it has grown.
        words: Eight bytes each, to begin with.
    """

    __slots__ = ("__weakref__", "_left", "_most", "_new", "_old", "_secret")

    def __init__(self, keys: int, *, words: int = _FIRST_WORDS) -> None:
        self._most = _power_of_two(max(1, keys // _KEYS_PER_WORD))
        self._secret = secrets.randbits(64) | 1
        self._old = self._new = _words(min(words, self._most))
        self._left = len(self._new) * _KEYS_PER_WORD

    def __repr__(self) -> str:
        return f"<Doorkeeper of {self.words} words, up to {2 * self._most}>"

    @property
    def words(self) -> int:
        """How many there are, of eight bytes each."""
        return len(self._new) + (len(self._old) if self._old is not self._new else 0)

    @property
    def is_full(self) -> bool:
        """Whether the next key begins a generation."""
        return self._left <= 1

    def holds(self, key: str) -> bool:
        """Whether `key` is remembered."""
        mixed = hash(key) * self._secret & _WORD
        bits = _TWO_BITS[mixed & 4095] | _TWO_BITS[mixed >> 12 & 4095]
        new, old, place = self._new, self._old, mixed >> 40
        return new[place & len(new) - 1] & bits == bits or old[place & len(old) - 1] & bits == bits

    def add(self, key: str, *, may_grow: bool = True) -> None:
        """Remember `key`, for some time to come.

        Threads may do so at the same time: what is lost then is one of the two.
        """
        mixed = hash(key) * self._secret & _WORD
        bits = _TWO_BITS[mixed & 4095] | _TWO_BITS[mixed >> 12 & 4095]
        new = self._new
        place = mixed >> 40 & len(new) - 1
        word = new[place]
        if word & bits == bits:
            return
        new[place] = word | bits
        self._left -= 1
        if self._left <= 0:
            size = len(new) * _GROWTH if may_grow else len(new)
            self._old, self._new = new, _words(min(size, self._most))
            self._left = len(self._new) * _KEYS_PER_WORD


class Doorkeepers:
    """Those of all routes of a cache, in bounded memory. Loops in several threads may use them.

    Args:
        words: Eight bytes each, in all.
    """

    def __init__(self, words: int = MOST_WORDS) -> None:
        self.lock = threading.Lock()
        """Held by whoever adds."""
        self._most = words
        self._made: weakref.WeakSet[Doorkeeper] = weakref.WeakSet()
        self._common: tuple[Doorkeeper, Doorkeeper] | None = None

    def __repr__(self) -> str:
        return f"<Doorkeepers: {len(self._made)} with {self.words} of {self._most} words>"

    @property
    def words(self) -> int:
        """How many they have, of eight bytes each."""
        return sum(doorkeeper.words for doorkeeper in self._made)

    def pair(self, keys: int) -> tuple[Doorkeeper, Doorkeeper]:
        """Two that can come to remember so many keys; those that all others share, where memory is at its end."""
        if self.words < self._most:
            made = Doorkeeper(keys), Doorkeeper(keys)
            self._made.update(made)
            return made
        if self._common is None:
            words = self._most // 16
            shared = words * _KEYS_PER_WORD
            self._common = Doorkeeper(shared, words=words), Doorkeeper(shared, words=words)
        return self._common

    def add(self, doorkeeper: Doorkeeper, key: str) -> None:
        """Have `doorkeeper` remember `key`; it grows as long as there is memory."""
        doorkeeper.add(key, may_grow=doorkeeper.is_full and self.words < self._most)


class Admission:
    """Says which new keys of one route are stored.

    1. A key that was stored before, as far as that is remembered, is stored again.
    2. In each window, `FIRST_SIGHT` keys are stored at first sight; half of `max_keys`, if that is less.
    3. Up to `max_keys`, what was asked for before is stored, and else remembered.
    4. Then nothing more, until the window is over: as long as what was stored in it may live.

    So keys that are asked for once cost nothing but to be remembered, and who asks for each of his several times has
    `max_keys` of them stored in a window. Most routes come to so few keys that nothing is remembered.

    Args:
        max_keys: New keys that are stored in one window at the most.
        doorkeepers: Make what remembers.
    """

    __slots__ = (
        "_admitted",
        "_began",
        "_doorkeepers",
        "_first",
        "_longest",
        "_max",
        "_remembered",
        "_told",
        "_unwatched",
    )

    def __init__(self, max_keys: int, doorkeepers: Doorkeepers) -> None:
        self._max = max_keys
        self._first = max(1, min(FIRST_SIGHT, max_keys // 2))
        self._unwatched = self._first // 8
        self._doorkeepers = doorkeepers
        self._remembered: tuple[Doorkeeper, Doorkeeper] | None = None
        """The keys that came and were not stored, there being too many; and those that were."""
        self._admitted = 0
        """New keys that were stored in this window."""
        self._began = 0.0
        self._longest = SHORTEST_WINDOW
        self._told = False

    def __repr__(self) -> str:
        return f"<Admission of {self._admitted} keys, at most {self._max}>"

    def admits(self, key: str, now: float, lifetime: float) -> bool:
        """Whether `key`, which is not known to be stored, is to be stored for `lifetime` seconds."""
        with self._doorkeepers.lock:
            if now - self._began >= self._longest:
                self._turn(now)
            self._longest = max(self._longest, lifetime)
            if self._remembered is None:
                if self._admitted < self._unwatched:
                    self._admitted += 1
                    return True
                self._remembered = self._doorkeepers.pair(self._max)
            asked, stored = self._remembered
            if stored.holds(key):
                self._doorkeepers.add(stored, key)
                return True
            if self._admitted >= self._first and (self._admitted >= self._max or not asked.holds(key)):
                self._doorkeepers.add(asked, key)
                return False
            self._admitted += 1
            self._doorkeepers.add(stored, key)
            return True

    def tell(self) -> bool:
        """Whether to tell that a key was not stored: once in a window."""
        told, self._told = self._told, True
        return not told

    def _turn(self, now: float) -> None:
        """Begin a window; what a quiet route has remembered is forgotten."""
        if self._admitted < self._unwatched:
            self._remembered = None
        self._admitted, self._began, self._longest, self._told = 0, now, SHORTEST_WINDOW, False


def _words(number: int) -> array[int]:
    return array("Q", bytes(8 * number))


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
