"""What a request has made out of date, kept until its response leaves, and then until its app has returned.

A purge in the middle of a request comes too early: the handler's transaction may be committed only after the response
was sent, as FastAPI does with `yield` dependencies, and a fill before that reads and stores the old data. A purge after
it alone comes too late: the client may ask for what it has just changed as soon as it has the response. So what is put
into the outbox is purged twice.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol

from starlette.types import Message, Scope, Send

from asgi_tiercache.invalidation.service import Receipt

logger = logging.getLogger("asgi_tiercache")


class PurgeOrder(NamedTuple):
    """What is to be invalidated."""

    tags: tuple[str, ...]
    """Those of users, and implicit ones."""
    patterns: tuple[str, ...] = ()
    """Globs over keys."""
    kind: str = "event"
    """As it appears in statistics."""
    soft: bool = False
    settle: float = 0.0
    """Seconds by which the invalidation is dated ahead."""


class Purger(Protocol):
    """Invalidates."""

    async def purge(
        self, tags: Sequence[str], patterns: Sequence[str], *, kind: str, soft: bool, settle: float
    ) -> Receipt:
        """Make invalid what carries one of `tags`, and what stands under a key that fits one of `patterns`."""


class Outbox:
    """The purges of one request, and the `send` that makes them. `add` may be called from any thread and task.

    Args:
        scope: The request, as the app below the middleware is given it.
        send: Takes the response's messages to the client.
        purger: Invalidates.
    """

    # Defaults of the class: one is made for every request, and most add nothing.
    closed: bool = False
    """Whether the app has returned; set before anybody looks for the last time at what there is to purge."""
    _status: int = 0
    _done: int = 0
    _streams: bool = False

    def __init__(self, scope: Scope, send: Send, purger: Purger) -> None:
        self.scope = scope
        self.purges: list[tuple[PurgeOrder, bool]] = []
        """What was added, and whether it depends on the response."""
        self.positions: list[int | None] = []
        """Where in the log each purge that was made stands; None for one that the log did not take."""
        self._send = send
        self._purger = purger

    def __repr__(self) -> str:
        return f"<Outbox of {len(self.purges)} closed={self.closed}>"

    def add(self, purge: PurgeOrder, *, if_successful: bool) -> bool:
        """Purge before the response's next message leaves, and again once the app has returned.

        Args:
            purge: What is to be purged.
            if_successful: Only where the response has a status below 400.

        Returns:
            False if the app has returned already: whoever adds has to see to the purge.
        """
        # In this order, and the middleware's is the reverse: so one of the two sees what the other did.
        self.purges.append((purge, if_successful))
        return not self.closed

    def answered_by(self, function: Callable[..., Any]) -> bool:
        """Whether `function` is the endpoint of this request, as far as the router tells."""
        endpoint = self.scope.get("endpoint")
        if isinstance(endpoint, type):
            endpoint = getattr(endpoint, self.scope["method"].lower(), None)
        return endpoint is not None and inspect.unwrap(endpoint) is inspect.unwrap(function)

    async def send(self, message: Message) -> None:
        """Send `message`, after what is due before it is purged."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
        if self.purges:
            await self._purge(self._due(message))
        await self._send(message)

    async def purge_again(self) -> None:
        """Purge everything once more, now that the app has returned.

        Where it raised after its response began, too: it may have committed before.
        """
        await self._purge(0)

    def _due(self, message: Message) -> int:
        """From where on the purges are due before `message` leaves.

        1. What was added since the last message; before the start, too, since a 204 is complete with it.
        2. Before the last part of a body that comes in parts: everything, since data may have changed meanwhile.
        """
        more = bool(message.get("more_body", False))
        is_last = message["type"] != "http.response.start" and not more
        first = 0 if is_last and self._streams else self._done
        self._streams = self._streams or more
        self._done = len(self.purges)
        return first

    async def _purge(self, first: int) -> None:
        successful = 0 < self._status < 400
        try:
            receipts = await _purge_each(
                self._purger, [purge for purge, if_successful in self.purges[first:] if successful or not if_successful]
            )
            self.positions += [receipt.position if receipt.durable else None for receipt in receipts]
        except Exception:  # the response is none the worse for it
            self.positions.append(None)
            logger.exception("what a request has changed could not be purged")


class Outboxes:
    """The outboxes of the requests that run through one cache.

    Args:
        purger: Invalidates.
    """

    def __init__(self, purger: Purger) -> None:
        self.purger = purger
        self.used = False
        """Whether anything will ever be added; until then requests go without."""
        self.variable: ContextVar[Outbox | None] = ContextVar("asgi_tiercache.outbox", default=None)
        """The outbox of the request that is running in this context."""

    def __repr__(self) -> str:
        return f"<Outboxes used={self.used}>"

    @property
    def current(self) -> Outbox | None:
        """The outbox that takes what is added here and now; None outside a request that the middleware serves."""
        outbox = self.variable.get()
        return None if outbox is None or outbox.closed else outbox


async def purge_all(purger: Purger, purges: Iterable[PurgeOrder]) -> Receipt:
    """Purge everything, in as few invalidations as there are ways to do it; their receipts as one."""
    return _combined(await _purge_each(purger, purges))


async def _purge_each(purger: Purger, purges: Iterable[PurgeOrder]) -> list[Receipt]:
    receipts: list[Receipt] = []
    failure: BaseException | None = None
    for purge in _merged(purges):
        try:
            receipts.append(
                await purger.purge(purge.tags, purge.patterns, kind=purge.kind, soft=purge.soft, settle=purge.settle)
            )
        except BaseException as error:  # where one fails, or the request is cancelled, the others are due no less
            failure = failure or error
    if failure is not None:
        raise failure
    return receipts


def _merged(purges: Iterable[PurgeOrder]) -> list[PurgeOrder]:
    groups: dict[tuple[str, bool, float], list[PurgeOrder]] = {}
    for purge in purges:
        groups.setdefault((purge.kind, purge.soft, purge.settle), []).append(purge)
    return [
        PurgeOrder(
            tuple(dict.fromkeys(tag for purge in group for tag in purge.tags)),
            tuple(dict.fromkeys(pattern for purge in group for pattern in purge.patterns)),
            *way,
        )
        for way, group in groups.items()
    ]


def _combined(receipts: Sequence[Receipt]) -> Receipt:
    """Durable only if all are."""
    if not receipts:
        return Receipt(durable=True, position=None, names=())
    durable = all(receipt.durable for receipt in receipts)
    positions = [receipt.position for receipt in receipts if receipt.position is not None]
    return dataclasses.replace(
        receipts[-1],
        durable=durable,
        position=max(positions) if durable and positions else None,
        names=tuple(dict.fromkeys(name for receipt in receipts for name in receipt.names)),
    )
