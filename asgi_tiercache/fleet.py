"""One computation for all workers that want the same at the same time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from asgi_tiercache.tiers.leases import WITHOUT, Busy, Ended, Lease, Leases
from asgi_tiercache.types import Clock

T = TypeVar("T")


async def once(
    leases: Leases,
    key: str,
    *,
    look: Callable[[], Awaitable[T | None]],
    work: Callable[[Lease], Awaitable[T | None]],
    seconds: float,
    patience: float,
    clock: Clock,
    stale: T | None = None,
) -> T | None:
    """What `look` finds once another worker has made it, else what `work` makes here; None: nothing to share.

    Only the leader of a flight calls this: it is one of its process that asks for the lease.

    Args:
        leases: Whom to ask.
        key: What is wanted.
        look: Looks where all workers store; called after each wait, and once more after the lease was won, since
            another holder may have been done just before.
        work: Makes and stores it, and ends its lease where it returns something: when others would find that, which
            may be before or after it returns.
        seconds: Of the lease: how long a holder that has died delays others.
        patience: Seconds that this call waits for others, in all.
        clock: Measures them.
        stale: Returned when they are over, rather than `work` being called then.
    """
    until = clock.monotonic() + patience
    ruled_out = False
    while isinstance(lease := await leases.acquire(key, seconds), Busy):
        ended = await lease.wait(until - clock.monotonic())
        if ended is Ended.PATIENCE and stale is not None:
            return stale
        if ended in (Ended.PATIENCE, Ended.NOTHING):
            return await work(WITHOUT)
        if (found := await look()) is not None:
            return found
        # Stored, but not good enough for this call. It tries once to win; then it stands in nobody's way any more.
        if ended is Ended.STORED and ruled_out:
            return await work(WITHOUT)
        ruled_out = ruled_out or ended is Ended.STORED
    return await work(WITHOUT) if lease is None else await _holding(lease, look, work)


async def _holding(
    lease: Lease, look: Callable[[], Awaitable[T | None]], work: Callable[[Lease], Awaitable[T | None]]
) -> T | None:
    try:
        result = await look()
    except BaseException:
        lease.end(Ended.GONE)
        raise
    if result is not None:
        lease.end(Ended.STORED)
        return result
    return await holding(lease, work)


async def holding(lease: Lease, work: Callable[[Lease], Awaitable[T | None]]) -> T | None:
    """What `work` makes under a lease that was taken; it ends the lease itself where it returns something."""
    try:
        result = await work(lease)
    except Exception:
        lease.end(Ended.NOTHING)  # others would only fail in turn
        raise
    except BaseException:
        lease.end(Ended.GONE)  # where this is cancelled, somebody else may still do it
        raise
    if result is None:
        lease.end(Ended.NOTHING)
    return result
