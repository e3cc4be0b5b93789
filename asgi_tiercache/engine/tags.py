"""Implicit tags: what an entry can be invalidated by besides the tags that its policy gives it.

They begin with `*`, which no tag of a user's can hold.
"""

from __future__ import annotations

from collections.abc import Collection

from asgi_tiercache.codec.entries import MAX_TAGS as MAX_ALL
from asgi_tiercache.invalidation.patterns import KEY, PREFIX, prefixes

MAX_TAGS = 128
"""Tags that an entry may carry, implicit ones not counted; with more it is not stored."""


def too_many(tags: Collection[str]) -> bool:
    """Whether an entry with `tags` is not stored."""
    return len(tags) > MAX_TAGS and (len(tags) > MAX_ALL or sum(not tag.startswith("*") for tag in tags) > MAX_TAGS)


def key_tag(key: str) -> str:
    """What `invalidate_key` invalidates."""
    return KEY + key


def prefix_tags(key: str, namespace: str = "") -> tuple[str, ...]:
    """What patterns such as `"user:42:*"` invalidate: one tag for each beginning of a value's key, up to a colon."""
    return tuple(PREFIX + beginning for beginning in prefixes(key, len(namespace) + 1 if namespace else 0))


def path_tag(path: str) -> str:
    """What `invalidate_path` invalidates: every query and variant of a path, given as in a key."""
    return f"*path:{path}"


def route_tag(template: str) -> str:
    """What `invalidate_route` invalidates: everything that a route has produced."""
    return f"*route:{template}"


def user_tag(user: str) -> str:
    """What `invalidate_user` invalidates; `user` as it stands in keys: hashed."""
    return f"*user:{user}"
