"""Implicit tags: what an entry can be invalidated by besides the tags that its policy gives it.

They begin with `*`, which no tag of a user's can hold.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from asgi_tiercache.codec.entries import MAX_TAGS as MAX_ALL
from asgi_tiercache.http.groups import groups, invalidated_groups
from asgi_tiercache.invalidation.patterns import KEY, PREFIX, prefixes
from asgi_tiercache.keys.escape import endpoint
from asgi_tiercache.keys.template import tolerant_tag
from asgi_tiercache.types import Header

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


def path_tags(path: str) -> tuple[str, str]:
    """The tags of a path, given as the application sees it: as it appears in keys, in clear and hashed."""
    return path_tag(endpoint(path, hash_path=False)), path_tag(endpoint(path, hash_path=True))


def site_tag(site: str, path: str) -> str:
    """What unsafe methods invalidate: every query and variant of a path on one host, both given as in a key."""
    return f"*at:{site}:{path}"


def site_tags(site: str, path: str) -> tuple[str, str]:
    """The same of a path given as the application sees it: as it appears in keys, in clear and hashed."""
    return site_tag(site, endpoint(path, hash_path=False)), site_tag(site, endpoint(path, hash_path=True))


def group_tags(headers: Iterable[Header]) -> tuple[str, ...]:
    """The tags that a response gives itself with `Cache-Groups` (RFC 9875): those of users, by the same names."""
    return tuple(map(tolerant_tag, groups(headers)))


def invalidated_group_tags(headers: Iterable[Header]) -> tuple[str, ...]:
    """The tags that a response to an unsafe method invalidates with `Cache-Group-Invalidation`."""
    return tuple(map(tolerant_tag, invalidated_groups(headers)))


def route_tag(template: str) -> str:
    """What `invalidate_route` invalidates: everything that a route has produced."""
    return f"*route:{template}"


def user_tag(user: str) -> str:
    """What `invalidate_user` invalidates; `user` as it stands in keys: hashed."""
    return f"*user:{user}"
