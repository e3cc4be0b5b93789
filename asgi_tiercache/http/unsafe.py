"""What a request that may change something makes out of date (RFC 9111, section 4.4)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

from asgi_tiercache.http.directives import Directives, targeted
from asgi_tiercache.http.fields import values
from asgi_tiercache.http.freshness import explicit_lifetime
from asgi_tiercache.types import Header

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "QUERY"})
"""The methods known to be safe (RFC 9110, section 9.2.1, and the QUERY method's own definition). Case counts."""

MAX_REFERENCE = 8_192
"""Bytes. Longer references are ignored: no server would take a request for what they name."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_AUTHORITY = re.compile(r"[A-Za-z0-9\-._~%!$&'()*+,;=:\[\]]+")  # without user information (RFC 9110, section 4.2.4)
_FOREIGN = re.compile(r"[\x00-\x20\x7f]")


class TargetURI(NamedTuple):
    """The target URI of a request (RFC 9110, section 7.1), its parts as they were sent."""

    scheme: str
    authority: str
    """Host and port; empty where the request does not tell, so that nothing absolute is of its origin."""
    path: str
    """Percent-encoded, as the client wrote it."""
    query: str = ""


class Reference(NamedTuple):
    """What a reference names, on the origin of the request."""

    path: str
    """Percent-encoded; `/` where it was empty (RFC 9110, section 4.2.3)."""
    query: str


def is_safe(method: str) -> bool:
    """Whether `method` is known to be safe; one that nobody knows is not (RFC 9111, section 4.4)."""
    return method in SAFE_METHODS


def is_success(status: int) -> bool:
    """Whether a response with `status` is no error, so that what it answers has taken place: 2xx or 3xx."""
    return 200 <= status < 400


def referred(headers: Sequence[Header], target: TargetURI) -> tuple[str, ...]:
    """The paths, percent-encoded, that `Location` and `Content-Location` name on the origin of `target`.

    Those of another origin are never among them (section 4.4), nor is what is malformed. Each line counts, should there
    be several: to invalidate too much costs a miss.
    """
    lines = (*values(headers, b"location"), *values(headers, b"content-location"))
    found = (resolve(line, target) for line in lines)
    return tuple(dict.fromkeys(reference.path for reference in found if reference is not None))


def resolve(reference: bytes, target: TargetURI) -> Reference | None:
    """What the URI reference names, resolved against `target` (RFC 3986, section 5.2); None if it is malformed, or
    not of the same origin: scheme, host and port (RFC 9110, section 4.3.1). Never raises.
    """
    if len(reference) > MAX_REFERENCE or not target.path.startswith("/"):
        return None
    known = _AUTHORITY.fullmatch(target.authority) is not None
    try:
        text = _text(reference)
        given = urlsplit(text)
        if _FOREIGN.search(text) or (given.netloc and not known) or (given.scheme and not given.netloc):
            return None  # `urlsplit` would drop some of these characters, `urljoin` take the last for relative
        base = urlsplit(f"{target.scheme}://{target.authority if known else 'unknown.invalid'}{target.path}")
        query = "" if text.startswith("?") else target.query  # `urljoin` takes an empty query for none
        there = urlsplit(urljoin(base._replace(query=query).geturl(), text))
        origin = _origin(base)
        if origin is None or _origin(there) != origin:
            return None
    except ValueError:  # no such port, brackets that do not pair
        return None
    return Reference(_without_dots(there.path or "/"), there.query)


def represents_target(
    status: int, headers: Sequence[Header], target: TargetURI, *, request: Iterable[Header], now: float
) -> bool:
    """Whether a response to a POST may answer a later GET of `target` (RFC 9110, section 9.3.3).

    It has to state how long it is fresh, and name the target URI itself in `Content-Location`. Only a 200: a GET is not
    to be told that something was created. Whether it may be stored at all is another question: see `storing`.

    Args:
        status: The status code.
        headers: The response's field lines.
        target: The POST's target URI.
        request: The POST's field lines; a `Range` among them leaves open what was answered.
        now: Seconds since 1970.
    """
    lines = values(headers, b"content-location")
    if status != 200 or len(lines) != 1 or values(request, b"range"):
        return False
    if resolve(lines[0], target) != (target.path, target.query) or b"#" in lines[0]:
        return False
    aimed_at_us = targeted(headers)
    directives = Directives.parse(headers) if aimed_at_us is None else aimed_at_us
    return explicit_lifetime(headers, directives, targeted=aimed_at_us is not None, now=now) is not None


def _without_dots(path: str) -> str:
    """`path` without dot segments (RFC 3986, section 5.2.4), which `urljoin` leaves where an authority was given."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def _text(reference: bytes) -> str:
    """References are ASCII; of what is not, the two readings that clients have, UTF-8 first."""
    try:
        return reference.decode()
    except UnicodeDecodeError:
        return reference.decode("latin-1")


def _origin(uri: SplitResult) -> tuple[str, str, int] | None:
    """Scheme, host and port in one spelling; None where it is no URI of HTTP's with a host.

    Raises:
        ValueError: the port is none.
    """
    default = _DEFAULT_PORTS.get(uri.scheme)
    if default is None or not uri.hostname:
        return None
    return uri.scheme, uri.hostname, default if uri.port is None else uri.port
