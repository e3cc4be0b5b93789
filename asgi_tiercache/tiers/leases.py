"""Leases: who of all workers computes what everybody wants. What is asked of them, wherever they are kept.

Nothing is ever wrong without one. A lease that is lost, refused or taken from its holder costs a computation more.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from typing import Protocol


class Ended(enum.Enum):
    """What has ended a lease, or a wait for somebody else's."""

    STORED = "stored"
    """The holder is done, and has stored what everybody wants."""
    NOTHING = "nothing"
    """There is nothing to wait for: the holder has nothing to share, or nobody can say how things stand."""
    GONE = "gone"
    """It is not held any more, and nobody knows more than that: its holder died, gave up, or ended it unheard."""
    PATIENCE = "patience"
    """It is still held; whoever waited has waited long enough."""


class Lease(ABC):
    """Held by this worker, and renewed until it ends."""

    @property
    @abstractmethod
    def lost(self) -> bool:
        """Whether others may hold it by now: it was taken or evicted, ran out, or was renewed for long enough."""

    @abstractmethod
    def end(self, ended: Ended) -> None:
        """Let go of the lease, behind the caller's back, and wake whoever waits. Only the first call counts.

        Args:
            ended: What to tell them. `STORED`: those who look now find what the holder has made. `NOTHING`: they need
                not wait for each other, either, for what cannot be shared is made by everybody at once. `GONE`: one
                of them takes over.
        """


class Busy(ABC):
    """Held by somebody else."""

    @abstractmethod
    async def wait(self, seconds: float) -> Ended:
        """Return once the holder has ended it, once it has run out, or after `seconds`."""


class Leases(Protocol):
    """Leases by key."""

    async def acquire(self, key: str, seconds: float) -> Lease | Busy | None:
        """Ask once for the lease of `key`; None: nobody can say who holds it, so compute without.

        Args:
            key: What is going to be computed.
            seconds: For how long a holder that has died keeps others waiting.
        """

    async def aclose(self) -> None:
        """Let go of what the running event loop holds; others take over."""


class _Without(Lease):
    lost = True

    def end(self, ended: Ended) -> None:
        pass


class _NoLeases:
    def __repr__(self) -> str:
        return "<no leases>"

    async def acquire(self, key: str, seconds: float) -> None:
        return None

    async def aclose(self) -> None:
        return None


NO_LEASES: Leases = _NoLeases()
"""Of a cache that shares nothing with other workers."""
WITHOUT: Lease = _Without()
"""Stands for a lease where somebody computes without one."""
