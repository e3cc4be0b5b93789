"""How users invalidate: by tag, key, path, route, user, pattern and event. The part of `TierCache` that purges."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypeVar, overload

from asgi_tiercache.config import check_settle
from asgi_tiercache.engine.reclaim import Reclaimer
from asgi_tiercache.engine.tags import key_tag, path_tags, route_tag, user_tag
from asgi_tiercache.errors import ConfigError
from asgi_tiercache.events import Events, Preview
from asgi_tiercache.invalidation.listeners import Callback
from asgi_tiercache.invalidation.patterns import check_pattern, tag_for
from asgi_tiercache.invalidation.service import Invalidation, Receipt
from asgi_tiercache.keys.request import user_hash
from asgi_tiercache.keys.template import Template, literal_tag
from asgi_tiercache.types import Stamp

F = TypeVar("F", bound=Callable[..., Any])

Durability: TypeAlias = Literal["log", "replica"]
"""When an invalidation is durable: once the log has it, or once a replica of Redis has confirmed that, too."""

MAX_KEY = 1_024


class Purger:
    """Invalidates, with tags and patterns as users mean them.

    Args:
        invalidation: The log, and what this worker knows of it.
        reclaimer: Has back the memory of what patterns invalidate.
        namespace: Begins every key, if given.
    """

    def __init__(self, invalidation: Invalidation, reclaimer: Reclaimer, namespace: str) -> None:
        self._invalidation = invalidation
        self._reclaimer = reclaimer
        self._before = f"{namespace}:" if namespace else ""

    def __repr__(self) -> str:
        return f"<Purger {self._before or '(no namespace)'}>"

    def full(self, key: str) -> str:
        """`key` as it stands in Redis.

        Raises:
            ConfigError: it is empty, too long, or holds control characters.
        """
        if not isinstance(key, str) or not key or re.search(r"[\x00-\x1f\x7f]", key):
            raise ConfigError("key", f"must be a text without control characters that is not empty, not {key!r}")
        if len(key) > MAX_KEY:
            raise ConfigError("key", f"has at most {MAX_KEY} characters; this one has {len(key)}")
        return self._before + key

    async def purge(
        self,
        tags: Sequence[str],
        patterns: Sequence[str] = (),
        *,
        kind: str,
        soft: bool = False,
        settle: float = 0.0,
        durable: Durability = "log",
    ) -> Receipt:
        """Invalidate, in one entry of the log, what carries one of `tags` or matches one of `patterns`.

        Args:
            tags: Those of users, and implicit ones.
            patterns: Globs over keys without the namespace, checked; where a tag can stand for one, it does.
            kind: What it is called in statistics.
            soft: Make stale rather than invalid.
            settle: Seconds by which it is dated ahead.
            durable: When it is.

        Raises:
            ConfigError: an option is wrong.
        """
        _check(soft, settle, durable)
        exact, globs = list(tags), []
        for pattern in patterns:
            glob = self._before + pattern
            found = tag_for(glob, responses=f"{self._before}api:response:", skip=len(self._before))
            if found is not None:
                exact.append(found)
            else:
                globs.append(glob)
        receipt = await self._invalidation.invalidate(
            exact, patterns=globs, kind=kind, soft=soft, settle=settle, replicate=durable == "replica"
        )
        if receipt.position is not None and not soft:
            for glob in globs:
                self._reclaimer.begin(glob, Stamp(self._invalidation.knowledge.epoch, receipt.position))
        return receipt

    async def clear(self, *, soft: bool, settle: float, durable: Durability) -> Receipt:
        """Invalidate everything in the namespace."""
        _check(soft, settle, durable)
        return await self._invalidation.clear(soft=soft, settle=settle, replicate=durable == "replica")


def _check(soft: bool, settle: float, durable: str) -> None:
    if not isinstance(soft, bool):
        raise ConfigError("soft", f"must be True or False, not {soft!r}")
    check_settle(settle)
    if durable not in ("log", "replica"):
        raise ConfigError("durable", f"must be 'log' or 'replica', not {durable!r}")


def _named(tags: Sequence[str], values: Mapping[str, object]) -> list[str]:
    if not values:
        return [literal_tag(each) for each in tags]
    templates = [Template(each, option="tag") for each in tags]
    for name in values:
        if not any(name in template.fields for template in templates):
            # A misspelt option, perhaps: without it more could be purged than was meant, or too early.
            raise ConfigError(name, "no tag has such a field; there are the options soft, settle and durable")
    return [template.render_strict(values) for template in templates]


class Purging:
    """The methods of a `TierCache` that invalidate.

    Options that they share:

    - `soft`: make stale rather than invalid: it is served while it is made anew.
    - `settle`: seconds for which what handlers read still counts as older, for origins whose replicas lag behind; until
      then nothing of what was invalidated is reused.
    - `durable`: `"replica"`: call it durable only once a replica of Redis has confirmed it (WAIT).

    Each takes one `deadline` at the most where Redis fails, and no time once the circuit breaker is open: then it holds
    on this worker, and is sent again until Redis takes it.

    Args:
        purger: Invalidates.
        invalidation: Knows who listens.
        events: Those that users have declared.
    """

    def __init__(self, purger: Purger, invalidation: Invalidation, events: Events) -> None:
        self._purger = purger
        self._listeners = invalidation.listeners
        self._events = events

    async def invalidate(
        self,
        /,
        *tags: str,
        soft: bool = False,
        settle: float = 0.0,
        durable: Durability = "log",
        **values: object,
    ) -> Receipt:
        """Make everything that carries one of `tags` invalid, on this worker before this returns.

        Commit your data first. Fields are filled from `values`: `invalidate("video:{id}", id=42)`.

        Args:
            tags: Exact tags, or templates of `values`.
            soft: Make it stale instead: it is served while it is made anew.
            settle: Seconds for which what handlers read still counts as older, for origins whose replicas lag behind:
                until then nothing with these tags is reused.
            durable: `"replica"`: call it durable only once a replica of Redis has confirmed it (WAIT).
            values: What fills the fields of the tags.

        Raises:
            ConfigError: a tag is empty, longer than 256 bytes, or holds `*` or a control character; an option is
                wrong; no tag has a field for one of `values`.
            KeyingError: a field has no value, or one without a canonical text, such as a list.
        """
        return await self._purger.purge(_named(tags, values), kind="tag", soft=soft, settle=settle, durable=durable)

    async def invalidate_key(
        self, *keys: str, soft: bool = False, settle: float = 0.0, durable: Durability = "log"
    ) -> Receipt:
        """Invalidate what stands under `keys`, as they appear in Redis without the namespace; options as above."""
        names = [key_tag(self._purger.full(key)) for key in keys]
        return await self._purger.purge(names, kind="key", soft=soft, settle=settle, durable=durable)

    async def invalidate_path(
        self, path: str, *, soft: bool = False, settle: float = 0.0, durable: Durability = "log"
    ) -> Receipt:
        """Invalidate every query and variant of `path`, given percent-decoded, with a mount's prefix."""
        if not isinstance(path, str) or not path.startswith("/"):
            raise ConfigError("path", f"must begin with '/': {path!r}")
        return await self._purger.purge(path_tags(path), kind="path", soft=soft, settle=settle, durable=durable)

    async def invalidate_route(
        self, template: str, *, soft: bool = False, settle: float = 0.0, durable: Durability = "log"
    ) -> Receipt:
        """Invalidate everything that a route has produced; `template` as written: `"/videos/{video_id}"`."""
        if not isinstance(template, str) or not template.startswith("/"):
            raise ConfigError("template", f"must begin with '/': {template!r}")
        return await self._purger.purge([route_tag(template)], kind="route", soft=soft, settle=settle, durable=durable)

    async def invalidate_user(
        self, user: str | int | bytes, *, soft: bool = False, settle: float = 0.0, durable: Durability = "log"
    ) -> Receipt:
        """Invalidate every response that was keyed by `user`: what the policy's `user=` returned."""
        if not isinstance(user, str | int | bytes):
            raise ConfigError("user", f"must be what user= returned: a text, bytes or a number, not {user!r}")
        name = user_tag(user_hash(user))
        return await self._purger.purge([name], kind="user", soft=soft, settle=settle, durable=durable)

    async def invalidate_pattern(
        self, pattern: str, *, soft: bool = False, settle: float = 0.0, durable: Durability = "log"
    ) -> Receipt:
        """Invalidate every key that `pattern` matches, and what was made from the values under them.

        `*` stands for any characters, `?` for one, `[ab]` for one of these. A pattern that ends in `:*` and has no
        other of these, such as `"user:42:*"`, costs what a tag costs; of others, 64 are told apart for as long as
        entries live, and one more becomes a `clear()`.

        Args:
            pattern: Over keys as they appear in Redis, without the namespace.
            soft: See `Purging`.
            settle: See `Purging`.
            durable: See `Purging`.

        Raises:
            ConfigError: the pattern is empty, longer than 256 bytes, or holds control characters.
        """
        return await self._purger.purge(
            [], [check_pattern(pattern)], kind="pattern", soft=soft, settle=settle, durable=durable
        )

    async def clear(self, *, soft: bool = False, settle: float = 0.0, durable: Durability = "log") -> Receipt:
        """Invalidate everything in this namespace; options as of `invalidate`."""
        return await self._purger.clear(soft=soft, settle=settle, durable=durable)

    def on_invalidate(self, callback: Callback, *, everywhere: bool = False) -> None:
        """Call `callback` with a `Purged` after each durable invalidation made on this worker: to purge a CDN, say.

        Callbacks run one after another, behind the back of whoever invalidates; one that fails is logged and counted.

        Args:
            callback: Takes a `Purged`; async, or plain and quick.
            everywhere: Call it for other workers' invalidations, too.

        Raises:
            ConfigError: it is not callable.
        """
        if not callable(callback):
            raise ConfigError("callback", f"must be callable, not {callback!r}")
        self._listeners.subscribe(callback, everywhere=everywhere)

    # ---- events ----

    def on(
        self,
        event: str,
        *,
        tags: str | Iterable[str] = (),
        patterns: str | Iterable[str] = (),
        keys: str | Iterable[str] = (),
        paths: str | Iterable[str] = (),
        routes: str | Iterable[str] = (),
        users: str | Iterable[str] = (),
        soft: bool = False,
        settle: float = 0.0,
    ) -> None:
        """Declare what goes out of date when `event` happens; several declarations of one event add up.

        All but `routes` are templates, whose fields `emit` fills. No value purges more than itself: it is escaped as
        in tags made from requests, so that a `*` in it means nothing.

        Example:
            `cache.on("user_update", tags=["user:{user_id}"], users=["{user_id}"])`

        Args:
            event: Its name.
            tags: Such as `"user:{user_id}"`.
            patterns: Globs over keys, such as `"user_activity:{user_id}:*"`.
            keys: As `@cache.cached` has them, without the namespace.
            paths: Such as `"/users/{user_id}"`: every query and variant, percent-decoded, with a mount's prefix.
            routes: Templates of the app's own, taken as they are: everything that such a route has produced.
            users: What the policy's `user=` returned, such as `"{user_id}"`.
            soft: Mark what is hit as stale rather than invalid.
            settle: Seconds by which the invalidation is dated ahead, for origins whose replicas lag.

        Raises:
            ConfigError: a template is malformed, nothing would be purged, or a function under `@cache.emits` lacks a
                parameter that the event now needs.
        """
        targets = {
            "tags": tags,
            "patterns": patterns,
            "keys": keys,
            "paths": paths,
            "routes": routes,
            "users": users,
        }
        self._events.on(event, targets, soft=soft, settle=settle)

    @overload
    async def emit(self, event: str, /, *, dry_run: Literal[False] = False, **fields: object) -> Receipt: ...

    @overload
    async def emit(self, event: str, /, *, dry_run: Literal[True], **fields: object) -> Preview: ...

    async def emit(self, event: str, /, *, dry_run: bool = False, **fields: object) -> Receipt | Preview:
        """Purge all that was declared for `event`, on this worker before this returns. Commit your data first.

        Example:
            `await cache.emit("user_update", user_id="u1")`

        Args:
            event: As declared by `on`.
            dry_run: Purge nothing, and return what would be purged, with the keys in this worker's memory.
            fields: The values for the templates. Those that no template asks for are ignored, so that who emits can
                tell all it knows, and who declares can choose.

        Returns:
            A receipt, durable only if everything is; of a dry run, a `Preview`.

        Raises:
            ConfigError: the event was never declared, or a field that it needs is missing or None.
            KeyingError: a value has no canonical text, such as a list.
        """
        if not isinstance(dry_run, bool):
            raise ConfigError("dry_run", f"must be True or False, not {dry_run!r}")
        if dry_run:
            return self._events.preview(event, fields)
        return await self._events.emit(event, fields)

    def emits(self, event: str, /, **names: str) -> Callable[[F], F]:
        """Emit `event` after an endpoint or a function, async or plain, has succeeded.

        Fields are filled from the function's arguments, by name, and from the path of a `Request` among them. The
        function has succeeded if it returned, other than the response of an error; an endpoint only if the response's
        status is below 400 in the end.

        Within a request that the middleware serves, the purge happens before the response leaves, and again after the
        app has returned, which is when FastAPI has run what follows a dependency's `yield`. Elsewhere it happens before
        the function's caller goes on; there, a plain function on an event loop's own thread raises
        `BlockingCallError`, before it does anything.

        Example:
            `@cache.emits("user_update", user_id="uid")` on `def rename(uid: str, name: str)`

        Args:
            event: As declared by `on`, now or later.
            names: The parameter that gives a field, where it is not called like the field.

        Raises:
            ConfigError: a parameter that the event needs is missing; where the event is declared later, then. An
                event that is declared nowhere is found when the cache starts, or at the first call.
        """

        def decorate(function: F) -> F:
            return self._events.decorate(function, event, names)

        return decorate
