"""What functions raise: an equal exception comes back, or it is refused."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any, ClassVar

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from asgi_tiercache.codec import FailureCodec, codec_for
from asgi_tiercache.errors import CodecError
from tests.codec.test_value_codec import hashables

# No sets: what one says of itself depends on the order in which it was made, so exceptions are refused for that.
held = st.recursive(
    hashables,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(hashables, inner),
    max_leaves=8,
)


class MissingError(LookupError):
    """As applications write them: what `__init__` takes is not what `args` holds."""

    def __init__(self, kind: str, number: int) -> None:
        super().__init__(f"no {kind} {number}")
        self.kind = kind
        self.number = number


class SlottedError(LookupError):
    __slots__ = ("empty", "number", "unset")

    def __init__(self, number: int) -> None:
        self.number = number
        self.empty = None

    def __str__(self) -> str:
        return f"no {self.number}"


class StubbornError(LookupError):
    def __new__(cls, code: int) -> StubbornError:
        return super().__new__(cls, code)


class ForgetfulError(LookupError):
    """Says what is not in it."""

    known: ClassVar[dict[int, int]] = {}

    def __str__(self) -> str:
        return f"no {self.known.get(id(self))}"


def codec(*kinds: type[Exception]) -> FailureCodec:
    return FailureCodec(kinds or (Exception,), where="shop.load")


def shown(error: Exception) -> tuple[object, ...]:
    return type(error), error.args, vars(error), str(error), repr(error)


@pytest.mark.parametrize(
    "error",
    [
        LookupError(),
        KeyError("a"),
        KeyError(("a", 1)),
        ValueError("a", 2, None, datetime(2026, 1, 1, tzinfo=UTC)),
        MissingError("video", 5),
        FileNotFoundError(2, "not there"),
        FileNotFoundError(2, "not there", "a.txt"),
        PermissionError(13, "not allowed", "a", None, "b"),
        TimeoutError(),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        ModuleNotFoundError("none", name="a"),
        HTTPException(404, "none", {"x-a": "b"}),
        HTTPException(status_code=404),
    ],
    ids=repr,
)
def test_an_equal_exception_comes_back(error: Exception) -> None:
    restored = codec().load(codec().dump(error))
    assert restored is not error
    assert shown(restored) == shown(error)


@given(st.lists(held, max_size=3), st.dictionaries(st.sampled_from(["a", "b"]), held, max_size=2))
def test_whatever_values_may_be_an_exception_may_hold(args: list[Any], attributes: dict[str, Any]) -> None:
    error = LookupError(*args)
    vars(error).update(attributes)
    restored = codec().load(codec().dump(error))
    assert (repr(restored.args), repr(vars(restored))) == (repr(error.args), repr(vars(error)))


def test_slots_come_back_those_that_hold_none_and_those_that_hold_nothing_alike() -> None:
    restored = codec().load(codec().dump(SlottedError(5)))
    assert isinstance(restored, SlottedError)
    assert (restored.number, restored.empty, hasattr(restored, "unset")) == (5, None, False)


def test_an_operating_system_error_keeps_its_numbers() -> None:
    restored = codec(OSError).load(codec(OSError).dump(FileNotFoundError(2, "not there", "a.txt")))
    assert isinstance(restored, FileNotFoundError)
    assert (restored.errno, restored.strerror, restored.filename) == (2, "not there", "a.txt")


def test_notes_come_back_and_what_led_to_it_does_not() -> None:
    error = KeyError("a")
    error.add_note("in the shop")
    error.__cause__ = ValueError("b")
    restored = codec().load(codec().dump(error))
    assert restored.__notes__ == ["in the shop"]
    assert (restored.__cause__, restored.__traceback__) == (None, None)


def test_each_load_makes_a_new_exception() -> None:
    data = codec().dump(KeyError("a"))
    assert codec().load(data) is not codec().load(data)


def local_class() -> type[Exception]:
    class LocalError(LookupError):
        pass

    return LocalError


FIRST, SECOND = local_class(), local_class()


@pytest.mark.parametrize(
    "error",
    [
        KeyError(object()),
        ExceptionGroup("a", [KeyError("a")]),
        StubbornError(5),
        KeyError(KeyError("a")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_would_not_come_back_is_refused_with_its_name(error: Exception) -> None:
    with pytest.raises(CodecError, match=rf"shop\.load: an exception of type '.*{type(error).__name__}' cannot be"):
        codec().dump(error)


def test_an_exception_that_says_something_else_afterwards_is_refused() -> None:
    error = ForgetfulError()
    ForgetfulError.known[id(error)] = 5
    with pytest.raises(CodecError, match="not equal"):
        codec().dump(error)


def test_of_two_classes_with_one_name_none_is_taken_for_the_other() -> None:
    assert isinstance(codec(FIRST).load(codec(FIRST).dump(FIRST())), FIRST)
    with pytest.raises(CodecError, match="not equal"):
        codec(FIRST).dump(SECOND())


def test_a_class_that_is_not_named_does_not_come_back() -> None:
    data = codec(Exception).dump(ValueError("a"))
    with pytest.raises(CodecError, match="ValueError"):
        codec(LookupError).load(data)


def test_no_module_is_imported_for_what_is_stored() -> None:
    data = orjson.dumps({"$": ["tuple", ["antigravity.Fall", {"$": ["tuple", []]}, {}, {}]]})
    with pytest.raises(CodecError, match="antigravity"):
        codec().load(data)


@pytest.mark.parametrize(
    "tree",
    [
        ("builtins.KeyError", ("a",), {}, {}),
        ("KeyError", 5, {}, {}),
        ("KeyError", ("a",), [], {}),
        ("KeyError", ("a",), {}, [1]),
        ("KeyError", ("a",), {}),
        (["KeyError"], ("a",), {}, {}),
        ("OSError", (), {"errno": 1, "args": ()}, 5),
        "KeyError",
        None,
    ],
    ids=repr,
)
def test_foreign_bytes_are_no_exception(tree: object) -> None:
    with pytest.raises(CodecError):
        codec().load(codec_for(Any, where="test").dump(tree))


def test_only_slots_are_set_by_what_is_stored() -> None:
    data = codec_for(Any, where="test").dump(("KeyError", ("a",), {"__cause__": None, "__dict__": {"b": 1}}, {}))
    restored = codec().load(data)
    assert shown(restored) == shown(KeyError("a"))


@given(st.binary(max_size=40))
def test_any_bytes_are_a_codec_error_at_worst(data: bytes) -> None:
    with contextlib.suppress(CodecError):
        codec().load(data)
