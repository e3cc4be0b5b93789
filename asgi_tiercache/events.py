"""Events: what happens to an entity, by a name, and everything that goes out of date by it."""

from __future__ import annotations

import functools
import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, cast

from starlette.requests import Request
from starlette.responses import Response

from asgi_tiercache.config import check_settle, check_texts
from asgi_tiercache.engine.core import Engine
from asgi_tiercache.engine.tags import key_tag, path_tags, route_tag, user_tag
from asgi_tiercache.errors import ConfigError
from asgi_tiercache.invalidation.patterns import matches
from asgi_tiercache.invalidation.service import Receipt
from asgi_tiercache.keys.escape import qualified_name
from asgi_tiercache.keys.form import user_hash
from asgi_tiercache.keys.template import Template
from asgi_tiercache.outbox import Outboxes, PurgeOrder, purge_all

logger = logging.getLogger("asgi_tiercache")

F = TypeVar("F", bound=Callable[..., Any])

Waiter = Callable[[Coroutine[Any, Any, Receipt]], Receipt]
"""Runs a coroutine to its end while a plain thread waits."""
_RESERVED = "dry_run"


@dataclass(frozen=True, slots=True)
class Preview:
    """What an event would purge; `emit(..., dry_run=True)` returns it and purges nothing."""

    event: str
    tags: tuple[str, ...]
    patterns: tuple[str, ...]
    keys: tuple[str, ...]
    paths: tuple[str, ...]
    routes: tuple[str, ...]
    users: tuple[str, ...]
    stored: tuple[str, ...]
    """The keys, without the namespace, of what this worker holds in memory and would then be invalid."""


class Targets(NamedTuple):
    """What an event purges, by kind; texts as users write them."""

    tags: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    users: tuple[str, ...] = ()


class Rule:
    """One `on`: templates for everything that an event purges, and how.

    Raises:
        ConfigError: a template is malformed, or there is none.
    """

    def __init__(self, targets: Targets, *, soft: bool, settle: float) -> None:
        if not any(targets):
            raise ConfigError("on", f"needs one at least of {', '.join(Targets._fields)}: it would purge nothing")
        if not isinstance(soft, bool):
            raise ConfigError("soft", f"must be True or False, not {soft!r}")
        self.soft = soft
        self.settle = check_settle(settle)
        self._tags = [Template(text) for text in targets.tags]
        self._patterns = [Template(text, option="patterns", glob=True) for text in targets.patterns]
        self._keys = [Template(text, option="keys") for text in targets.keys]
        self._paths = [Template(text, option="paths") for text in targets.paths]
        self._users = [Template(text, option="users") for text in targets.users]
        self._routes = targets.routes
        for option in ("paths", "routes"):
            for text in getattr(targets, option):
                if not text.startswith("/"):
                    raise ConfigError(option, f"must begin with '/': {text!r}")
        templates = (*self._tags, *self._patterns, *self._keys, *self._paths, *self._users)
        self.fields = tuple(dict.fromkeys(field for template in templates for field in template.fields))
        """What the templates need."""
        if _RESERVED in self.fields:
            raise ConfigError("on", f"a field cannot be named {_RESERVED!r}")

    def targets(self, values: Mapping[str, object], where: str) -> Targets:
        """What is purged for `values`.

        Raises:
            KeyingError: a value has no canonical text; the message names `where`, field and type.
        """

        def escaped(templates: Iterable[Template]) -> tuple[str, ...]:
            return tuple(template.render_strict(values, function=where) for template in templates)

        def plain(templates: Iterable[Template]) -> tuple[str, ...]:
            return tuple(template.render_plain(values, function=where) for template in templates)

        return Targets(
            tags=escaped(self._tags),
            patterns=escaped(self._patterns),
            keys=escaped(self._keys),
            paths=plain(self._paths),  # escaped as a whole, with what they become tags of
            routes=self._routes,
            users=plain(self._users),  # hashed
        )


