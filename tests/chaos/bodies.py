"""What a body must be, to the byte: made again by whoever knows what was asked for, and which version it tells of."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

ITEMS = 24
GROUPS = 6


def body_of(said: dict[str, Any], versions: Sequence[int], size: int = 0) -> bytes:
    """The body that tells of `said` at `versions`: who asked for what, padding of a length of its own, a checksum.

    Args:
        said: Path, query, user and whatever else the response depends on.
        versions: Of the items that it tells of.
        size: Bytes of padding at the least.
    """
    head = json.dumps({**said, "versions": list(versions)}, sort_keys=True).encode()
    seed = sha256(head).hexdigest()
    length = size + int(seed[:8], 16) % 3000
    padding = (seed * (length // len(seed) + 1))[:length].encode()
    text = b"%s\n%s\n" % (head, padding)
    return text + sha256(text).hexdigest().encode()


def zipped(body: bytes) -> bytes:
    """`body` under gzip, the same bytes each time."""
    return gzip.compress(body, 1, mtime=0)


def etag_of(body: bytes) -> str:
    """The entity tag of what is sent."""
    return f'"{sha256(body).hexdigest()[:24]}"'


def partner(item: int) -> int:
    """The other item that a nested page tells of."""
    return (item * 7 + 3) % ITEMS


def group_of(item: int) -> int:
    """The group of an item."""
    return item % GROUPS
