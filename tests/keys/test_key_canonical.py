from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
import itertools
import subprocess
import sys
import uuid
import zoneinfo
from typing import Any, NamedTuple

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_tiercache.errors import KeyingError
from asgi_tiercache.keys.canonical import canonical


class Colour(enum.Enum):
    RED = 1
    GREEN = 2


class Shade(enum.Enum):
    RED = 1


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Number(enum.IntEnum):
    ONE = 1


class Point(NamedTuple):
    x: int
    y: int


class Size(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Box:
    x: int
    y: object = 0


@dataclasses.dataclass
class Crate:
    x: int
    y: object = 0


class Hidden(Box):
    secret = 1


@dataclasses.dataclass
class Listing(list[int]):
    x: int = 0


class Model(pydantic.BaseModel):
    x: int
    inner: pydantic.BaseModel | None = None
    hidden: int = pydantic.Field(default=0, exclude=True)
    _private: int = pydantic.PrivateAttr(default=0)


class Other(pydantic.BaseModel):
    x: int


class Twin(pydantic.BaseModel):
    x: int


def model(private: int) -> Model:
    made = Model(x=1)
    made._private = private
    return made


NOON = datetime.datetime(2024, 10, 27, 2, 30)
UTC = datetime.UTC
DISTINCT: list[Any] = [
    *(None, True, False, 1, 0, -1, 1.0, 0.0, -0.0, float("inf"), 10**5000, "1", b"1", "", b"", "\ud800", "None"),
    *(decimal.Decimal(1), decimal.Decimal("1.0"), uuid.UUID(int=1), uuid.UUID(int=1).hex),
    *(NOON, NOON.date(), NOON.time(), NOON.isoformat(), NOON.replace(fold=1), NOON.replace(tzinfo=UTC)),
    NOON.replace(tzinfo=zoneinfo.ZoneInfo("UTC")),
    NOON.replace(tzinfo=zoneinfo.ZoneInfo("Europe/Paris")),
    NOON.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=1))),
    *(NOON.time().replace(tzinfo=UTC), datetime.timedelta(1), datetime.timedelta(0, 1), datetime.timedelta(0, 0, 1)),
    *(Colour.RED, Colour.GREEN, Shade.RED, Number.ONE, Right.READ, Right.READ | Right.WRITE),
    *([], (), set(), frozenset(), {}, [1], [[1]], [1, 2], [2, 1], (1, 2), {1, 2}, frozenset({1, 2}), {1: 2}, {2: 1}),
    *(["ab", ""], ["a", "b"], {"a": 1}, {"a": True}, {"a": {"b": 1}}, [None], [()]),
    *(Point(1, 2), Size(1, 2), Point(2, 1), Box(1), Crate(1), Box(1, [2]), Box(1, (2,))),
    *(Other(x=1), Twin(x=1), Other(x=2), model(0), model(1), Model(x=1, hidden=1)),
    *(Model(x=1, inner=Other(x=1)), Model(x=1, inner=Twin(x=1))),
]


def test_different_values_have_different_forms() -> None:
    forms = [canonical(value) for value in DISTINCT]
    alike = [pair for pair in itertools.combinations(range(len(forms)), 2) if forms[pair[0]] == forms[pair[1]]]
    assert [(DISTINCT[one], DISTINCT[other]) for one, other in alike] == []


def test_the_order_of_sets_and_dicts_does_not_count() -> None:
    assert canonical({"a": 1, "b": [2]}) == canonical({"b": [2], "a": 1})
    assert canonical({"c", "a", "b"}) == canonical({"b", "c", "a"})


@pytest.mark.parametrize(
    "make",
    [
        lambda: Box(1, {"a": {1, 2}}),
        lambda: Point(1, 2),
        lambda: model(3),
        lambda: Model(x=1, inner=Other(x=2)),
        lambda: decimal.Decimal("1.50"),
        lambda: NOON.replace(tzinfo=zoneinfo.ZoneInfo("Europe/Paris")),
        lambda: float("nan"),
    ],
)
def test_equal_values_have_one_form(make: Any) -> None:
    assert canonical(make()) == canonical(make())


def test_a_form_does_not_depend_on_the_seed_of_hashes() -> None:
    program = (
        "from asgi_tiercache.keys.canonical import canonical;"
        "print(canonical([{'a', 'b', 'c'}, {'x': 1, 'y': 2}, frozenset({'d', 'e'})]).hex())"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert runs == {canonical([{"c", "b", "a"}, {"y": 2, "x": 1}, frozenset({"e", "d"})]).hex().encode() + b"\n"}


class Plain:
    pass


class Text(str):
    __slots__ = ()


class Zone(datetime.tzinfo):
    def utcoffset(self, moment: datetime.datetime | None) -> None: ...
    def tzname(self, moment: datetime.datetime | None) -> None: ...
    def dst(self, moment: datetime.datetime | None) -> None: ...


@pytest.mark.parametrize(
    "value",
    [
        Plain(),
        Plain,
        Box,
        Other,
        lambda: 1,
        functools.partial(int),
        len,
        1j,
        range(3),
        bytearray(b"a"),
        iter([1]),
        Text("a"),
        Hidden(1),
        Listing(),
        pydantic.SecretStr("s"),
    ],
)
def test_a_value_without_a_form_is_an_error_that_names_its_type(value: object) -> None:
    for whole in (value, [value], {"a": value}, {"a": (1, value)}, Box(1, value)):
        with pytest.raises(KeyingError, match=rf"^a {type(value).__qualname__} has no canonical form$"):
            canonical(whole)


def test_a_zone_without_a_name_is_an_error() -> None:
    with pytest.raises(KeyingError, match="Zone has no canonical form"):
        canonical(NOON.replace(tzinfo=Zone()))


def test_a_value_that_contains_itself_is_an_error() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(KeyingError, match="list is nested too deeply"):
        canonical(endless)


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.floats(allow_nan=False), st.text(max_size=3))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=2), inner, max_size=3),
    ),
    max_leaves=6,
)


def spelled(value: Any) -> object:
    """`value` with every type spelled out, since 1 == True == 1.0 and -0.0 == 0.0 to Python."""
    if isinstance(value, dict):
        return {name: spelled(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(spelled(inner) for inner in value)
    return (type(value), repr(value))


@given(VALUES, VALUES)
def test_two_values_share_a_form_only_if_they_are_alike(one: object, other: object) -> None:
    assert (canonical(one) == canonical(other)) == (spelled(one) == spelled(other))
