"""Which stored variant answers a request: `Vary` and the fields it names (RFC 9111, section 4.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from asgi_tiercache.http.fields import TOKEN, elements, values
from asgi_tiercache.types import Header

MAX_NAMES = 128
"""Field names in `Vary`; each is looked for in each request."""
LONGEST_NORMALISED = 1_024
"""Bytes of a value; a longer one is equal to itself alone. No browser sends a third of it, and the work is linear."""

_FIELD_NAME = re.compile(TOKEN)
_ALIASES = {"x-gzip": "gzip", "x-compress": "compress"}  # RFC 9110, section 8.4.1
_OWS = r"[ \t]*"
_WEIGHTED = re.compile(
    rf"(?P<name>{TOKEN})(?:{_OWS};{_OWS}q=(?P<weight>0(?:\.[0-9]{{0,3}})?|1(?:\.0{{0,3}})?))?", re.IGNORECASE
)


def vary_names(headers: Iterable[Header]) -> tuple[str, ...] | None:
    """The field names in `Vary`: lower case, sorted, each once. None where no request can match.

    That is `*` anywhere in the list; a member that is no field name is treated alike, as nobody knows what it means,
    and so are more than `MAX_NAMES`.
    """
    names = {element.lower() for element in elements(headers, b"vary")}
    if "*" in names or len(names) > MAX_NAMES or not all(map(_FIELD_NAME.fullmatch, names)):
        return None
    return tuple(sorted(names))


def is_misspelled(names: Sequence[str], headers: Iterable[Header]) -> bool:
    """Whether the request `headers` have one of `names`, as `vary_names` gives them, with underscores for dashes.

    A WSGI app takes it for that one, and what it answers would be stored for those who sent none.
    """
    return any(b"_" in name and name.replace(b"_", b"-").decode("latin-1") in names for name, _ in headers)


def variant(names: Sequence[str], headers: Iterable[Header]) -> bytes:
    """What tells variants apart: each of `names` (lower case) with its normalised value in the request `headers`.

    Two requests give the same bytes if and only if they match in all of `names`; every part carries its length.
    """
    lines = list(headers)
    return b"".join(_part(name.encode("latin-1")) + _part(normalise(name, _joined(lines, name))) for name in names)


def normalise(name: str, value: bytes | None) -> bytes:
    """The value of the request field `name` (lower case) such that values of the same meaning are equal.

    Args:
        name: The field's name, lower case.
        value: Its lines joined by `", "`; None if the request has none, which is like no value (not even an empty one).
    """
    if value is None:
        return b""
    if len(value) > LONGEST_NORMALISED:
        return b"=" + _stripped(value)
    return b"=" + (_remembered if len(value) <= _REMEMBERED_BYTES else _normalised)(name, value)


def _normalised(name: str, value: bytes) -> bytes:
    return _NORMALISERS.get(name, _stripped)(value)


# Clients send few different values, and the work would be several times that of the rest of a hit. Long values are
# not remembered: a client must not be able to fill memory with them.
_REMEMBERED_BYTES = 256
_remembered = lru_cache(maxsize=1024)(_normalised)


def _part(part: bytes) -> bytes:
    return len(part).to_bytes(4, "big") + part


def _joined(headers: Iterable[Header], name: str) -> bytes | None:
    lines = values(headers, name.encode("latin-1"))
    return b", ".join(lines) if lines else None


def _stripped(value: bytes) -> bytes:
    return value.strip(b" \t")


def _accept_encoding(value: bytes) -> bytes:
    """Codings in whatever order, each with its weight, on which the choice may depend (RFC 9110, section 12.5.3).

    `identity` alone says the same as nothing.
    """
    codings = set(map(_coding, _elements(value)))
    return b"" if codings == {"identity"} else ",".join(sorted(codings)).encode("latin-1")


def _coding(element: str) -> str:
    name, semicolon, weight = _weighted(element).partition(";")
    return _ALIASES.get(name, name) + semicolon + weight


def _weighted(element: str) -> str:
    """A name in lower case with its weight, spelled one way (RFC 9110, section 12.4.2); anything else as it is."""
    match = _WEIGHTED.fullmatch(element)
    if match is None:
        return element
    name, weight = match["name"].lower(), match["weight"] or "1"
    if "." in weight:
        weight = weight.rstrip("0").rstrip(".")
    return name if weight == "1" else f"{name};q={weight}"


def _accept(value: bytes) -> bytes:
    """Media ranges in lower case; their parameters, whose values may depend on case, without the blanks around."""
    return ",".join(map(_media_range, _elements(value))).encode("latin-1")


def _media_range(element: str) -> str:
    if '"' not in element:  # in a quoted string, blanks count
        element = ";".join(part.strip(" \t") for part in element.split(";"))
    media_range, semicolon, parameters = element.partition(";")
    return media_range.rstrip(" \t").lower() + semicolon + parameters.lstrip(" \t")


def _weighted_list(value: bytes) -> bytes:
    """Names and their weights in the order given: some servers take the first for the best (RFC 9110, 12.5.4)."""
    return ",".join(map(_weighted, _elements(value))).encode("latin-1")


def _elements(value: bytes) -> list[str]:
    return elements([(b"", value)], b"")


_NORMALISERS: dict[str, Callable[[bytes], bytes]] = {
    "accept": _accept,
    "accept-charset": _weighted_list,
    "accept-encoding": _accept_encoding,
    "accept-language": _weighted_list,
}
