"""Implicit tags: what an entry can be invalidated by besides the tags that its policy gives it.

They begin with `*`, which no tag of a user's can hold.
"""

from __future__ import annotations

MAX_TAGS = 132
"""Tags that an entry may carry: 128, and the implicit ones of its own. With more it is not stored."""


def key_tag(key: str) -> str:
    """What `invalidate_key` invalidates."""
    return f"*key:{key}"


def path_tag(path: str) -> str:
    """What `invalidate_path` invalidates: every query and variant of a path, given as in a key."""
    return f"*path:{path}"


def route_tag(template: str) -> str:
    """What `invalidate_route` invalidates: everything that a route has produced."""
    return f"*route:{template}"


def user_tag(user: str) -> str:
    """What `invalidate_user` invalidates; `user` as it stands in keys: hashed."""
    return f"*user:{user}"
