"""Canonical query strings: the parameters that count, in one order and one spelling."""

from __future__ import annotations

import re
import string
from urllib.parse import unquote

from asgi_tiercache.config import Policy

_UNRESERVED = frozenset((string.ascii_letters + string.digits + "-._~").encode())
# Raw bytes above 0x7f are left alone: frameworks read them as Latin-1, percent-encoded ones as UTF-8.
_TO_RESPELL = re.compile(rb"%[0-9A-Fa-f]{2}|[^A-Za-z0-9\-._~\x80-\xff]")


class QueryForm:
    """Makes query strings canonical as a policy says.

    Under an explicit policy the parameters are sorted by name, repeated ones keep their order, percent-encoding is
    normalised, and only what `query=` and `drop_query=` leave is kept. In the HTTP modes a query counts as sent.
    """

    def __init__(self, policy: Policy) -> None:
        self._exact = policy.mode != "explicit"
        self._allowed = None if policy.query is None else frozenset(policy.query)
        self._dropped = frozenset(name for name in policy.drop_query if not name.endswith("*"))
        self._dropped_prefixes = tuple(name[:-1] for name in policy.drop_query if name.endswith("*"))

    def canonical(self, query: bytes) -> bytes:
        """The part of `query` that counts; canonical again if it is handed in once more."""
        if self._exact or not query:
            return query
        parameters = [(_decoded_name(part), part) for part in query.split(b"&") if part]
        kept = [(name, part) for name, part in parameters if self._keeps(name)]
        kept.sort(key=lambda parameter: parameter[0])
        return b"&".join([_respelled(part) for _, part in kept])

    def _keeps(self, name: str) -> bool:
        if self._allowed is not None and name not in self._allowed:
            return False
        return name not in self._dropped and not name.startswith(self._dropped_prefixes)


def _decoded_name(part: bytes) -> str:
    """The parameter's name as an application reads it."""
    return unquote(part.partition(b"=")[0].decode("latin-1").replace("+", " "))


def _respelled(part: bytes) -> bytes:
    name, equals, value = part.partition(b"=")
    return _TO_RESPELL.sub(_respell, name) + equals + _TO_RESPELL.sub(_respell, value)


def _respell(match: re.Match[bytes]) -> bytes:
    """Upper-case hexadecimal digits, nothing unreserved escaped, everything else escaped (RFC 3986, section 6.2.2)."""
    found = match.group()
    if found == b"+":
        return b"%20"
    if len(found) == 1:
        return b"%%%02X" % found[0]
    code = int(found[1:], 16)
    return bytes((code,)) if code in _UNRESERVED else found.upper()
