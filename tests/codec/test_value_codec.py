"""Function values: what goes in comes out, of the same type, or is refused with its name."""

from __future__ import annotations

import enum
import inspect
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.responses import Response

from asgi_tiercache.codec import codec_for
from asgi_tiercache.codec.shape import MARK
from asgi_tiercache.errors import CodecError

zones = st.sampled_from(
    [None, UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(seconds=-17), "mine")]
) | st.sampled_from(["Europe/Berlin", "America/New_York", "UTC"]).map(ZoneInfo)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from([MARK, '"$":', "\x00"])
hashables: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    texts,
    st.binary(max_size=8),
    st.dates(),
    st.datetimes(timezones=zones, allow_imaginary=True),
    st.times(timezones=zones),
    st.timedeltas(),
    st.uuids(),
    st.decimals(allow_nan=False),
    st.decimals(allow_nan=False).map(lambda number: number.scaleb(-3)),
)
anything = st.recursive(
    hashables | st.binary(max_size=8).map(bytearray),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(texts, inner, max_size=4),
        st.dictionaries(hashables, inner, max_size=4),
        st.sets(hashables, max_size=4),
        st.frozensets(hashables, max_size=4),
    ),
    max_leaves=12,
)


def exact(value: Any) -> Any:
    """A form in which values are equal only if their types are as well, down to zones, folds and NaN."""
    match value:
        case float() | Decimal():
            return type(value), repr(value)
        case datetime() | time():
            return type(value), repr(value), value.fold, zone(value.tzinfo)
        case list() | tuple():
            return type(value), [exact(item) for item in value]
        case set() | frozenset():
            return type(value), sorted(repr(exact(item)) for item in value)
        case dict():
            return type(value), [(exact(key), exact(item)) for key, item in value.items()]
    return type(value), repr(value)


def zone(value: tzinfo | None) -> Any:
    return type(value), value.key if isinstance(value, ZoneInfo) else repr(value)


def round_trip(annotation: Any, value: Any) -> Any:
    codec = codec_for(annotation, where="load")
    return codec.load(codec.dump(value))


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(anything)
def test_builtin_values_come_back_exactly_without_annotation(value: Any) -> None:
    assert exact(round_trip(Any, value)) == exact(value)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=50)
@given(st.dictionaries(texts, anything, max_size=3), st.lists(anything, max_size=3))
def test_bare_containers_hold_anything(mapping: dict[str, Any], items: list[Any]) -> None:
    annotation: Any
    for annotation in (dict, dict[str, Any], dict[Any, Any]):
        assert exact(round_trip(annotation, mapping)) == exact(mapping)
    for annotation in (list, list[Any], list[object]):
        assert exact(round_trip(annotation, items)) == exact(items)
    assert exact(round_trip(tuple, tuple(items))) == exact(tuple(items))


@pytest.mark.parametrize("annotation", [Any, inspect.Signature.empty, object])
def test_no_annotation_has_three_spellings(annotation: Any) -> None:
    assert round_trip(annotation, {"a": (1, b"x")}) == {"a": (1, b"x")}


def test_json_values_without_annotation_stay_plain_json() -> None:
    value = {"a": [1, 2.5, "x", None, True], "b": {"c": []}}
    assert codec_for(Any, where="load").dump(value) == orjson.dumps(value)


