"""Text for keys and tags, made from what a client sent; and the framing and hashing below every key."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeAlias
from urllib.parse import quote

import xxhash

Digest: TypeAlias = Callable[[bytes], str]
"""Names bytes by a short text. Injected wherever keys are made, so that a test can force collisions."""

MAX_ENDPOINT = 200
"""Characters of a path that appear in a key."""

# What urllib leaves alone (letters, digits, "_.-~") and what paths and e-mail addresses are made of. Not "#":
# it marks a cut, which no escaped text can then be mistaken for.
_SAFE = "/@+=,!$&()"


def escape(text: str | bytes) -> str:
    """`text` percent-escaped, injectively, into a part of a key or tag.

    What structures keys, tags and patterns cannot occur in the result: `:`, `*`, `?`, braces, brackets, `#`, quotes,
    backslashes, blanks, control and non-ASCII characters; a `%` only before two hexadecimal digits.
    """
    if isinstance(text, str) and text.isalnum() and text.isascii():
        return text  # most often: a number or a name
    data = encoded(text) if isinstance(text, str) else text
    return quote(data, safe=_SAFE)


def digest(data: bytes) -> str:
    """The xxh3_128 of `data` in 32 hexadecimal digits. Not cryptographic: never the only thing that is compared."""
    return xxhash.xxh3_128_hexdigest(data)


def sha256(data: bytes) -> bytes:
    """What stands in a canonical form for `data` that must not be read from it."""
    return hashlib.sha256(data).digest()


def shorten(text: str, limit: int, *, digest: Digest = digest) -> str:
    """`text`, escaped already, if it has at most `limit` characters; else its beginning, `#` and its hash."""
    if len(text) <= limit:
        return text
    mark = "#" + digest(text.encode())
    return text[: max(0, limit - len(mark))] + mark


def endpoint(path: bytes | str, *, hash_path: bool, digest: Digest = digest) -> str:
    """`path` as it appears in keys and path tags: at most 200 characters, or a hash where the path is a secret.

    A path to invalidate, written as in a URL, has to be percent-decoded first, like `scope["path"]`.
    """
    if hash_path:
        data = encoded(path) if isinstance(path, str) else path
        # Unlike xxHash, SHA-256 cannot be run backwards from a short path.
        return "#" + sha256(data).hex()[:32]
    return shorten(escape(path), MAX_ENDPOINT, digest=digest)


def encoded(text: str) -> bytes:
    """`text` as UTF-8, lone surrogates included: what a server could not decode must not fail the request."""
    return text.encode("utf-8", "surrogatepass")


def qualified_name(source: object) -> str:
    """What a callable is called in the code: the same in every process, unlike its address."""
    named: Any = source if hasattr(source, "__qualname__") else type(source)
    return f"{named.__module__}.{named.__qualname__}"


def frame(*fields: bytes) -> bytes:
    """`fields` as one, each after its length, so that no two lists of fields give the same bytes."""
    return b"".join([b"%d:%b" % (len(field), field) for field in fields])
