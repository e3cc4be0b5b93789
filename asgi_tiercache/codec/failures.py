"""What functions raise, as bytes: a hit raises an exception equal to the one that the call raised, without pickle.

Stored are the name of the class, `args`, and what was set on the exception, each as the codec of values takes it.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from typing import Any

from asgi_tiercache.codec.shape import type_name
from asgi_tiercache.codec.values import codec_for
from asgi_tiercache.errors import CodecError

_ABSENT = object()


class FailureCodec:
    """Turns exceptions into bytes and back, for one function.

    The bytes name a class; it is looked for among `kinds` and the subclasses of them that this process has loaded, so
    nothing is imported for what is stored, and nothing but such an exception comes of it. As with dataclasses,
    `__init__` does not run again. Traceback, `__cause__` and `__context__` belong to one call, and are not stored.

    Args:
        kinds: The classes that the function's policy names.
        where: The function, for messages.
    """

    def __init__(self, kinds: Iterable[type[Exception]], *, where: str) -> None:
        self._kinds = tuple(kinds)
        self._where = where
        self._values = codec_for(Any, where=where)
        self._found: dict[str, type[Exception]] = {}

    def __repr__(self) -> str:
        return f"<FailureCodec of {self._where} for {', '.join(map(type_name, self._kinds))}>"

    def dump(self, error: Exception) -> bytes:
        """The bytes of `error`.

        Raises:
            CodecError: `load` would not make an equal exception of them, here or where the class has another name.
        """
        kind = type(error)
        try:
            data = self._values.dump((type_name(kind), error.args, _members(error, kind.__new__(kind)), vars(error)))
            restored = self.load(data)
            # What has a state that is in none of the three speaks otherwise; and perhaps what shows a set does.
            equal = type(restored) is kind and str(restored) == str(error)
        except Exception as problem:  # classes of the user's run
            raise self._refusal(kind, str(problem)) from problem
        if not equal:
            raise self._refusal(kind, "what comes back is not equal")
        return data

    def load(self, data: bytes) -> Exception:
        """The exception of which `data` was made: a new one each time, since raising an exception changes it.

        Raises:
            CodecError: `data` was not made by such a codec, or its class is none of those that may come back.
        """
        try:
            name, args, members, attributes = self._values.load(data)
            kind = self._kind(name)
            error = kind.__new__(kind)
            error.args = args
            for member, value in members.items():
                if member in _member_names(kind):
                    setattr(error, member, value)
            vars(error).update(attributes)
        except CodecError:
            raise
        except Exception as problem:  # the bytes may be anything, and classes of the user's run
            raise CodecError(f"{self._where}: the stored bytes are no exception") from problem
        return error

    def _kind(self, name: str) -> type[Exception]:
        if name not in self._found:
            self._found[name] = self._search(name)
        return self._found[name]

    def _search(self, name: str) -> type[Exception]:
        ahead, seen = list(self._kinds), set[type[Exception]]()
        while ahead:
            kind = ahead.pop()
            if type_name(kind) == name:
                return kind
            if kind not in seen:
                seen.add(kind)
                ahead += kind.__subclasses__()
        raise CodecError(f"{self._where}: no exception that may come back is called {name!r}")

    def _refusal(self, kind: type, problem: str) -> CodecError:
        return CodecError(f"{self._where}: an exception of type {type_name(kind)!r} cannot be stored: {problem}")


def _member_names(kind: type[Exception]) -> set[str]:
    """The slots of `kind` and its bases, those of builtin exceptions (`errno`) included."""
    bases = kind.__mro__[: kind.__mro__.index(Exception)]
    return {
        name
        for base in bases
        for name, attribute in vars(base).items()
        if isinstance(attribute, types.MemberDescriptorType)
    }


def _members(error: Exception, bare: Exception) -> Mapping[str, Any]:
    """What the slots of `error` hold that those of a new exception do not."""
    held = {}
    for name in sorted(_member_names(type(error))):
        value = getattr(error, name, _ABSENT)
        if value is not _ABSENT and value is not getattr(bare, name, _ABSENT):
            held[name] = value
    return held
