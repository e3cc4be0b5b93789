"""Which keys are worth storing, where clients choose them: those that were asked for before, and some of the others.

Nothing here waits or reads a clock; times are seconds of the monotonic clock.
"""

from __future__ import annotations

import secrets
import threading
from array import array

FIRST_SIGHT = 10_000
"""New keys of a route that are stored at first sight in one window."""
WORTH = 16
"""Where one of so many comes again that were not stored, nearly all are stored."""
SAMPLE = 32
"""One of so many is not even then, to see whether it comes again."""
COUNTED = 256
"""Of the last ones, about so many count for that."""
SHORTEST_WINDOW = 60.0
"""Seconds that a window lasts at the least."""
LONGEST_WINDOW = 86_400.0
"""Seconds that a window lasts at the most: whoever has used up `max_keys` must not close a route for a month."""
QUIET_WORDS = 4096
"""Words of eight bytes that a route may keep though few keys are new there."""
MOST_WORDS = 8 * 1024 * 1024
"""Words of eight bytes in which all routes of a cache remember keys; beyond that they share what there is."""

_64_BITS = (1 << 64) - 1
_KEYS_PER_WORD = 2
_TWO_BITS = tuple(1 << one | 1 << other for one in range(64) for other in range(64))
_GROWTH = 32
_FIRST_WORDS = 16


class Budget:
    """Memory for several doorkeepers.

    Args:
        words: Eight bytes each; None: as much as they want.
    """

    __slots__ = ("taken", "words")

    def __init__(self, words: int | None = None) -> None:
        self.words = words
        self.taken = 0

    @property
    def is_spent(self) -> bool:
        """Whether nobody may take more."""
        return self.words is not None and self.taken >= self.words


