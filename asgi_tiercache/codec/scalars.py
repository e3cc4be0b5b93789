"""Shapes of single values: what JSON knows, numbers of any size, times, bytes, enums."""

from __future__ import annotations

import enum
import math
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from types import NoneType
from typing import Any, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from asgi_tiercache.codec.shape import Shape, UnfitError, expect_list, expect_text, tagged, type_name, untag

_Moment = TypeVar("_Moment", datetime, time)


class Native(Shape):
    """None, bool, str: written and read as they are."""

    def __init__(self, kind: type) -> None:
        self.label = "None" if kind is NoneType else type_name(kind)
        self.types = self.safe = self.verbatim = frozenset({kind})

    def dump(self, value: Any) -> Any:
        self.expect(value)
        return value

    def load(self, tree: Any) -> Any:
        if type(tree) not in self.verbatim:
            raise TypeError(f"{self.label} was expected here, not {type_name(type(tree))}")
        return tree


class Integer(Shape):
    """An int of any size; orjson knows those of 64 bits. A bool passes as the int that it is."""

    label = "int"
    types = verbatim = frozenset({int, bool})
    safe = frozenset({bool})

    def dump(self, value: Any) -> Any:
        self.expect(value)
        return _integer_tree(value)

    def load(self, tree: Any) -> Any:
        if type(tree) in self.verbatim:
            return tree
        name, content = untag(tree)
        return _READ_NUMBER[name](content) if name == "int" else _unknown(name)

    def plain(self, values: Collection[Any]) -> bool:
        return self.verbatim.issuperset(map(type, values)) and max(map(abs, values), default=0) < 2**63


class Float(Shape):
    """A float, infinite and NaN included. An int passes and comes back as one, since typing counts it as a float."""

    label = "float"
    types = verbatim = frozenset({float, int, bool})
    safe = frozenset({bool})

    def dump(self, value: Any) -> Any:
        self.expect(value)
        return _float_tree(value) if type(value) is float else _integer_tree(value)

    def load(self, tree: Any) -> Any:
        if type(tree) in self.verbatim:
            return tree
        name, content = untag(tree)
        return _READ_NUMBER[name](content)

    def plain(self, values: Collection[Any]) -> bool:
        return {float}.issuperset(map(type, values)) and all(map(math.isfinite, values))


class Converted(Shape):
    """Values of one class that a pair of functions turns into a tree and back."""

    def __init__(self, kind: type, write: Callable[[Any], Any], read: Callable[[Any], Any]) -> None:
        self.label = type_name(kind)
        self.types = frozenset({kind})
        self._write = write
        self._read = read

    def dump(self, value: Any) -> Any:
        self.expect(value)
        return self._write(value)

    def load(self, tree: Any) -> Any:
        return self._read(tree)


class EnumMember(Shape):
    """A member of an enum, by name: what a later version of the class calls so is meant, whatever its value."""

    def __init__(self, kind: type[enum.Enum]) -> None:
        self.label = type_name(kind)
        self.types = frozenset({kind})
        self._members: Mapping[str, Any] = kind.__members__

    def dump(self, value: Any) -> Any:
        self.expect(value)
        name: str = value.name
        if self._members.get(name) is not value:
            raise UnfitError(value, f"{value!r} is no named member")
        return name

    def load(self, tree: Any) -> Any:
        return self._members[tree]


class FlagSet(Shape):
    """A combination of flags, which need not have a name: by value."""

    def __init__(self, kind: type[enum.Flag]) -> None:
        self.label = type_name(kind)
        self.types = frozenset({kind})
        self._kind = kind

    def dump(self, value: Any) -> Any:
        self.expect(value)
        return _integer_tree(value.value)

    def load(self, tree: Any) -> Any:
        value: object = self._kind(INTEGER.load(tree))
        self.expect(value)  # an unknown bit makes an int of it where the class says so
        return value