class Events:
    """The events of one cache.

    Args:
        engine: Holds what a preview looks through.
        outboxes: Take what is emitted within a request.
        namespace: Stands before every key.
        waiter: Gives a plain thread what it waits with; raises `BlockingCallError` on an event loop's own.
    """

    def __init__(self, engine: Engine, outboxes: Outboxes, *, namespace: str, waiter: Callable[[str], Waiter]) -> None:
        self._engine = engine
        self._outboxes = outboxes
        self._prefix = f"{namespace}:" if namespace else ""
        self._waiter = waiter
        self._rules: dict[str, list[Rule]] = {}
        self._emitters: list[Emitter] = []

    def __repr__(self) -> str:
        return f"<Events {', '.join(self._rules) or '(none)'}>"

    # ---- declaring ----

    def on(self, event: str, targets: Mapping[str, str | Iterable[str]], *, soft: bool, settle: float) -> None:
        """Let `event` purge `targets`, too.

        Raises:
            ConfigError: a template is malformed, nothing is purged, or a function that emits the event lacks a field.
        """
        name = _checked(event)
        purged = Targets(**{option: check_texts(option, value) for option, value in targets.items()})
        rule = Rule(purged, soft=soft, settle=settle)
        for emitter in self._emitters:
            if emitter.event == name:
                emitter.check(rule.fields)
        for pattern in purged.patterns:
            if "{" in pattern and not (pattern.endswith(":*") and pattern.count("*") == 1):
                logger.warning(
                    "event %r: the pattern %r is told apart for each of its values, 64 of them in all, and one more"
                    " clears the cache; a pattern that ends in ':*' and has no other '*' costs what a tag costs",
                    name,
                    pattern,
                )
        self._rules.setdefault(name, []).append(rule)

    def check(self) -> None:
        """Check what could not be checked before, as events may be declared after their functions.

        Raises:
            ConfigError: a function emits an event that was never declared, or maps a field that it does not have.
        """
        for emitter in self._emitters:
            emitter.check_names(self.fields(emitter.event))

    def fields(self, event: str) -> tuple[str, ...]:
        """What `event` needs.

        Raises:
            ConfigError: it was never declared.
        """
        return tuple(dict.fromkeys(field for rule in self._declared(event) for field in rule.fields))

    def _declared(self, event: str) -> list[Rule]:
        try:
            return self._rules[event]
        except (KeyError, TypeError):
            known = ", ".join(map(repr, self._rules)) or "none"
            raise ConfigError("event", f"{event!r} was never declared with on(); declared: {known}") from None

    # ---- emitting ----

    async def emit(self, event: str, values: Mapping[str, object]) -> Receipt:
        """Purge what `event` purges for `values`.

        Raises:
            ConfigError: the event was never declared, or a field is missing or None.
            KeyingError: a value has no canonical text.
        """
        return await purge_all(self._outboxes.purger, self.purges(event, values))

    def preview(self, event: str, values: Mapping[str, object]) -> Preview:
        """What `emit` would purge; raises what `emit` would."""
        found = [targets for _, targets in self._filled(event, values)]
        merged = [tuple(dict.fromkeys(text for part in parts for text in part)) for parts in zip(*found, strict=True)]
        targets = Targets(*merged)
        return Preview(event, *targets, stored=tuple(self._stored(self._tags_of(targets), targets.patterns)))

    def purges(self, event: str, values: Mapping[str, object]) -> list[PurgeOrder]:
        """What `event` purges for `values`; raises what `emit` does."""
        return [
            PurgeOrder(self._tags_of(targets), targets.patterns, soft=rule.soft, settle=rule.settle)
            for rule, targets in self._filled(event, values)
        ]

    def _filled(self, event: str, values: Mapping[str, object]) -> list[tuple[Rule, Targets]]:
        for field in self.fields(event):
            # Nothing is ever tagged with None: to purge by it would purge nothing, and look as if it had.
            if values.get(field) is None:
                said = "is None" if field in values else "is missing"
                raise ConfigError(field, f"event {event!r} needs this field, which {said}")
        return [(rule, rule.targets(values, f"event {event!r}")) for rule in self._declared(event)]

    def _tags_of(self, targets: Targets) -> tuple[str, ...]:
        return (
            *targets.tags,
            *(key_tag(self._prefix + key) for key in targets.keys),
            *(tag for path in targets.paths for tag in path_tags(path)),
            *(route_tag(template) for template in targets.routes),
            *(user_tag(user_hash(user)) for user in targets.users),
        )

    def _stored(self, tags: Collection[str], patterns: Iterable[str]) -> Iterator[str]:
        purged = frozenset(tags)
        globs = [self._prefix + pattern for pattern in patterns]
        now = self._engine.clock.monotonic()
        for bucket in self._engine.memory.buckets():
            for stored, entry in bucket.entries():
                fits = not purged.isdisjoint(entry.tags) or any(matches(glob, entry.tags) for glob in globs)
                if fits and now < entry.ends and self._engine.invalidation.current(entry):
                    yield stored.removeprefix(self._prefix)

    # ---- the decorator ----

    def decorate(self, function: F, event: str, names: Mapping[str, str]) -> F:
        """The form of `function` that emits `event` after it succeeded.

        Raises:
            ConfigError: `function` is none, or lacks a parameter that the event needs.
        """
        emitter = Emitter(self, function, _checked(event), names)
        if event in self._rules:
            emitter.check_names(self.fields(event))
            emitter.check(self.fields(event))
        self._emitters.append(emitter)
        self._outboxes.used = True
        wrapper: Any = self._async(emitter) if inspect.iscoroutinefunction(function) else self._plain(emitter)
        wrapper.__signature__ = emitter.signature
        return cast(F, wrapper)

    def _async(self, emitter: Emitter) -> Callable[..., Awaitable[Any]]:
        function = emitter.function

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            # Before the function runs: where the event cannot be emitted, nothing is changed.
            purges = emitter.purges(args, kwargs)
            return await self._finish(function(*args, **kwargs), emitter, purges)

        return wrapper

    def _plain(self, emitter: Emitter) -> Callable[..., Any]:
        function = emitter.function
        hides_async = inspect.iscoroutinefunction(inspect.unwrap(function))

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            purges = emitter.purges(args, kwargs)
            if self._outboxes.current is None and not hides_async:
                self._waiter(emitter.name)  # raises on a thread that could not wait
            result = function(*args, **kwargs)
            if inspect.isawaitable(result):  # an async function below a decorator that hides it
                return self._finish(result, emitter, purges)
            if not _failed(result) and not self._left(emitter, purges):
                self._waiter(emitter.name)(purge_all(self._outboxes.purger, purges))
            return result

        return wrapper

    async def _finish(self, awaitable: Awaitable[Any], emitter: Emitter, purges: list[PurgeOrder]) -> Any:
        result = await awaitable
        if not _failed(result) and not self._left(emitter, purges):
            await purge_all(self._outboxes.purger, purges)
        return result

    def _left(self, emitter: Emitter, purges: list[PurgeOrder]) -> bool:
        """Whether the request that runs here sees to the purges."""
        outbox = self._outboxes.current
        if outbox is None:
            return False
        # Of an endpoint, the response tells whether it succeeded. Any other function has succeeded by returning, and
        # may have committed, whatever becomes of the request.
        is_endpoint = outbox.answered_by(emitter.function)
        taken = [outbox.add(purge, if_successful=is_endpoint) for purge in purges]
        return all(taken)


