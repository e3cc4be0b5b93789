"""What a fill knows of itself while it runs: its stamp, its tags, its wishes. Users meet it as `cache.current`."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextvars import ContextVar
from functools import lru_cache

from asgi_tiercache.config import check_seconds
from asgi_tiercache.errors import KeyingError
from asgi_tiercache.keys.template import Template, tolerant_tag
from asgi_tiercache.types import Stamp

logger = logging.getLogger("asgi_tiercache")


class Fill:
    """A handler or a cached function while it runs. Every method may be called from the handler's thread.

    Args:
        stamp: What was known of the log before anything was read (rule I2).
        key: What is being filled.
        asked: What it answers, in canonical form: more than one question may share the key.
        begun: Monotonic clock at which somebody first waited for it.
    """

    __slots__ = (
        "asked",
        "begun",
        "failed",
        "key",
        "reached",
        "refused",
        "running_since",
        "stamp",
        "tags",
        "ttl",
        "waits_for",
    )

    def __init__(self, stamp: Stamp, *, key: str = "", asked: bytes = b"", begun: float = 0.0) -> None:
        self.stamp = stamp
        self.key = key
        self.asked = asked
        self.begun = begun
        self.running_since = begun
        """Monotonic clock at which the handler was called: later, where another worker was waited for."""
        self.waits_for: list[Fill] = []
        """The fills that have to end before this one can."""
        self.tags: dict[str, None] = {}
        self.ttl: float | None = None
        self.refused = False
        self.reached = False
        """Whether the endpoint was called, where dependencies come before it on every request."""
        self.failed = False
        """Whether the handler failed or was not waited for; what waiters get, if anything, stands in for its answer."""

    def __repr__(self) -> str:
        return f"<Fill {self.stamp} tags={list(self.tags)} ttl={self.ttl}>"

    def tag(self, /, *templates: str, **values: object) -> None:
        """Give the entry further tags: `tag("author:7")`, or `tag("author:{id}", id=7)`.

        What stands in `values`, and any character that could mean more than itself, is escaped; nothing that a client
        sent can fail its request here. What is tagged with a value that has no text, such as a list, is not stored.

        Raises:
            ConfigError: a template is malformed.
            KeyingError: a field of a template has no value.
        """
        for template in templates:
            if not values:
                self.tags[tolerant_tag(template)] = None
                continue
            made = Template(template, option="tag")
            try:
                self.tags[made.render_strict(values)] = None
            except KeyingError as error:
                if not values.keys() >= set(made.fields):
                    raise
                self.refused = True  # nothing could ever invalidate it by that tag
                _warn_once(str(error))

    def set_ttl(self, seconds: float) -> None:
        """Let the entry be fresh for `seconds`, whatever the policy says; 0: do not store it.

        Raises:
            ConfigError: `seconds` is negative or no finite number.
        """
        self.ttl = check_seconds("set_ttl", seconds, zero=True)

    def no_store(self) -> None:
        """Do not store what this handler or function returns."""
        self.refused = True

    def inherit(self, tags: Iterable[str], stamp: Stamp, *, fresh: bool) -> None:
        """Take over the tags of a cached value that this fill has read (rule I2).

        A value that nobody judged fresh when it was read (it was just made, by its own fill or a young flight) may be
        older than this fill's stamp, which is lowered to the value's.
        """
        self.tags.update(dict.fromkeys(tags))
        if fresh:
            return
        if stamp.epoch != self.stamp.epoch:
            self.refused = True
        else:
            self.stamp = min(self.stamp, stamp)

    def needs(self, other: Fill) -> bool:
        """Whether this fill cannot end before `other` does, so that `other` must not wait for it."""
        ahead, seen = [self], set[int]()
        while ahead:
            fill = ahead.pop()
            if fill is other:
                return True
            if id(fill) not in seen:
                seen.add(id(fill))
                ahead += fill.waits_for
        return False


@lru_cache(maxsize=64)
def _warn_once(problem: str) -> None:
    logger.warning("what is tagged like that is not stored: %r", problem)


class IdleFill(Fill):
    """What runs while a request is not being cached: everything may be said, nothing comes of it."""

    __slots__ = ()

    def tag(self, /, *templates: str, **values: object) -> None:
        pass

    def set_ttl(self, seconds: float) -> None:
        check_seconds("set_ttl", seconds, zero=True)

    def no_store(self) -> None:
        pass

    def inherit(self, tags: Iterable[str], stamp: Stamp, *, fresh: bool) -> None:
        pass


IDLE = IdleFill(Stamp("", 0))
"""The fill of every request that passes by."""


class Waiting:
    """A context in which one fill waits for another."""

    __slots__ = ("_fill", "_outer")

    def __init__(self, outer: Fill | None, fill: object) -> None:
        self._outer = outer
        self._fill = fill

    def __enter__(self) -> None:
        if self._outer is not None and isinstance(self._fill, Fill):
            self._outer.waits_for.append(self._fill)

    def __exit__(self, *_: object) -> None:
        if self._outer is not None and isinstance(self._fill, Fill):
            self._outer.waits_for.remove(self._fill)


NOBODY_WAITS = Waiting(None, None)
"""The same where no fill runs: most often."""


class Running:
    """A context in which a fill runs, while the one that ran before waits for it."""

    __slots__ = ("_fill", "_outer", "_token", "_variable")

    def __init__(self, variable: ContextVar[Fill | None], outer: Fill | None, fill: Fill) -> None:
        self._variable = variable
        self._outer = outer
        self._fill = fill

    def __enter__(self) -> None:
        if self._outer is not None:
            self._outer.waits_for.append(self._fill)
        self._token = self._variable.set(self._fill)

    def __exit__(self, *_: object) -> None:
        self._variable.reset(self._token)
        if self._outer is not None:
            self._outer.waits_for.remove(self._fill)