class OneOf(Shape):
    """The values of a `Literal`, each written as its representation, so that 1, True and "1" stay apart."""

    def __init__(self, values: Iterable[Any]) -> None:
        self._values = {_literal_name(value): value for value in values}
        self._names = {(type(value), value): name for name, value in self._values.items()}
        self.label = f"Literal[{', '.join(sorted(self._values))}]"
        self.types = frozenset(map(type, self._values.values()))

    def dump(self, value: Any) -> Any:
        self.expect(value)
        name = self._names.get((type(value), value))
        if name is None:
            raise UnfitError(value, f"it is not in {self.label}")
        return name

    def load(self, tree: Any) -> Any:
        return self._values[tree]


def _literal_name(value: Any) -> str:
    return f"{type_name(type(value))}.{value.name}" if isinstance(value, enum.Enum) else repr(value)


def _integer_tree(value: int) -> Any:
    if -(2**63) <= value < 2**64:
        return value
    return tagged("int", hex(value))  # decimal digits beyond 4,300 are refused by int(), and slow


def _float_tree(value: float) -> Any:
    return value if math.isfinite(value) else tagged("float", repr(value))


_READ_NUMBER: dict[str, Callable[[str], int | float]] = {
    "int": lambda content: int(content, 16),
    "float": float,
}


def _unknown(name: str) -> Any:
    raise ValueError(f"{name!r} does not belong here")


def _write_bytes(value: bytes | bytearray) -> str:
    return b2a_base64(value, newline=False).decode("ascii")


def _read_bytes(tree: Any) -> bytes:
    return a2b_base64(expect_text(tree), strict_mode=True)


def _write_moment(value: datetime | time) -> Any:
    """ISO 8601 where that says it all; else with `fold` and the time zone, which an offset does not stand for."""
    local = value.replace(tzinfo=None).isoformat()
    if value.tzinfo is None and not value.fold:
        return local
    return [local, value.fold, None if value.tzinfo is None else _write_zone(value, value.tzinfo)]


def _moment_reader(kind: type[_Moment]) -> Callable[[Any], _Moment]:
    def read(tree: Any) -> _Moment:
        if type(tree) is str:
            return kind.fromisoformat(tree)
        local, fold, zone = expect_list(tree)
        return kind.fromisoformat(local).replace(fold=fold, tzinfo=None if zone is None else _read_zone(zone))

    return read


def _write_zone(moment: datetime | time, zone: tzinfo) -> Any:
    if type(zone) is ZoneInfo and zone.key is not None:
        return zone.key
    if type(zone) is timezone:
        return [_write_span(zone.utcoffset(None)), zone.tzname(None)]
    raise UnfitError(
        moment, f"its time zone is a {type_name(type(zone))!r}, neither a ZoneInfo with a key nor a timezone"
    )


def _read_zone(tree: Any) -> tzinfo:
    if type(tree) is str:
        return ZoneInfo(tree)
    span, name = tree
    zone = timezone(_read_span(span))
    return zone if zone.tzname(None) == name else timezone(_read_span(span), name)


def _write_span(value: timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _read_span(tree: Any) -> timedelta:
    days, seconds, microseconds = expect_list(tree)
    return timedelta(days, seconds, microseconds)


NONE = Native(NoneType)
BOOL = Native(bool)
TEXT = Native(str)
INTEGER = Integer()
FLOAT = Float()

TAGGED: dict[str, Shape] = {
    "bytes": Converted(bytes, _write_bytes, _read_bytes),
    "bytearray": Converted(bytearray, _write_bytes, lambda tree: bytearray(_read_bytes(tree))),
    "datetime": Converted(datetime, _write_moment, _moment_reader(datetime)),
    "date": Converted(date, date.isoformat, date.fromisoformat),
    "time": Converted(time, _write_moment, _moment_reader(time)),
    "timedelta": Converted(timedelta, _write_span, _read_span),
    "uuid": Converted(UUID, str, lambda tree: UUID(expect_text(tree))),
    "decimal": Converted(Decimal, str, lambda tree: Decimal(expect_text(tree))),
}
"""The scalars that are not JSON, by the name that marks them where no annotation does."""

SCALARS: dict[type, Shape] = {
    NoneType: NONE,
    bool: BOOL,
    int: INTEGER,
    float: FLOAT,
    str: TEXT,
    **{kind: shape for shape in TAGGED.values() for kind in shape.types or ()},
}
"""Every scalar that needs no class of the user's, by type."""
