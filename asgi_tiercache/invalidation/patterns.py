"""Globs over keys: which ones a tag can stand for, and which entries the others match."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from asgi_tiercache.config import MAX_TAG_BYTES
from asgi_tiercache.errors import ConfigError

KEY = "*key:"
"""How the tag begins that stands for an entry's key."""
PREFIX = "*prefix:"
"""How the tag begins that stands for all keys with one beginning, up to a colon."""
MAX_PREFIXES = 8
"""Colons in a key up to which each beginning has a tag; patterns that go deeper are matched."""
_GLOB = re.compile(r"[*?\[]")


def prefixes(key: str, skip: int = 0) -> list[str]:
    """The beginnings of `key` that end in a colon, past the first `skip` characters."""
    found: list[str] = []
    end = skip - 1
    while len(found) < MAX_PREFIXES and (end := key.find(":", end + 1)) >= 0:
        found.append(key[: end + 1])
    return found


def check_pattern(glob: str) -> str:
    """`glob`, as written in code, if it may be one.

    Raises:
        ConfigError: it is empty, longer than 256 bytes, or holds a control character.
    """
    if not isinstance(glob, str) or not glob:
        raise ConfigError("pattern", f"must be a text that is not empty, not {glob!r}")
    if len(glob.encode("utf-8", "surrogatepass")) > MAX_TAG_BYTES:
        raise ConfigError("pattern", f"has at most {MAX_TAG_BYTES} bytes: {glob[:40]!r}...")
    if re.search(r"[\x00-\x1f\x7f]", glob):
        raise ConfigError("pattern", f"must not hold control characters: {glob!r}")
    return glob


def tag_for(glob: str, *, responses: str, skip: int = 0) -> str | None:
    """The tag that every key matching `glob` carries, and no other; None where `glob` has to be matched.

    Args:
        glob: A checked pattern.
        responses: How the keys of responses begin; these have no tags for their beginnings.
        skip: Characters of the namespace, which stands before every key.
    """
    if not _GLOB.search(glob):
        return KEY + glob
    beginning = glob[:-1]
    if not glob.endswith(":*") or _GLOB.search(beginning):
        return None
    if responses.startswith(beginning) or beginning.startswith(responses):
        return None
    return PREFIX + beginning if beginning in prefixes(beginning, skip) else None


def beginning_of(glob: str) -> str:
    """What every key that matches `glob` begins with."""
    return _GLOB.split(glob, maxsplit=1)[0]


def matches_key(glob: str, key: str) -> bool:
    """Whether `key` itself matches."""
    return bool(_compiled(glob)(key))


def matches(glob: str, tags: Iterable[str]) -> bool:
    """Whether an entry with `tags` matches: its own key, or that of a value that it was made from."""
    matcher = _compiled(glob)
    return any(tag.startswith(KEY) and matcher(tag[len(KEY) :]) for tag in tags)


@lru_cache(maxsize=256)
def _compiled(glob: str) -> Callable[[str], object]:
    # `[^a]` negates in Redis, `[!a]` here.
    return re.compile(fnmatch.translate(glob.replace("[^", "[!"))).match
