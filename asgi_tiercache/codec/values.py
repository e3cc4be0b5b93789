"""Function values as bytes: what a hit returns is what the call would have returned.

The return annotation says what to restore; without one, values say themselves what they are. Only exact types are
taken: an instance of a subclass, or of a class that no annotation names, would come back as something else.
"""

from __future__ import annotations

from typing import Any, Protocol

import orjson

from asgi_tiercache.codec.annotations import Builder
from asgi_tiercache.codec.containers import Anything, Verbatim
from asgi_tiercache.codec.shape import MARK, Shape, UnfitError, type_name
from asgi_tiercache.errors import CodecError

# As orjson writes the key. A text that holds the mark is no match: its quotes would be escaped.
_MARKED = orjson.dumps(MARK) + b":"
_ANYTHING = Anything()
_VERBATIM = Verbatim()


class ValueCodec(Protocol):
    """Turns the values of one function into bytes and back."""

    def dump(self, value: Any) -> bytes:
        """The bytes of `value`.

        Raises:
            CodecError: `load` would not make an equal value of the same type of them.
        """

    def load(self, data: bytes) -> Any:
        """The value of which `data` was made, as a fresh object that shares nothing with earlier ones.

        Raises:
            CodecError: `data` was not made by this codec.
        """


def codec_for(annotation: Any, *, where: str) -> ValueCodec:
    """The codec for what a function with this return annotation returns.

    Taken are None, bool, int, float, str, bytes, bytearray, datetime, date, time, timedelta, UUID, Decimal, enums;
    list, tuple, set, frozenset, dict and the abstract collections that these implement; unions, `Literal`,
    `Annotated`, `NewType`, `type` aliases; named tuples, dataclasses, typed dicts and pydantic models.

    Args:
        annotation: The resolved return type; `Any` or `inspect.Signature.empty` for values that say themselves what
            they are, which all builtin types above do.
        where: The function or the key, for messages.

    Raises:
        CodecError: values of `annotation` could not be restored.
    """
    return _ShapeCodec(
        where,
        shape=Builder(where, _ANYTHING).shape(annotation),
        unmarked=Builder(where, _VERBATIM).shape(annotation),
    )


class _ShapeCodec:
    def __init__(self, where: str, *, shape: Shape, unmarked: Shape) -> None:
        self._where = where
        self._shape = shape
        self._unmarked = unmarked  # reads bytes without a mark, where what has no annotation needs no walk

    def __repr__(self) -> str:
        return f"<codec of {self._where} for {self._shape.label}>"

    def dump(self, value: Any) -> bytes:
        try:
            return orjson.dumps(self._shape.dump(value))
        except UnfitError as error:
            raise self._refusal(error.value, error.reason) from error.__cause__
        except RecursionError:
            raise self._refusal(value, "it refers to itself, or is nested too deeply") from None
        except orjson.JSONEncodeError as error:  # lone surrogates; more levels than orjson allows
            raise self._refusal(value, str(error)) from error

    def load(self, data: bytes) -> Any:
        try:
            tree = orjson.loads(data)
            return (self._shape if _MARKED in data else self._unmarked).load(tree)
        except Exception as error:  # the bytes may be anything, and classes of the user's may run
            raise CodecError(f"{self._where}: the stored bytes are no {self._shape.label}") from error

    def _refusal(self, value: object, problem: str) -> CodecError:
        return CodecError(f"{self._where}: a value of type {type_name(type(value))!r} cannot be stored: {problem}")