@pytest.mark.parametrize("value", [{MARK: ["bytes", "AAAA"]}, {MARK: 1, "a": 2}, [{MARK: {MARK: None}}], {"x": '"$":'}])
def test_a_dict_with_the_reserved_key_is_a_dict(value: Any) -> None:
    assert round_trip(Any, value) == value


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (None, None),
        (bool, True),
        (int, 5),
        (int, 2**64 - 1),
        (int, -(2**63)),
        (int, 2**64),
        (int, -(2**63) - 1),
        (int, True),
        (float, -0.0),
        (float, 1e300),
        (float, math.inf),
        (float, -math.inf),
        (float, math.nan),
        (float, 3),
        (float, 2**70),
        (str, "grün \x00 \U0001f600"),
        (bytes, bytes(range(256))),
        (bytearray, bytearray(b"ab")),
        (datetime, datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin"))),
        (datetime, datetime(2024, 10, 27, 2, 30, fold=1)),
        (datetime, datetime(1, 1, 1, microsecond=1, tzinfo=UTC)),
        (date, date(1, 1, 1)),
        (time, time(1, 2, 3, 4, tzinfo=timezone(timedelta(hours=-3), "x"))),
        (timedelta, timedelta(-5, 3, 7)),
        (UUID, UUID(int=7)),
        (Decimal, Decimal("1.10")),
        (Decimal, Decimal("sNaN")),
        (list[int], [1, 2**70, -(2**70), 3]),
        (list[int], []),
        (list[float], [1.5, math.nan, math.inf]),
        (list[float], [math.inf, 1]),
        (list[str | None], ["a", None]),
        (list[int | None], [2**70, None, 1]),
        (list[list[bool]], [[True], []]),
        (tuple[()], ()),
        (tuple[int, str], (1, "a")),
        (tuple[int, ...], (1, 2, 2**65)),
        (tuple, (1, "a", (2,))),
        (set[str], {"a", "b"}),
        (frozenset[tuple[int, str]], frozenset({(1, "a")})),
        (dict[str, int], {"a": 1, "b": 2**70}),
        (dict[str, int], {MARK: 1}),
        (dict[int, str], {1: "a", 2**70: "b"}),
        (dict[date, bytes], {date(2024, 1, 1): b"x"}),
        (dict[tuple[int, int], list[Decimal]], {(1, 2): [Decimal(1)]}),
        (dict[bool, None], {True: None}),
        (dict[str | int, float], {"1": 1.0, 1: 2.0}),
    ],
)
def test_annotated_values_come_back_exactly(annotation: Any, value: Any) -> None:
    assert exact(round_trip(annotation, value)) == exact(value)


def test_an_int_of_more_digits_than_python_would_print_comes_back() -> None:
    assert round_trip(int, 10**6000) == 10**6000
    assert round_trip(Any, [-(10**6000)]) == [-(10**6000)]


def test_a_time_zone_comes_back_as_the_zone_and_not_as_its_offset() -> None:
    moment = round_trip(datetime, datetime(2024, 7, 1, tzinfo=ZoneInfo("Europe/Berlin")))
    assert moment.tzinfo is ZoneInfo("Europe/Berlin")
    assert round_trip(datetime, datetime(2024, 7, 1, tzinfo=UTC)).tzinfo is UTC


class _OwnZone(tzinfo):
    def utcoffset(self, moment: datetime | None) -> timedelta:
        return timedelta(hours=1)

    def dst(self, moment: datetime | None) -> None:
        return None

    def tzname(self, moment: datetime | None) -> str:
        return "own"


class Text(str):
    __slots__ = ()


class Shade(enum.Enum):
    DARK = 1


def _count() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("annotation", "value", "name"),
    [
        (int, "5", "str"),
        (int, Shade.DARK, "Shade"),
        (float, "x", "str"),
        (str, Text("a"), "Text"),
        (str, b"a", "bytes"),
        (bool, 1, "int"),
        (None, 0, "int"),
        (bytes, bytearray(b"a"), "bytearray"),
        (bytes, memoryview(b"a"), "memoryview"),
        (date, datetime(2024, 1, 1), "datetime"),
        (datetime, date(2024, 1, 1), "date"),
        (datetime, datetime(2024, 1, 1, tzinfo=_OwnZone()), "_OwnZone"),
        (list[int], (1, 2), "tuple"),
        (list[int], [1, "2"], "str"),
        (list[str], ["a", Text("b")], "Text"),
        (tuple[int, str], (1,), "tuple"),
        (tuple[int, ...], [1], "list"),
        (tuple[()], (1,), "tuple"),
        (set[int], frozenset({1}), "frozenset"),
        (dict[str, int], OrderedDict(a=1), "OrderedDict"),
        (dict[str, int], {1: 1}, "int"),
        (dict[str, int], {Text("a"): 1}, "Text"),
        (dict[str, int], {"a": "b"}, "str"),
        (Any, Text("a"), "Text"),
        (Any, [Shade.DARK], "Shade"),
        (Any, {"a": object()}, "object"),
        (Any, Path("/tmp"), "Path"),
        (Any, _count(), "generator"),
        (Any, Response(), "Response"),
        (Any, OrderedDict(a=1), "OrderedDict"),
        (Any, range(3), "range"),
        (str, "\ud800", "str"),
        (Any, "\ud800", "str"),
        (dict[str, int], {"\ud800": 1}, "dict"),
    ],
)
def test_what_would_come_back_as_something_else_is_refused(annotation: Any, value: Any, name: str) -> None:
    codec = codec_for(annotation, where="shop.load_profile")
    with pytest.raises(CodecError, match=rf"shop\.load_profile: .*{name}"):
        codec.dump(value)


