"""Request fields that say what was asked for, beside the request line: those of proxies, and of old clients."""

from __future__ import annotations

import re
from collections.abc import Iterable

from asgi_tiercache.types import Header

RETARGETING = frozenset(
    {b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-original-url", b"x-rewrite-url"}
)
"""Fields that make another request of this one where an app heeds them: one with another method, or another path."""

FORWARDED = frozenset(
    {
        b"forwarded",
        b"front-end-https",
        b"x-forwarded-host",
        b"x-forwarded-path",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-forwarded-protocol",
        b"x-forwarded-scheme",
        b"x-forwarded-server",
        b"x-forwarded-ssl",
        b"x-forwarded-uri",
        b"x-host",
        b"x-http-host-override",
        b"x-original-host",
        b"x-original-uri",
        b"x-scheme",
        b"x-script-name",
        b"x-url-scheme",
    }
)
"""Fields by which proxies tell an app with what scheme, host, port and path it was asked: links are made of them.

Not those that tell who asks, such as `X-Forwarded-For`: with them in its key a response would be for one client.
"""

MOST_DASHES = 6


def underscored(name: bytes) -> frozenset[bytes]:
    """`name` with underscores for some of its dashes, or for all.

    To a WSGI app, and to whatever else takes names from CGI, all of these are one name.
    """
    first, *others = name.split(b"-")
    if len(others) > MOST_DASHES:
        return frozenset({name.replace(b"-", b"_")})
    spellings = {first}
    for part in others:
        spellings = {begun + dash + part for begun in spellings for dash in (b"-", b"_")}
    return frozenset(spellings - {name})


# Whoever asks, and by way of whom, as far as the value is plain: addresses and names (RFC 7239, sections 5.1 and 5.2).
_NODES = re.compile(rb"(?<![^;, \t])(?:for|by)=(?:[\w.\-]+|\"[\w.:\[\]\-]*\")", re.IGNORECASE)


def forwarded_lines(headers: Iterable[Header], names: frozenset[bytes]) -> list[bytes]:
    """Name and value of each line of `names` in turn, sorted by name; of `Forwarded` without the addresses."""
    lines = sorted((line for line in headers if line[0] in names), key=lambda line: line[0])
    fields: list[bytes] = []
    for name, value in lines:
        fields += (name, _NODES.sub(b"", value) if name == b"forwarded" else value)
    return fields
