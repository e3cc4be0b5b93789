"""Groups of responses: `Cache-Groups` and `Cache-Group-Invalidation` (RFC 9875)."""

from __future__ import annotations

from collections.abc import Iterable

from asgi_tiercache.http.fields import values
from asgi_tiercache.http.structured import Item, parse_list
from asgi_tiercache.types import Header


def groups(headers: Iterable[Header]) -> tuple[str, ...]:
    """The groups that a response belongs to (section 2), each once, compared character by character.

    >>> groups([(b"cache-groups", b'"scripts";x=1, "styles"')])
    ('scripts', 'styles')

    A field that is no List of Strings says nothing, as a whole; parameters mean nothing. Their number is bounded by the
    size of the field alone: what can be stored is the caller's to decide.
    """
    return _strings(headers, b"cache-groups")


def invalidated_groups(headers: Iterable[Header]) -> tuple[str, ...]:
    """The groups that a response invalidates (section 3); read likewise.

    To be asked of responses to unsafe methods only: on others the field has no meaning.
    """
    return _strings(headers, b"cache-group-invalidation")


def _strings(headers: Iterable[Header], name: bytes) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for member in parse_list(b", ".join(values(headers, name))) or ():
        # The exact type: Tokens and Display Strings are texts of another kind.
        if not isinstance(member, Item) or type(member.value) is not str:
            return ()
        found[member.value] = None
    return tuple(found)