def _cyclic_list() -> Any:
    items: list[Any] = [1]
    items.append(items)
    return items


def _cyclic_dict() -> Any:
    mapping: dict[str, Any] = {}
    mapping["self"] = [mapping]
    return mapping


def _deep_list() -> Any:
    items: list[Any] = []
    for _ in range(300):
        items = [items]
    return items


@pytest.mark.parametrize("make", [_cyclic_list, _cyclic_dict, _deep_list])
def test_cycles_and_abysses_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(CodecError, match="load"):
        codec_for(Any, where="load").dump(make())


@pytest.mark.parametrize(
    "annotation", [Any, dict[str, Any], dict[str, list[int]], dict[str, dict[int, list[int]] | int]]
)
def test_each_load_makes_fresh_objects(annotation: Any) -> None:
    codec = codec_for(annotation, where="load")
    for value in ({"a": [1]}, {"a": {1: [2]}}):
        try:
            data = codec.dump(value)
        except CodecError:
            continue
        first = codec.load(data)
        first["a"].clear()
        assert codec.load(data) == value


def test_loading_shares_nothing_with_what_was_dumped() -> None:
    codec = codec_for(list[str], where="load")
    value = ["a"]
    data = codec.dump(value)
    value.append("b")
    assert codec.load(data) == ["a"]


ANNOTATIONS: list[Any] = [
    Any,
    int,
    float,
    str,
    bytes,
    datetime,
    timedelta,
    Decimal,
    UUID,
    Shade,
    list[int],
    tuple[int, datetime],
    dict[str, set[float]],
    dict[int, Any],
    list[Any],
    int | str | bytes,
    list[int] | None,
]
json_trees = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**64 - 1) | st.floats() | texts | st.sampled_from(["int", "datetime"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(texts, inner, max_size=3)
        | st.tuples(
            st.sampled_from(["int", "float", "bytes", "datetime", "time", "timedelta", "set", "dict", "uuid", "x"]),
            inner,
        ).map(lambda pair: {MARK: list(pair)})
    ),
    max_leaves=6,
)


@given(json_trees.map(orjson.dumps) | st.binary(max_size=30), st.sampled_from(ANNOTATIONS))
def test_foreign_bytes_raise_nothing_but_a_codec_error(data: bytes, annotation: Any) -> None:
    codec = codec_for(annotation, where="load")
    try:
        value = codec.load(data)
    except CodecError as error:
        assert str(error).startswith("load: ")  # noqa: PT017
    else:
        assert exact(codec.load(codec.dump(value))) == exact(value)  # what is accepted is what could be stored


@pytest.mark.parametrize(
    ("annotation", "data"),
    [
        (int, b'"5"'),
        (int, b"1.5"),
        (int, b'{"$":["float","inf"]}'),
        (int, b'{"$":["int",5]}'),
        (str, b"null"),
        (list[int], b'["a"]'),
        (list[int], b'{"a":1}'),
        (dict[str, int], b"[]"),
        (dict[int, int], b'{"1":1}'),
        (dict[str, int], b'{"$":["list",[]]}'),
        (tuple[int, int], b"[1]"),
        (set[Any], b"[[1]]"),
        (datetime, b'["2024-01-01",0,"../../etc/passwd"]'),
        (datetime, b'["2024-01-01",0,"America"]'),
        (bytes, b'"!"'),
        (Decimal, b"1"),
        (Shade, b'"LIGHT"'),
        (Any, b'{"$":["file","/etc/passwd"]}'),
        (Any, b'{"$":["set",[1]],"a":1}'),
        (int | str, b"1.5"),
        (int | bytes, b'["float","x"]'),
        (Any, b"[" * 2000),
        (Any, b'{"$":["set",' * 400 + b"[]" + b"]}" * 400),
    ],
)
def test_bytes_of_another_annotation_are_refused(annotation: Any, data: bytes) -> None:
    with pytest.raises(CodecError, match="the stored bytes are no"):
        codec_for(annotation, where="load").load(data)


@pytest.mark.parametrize(
    ("annotation", "data", "cause"),
    [
        (dict[str, int], b"[]", "an object was expected here, not list"),
        (list[int], b"5", "an array was expected here, not int"),
        (bytes, b"null", "a string was expected here, not NoneType"),
        (str, b"5", "str was expected here, not int"),
    ],
)
def test_the_cause_says_what_was_found_instead(annotation: Any, data: bytes, cause: str) -> None:
    with pytest.raises(CodecError) as caught:
        codec_for(annotation, where="load").load(data)
    assert str(caught.value.__cause__) == cause