class Doorkeeper:
    """Remembers keys in bounded memory: the last ones for certain, up to twice as many, and a few by mistake.

    Bloom filters, as the doorkeeper of TinyLFU is one (Einziger, Friedman and Manes 2017). A full one makes room for
    one that is larger, and stays; the last two of the largest size are kept. All bits of a key are in one word, so that
    a look-up is one operation; of a thousand keys, a few may be taken for ones that were there.

    Which bits these are no client can know: texts are hashed by a secret of the process (SipHash), and by one more in
    case that one was given away (`PYTHONHASHSEED`).

    Args:
        keys: How many are remembered at the least, where the budget has room for that.
        words: Eight bytes each, to begin with.
        budget: What memory is taken from.
    """

    __slots__ = ("_budget", "_left", "_most", "_new", "_older", "_secret")

    def __init__(self, keys: int, *, words: int = _FIRST_WORDS, budget: Budget | None = None) -> None:
        self._most = _power_of_two(max(1, keys // _KEYS_PER_WORD))
        self._secret = secrets.randbits(64) | 1
        self._budget = budget or Budget()
        self._older: tuple[array[int], ...] = ()
        self._begin(min(_power_of_two(words), self._most))

    def __del__(self) -> None:
        self._budget.taken -= self.words

    def __repr__(self) -> str:
        return f"<Doorkeeper of {self.words} words>"

    @property
    def words(self) -> int:
        """How many there are, of eight bytes each."""
        return len(self._new) + sum(map(len, self._older))

    def holds(self, key: str) -> bool:
        """Whether `key` is remembered."""
        mixed = hash(key) * self._secret & _64_BITS
        bits = _TWO_BITS[mixed & 4095] | _TWO_BITS[mixed >> 12 & 4095]
        place, new = mixed >> 40, self._new
        if new[place & len(new) - 1] & bits == bits:
            return True
        for words in self._older:  # noqa: SIM110 - a generator would be felt
            if words[place & len(words) - 1] & bits == bits:
                return True
        return False

    def add(self, key: str) -> None:
        """Remember `key`, for some time to come."""
        mixed = hash(key) * self._secret & _64_BITS
        bits = _TWO_BITS[mixed & 4095] | _TWO_BITS[mixed >> 12 & 4095]
        new = self._new
        place = mixed >> 40 & len(new) - 1
        word = new[place]
        if word & bits == bits:
            return
        new[place] = word | bits
        self._left -= 1
        if self._left > 0:
            return
        grows = len(new) < self._most and not self._budget.is_spent
        if not grows:
            self._budget.taken -= sum(map(len, self._older))
        self._older = (*self._older, new) if grows else (new,)
        self._begin(min(len(new) * _GROWTH, self._most) if grows else len(new))

    def _begin(self, words: int) -> None:
        self._new = array("Q", bytes(8 * words))
        self._left = words * _KEYS_PER_WORD
        self._budget.taken += words


class Doorkeepers:
    """Those of all routes of a cache, in bounded memory.

    Args:
        words: Eight bytes each, in all.
    """

    def __init__(self, words: int = MOST_WORDS) -> None:
        self.lock = threading.Lock()
        """Held by whoever makes one or adds to it: loops in several threads may."""
        self.budget = Budget(words)
        self._common: tuple[Doorkeeper, Doorkeeper] | None = None

    def __repr__(self) -> str:
        return f"<Doorkeepers with {self.budget.taken} of {self.budget.words} words>"

    def pair(self, keys: int) -> tuple[Doorkeeper, Doorkeeper]:
        """Two that can come to remember so many keys; those that all others share, where memory is at its end."""
        if not self.budget.is_spent:
            return Doorkeeper(keys, budget=self.budget), Doorkeeper(keys, budget=self.budget)
        if self._common is None:
            words = MOST_WORDS // 16
            self._common = Doorkeeper(words, words=words), Doorkeeper(words, words=words)
        return self._common


class Admission:
    """Says which new keys of one route are stored.

    1. A key that was stored before, as far as that is remembered, is stored again.
    2. In each window, `FIRST_SIGHT` keys are stored at first sight; half of `max_keys`, if that is less.
    3. Then what was asked for before is stored, and what was not is remembered. Where enough of that comes again, a
       sample will do, to see that it goes on: whoever serves a million pages hardly notices.
    4. From `max_keys` on nothing is, until the window is over: as long as what was stored in it may live, a day at the
       most. A client who asks for each of his keys several times comes to that.

    What is remembered grows with the keys that there are: most routes come to a few hundred bytes.

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
        "_refused",
        "_remembered",
        "_returned",
        "_told",
        "_tried",
    )

    def __init__(self, max_keys: int, doorkeepers: Doorkeepers) -> None:
        self._max = max_keys
        self._first = max(1, min(FIRST_SIGHT, max_keys // 2))
        self._refused = 0
        """Keys that were not stored; like the next, less and less of those that lie back."""
        self._returned = 0
        """Keys among them that came again."""
        self._tried = 0
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
            self._longest = max(self._longest, min(lifetime, LONGEST_WINDOW))
            if self._remembered is None:
                self._remembered = self._doorkeepers.pair(self._max)
            asked, stored = self._remembered
            if stored.holds(key):
                stored.add(key)
                return True
            if self._admitted >= self._max or (self._admitted >= self._first and not self._is_worth_it(asked, key)):
                asked.add(key)
                return False
            self._admitted += 1
            stored.add(key)
            return True

    def tell(self) -> bool:
        """Whether to tell that a key was not stored: once in a window."""
        told, self._told = self._told, True
        return not told

    def _is_worth_it(self, asked: Doorkeeper, key: str) -> bool:
        """Whether `key` will probably be asked for again."""
        if asked.holds(key):
            self._returned += 1
            return True
        if WORTH * self._returned > self._refused:
            self._tried = (self._tried + 1) % SAMPLE
            if self._tried:
                return True
        self._refused += 1
        if self._refused == COUNTED:
            self._refused //= 2
            self._returned //= 2
        return False

    def _turn(self, now: float) -> None:
        """Begin a window; a route that has become quiet gives its memory back."""
        if self._remembered is not None and self._admitted < self._first // 8:
            words = sum(doorkeeper.words for doorkeeper in self._remembered)
            if words > QUIET_WORDS:
                self._remembered = None
        self._admitted, self._began, self._longest, self._told = 0, now, SHORTEST_WINDOW, False


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
