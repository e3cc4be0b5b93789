"""From a function call to its key."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from asgi_tiercache.errors import ConfigError, KeyingError
from asgi_tiercache.keys.canonical import canonical
from asgi_tiercache.keys.escape import Digest, digest, encoded, endpoint, frame, qualified_name, sha256
from asgi_tiercache.keys.template import Template

_COLLECTING = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class FunctionKey(NamedTuple):
    """What a call is called in the cache."""

    text: str
    """The filled template, or `fn:<module>.<qualname>:<args_hash>`; a namespace and `:` before it if one is set."""
    canonical: bytes
    """The canonical call, compared on every hit. The arguments are in it as one SHA-256 sum: they may be long, or
    secret."""
    arguments: Mapping[str, object]
    """Every argument by its parameter's name, defaults included; for tags."""
    whole: str
    """What `text` was before it was cut; for patterns."""


class FunctionKeys:
    """Makes the keys of one function's calls.

    Args:
        function: The function; its own signature counts where it is wrapped.
        template: Such as `"user:profile:{user_id}"`. None: the key is made of the function's name and a hash.
        ignore: Parameters that the value does not depend on.
        namespace: Begins every key, if given.
        version: Part of the canonical call; change it to start afresh.
        digest: Names the canonical call in keys without a template.

    Raises:
        ConfigError: a parameter is neither in the template nor ignored, a field or an ignored name is no parameter,
            or the function has neither a name of its own nor a template.
    """

    def __init__(
        self,
        function: Callable[..., object],
        *,
        template: str | None,
        ignore: Sequence[str] = (),
        namespace: str = "",
        version: str = "",
        digest: Digest = digest,
    ) -> None:
        self.name = qualified_name(function)
        """The function's module and qualified name."""
        self._signature = _signature(function, self.name)
        self._ignored = frozenset(ignore)
        self._keyed = [(name, encoded(name)) for name in self._signature.parameters if name not in self._ignored]
        self._template = None if template is None else Template(template, option="template", digest=digest)
        self._prefix = f"{namespace}:" if namespace else ""
        self._digest = digest
        for name in ignore:
            if name not in self._signature.parameters:
                raise ConfigError("ignore", f"{self.name} has no parameter {name!r}")
        if self._template is None:
            _check_name(function, self.name)
        else:
            self._check_template(self._template)
        self.identity = self._template.shape if self._template else f"fn:{self.name}"
        """What may belong to one function only: the template without its fields' names, or the function's name."""
        self._head = frame(b"function", encoded(self.identity), encoded(version))
        self._positional = _positional(self._signature)

    def __repr__(self) -> str:
        return f"<FunctionKeys of {self.name}, {self.identity}>"

    def of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> FunctionKey:
        """The key of the call with `args` and `kwargs`.

        Raises:
            KeyingError: an argument has no canonical form; the message names function, argument and type.
            TypeError: the function does not take these arguments; as calling it would.
        """
        arguments = self._bound(args, kwargs)
        form = self._head + frame(sha256(self._form(arguments)))
        if self._template is not None:
            text, whole = self._template.render_whole(arguments, function=self.name)
        else:
            text = whole = f"fn:{endpoint(self.name, hash_path=False)}:{self._digest(form)}"
        return FunctionKey(self._prefix + text, form, arguments, self._prefix + whole)

    def _bound(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, object]:
        if self._positional is not None and not kwargs and len(args) == len(self._positional):
            return dict(zip(self._positional, args, strict=True))  # the same, in a tenth of the time
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments

    def _form(self, arguments: Mapping[str, object]) -> bytes:
        fields: list[bytes] = []
        for name, field in self._keyed:
            try:
                fields += (field, canonical(arguments[name]))
            except KeyingError as error:
                raise KeyingError(f"{self.name}: argument {name!r}: {error}") from None
        return frame(*fields)

    def _check_template(self, template: Template) -> None:
        parameters = self._signature.parameters
        for field in template.fields:
            if field not in parameters:
                raise ConfigError("template", f"{self.name} has no parameter {field!r}")
            if parameters[field].kind in _COLLECTING:
                raise ConfigError("template", f"{field!r} of {self.name} collects arguments, it is no single value")
        for name in parameters:
            if name not in template.fields and name not in self._ignored:
                raise ConfigError(
                    "template", f"parameter {name!r} of {self.name} is neither in {template.text!r} nor in ignore="
                )


def _signature(function: Callable[..., object], name: str) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except ValueError:
        raise ConfigError("function", f"{name} does not tell its parameters") from None


def _positional(signature: inspect.Signature) -> tuple[str, ...] | None:
    """The parameters of a function that takes each of them by position; None where there are others."""
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = signature.parameters
    return tuple(parameters) if all(each.kind in by_position for each in parameters.values()) else None


def _check_name(function: Callable[..., object], name: str) -> None:
    """Refuse what shares its name with others: lambdas, inner functions, and objects or methods with a state."""
    if "<" in name or inspect.ismethod(function) or not hasattr(function, "__qualname__"):
        raise ConfigError("template", f"{name} has no name of its own, so its key needs a template")
