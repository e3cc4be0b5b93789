"""`@cache.cached`: what is known when a function is decorated, and the wrapper that takes its place."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from asgi_tiercache.codec.failures import FailureCodec
from asgi_tiercache.codec.values import ValueCodec, codec_for
from asgi_tiercache.config import Policy
from asgi_tiercache.decorator.bridge import Bridge
from asgi_tiercache.engine.calls import Call
from asgi_tiercache.engine.core import Engine
from asgi_tiercache.engine.values import Values
from asgi_tiercache.errors import ConfigError
from asgi_tiercache.keys.function import FunctionKeys
from asgi_tiercache.keys.template import Template

F = TypeVar("F", bound=Callable[..., Any])

_OF_REQUESTS = ("methods", "status_ttl", "query", "drop_query", "vary_on", "cookies", "user", "key", "ignore")


class CachedFunctions:
    """Decorates functions for one cache, and knows which templates are taken.

    Args:
        engine: Looks up, judges, fills and stores.
        values: The story of a value.
        bridge: Runs plain functions.
        namespace: Stands before every key.
        disabled: Whether every call goes straight to its function.
    """

    def __init__(self, engine: Engine, values: Values, bridge: Bridge, *, namespace: str, disabled: bool) -> None:
        self._engine = engine
        self._values = values
        self._bridge = bridge
        self._namespace = namespace
        self._disabled = disabled
        self._owners: dict[str, str] = {}
        self._inner: set[str] = set()

    def decorate(
        self, function: F, template: str | None, policy: Policy, *, ignore: Sequence[str], codec: ValueCodec | None
    ) -> F:
        """The cached form of `function`.

        Raises:
            ConfigError: template, tags or options do not fit the function, or the template is another function's.
            CodecError: what the function is annotated to return would not come back from the cache as it is.
        """
        cached = CachedFunction(self._engine, function, template, policy, ignore, codec, self._namespace)
        owner = self._owners.setdefault(cached.keys.identity, cached.name)
        # A module may be loaded again; what is defined inside a function is another function each time.
        if owner != cached.name or (cached.keys.identity in self._inner):
            raise ConfigError("template", f"{template!r} belongs to {owner} already, so {cached.name} needs another")
        if "<locals>" in cached.name:
            self._inner.add(cached.keys.identity)
        if self._disabled:
            return self.uncached(function)
        wrapper = (
            self._async(function, cached) if inspect.iscoroutinefunction(function) else self._plain(function, cached)
        )
        return cast(F, wrapper)

    def uncached(self, function: F) -> F:
        """`function` as it is, with a `cache.current` of which nothing comes."""
        aside = self._engine.standing_aside

        @functools.wraps(function)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            with aside():
                return await function(*args, **kwargs)

        @functools.wraps(function)
        def call_plain(*args: Any, **kwargs: Any) -> Any:
            with aside():
                return function(*args, **kwargs)

        return cast(F, call_async if inspect.iscoroutinefunction(function) else call_plain)

    def _async(self, function: Callable[..., Awaitable[Any]], cached: CachedFunction) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await self._values.get_or_fill(cached.call(args, kwargs), lambda: function(*args, **kwargs))

        return wrapper

    def _plain(self, function: Callable[..., Any], cached: CachedFunction) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            call = cached.call(args, kwargs)
            return self._bridge.run(call, functools.partial(function, *args, **kwargs), cached.name)

        return wrapper


class CachedFunction:
    """One function with its policy put to use: keys, codec, place in L1, tags."""

    def __init__(
        self,
        engine: Engine,
        function: Callable[..., Any],
        template: str | None,
        policy: Policy,
        ignore: Sequence[str],
        codec: ValueCodec | None,
        namespace: str,
    ) -> None:
        _check(function, policy)
        self.keys = FunctionKeys(
            function, template=template, ignore=ignore, namespace=namespace, version=policy.version
        )
        self.name = self.keys.name
        self._namespace = namespace
        self._place = engine.place(policy)
        self._codec = codec or codec_for(_returned(function), where=self.name)
        self._failures = FailureCodec(policy.negative, where=self.name) if policy.negative else None
        self._tags = tuple(Template(text) for text in policy.tags)
        parameters = inspect.signature(function).parameters
        for tag in self._tags:
            for field in tag.fields:
                if field not in parameters:
                    raise ConfigError("tags", f"{tag.text!r}: {self.name} has no parameter {field!r}")

    def __repr__(self) -> str:
        return f"<CachedFunction {self.name}>"

    def call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
        """What the call with `args` and `kwargs` is looked up by.

        Raises:
            KeyingError: an argument has no canonical form; the message names function, argument and type.
        """
        key = self.keys.of(args, kwargs)
        return Call(
            self._place,
            key.text,
            key.canonical,
            self._codec,
            self._rendered(key.arguments) if self._tags else (),
            self.name,
            namespace=self._namespace,
            whole=key.whole,
            failures=self._failures,
        )

    def _rendered(self, arguments: Mapping[str, object]) -> tuple[str, ...]:
        return tuple(tag for tag in (template.render(arguments) for template in self._tags) if tag is not None)


def _check(function: Callable[..., Any], policy: Policy) -> None:
    name = getattr(function, "__qualname__", repr(function))
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigError("function", f"{name} is a generator: what it yields cannot be stored")
    if policy.mode != "explicit" or policy.ttl is None:
        raise ConfigError("ttl", f"the values of {name} need a lifetime of their own")
    defaults = Policy(ttl=1)
    for option in _OF_REQUESTS:
        if getattr(policy, option) != getattr(defaults, option):
            raise ConfigError(option, f"is about requests; {name} is a function")


def _returned(function: Callable[..., Any]) -> Any:
    """The annotation of what `function` returns, resolved; `Any` where there is none."""
    plain = inspect.unwrap(function)
    if "return" not in getattr(plain, "__annotations__", {}):
        return Any
    # The return annotation alone: others may name what only type checkers import.
    holder = types.SimpleNamespace(__annotations__={"return": plain.__annotations__["return"]})
    try:
        return typing.get_type_hints(holder, getattr(plain, "__globals__", {}), include_extras=True)["return"]
    except NameError as error:
        raise ConfigError(
            "function", f"{plain.__qualname__}: its return annotation does not resolve: {error}"
        ) from None


def awaitable_loader(loader: Callable[[], Any]) -> Callable[[], Awaitable[Any]]:
    """`loader` as an async callable, whether it is one or not."""

    async def load() -> Any:
        value = loader()
        return await value if inspect.isawaitable(value) else value

    return load
