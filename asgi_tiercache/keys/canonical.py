"""The canonical form of Python values: equal bytes for equal arguments, in every process, and only for those."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import uuid
import zoneinfo
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from asgi_tiercache.errors import KeyingError
from asgi_tiercache.keys.escape import encoded, frame


def canonical(value: object) -> bytes:
    """`value` in canonical form: its type, then its content, without addresses and without `repr` of objects.

    Known are None, bool, int, float, str, bytes, Decimal, UUID, dates and times, enumerations, lists, tuples, sets
    and dicts (in any order), dataclasses, named tuples and pydantic models. 1, 1.0 and True are three values.

    Raises:
        KeyingError: the value, or one inside it, is of another type, or it contains itself.
    """
    try:
        return _form(value)
    except RecursionError:
        raise KeyingError(f"a {type(value).__qualname__} is nested too deeply") from None


def _form(value: Any) -> bytes:
    kind = type(value)
    if write := _SCALARS.get(kind):
        content = write(value)  # `frame` is unrolled here: most arguments are scalars
        return b"%b%d:%b" % (_NAMES[kind], len(content), content)
    if kind in (list, tuple):
        return frame(kind.__name__.encode(), *map(_form, value))
    if kind in (set, frozenset):
        return frame(kind.__name__.encode(), *sorted(map(_form, value)))
    if kind is dict:
        return frame(b"dict", *_pairs(value))
    return frame(b"object", encoded(f"{kind.__module__}.{kind.__qualname__}"), *_fields(value))


def _fields(value: Any) -> Iterable[bytes]:
    """What an object of a known sort consists of."""
    kind = type(value)
    if isinstance(value, enum.Flag):
        return (_form(value.value),)  # a combination of members has no name of its own
    if isinstance(value, enum.Enum):
        return (encoded(value.name),)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return map(_form, value)
    if _is_plain_dataclass(kind):
        return _pairs({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if hasattr(kind, "model_dump"):
        # Not model_dump() itself: it turns nested models into dicts and leaves fields out that are not serialised.
        return (_form(dict(value)), _form(getattr(value, "__pydantic_private__", None)))
    raise KeyingError(f"a {kind.__qualname__} has no canonical form")


def _is_plain_dataclass(kind: type) -> bool:
    """Whether its fields are all there is: no undecorated subclass, no list or dict underneath."""
    return "__dataclass_fields__" in vars(kind) and not issubclass(kind, (*_SCALARS, *_CONTAINERS))


def _pairs(mapping: Mapping[Any, Any]) -> list[bytes]:
    return sorted(frame(_form(key), _form(value)) for key, value in mapping.items())


def _zone(zone: datetime.tzinfo | None) -> bytes:
    if zone is None:
        return b""
    if type(zone) is datetime.timezone:
        return frame(b"offset", _delta(zone.utcoffset(None)))
    if isinstance(zone, zoneinfo.ZoneInfo) and zone.key:
        return frame(b"zone", encoded(zone.key))
    raise KeyingError(f"a {type(zone).__qualname__} has no canonical form")


def _moment(value: datetime.datetime | datetime.time) -> bytes:
    return frame(value.replace(tzinfo=None).isoformat().encode(), b"%d" % value.fold, _zone(value.tzinfo))


def _delta(value: datetime.timedelta) -> bytes:
    return b"%d,%d,%d" % (value.days, value.seconds, value.microseconds)


_CONTAINERS = (list, tuple, set, frozenset, dict)
_SCALARS: Mapping[type, Callable[[Any], bytes]] = {
    type(None): lambda _: b"",
    bool: lambda value: b"%d" % value,
    int: lambda value: b"%x" % value,  # hexadecimal has no limit of digits
    float: lambda value: value.hex().encode(),
    str: encoded,
    bytes: lambda value: value,
    decimal.Decimal: lambda value: str(value).encode(),
    uuid.UUID: lambda value: value.bytes,
    datetime.datetime: _moment,
    datetime.date: lambda value: value.isoformat().encode(),
    datetime.time: _moment,
    datetime.timedelta: _delta,
}
_NAMES = {kind: frame(kind.__name__.encode()) for kind in _SCALARS}
