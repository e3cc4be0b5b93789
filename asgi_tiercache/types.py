"""The records and protocols that the modules hand to each other."""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

Header = tuple[bytes, bytes]
"""One field line of an ASGI message: lower-case name, value."""


class Clock(Protocol):
    """Where time comes from; injected, so that tests tick on command."""

    def time(self) -> float:
        """Wall clock, seconds since 1970: written into entries, shared between processes."""

    def monotonic(self) -> float:
        """Seconds that never run backwards: every lifetime and deadline inside this process."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""


class SystemClock:
    """The machine's own clocks."""

    def __init__(self) -> None:
        # The functions themselves: the second is called on every hit.
        self.time = time.time
        self.monotonic = time.monotonic

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await asyncio.sleep(seconds)


class Stamp(NamedTuple):
    """What a fill knew of the invalidation log before it read anything (rule I2)."""

    epoch: str
    """Identity of the control state that the position belongs to."""
    position: int
    """Id of the last invalidation that this worker had applied; below 2**63."""


VALUE = 0
MARKER = 1
FAILURE = 2
"""The `status` of entries that are no responses: what a function has returned; the marker of a `Vary`; what a function
has raised."""
VALUES = frozenset({VALUE, FAILURE})
PART = frozenset({206})
WHOLE = frozenset(range(200, 600)) - {206, 304}
"""What may be stored under the key of a function's value; of a part of a response; of a whole response."""
EVERY_KIND = VALUES | {MARKER} | PART | WHOLE


class Flag(enum.IntFlag):
    """What an entry has to remember besides its bytes."""

    NONE = 0
    SHARED = 1
    """The response says itself that it may answer requests with credentials (RFC 9111, section 3.5)."""
    COMPRESSED = 2
    """The body is deflated while it is at rest in a lower tier; never set on an entry in memory."""
    MUST_REVALIDATE = 4
    """The response is never to be used stale (RFC 9111, section 4.2.4), whoever would allow it."""
    GENERATED_ETAG = 8
    """The `ETag` is ours: the handler does not know it."""


@dataclass(slots=True, eq=False)
class Entry:
    """A stored response (`status` from 100 on), a function's value (0) or exception (2), or the marker of a `Vary` (1).

    The first block travels to lower tiers; the second belongs to the process that holds the entry.
    """

    stamp: Stamp
    created: float
    """Wall clock at which the age was 0: `date_value` less the age that the response arrived with."""
    lifetime: float
    """`freshness_lifetime` in seconds (RFC 9111, section 4.2.1): fresh until `created + lifetime`."""
    canonical: bytes
    """The canonical request or call that this answers; compared on every hit."""
    tags: tuple[str, ...] = ()
    status: int = 0
    headers: tuple[Header, ...] = ()
    body: bytes = b""
    vary: tuple[str, ...] = ()
    """The field names, lower case, that chose this variant; on a marker: that choose one."""
    flags: Flag = Flag.NONE
    stale_while_revalidate: float = 0.0
    """Seconds past its freshness for which it may be used while it is validated (RFC 5861, section 3)."""
    stale_if_error: float = 0.0
    """Seconds past its freshness for which it may stand in for an error (RFC 5861, section 4)."""
    retention: float = 0.0
    """Seconds past its freshness for which it is kept at all: to be validated, or used stale."""

    born: float = field(default=0.0, init=False)
    """Monotonic clock at which the age was 0."""
    expires: float = field(default=0.0, init=False)
    """Monotonic clock from which on this copy may not be used as it is."""
    ends: float = field(default=0.0, init=False)
    """Monotonic clock from which on this copy is of no use at all."""
    weight: int = field(default=0, init=False)
    """Bytes that this copy counts for in memory, its key and the estimated overhead included."""
    at: int = field(default=0, init=False)
    """Log position up to which the entry was checked (rule I5)."""
    checked: int = field(default=-1, init=False)
    """The worker's version of its log knowledge when the entry was last found valid; -1: never."""
    rendered_at: int = field(default=-1, init=False)
    """The age, in whole seconds, for which `rendered` holds."""
    rendered: list[Header] = field(default_factory=list, init=False)
    """The complete header list of an answer with that age; handed out as a copy."""

    @property
    def size(self) -> int:
        """Bytes that the entry holds: body, header lines, canonical form and tags."""
        size = len(self.body) + len(self.canonical)
        for name, value in self.headers:
            size += len(name) + len(value)
        for tag in self.tags:
            size += len(tag)
        return size


class Write(NamedTuple):
    """One entry on its way to a lower tier."""

    key: str
    data: bytes
    ttl: float
    """Seconds after which the tier may forget it; above 0."""


class Tier(Protocol):
    """A place that keeps bytes by key: Redis, a database, a script in a test.

    A tier raises `TierError` where it cannot do what it is asked; the guard around it does not raise.
    """

    name: str
    """As it appears in statistics and in `Cache-Status`: `"L2"`, `"L3"`."""

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The bytes under each key, in the order asked; None where there are none."""

    async def set_many(self, writes: Sequence[Write]) -> bool | None:
        """Keep each of `writes`, replacing what was there; False where that failed and is reported already."""

    async def delete_many(self, keys: Sequence[str]) -> None:
        """Forget each of `keys`; an absent one is no error."""

    async def ping(self) -> None:
        """Return if the tier answers."""

    async def aclose(self) -> None:
        """Let go of what the tier holds for the running event loop."""


@runtime_checkable
class ScannableTier(Protocol):
    """A tier that can also be looked through; of use only to have memory back, so no tier has to be one."""

    def scan(
        self, beginning: str, wanted: Callable[[str], bool], size: int
    ) -> AsyncGenerator[list[tuple[str, bytes]], None]:
        """Keys that begin with `beginning` and are `wanted`, each with the first `size` bytes of what stands under it.

        In batches, each of them the work of an instant; they may be empty. A key may come twice, and may be gone by the
        time that it comes.
        """
