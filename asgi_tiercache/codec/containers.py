"""Shapes made of other shapes: lists, tuples, sets, dicts, unions, and what says itself what it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asgi_tiercache.codec.scalars import FLOAT, INTEGER, NONE, SCALARS, TAGGED, TEXT
from asgi_tiercache.codec.shape import (
    MARK,
    Shape,
    UnfitError,
    expect_dict,
    expect_list,
    is_tagged,
    tagged,
    type_name,
    untag,
)

MOST_ALIKE = 1_000


def distinct(keys: Sequence[Any]) -> Sequence[Any]:
    """`keys` of a set or dict; raises where so many have one hash that putting them in would take quadratic time.

    Numbers can be chosen so, by whoever writes what is stored; texts and bytes are hashed by a secret.
    """
    if len(keys) > MOST_ALIKE and len(set(map(hash, keys))) < len(keys) - MOST_ALIKE:
        raise ValueError("too many keys with the same hash")
    return keys


class Items(Shape):
    """A list, set, frozenset, or tuple of any length, with items of one shape."""

    def __init__(self, kind: type, item: Shape) -> None:
        self.label = f"{kind.__name__}[{item.label}{', ...' if kind is tuple else ''}]"
        self.types = frozenset({kind})
        self._kind = kind
        self._item = item

    def dump(self, value: Any) -> Any:
        self.expect(value)
        if self._item.plain(value):
            return value if self._kind is list else list(value)
        dump = self._item.dump
        return [dump(item) for item in value]

    def load(self, tree: Any) -> Any:
        items = expect_list(tree)
        if not self._item.verbatim.issuperset(map(type, items)):
            load = self._item.load
            items = [load(item) for item in items]
        if self._kind is list:
            return items
        return tuple(items) if self._kind is tuple else self._kind(distinct(items))


class FixedTuple(Shape):
    """A tuple with a shape for each place."""

    types = frozenset({tuple})

    def __init__(self, items: Sequence[Shape]) -> None:
        self.label = f"tuple[{', '.join(item.label for item in items) or '()'}]"
        self._items = items

    def dump(self, value: Any) -> Any:
        self.expect(value)
        if len(value) != len(self._items):
            raise UnfitError(value, f"it has {len(value)} items, not those of {self.label}")
        return [shape.dump(item) for shape, item in zip(self._items, value, strict=True)]

    def load(self, tree: Any) -> Any:
        return tuple(shape.load(item) for shape, item in zip(self._items, expect_list(tree), strict=True))


class Mapping(Shape):
    """A dict: an object where every key is a str and none is the mark, else a list of pairs."""

    types = frozenset({dict})

    def __init__(self, key: Shape, value: Shape) -> None:
        self.label = f"dict[{key.label}, {value.label}]"
        self._key = key
        self._value = value

    def dump(self, value: Any) -> Any:
        self.expect(value)
        if not (str in self._key.safe and TEXT.plain(value) and MARK not in value):
            return tagged("dict", [[self._key.dump(key), self._value.dump(item)] for key, item in value.items()])
        if self._value.plain(value.values()):
            return value
        dump = self._value.dump
        return {key: dump(item) for key, item in value.items()}

    def load(self, tree: Any) -> Any:
        if is_tagged(expect_dict(tree)):
            name, pairs = untag(tree)
            if name != "dict":
                raise ValueError(f"{self.label} was expected here, not {name!r}")
            keys = distinct([self._key.load(key) for key, _ in pairs])
            return dict(zip(keys, (self._value.load(item) for _, item in pairs), strict=True))
        if str not in self._key.verbatim:
            raise TypeError(f"{self.label} was expected here, not an object")
        if self._value.verbatim.issuperset(map(type, tree.values())):
            return tree
        load = self._value.load
        return {key: load(item) for key, item in tree.items()}


class Optional(Shape):
    """None, or a value of a shape whose trees are null for nothing but None."""

    def __init__(self, inner: Shape) -> None:
        self.label = f"{inner.label} | None"
        self.types = None if inner.types is None else inner.types | NONE.verbatim
        self.safe = inner.safe | NONE.safe
        self.verbatim = inner.verbatim | NONE.verbatim
        self._inner = inner

    def dump(self, value: Any) -> Any:
        return None if value is None else self._inner.dump(value)

    def load(self, tree: Any) -> Any:
        return None if tree is None else self._inner.load(tree)


class Union(Shape):
    """A value of one of several shapes: what JSON tells apart as it is, the rest as `[label, tree]`.

    Labels rather than positions, so that a union whose members changed places does not misread what is stored.
    """

    def __init__(self, members: Sequence[Shape]) -> None:
        self._members = members
        self._natives = [member for member in members if member in _NATIVES]
        self._labelled = {member.label: member for member in members if member not in _NATIVES}
        self.label = " | ".join(sorted(member.label for member in members))
        self.safe = frozenset[type]().union(*(member.safe for member in self._natives))
        self.verbatim = frozenset[type]().union(*(member.verbatim for member in self._natives))
        known = [member.types for member in members if member.types is not None]
        self.types = frozenset[type]().union(*known) if len(known) == len(members) else None

    @property
    def ambiguous(self) -> bool:
        """Whether two members have one label, as two local classes of one name have."""
        return len(self._natives) + len(self._labelled) < len(self._members)

    def dump(self, value: Any) -> Any:
        self.expect(value)
        unfit = UnfitError(value, f"it is not of {self.label}")
        for member in self._members:
            if member.types is None or type(value) in member.types:
                try:
                    tree = member.dump(value)
                except UnfitError as error:
                    unfit = error
                else:
                    return tree if member in self._natives else [member.label, tree]
        raise unfit

    def load(self, tree: Any) -> Any:
        if type(tree) in self.verbatim:
            return tree
        if type(tree) is list:
            label, inner = tree
            return self._labelled[label].load(inner)
        for number in (FLOAT, INTEGER):  # of what is neither native nor labelled, only numbers may be marked
            if number in self._natives:
                return number.load(tree)
        raise TypeError(f"{self.label} was expected here, not {type_name(type(tree))}")


_NATIVES = frozenset(SCALARS.values()) - frozenset(TAGGED.values())


class Anything(Shape):
    """Values without an annotation: JSON as it stands, other builtin types marked with their name."""

    label = "Any"
    safe = frozenset({type(None), bool, str})
    verbatim = frozenset({type(None), bool, str, int, float})

    def __init__(self) -> None:
        self._list = Items(list, self)
        self._unmarked: dict[str, Shape] = {"dict": Mapping(self, self), "int": INTEGER, "float": FLOAT}
        self._marked = TAGGED | {kind.__name__: Items(kind, self) for kind in (tuple, set, frozenset)}
        self._by_type: dict[type, Shape] = {list: self._list, dict: self._unmarked["dict"], int: INTEGER, float: FLOAT}
        self._names = {kind: name for name, shape in self._marked.items() for kind in shape.types or ()}

    def dump(self, value: Any) -> Any:
        kind = type(value)
        if kind in self.safe:
            return value
        if kind in self._by_type:
            return self._by_type[kind].dump(value)
        if kind in self._names:
            name = self._names[kind]
            return tagged(name, self._marked[name].dump(value))
        raise UnfitError(value, "nothing says how to restore it; annotate the return type, or return a builtin type")

    def load(self, tree: Any) -> Any:
        if type(tree) is list:
            return self._list.load(tree)
        if type(tree) is not dict:
            return tree
        if not is_tagged(tree):
            return self._unmarked["dict"].load(tree)
        name, content = untag(tree)
        return self._unmarked[name].load(tree) if name in self._unmarked else self._marked[name].load(content)


class Verbatim(Anything):
    """`Anything` for bytes in which nothing is marked: there the tree is the value, and no walk is needed."""

    verbatim = Anything.verbatim | {list, dict}

    def load(self, tree: Any) -> Any:
        return tree


class Alias(Shape):
    """Stands for a recursive `type` alias inside itself, until the alias is known."""

    target: Shape

    def __init__(self, name: str) -> None:
        self.label = name

    def dump(self, value: Any) -> Any:
        return self.target.dump(value)

    def load(self, tree: Any) -> Any:
        return self.target.load(tree)