class Emitter:
    """A function that emits an event.

    Args:
        events: Know what the event purges.
        function: The function; its own signature counts where it is wrapped.
        event: The event.
        names: The parameter that gives a field, where it is called otherwise.
    """

    def __init__(self, events: Events, function: Callable[..., Any], event: str, names: Mapping[str, str]) -> None:
        if not inspect.isroutine(function):
            raise ConfigError("emits", f"decorates functions and methods, not {function!r}")
        self.function = function
        self.event = event
        self.name = qualified_name(function)
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigError("emits", f"{self.name} is a generator: when it has succeeded cannot be told")
        self._events = events
        self.signature = _signature(function)
        self._names = dict(names)
        parameters = self.signature.parameters
        for field, parameter in self._names.items():
            if parameter not in parameters:
                raise ConfigError(field, f"{self.name} has no parameter {parameter!r}")
        self._open = any(map(_takes_more, parameters.values()))

    def __repr__(self) -> str:
        return f"<Emitter {self.name} of {self.event!r}>"

    def check(self, fields: Iterable[str]) -> None:
        """Check that the function has each of `fields`.

        Raises:
            ConfigError: it has not; the message names event, field and function.
        """
        for field in fields:
            if self._names.get(field, field) not in self.signature.parameters and not self._open:
                raise ConfigError(field, f"event {self.event!r} needs it, but {self.name} has no such parameter")

    def check_names(self, fields: Collection[str]) -> None:
        """Check that the event has every field that is mapped: a misspelt one would leave the field to another."""
        for field in self._names:
            if field not in fields:
                raise ConfigError(field, f"event {self.event!r} has no such field, which {self.name} maps")

    def purges(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[PurgeOrder]:
        """What the call with `args` and `kwargs` purges.

        Raises:
            ConfigError: the event was never declared, or a field is missing or None.
            KeyingError: an argument has no canonical text.
            TypeError: the function does not take these arguments; as calling it would.
        """
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        values: dict[str, object] = {}
        for value in bound.arguments.values():
            if isinstance(value, Request):
                values.update(value.path_params)
        for name, value in bound.arguments.items():
            if self.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
                values.update(value)
            else:
                values[name] = value
        values.update({field: values.get(parameter) for field, parameter in self._names.items()})
        return self._events.purges(self.event, values)


def _takes_more(parameter: inspect.Parameter) -> bool:
    """Whether the parameter may bring fields that the signature does not name: `**kwargs`, or a request its path's."""
    annotation = parameter.annotation
    if annotation is inspect.Parameter.empty:
        is_request = parameter.name == "request"
    elif isinstance(annotation, str):  # one that does not resolve yet
        is_request = annotation.rpartition(".")[2] == "Request"
    else:
        is_request = isinstance(annotation, type) and issubclass(annotation, Request)
    return is_request or parameter.kind is inspect.Parameter.VAR_KEYWORD


def _failed(result: object) -> bool:
    return isinstance(result, Response) and result.status_code >= 400


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """The signature, its annotations resolved where their names are known: in the function's own module."""
    try:
        return inspect.signature(function, eval_str=True)
    except Exception:  # a name is not there yet: whoever needs it resolves it later, or complains
        return inspect.signature(function)


def _checked(event: str) -> str:
    if not isinstance(event, str) or not event or re.search(r"[\x00-\x1f\x7f]", event):
        raise ConfigError("event", f"must be a text without control characters that is not empty, not {event!r}")
    return event
