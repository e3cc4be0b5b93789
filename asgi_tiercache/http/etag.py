"""Entity tags: reading them, comparing them, making them (RFC 9110, section 8.8.3)."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from asgi_tiercache.http.fields import values
from asgi_tiercache.types import Header

MAX_ENTITY_TAGS = 10_000
"""How many members of a list are looked at. What stands behind them matches nothing, which only costs a full answer."""

# Nothing escapes a quote in an entity tag, and commas in one do not separate.
_TAG = rb'(?P<weak>W/)?"(?P<opaque>[\x21\x23-\x7e\x80-\xff]*+)"'
_ENTITY_TAG = re.compile(_TAG)
# What is no entity tag ends at the next comma, quotes or not, so that it hides none of those behind it.
_MEMBER = re.compile(rb"(?!\Z)[ \t]*+(?:%b[ \t]*+(?:,|\Z)|[^,]*+(?:,|\Z))" % _TAG)
_DIGEST_BYTES = 16


class EntityTag(NamedTuple):
    """A validator for one representation."""

    opaque: bytes
    """What stands between the quotes."""
    weak: bool
    """Whether it holds for all that is equivalent, and not just for the same bytes (section 8.8.1)."""

    def serialise(self) -> bytes:
        """The tag as it stands in a field."""
        return b'%b"%b"' % (b"W/" if self.weak else b"", self.opaque)

    def matches_strongly(self, other: EntityTag) -> bool:
        """The strong comparison (section 8.8.3.2): the same bytes are meant."""
        return self.opaque == other.opaque and not self.weak and not other.weak

    def matches_weakly(self, other: EntityTag) -> bool:
        """The weak comparison (section 8.8.3.2): the one stands in for the other."""
        return self.opaque == other.opaque


def parse_entity_tag(value: bytes) -> EntityTag | None:
    """The entity tag that `value` is, or None. `w/` is no mark of weakness, and blanks are no part of a tag."""
    match = _ENTITY_TAG.fullmatch(value)
    return match and _made_of(match)


def entity_tag(response: Iterable[Header]) -> EntityTag | None:
    """The entity tag of a response; None where its `ETag` is absent, malformed or there twice."""
    tags = values(response, b"etag")
    return parse_entity_tag(tags[0]) if len(tags) == 1 else None


def listed_tags(lines: Iterable[bytes]) -> Iterator[EntityTag]:
    """The entity tags in the lines of a list field; members that are none are left out, the others still count."""
    members = (match for line in lines for match in _MEMBER.finditer(line))
    for match in islice(members, MAX_ENTITY_TAGS):
        if match["opaque"] is not None:
            yield _made_of(match)


def _made_of(match: re.Match[bytes]) -> EntityTag:
    return EntityTag(match["opaque"], match["weak"] is not None)


def generated_etag(canonical: bytes, body: bytes) -> bytes:
    """A strong entity tag, as it stands in the field, for a response that came without one.

    It depends on nothing but the two, so that every worker makes the same, and no two URLs share one.

    Args:
        canonical: The canonical request that the response answers.
        body: The content as it is stored, with its coding.
    """
    digest = hashlib.blake2b(len(canonical).to_bytes(8, "big"), digest_size=_DIGEST_BYTES)
    digest.update(canonical)
    digest.update(body)
    return b'"%b"' % base64.urlsafe_b64encode(digest.digest()).rstrip(b"=")
