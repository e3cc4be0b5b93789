"""Shapes of classes with named fields: dataclasses, named tuples, typed dicts, pydantic models.

Each is written as an object with the fields' names as keys, so that reordered fields are not misread, and stored
values whose fields are no longer those of the class are refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from typing import Any

import orjson

from asgi_tiercache.codec.shape import Shape, UnfitError, expect_dict, type_name


class Record(Shape):
    """An instance of a class whose fields hold all there is to it: a dataclass or a named tuple.

    Args:
        kind: The class; subclasses are refused, since the class itself would come back.
        make: Makes an instance of the values by name.
    """

    def __init__(self, kind: type, make: Callable[[type, Mapping[str, Any]], Any]) -> None:
        self.label = type_name(kind)
        self.types = frozenset({kind})
        self.fields: dict[str, Shape] = {}
        """Set after the record is made: a field may refer to the class itself."""
        self._kind = kind
        self._make = make
        self._recomputed = {
            name
            for base in kind.__mro__
            for name, attribute in vars(base).items()
            if isinstance(attribute, cached_property)
        }

    def dump(self, value: Any) -> Any:
        self.expect(value)
        extra = getattr(value, "__dict__", {}).keys() - self.fields.keys() - self._recomputed
        if extra:
            raise UnfitError(value, f"{min(extra)!r} is set on it and is not a field")
        try:
            return {name: shape.dump(getattr(value, name)) for name, shape in self.fields.items()}
        except AttributeError as error:
            raise UnfitError(value, str(error)) from None

    def load(self, tree: Any) -> Any:
        if expect_dict(tree).keys() != self.fields.keys():
            raise ValueError(f"the fields stored are not those of {self.label}")
        return self._make(self._kind, {name: shape.load(tree[name]) for name, shape in self.fields.items()})


class TypedDictionary(Shape):
    """A dict with known keys, some of which may be absent."""

    types = frozenset({dict})

    def __init__(self, kind: type) -> None:
        self.label = type_name(kind)
        self.fields: dict[str, Shape] = {}
        self.required: Collection[str] = frozenset()

    def dump(self, value: Any) -> Any:
        self.expect(value)
        self._check(value, lambda problem: UnfitError(value, problem))
        return {name: self.fields[name].dump(item) for name, item in value.items()}

    def load(self, tree: Any) -> Any:
        self._check(expect_dict(tree), ValueError)
        return {name: self.fields[name].load(item) for name, item in tree.items()}

    def _check(self, names: Mapping[str, Any], error: Callable[[str], Exception]) -> None:
        for name in names:
            if name not in self.fields:
                raise error(f"{self.label} has no key {name!r}")
        for name in self.required:
            if name not in names:
                raise error(f"{self.label} must have the key {name!r}")


class Model(Shape):
    """A pydantic model, through its own `model_dump` and `model_validate`.

    What they make of a value is the class's business (aliases, serializers, excluded and private fields), so each
    value is restored once before it is stored, and refused if it does not come back equal. Python's own types are
    tried first, since JSON loses some; then JSON, which knows the enums and URLs that we do not. Leaving out what
    was not set keeps `model_fields_set`; defaults that differ from call to call make that impossible.
    """

    _ATTEMPTS = tuple((mode, unset) for mode in ("python", "json") for unset in (True, False))

    def __init__(self, kind: type, anything: Shape) -> None:
        self.label = type_name(kind)
        self.types = frozenset({kind})
        self._validate: Any = kind.model_validate  # type: ignore[attr-defined]
        self._anything = anything
        by_name = "by_name" in inspect.signature(self._validate).parameters  # pydantic 2.11
        self._by_alias = not by_name
        self._reading = {"by_name": True, "by_alias": False} if by_name else {}

    def dump(self, value: Any) -> Any:
        self.expect(value)
        problems = []
        for mode, unset in self._ATTEMPTS:
            try:
                return self._dump_and_verify(value, mode, unset)
            except Exception as error:  # the class's own validators and serializers may raise anything
                problems.append(error)
        raise UnfitError(value, f"model_validate() does not restore it: {problems[-1]}") from problems[-1]

    def load(self, tree: Any) -> Any:
        return self._validate(self._anything.load(tree), strict=False, **self._reading)

    def _dump_and_verify(self, value: Any, mode: str, unset: bool) -> Any:
        content = value.model_dump(
            mode=mode, by_alias=self._by_alias, exclude_unset=unset, round_trip=True, warnings=False
        )
        tree = self._anything.dump(content)
        restored = self.load(orjson.loads(orjson.dumps(tree)))  # of a copy: a validator may change what it is given
        if type(restored) is not type(value) or restored != value:
            raise ValueError("what comes back is not equal")
        return tree


def make_dataclass(kind: type, values: Mapping[str, Any]) -> Any:
    """An instance with `values` as fields. As with `copy.copy`, neither `__init__` nor `__post_init__` runs again."""
    instance: object = object.__new__(kind)
    for name, value in values.items():
        object.__setattr__(instance, name, value)  # also where the class is frozen
    return instance


def make_named_tuple(kind: type, values: Mapping[str, Any]) -> Any:
    """An instance with `values`, which are in the order of its fields."""
    return tuple.__new__(kind, values.values())


def hidden_state(kind: type, fields: Collection[str]) -> str | None:
    """What instances of the dataclass `kind` hold beside `fields`; None where there is nothing."""
    new: object = kind.__new__
    if new is not object.__new__:
        return "a __new__ of its own or of a builtin base"
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in fields and name not in ("__dict__", "__weakref__"):
                return f"the slot {name!r}, which is not a field"
    return None
