"""What a value is asked for by, and the entries that values and failures are stored as."""

from __future__ import annotations

from typing import Any, NamedTuple

from asgi_tiercache.ageing import failure_ttl
from asgi_tiercache.codec.failures import FailureCodec
from asgi_tiercache.codec.values import ValueCodec
from asgi_tiercache.engine.core import TooLateError
from asgi_tiercache.engine.entries import Place
from asgi_tiercache.engine.fill import Fill
from asgi_tiercache.engine.tags import key_tag, prefix_tags, too_many
from asgi_tiercache.errors import CodecError
from asgi_tiercache.types import FAILURE, VALUE, Entry

DIRECT = "(direct)"
"""What values that no function made are called in statistics."""


class Call(NamedTuple):
    """What a value is asked for by."""

    place: Place
    key: str
    canonical: bytes
    codec: ValueCodec
    tags: tuple[str, ...] = ()
    name: str = DIRECT
    """As it appears in statistics."""
    ttl: float | None = None
    """Seconds; in place of the policy's."""
    namespace: str = ""
    """What `key` begins with, if anything; no pattern is made for that alone."""
    whole: str = ""
    """What `key` was before it was cut, where it may have been: patterns find it by that, too."""
    failures: FailureCodec | None = None
    """Of the exceptions that are stored, where some are."""

    def tags_of(self, fill: Fill) -> tuple[str, ...]:
        """Everything that invalidates what `fill` has brought."""
        whole = self.whole or self.key
        implicit = (key_tag(self.key), key_tag(whole), *prefix_tags(whole, self.namespace))
        return tuple(dict.fromkeys((*self.tags, *fill.tags, *implicit)))

    def lifetime(self, fill: Fill) -> float:
        """Seconds for which the value that `fill` has brought is fresh."""
        for ttl in (fill.ttl, self.ttl, self.place.policy.ttl):
            if ttl is not None:
                return ttl
        return 0.0

    def refusal(self, fill: Fill) -> str:
        """Why the value is not stored; empty if it is."""
        if fill.refused:
            return "no-store"
        if self.lifetime(fill) <= 0:
            return "ttl"
        return "too-many-tags" if too_many(self.tags_of(fill)) else ""

    def entry(self, fill: Fill, value: Any, now: float) -> Entry:
        """What `value` is stored as; `now` is the wall clock.

        Raises:
            CodecError: it would not come back as it is.
        """
        policy = self.place.policy
        return Entry(
            stamp=fill.stamp,
            created=now,
            lifetime=self.lifetime(fill),
            canonical=self.canonical,
            tags=self.tags_of(fill),
            status=VALUE,
            body=self._dump(value),
            stale_while_revalidate=policy.stale_while_revalidate,
            stale_if_error=policy.stale_if_error,
            retention=max(policy.stale_while_revalidate, policy.stale_if_error),
        )

    def failure_entry(self, fill: Fill, error: Exception, now: float) -> Entry | None:
        """What `error` is stored as; None where it is not. It is never used stale.

        That a function was too slow is not what it has raised.
        """
        if self.failures is None or fill.refused or isinstance(error, TooLateError):
            return None
        lifetime = failure_ttl(error, self.place.policy.negative)
        tags = self.tags_of(fill)
        if lifetime <= 0 or too_many(tags):
            return None
        try:
            body = self.failures.dump(error)
        except CodecError:
            return None
        return Entry(fill.stamp, now, lifetime, self.canonical, tags, FAILURE, body=body)

    def restored(self, entry: Entry) -> tuple[Any, Exception | None]:
        """The value in `entry`, or the exception.

        Raises:
            CodecError: neither is in it: another version of the function has stored it, or somebody by hand.
        """
        if entry.status != FAILURE:
            return self.codec.load(entry.body), None
        if self.failures is None:
            raise CodecError(f"{self.name}: no exceptions are stored")
        return None, self.failures.load(entry.body)

    def _dump(self, value: Any) -> bytes:
        try:
            return self.codec.dump(value)
        except CodecError as error:
            if self.name == DIRECT:
                raise CodecError(f"{self.key}: {error}") from None
            raise
