"""What every shape has in common: how the values of one type are written as JSON and read back."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

MARK = "$"
"""The one key of an object that stands for something JSON has no word for: `{"$": [name, content]}`."""


class UnfitError(Exception):
    """A value would not come back as it is. The codec in front adds where that happened and makes it a `CodecError`."""

    def __init__(self, value: object, reason: str) -> None:
        super().__init__(reason)
        self.value = value
        self.reason = reason


class Shape:
    """Writes the values of one annotation as a tree that orjson takes, and makes equal values of such a tree.

    `dump` is strict, because orjson would write a subclass, a tuple or an enum as something that comes back as
    something else. `load` may raise anything at a foreign tree; the codec in front translates it.
    """

    label: str
    """The annotation in words; tells the members of a union apart in what is stored, so it never depends on order."""
    types: frozenset[type] | None = None
    """The exact types of the values; None where any may occur."""
    safe: frozenset[type] = frozenset()
    """Types whose values are their own tree, whatever the value."""
    verbatim: frozenset[type] = frozenset()
    """Types of trees that are their own value: a list of nothing else needs no loop."""

    def dump(self, value: Any) -> Any:
        """The tree of `value`; raises `UnfitError`."""
        raise NotImplementedError

    def load(self, tree: Any) -> Any:
        """The value of which `tree` was made."""
        raise NotImplementedError

    def plain(self, values: Collection[Any]) -> bool:
        """Whether each of `values` is its own tree, as far as that can be seen at C speed."""
        return self.safe.issuperset(map(type, values))

    def expect(self, value: object) -> None:
        """Raise `UnfitError` unless `value` is of exactly one of the types."""
        if self.types is not None and type(value) not in self.types:
            raise UnfitError(value, f"{self.label} would be restored in its place")


def type_name(kind: type) -> str:
    """`kind` as messages and stored labels name it: `"int"`, `"shop.models.User"`."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def tagged(name: str, content: Any) -> dict[str, Any]:
    """The tree of something that JSON has no word for."""
    return {MARK: [name, content]}


def is_tagged(tree: dict[str, Any]) -> bool:
    """Whether `tree` is not an object as it stands; one that has the reserved key is always written otherwise."""
    return MARK in tree


def untag(tree: Any) -> tuple[str, Any]:
    """Name and content of a tagged tree."""
    (content,) = expect_dict(tree).values()
    name, inner = content
    return name, inner


def expect_dict(tree: Any) -> dict[str, Any]:
    """`tree` if it is a JSON object."""
    if type(tree) is not dict:
        raise TypeError(f"an object was expected here, not {type_name(type(tree))}")
    return tree


def expect_list(tree: Any) -> list[Any]:
    """`tree` if it is a JSON array."""
    if type(tree) is not list:
        raise TypeError(f"an array was expected here, not {type_name(type(tree))}")
    return tree


def expect_text(tree: Any) -> str:
    """`tree` if it is a JSON string."""
    if type(tree) is not str:
        raise TypeError(f"a string was expected here, not {type_name(type(tree))}")
    return tree
