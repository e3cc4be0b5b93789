"""Stored bytes: entries, values of functions, exceptions of functions."""

from __future__ import annotations

import enum
import math
import re
import struct
import typing
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, TypedDict, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel
from xxhash import xxh64_digest

from asgi_tiercache.codec import FailureCodec, Rejected, codec_for, decode, encode
from asgi_tiercache.codec.entries import HEAD, MAX_FIELDS, MAX_TAGS, stamp_of
from asgi_tiercache.errors import CodecError
from asgi_tiercache.http.vary import MAX_NAMES
from asgi_tiercache.types import Entry
from tests.fuzz.target import Source, Target

# ---- entries ----

_NUMBERS = struct.Struct(">BBHQ5dH")
_MAX_BODY = 4096
_FLAGS = {0, 1, 4, 5, 8, 9, 12, 13}


class Sealed(NamedTuple):
    """An entry whose lengths and checksum are right, whatever else is in it."""

    numbers: tuple[Any, ...]
    parts: tuple[bytes, bytes, bytes, bytes]
    plain: int

    @property
    def data(self) -> bytes:
        """Its bytes."""
        lengths = (*map(len, self.parts), self.plain)
        covered = b"".join((_NUMBERS.pack(*self.numbers), struct.pack(">5I", *lengths), *self.parts))
        return b"".join((b"ATC\x02", xxh64_digest(covered), covered))

    @property
    def acceptable(self) -> bool:
        """Whether `decode` has to take it."""
        compression, flags, status, position, created, *times, tags = self.numbers
        texts, _, lines, body = self.parts
        return (
            flags in _FLAGS
            and (status <= 2 or (200 <= status <= 599 and status != 304))
            and position < 2**63
            and all(math.isfinite(each) for each in (created, *times))
            and all(each >= 0 for each in times)
            and tags <= min(MAX_TAGS, texts.count(b"\0"))
            and _is_utf8(texts)
            and all(name.isascii() for name in texts.split(b"\0")[1 + tags :])
            and texts.count(b"\0") - tags <= MAX_NAMES
            and (not lines or (lines.endswith(b"\0") and lines.count(b"\0") % 2 == 0))
            and _is_one_answer(status, lines.split(b"\0")[:-1], self.plain)
            and self.plain <= _MAX_BODY
            and (_inflates_to(body, self.plain) if compression == 1 else compression == 0 and len(body) == self.plain)
        )


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_one_answer(status: int, parts: Sequence[bytes], length: int) -> bool:
    """Whether field lines, name and value in turn, can stand as they are before a body of `length` bytes."""
    names, values = parts[::2], parts[1::2]
    lengths = [value.strip(b" \t") for name, value in zip(names, values, strict=True) if name == b"content-length"]
    return (
        (status != 204 or not length)
        and len(names) <= MAX_FIELDS
        and all(re.fullmatch(rb"[!#$%&'*+\-.^_`|~0-9a-z]+", name) for name in names)
        and not any(re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", value) for value in values)
        and b"transfer-encoding" not in names
        and all(each.isdigit() and each.lstrip(b"0") == b"%d" % length * bool(length) for each in lengths)
        and (status != 1 or all(value.isascii() for value in values))
    )


def _inflates_to(body: bytes, size: int) -> bool:
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(body, _MAX_BODY + 1)
    except zlib.error:
        return False
    return len(inflated) == size > len(body) and inflater.eof and not inflater.unused_data


def _sealed(data: bytes) -> Sealed | None:
    """None where `data` is to be decoded as it is."""
    source = Source(data)
    if source.integer() == 0:
        return None
    numbers = _NUMBERS.unpack(source.take(_NUMBERS.size).ljust(_NUMBERS.size, b"\0"))
    plain = source.integer(2)
    texts, canonical, lines, body = source.piece(), source.piece(), source.piece(), source.rest()
    return Sealed(numbers, (texts, canonical, lines, body), plain if numbers[0] else len(body))


def _decoded(data: bytes) -> Entry | Rejected:
    sealed = _sealed(data)
    return decode(data[1:] if sealed is None else sealed.data, max_body=_MAX_BODY)


def _travels(entry: Entry | Rejected) -> tuple[Any, ...]:
    assert isinstance(entry, Entry)
    past = entry.stale_while_revalidate, entry.stale_if_error, entry.retention
    said = entry.stamp, entry.created, entry.lifetime, entry.canonical, entry.tags, entry.status
    return (*said, entry.headers, entry.body, entry.vary, entry.flags, *past)


def _judge_entry(data: bytes, outcome: Entry | Rejected) -> None:
    """Accepted is what may be accepted, and it is written again as it was; else there is a short reason."""
    sealed = _sealed(data)
    stored = data[1:] if sealed is None else sealed.data
    if sealed is not None:
        assert isinstance(outcome, Entry) == sealed.acceptable, outcome
    if isinstance(outcome, Rejected):
        assert 0 < len(outcome.reason) < 40
        return
    damaged = bytearray(stored)
    damaged[7 * len(data) % len(stored)] ^= 1 << len(data) % 8
    assert isinstance(decode(bytes(damaged), max_body=_MAX_BODY), Rejected)
    assert len(outcome.body) <= _MAX_BODY
    assert _travels(decode(encode(outcome, compress=True))) == _travels(outcome)
    if sealed is not None and not sealed.numbers[0]:
        assert encode(outcome) == stored
    if len(outcome.stamp.epoch) <= 64 and _is_epoch(outcome.stamp.epoch):
        assert stamp_of(stored[:HEAD]) == outcome.stamp


def _is_epoch(text: str) -> bool:
    return (text.isascii() and text.replace("_", "a").replace("-", "a").isalnum()) or not text


# ---- values ----


class Colour(enum.Enum):
    """An enum."""

    RED = 1
    GREEN = "g"


class Access(enum.Flag):
    """Flags."""

    READ = 1
    WRITE = 2


@dataclass
class Point:
    """A dataclass that refers to itself."""

    x: int
    y: float = 0.0
    next: Point | None = None


class Pair(NamedTuple):
    """A named tuple."""

    left: str
    right: bytes


class Row(TypedDict, total=False):
    """A typed dict."""

    name: str
    tags: list[str]


class Product(BaseModel):
    """A model."""

    id: int
    price: Decimal | None = None


ANNOTATIONS: tuple[Any, ...] = (
    *(Any, None, bool, int, float, str, bytes, bytearray, datetime, date, time, timedelta, UUID, Decimal),
    *(list[int], set[int], frozenset[str], tuple[int, ...], tuple[int, str], dict[str, int], dict[int, str]),
    *(int | None, int | str | None, list[Any], dict[Any, Any], Sequence[int], Literal[1, "1", True]),
    *(Colour, Access, Point, Pair, Row, Product, list[Point]),
)
_CODECS = tuple(codec_for(annotation, where="fuzz") for annotation in ANNOTATIONS)
_NUMBERLIKE: dict[Any, tuple[type, ...]] = {float: (float, int), int: (int,)}


def _load(data: bytes) -> Any:
    return _CODECS[(data[0] if data else 0) % len(_CODECS)].load(data[1:])


def _judge_value(data: bytes, outcome: Any) -> None:
    """What is loaded is of the annotated type, and comes back equal from what is dumped of it."""
    if isinstance(outcome, CodecError):
        return
    index = (data[0] if data else 0) % len(_CODECS)
    assert _fits(outcome, ANNOTATIONS[index]), (outcome, ANNOTATIONS[index])
    codec = _CODECS[index]
    assert _same(codec.load(codec.dump(outcome)), outcome)


def _fits(value: Any, annotation: Any) -> bool:  # noqa: PLR0911 - a table of types, written as one
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return True
    if annotation is None or annotation is NoneType:
        return value is None
    if origin is Literal:
        return any(type(value) is type(each) and value == each for each in args)
    if origin in (UnionType, typing.Union):
        return any(_fits(value, each) for each in args)
    if origin is tuple and args[-1] is not Ellipsis:
        return type(value) is tuple and len(value) == len(args) and all(map(_fits, value, args))
    if origin is dict:
        return type(value) is dict and all(_fits(k, args[0]) and _fits(v, args[1]) for k, v in value.items())
    if origin is not None:
        return isinstance(value, origin) and all(_fits(each, args[0]) for each in value)
    if annotation is Row:
        return type(value) is dict and value.keys() <= {"name", "tags"} and all(isinstance(k, str) for k in value)
    if annotation is Point:
        return type(value) is Point and type(value.x) in (int, bool) and isinstance(value.y, float | int)
    return isinstance(value, _NUMBERLIKE.get(annotation, (annotation,)))


def _same(left: Any, right: Any) -> bool:  # noqa: PLR0911 - likewise
    if type(left) is not type(right):
        return False
    if isinstance(left, float | Decimal):
        return str(left) == str(right)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, dict):
        return _same(list(left.items()), list(right.items()))
    if isinstance(left, set | frozenset):
        return len(left) == len(right) and sorted(map(repr, left)) == sorted(map(repr, right))
    if isinstance(left, datetime | time):
        return repr(left) == repr(right)
    if isinstance(left, Point | Product):
        return _same(vars(left), vars(right))
    return bool(left == right)


# ---- exceptions ----


class ShopError(Exception):
    """An exception of the user's, with a state of its own."""

    def __init__(self, message: str, *, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class SoldOutError(ShopError):
    """One below it."""


_KINDS = (ShopError, LookupError, OSError)
_FAILURES = FailureCodec(_KINDS, where="fuzz")


def _judge_failure(data: bytes, outcome: Any) -> None:
    """Nothing but such an exception comes of any bytes, and one that can be stored comes back equal."""
    assert isinstance(outcome, (*_KINDS, CodecError))
    if isinstance(outcome, CodecError):
        return
    assert (outcome.__cause__, outcome.__context__, outcome.__traceback__) == (None, None, None)
    assert not outcome.__suppress_context__
    try:
        dumped = _FAILURES.dump(outcome)
    except CodecError:
        return
    again = _FAILURES.load(dumped)
    assert type(again) is type(outcome)
    assert str(again) == str(outcome)
    assert _same(again.args, outcome.args)


TARGETS = {
    "entry": Target(_decoded, _judge_entry),
    "value": Target(_load, _judge_value, raises=(CodecError,)),
    "failure": Target(_FAILURES.load, _judge_failure, raises=(CodecError,)),
}
