"""From a return annotation to the shape of its values, or to the reason why there is none."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import sys
import types
import typing
from collections import abc
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ForwardRef, Literal, NewType, NoReturn, NotRequired, Required, get_args, get_origin

from asgi_tiercache.codec import records
from asgi_tiercache.codec.containers import Alias, FixedTuple, Items, Mapping, Optional, Union
from asgi_tiercache.codec.scalars import NONE, SCALARS, EnumMember, FlagSet, OneOf
from asgi_tiercache.codec.shape import Shape, type_name
from asgi_tiercache.errors import CodecError

# What an abstract class may turn out to be. Iterable is not here: an iterator is one, and can be read only once.
_ITEMS: dict[Any, tuple[type, ...]] = {
    list: (list,),
    set: (set,),
    frozenset: (frozenset,),
    abc.Sequence: (list, tuple),
    abc.MutableSequence: (list,),
    abc.Set: (frozenset, set),
    abc.MutableSet: (set,),
    abc.Collection: (frozenset, list, set, tuple),
}
_MAPPINGS = frozenset({dict, abc.Mapping, abc.MutableMapping})


class Builder:
    """Builds the shape of one annotation; remembers classes and aliases, which may refer to themselves.

    Args:
        where: The function or key, for messages.
        anything: The shape of what has no annotation.
    """

    def __init__(self, where: str, anything: Shape) -> None:
        self._where = where
        self._anything = anything
        self._known: dict[Any, Shape] = {}

    def shape(self, annotation: Any) -> Shape:
        """The shape of the values of `annotation`.

        Raises:
            CodecError: they could not be restored.
        """
        origin = get_origin(annotation)
        if origin is None:
            return self._bare(annotation)
        if isinstance(origin, type) and (origin in _ITEMS or origin in _MAPPINGS or origin is tuple):
            return self._container(annotation, origin, get_args(annotation))
        if origin is Annotated:
            return self.shape(get_args(annotation)[0])
        if origin is Literal:
            return OneOf(get_args(annotation))
        if origin is typing.Union or origin is types.UnionType:
            return self._union(annotation, [self.shape(member) for member in get_args(annotation)])
        if _is_alias(origin):
            return self._alias(annotation, origin, get_args(annotation))
        self._refuse(annotation, "only builtin containers can have parameters")

    def _bare(self, annotation: Any) -> Shape:
        if annotation is Any or annotation is inspect.Signature.empty or annotation is object:
            return self._anything
        if annotation is None:
            return NONE
        if isinstance(annotation, type):
            return self._class(annotation)
        if isinstance(annotation, NewType):
            return self.shape(annotation.__supertype__)
        if _is_alias(annotation):
            return self._alias(annotation, annotation, ())
        if isinstance(annotation, str | ForwardRef):
            self._refuse(annotation, "the name could not be resolved")
        self._refuse(annotation, "nothing says how its values could be restored")

    def _class(self, kind: type) -> Shape:
        if kind in SCALARS:
            return SCALARS[kind]
        if kind in self._known:
            return self._known[kind]
        if kind in _ITEMS or kind in _MAPPINGS or kind is tuple:
            return self._container(kind, kind, ())
        return self._user_class(kind)

    def _user_class(self, kind: type) -> Shape:
        if issubclass(kind, enum.Enum):
            return FlagSet(kind) if issubclass(kind, enum.Flag) else EnumMember(kind)
        if hasattr(kind, "model_dump") and hasattr(kind, "model_validate"):
            return records.Model(kind, self._anything)
        if issubclass(kind, dict) and hasattr(kind, "__required_keys__"):
            return self._typed_dict(kind)
        if issubclass(kind, tuple) and hasattr(kind, "_fields"):
            return self._record(kind, kind._fields, records.make_named_tuple)
        if dataclasses.is_dataclass(kind):
            return self._dataclass(kind)
        self._refuse(kind, "nothing says how its instances could be restored")

    def _container(self, annotation: Any, kind: type, args: tuple[Any, ...]) -> Shape:
        if kind is tuple:
            return self._tuple(annotation, args)
        shapes = [self.shape(arg) for arg in args]
        if kind in _MAPPINGS:
            return Mapping(*(shapes or (self._anything, self._anything)))
        item = shapes[0] if shapes else self._anything
        choices = [Items(choice, item) for choice in _ITEMS[kind]]
        return choices[0] if len(choices) == 1 else Union(choices)

    def _tuple(self, annotation: Any, args: tuple[Any, ...]) -> Shape:
        if not args and not isinstance(annotation, types.GenericAlias):  # tuple, not tuple[()]
            return Items(tuple, self._anything)
        if len(args) == 2 and args[1] is Ellipsis:
            return Items(tuple, self.shape(args[0]))
        return FixedTuple([self.shape(arg) for arg in args])

    def _union(self, annotation: Any, members: Sequence[Shape]) -> Shape:
        others = [member for member in members if member is not NONE]
        if len(others) == 1:
            return Optional(others[0])
        union = Union(members)
        if union.ambiguous:
            self._refuse(annotation, "two of its members have the same name")
        return union

    def _alias(self, annotation: Any, alias: Any, args: tuple[Any, ...]) -> Shape:
        if annotation not in self._known:
            stand_in = self._known[annotation] = Alias(str(annotation))
            # Its names are looked up by way of an object with an annotation: typing has no plainer function for it.
            holder = types.SimpleNamespace(__annotations__={"value": alias.__value__})
            value = self._hints(holder, module=vars(sys.modules[alias.__module__]))["value"]
            if args:
                given = dict(zip(alias.__type_params__, args, strict=True))
                value = value[tuple(given[parameter] for parameter in value.__parameters__)]
            stand_in.target = self._known[annotation] = self.shape(value)
        return self._known[annotation]

    def _dataclass(self, kind: type) -> Shape:
        names = [field.name for field in dataclasses.fields(kind)]
        hidden = records.hidden_state(kind, names)
        if hidden is not None:
            self._refuse(kind, f"its instances have {hidden}")
        return self._record(kind, names, records.make_dataclass)

    def _record(self, kind: type, names: Sequence[str], make: Callable[..., Any]) -> Shape:
        record = self._known[kind] = records.Record(kind, make)
        hints = self._hints(kind)
        record.fields = {name: self.shape(hints.get(name, Any)) for name in names}
        return record

    def _typed_dict(self, kind: Any) -> Shape:
        shape = self._known[kind] = records.TypedDictionary(kind)
        shape.fields = {name: self.shape(hint) for name, hint in self._hints(kind).items()}
        # __required_keys__ does not see markers inside annotations that are strings.
        marked = {name: get_origin(hint) for name, hint in self._hints(kind, extras=True).items()}
        required = {name for name in kind.__required_keys__ if marked.get(name) is not NotRequired}
        shape.required = required | {name for name, marker in marked.items() if marker is Required}
        return shape

    def _hints(self, kind: Any, *, extras: bool = False, module: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            return typing.get_type_hints(kind, module, include_extras=extras)
        except Exception as error:  # annotations are expressions of the user's
            raise CodecError(f"{self._where}: the annotations of {kind} do not resolve: {error}") from error

    def _refuse(self, annotation: Any, reason: str) -> NoReturn:
        name = type_name(annotation) if isinstance(annotation, type) else str(annotation)
        raise CodecError(f"{self._where}: values of {name} cannot be stored: {reason}")


def _is_alias(annotation: Any) -> bool:
    """Whether it was made by a `type` statement, or by its backport in typing_extensions."""
    return type(annotation).__name__ == "TypeAliasType"
