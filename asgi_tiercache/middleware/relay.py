"""The fill of a response: the app runs in a task of its own, its messages flow to the request that set it off.

Nothing is held back: the request that leads relays each message at once. As long as the response may be stored, the app
need not wait for that, since others may be waiting for the response, and the tee bounds what piles up. Once it is the
leader's alone, a slow client slows the app down as it would without a cache, and one that is gone ends it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_tiercache.engine.core import REFRESH_SECONDS, Engine
from asgi_tiercache.engine.entries import Found
from asgi_tiercache.engine.fill import Fill
from asgi_tiercache.http.fields import OCTETS
from asgi_tiercache.middleware.stream import (
    BEHIND_SECONDS,
    MERGED,
    SHAREABLE,
    FellBehindError,
    Stream,
    is_small,
    merged,
)
from asgi_tiercache.middleware.tee import Tee
from asgi_tiercache.stampede import Flight, by_nobody
from asgi_tiercache.tiers.loops import first
from asgi_tiercache.types import Entry

logger = logging.getLogger("asgi_tiercache")

BREATHE = 64
"""Messages after which an app that never waits for anything lets its client have them."""

_Parcel = tuple[Message, "asyncio.Future[None] | None"]
"""A message, and where its sender waits to hear that it was sent."""


class _Parcels:
    """What the leader has still to be given: small pieces of a body become one, where many are waiting."""

    def __init__(self) -> None:
        self._waiting: deque[_Parcel | None] = deque()
        self._small = 0
        """How many of them, at the end, are small."""
        self._news: asyncio.Future[None] | None = None

    def put(self, message: Message, sent: asyncio.Future[None] | None = None) -> None:
        self._waiting.append((message, sent))
        self._small = self._small + 1 if sent is None and is_small(message) else 0
        if self._small == MERGED:
            pieces = [self._waiting.pop() for _ in range(MERGED)]
            piece = merged([parcel[0] for parcel in reversed(pieces) if parcel is not None])
            self._waiting.append((piece, None))
            self._small = int(is_small(piece))
        self._wake()

    def close(self) -> None:
        self._waiting.append(None)
        self._small = 0
        self._wake()

    async def get(self) -> _Parcel | None:
        while not self._waiting:
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        self._small = min(self._small, len(self._waiting) - 1)
        return self._waiting.popleft()

    def take_all(self) -> list[_Parcel]:
        """What waits, out of the queue."""
        parcels = [parcel for parcel in self._waiting if parcel is not None]
        self._waiting.clear()
        self._small = 0
        return parcels

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


class ResponseFill:
    """One run of the app for a response that may be stored.

    Args:
        engine: Knows the clock, and what runs.
        fill: What is known of the fill.
        scope: What the handler is given: see `RequestKeys.withhold`.
        receive: The leader's own; it is listened to only once the response is the leader's alone.
        body: The request body, where it has been read to be keyed.
        alone_counts: Whether the app hears that the leader's client is gone as long as nobody else waits.
        finish: Whether it goes on when nobody waits for it any more.
        unattended: There is no leader; nobody waits for it but who comes later.
    """

    def __init__(
        self,
        engine: Engine,
        fill: Fill,
        scope: Scope,
        receive: Receive,
        *,
        body: bytes = b"",
        alone_counts: bool = False,
        finish: bool = True,
        unattended: bool = False,
    ) -> None:
        self._engine = engine
        self._fill = fill
        self._scope = scope
        self._client_receive = receive
        self._body: bytes | None = body
        self._parcels = _Parcels()
        self._begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settled = asyncio.Event()
        self._stream = Stream(self._end_if_deserted)
        self._left = self._unattended = unattended
        self._behind = False
        self._previewed = False
        self._given = 0
        self._complete = False
        self._cut = False
        self._alone_counts = alone_counts
        self._finish = finish
        self._listener: asyncio.Task[Message] | None = None
        self.tee: Tee | None = None
        """Watches the messages, once the app runs."""
        self.found: Found | None = None
        """What answers the leader in place of the app's response: another worker's, or what was stored before."""
        self.came_too_late = False
        """Whether the leader was not given it: a stale one instead, or 504."""
        self.flight: Flight[Entry]
        """Set by whoever started it."""
        self._patience: asyncio.TimerHandle | None = None

    def led_by(self, flight: Flight[Entry]) -> None:
        """`flight` runs it, and is told of those who take the messages themselves."""
        self.flight = flight
        flight.attended = lambda: not self._left or self._stream.followed

    # ---- the app's side, in the flight's task ----

    async def run(self, app: ASGIApp, tee: Tee) -> None:
        """Run the app to its end."""
        self.tee = tee
        self._engine.variable.set(self._fill)
        try:
            await app(self._scope, self._receive, self._send)
        except Exception:
            self._fill.failed = True
            if self._left and not self._cut:  # nobody is there to raise it to
                logger.exception(
                    "a handler failed %s", "for nobody" if self._unattended else "after its client had left"
                )
            raise
        finally:
            if self._listener is not None:
                self._listener.cancel()
            tee.abandon()

    def close(self) -> None:
        """There is nothing more to come."""
        self._settled.set()
        self._note_beginning()
        self._stream.end()
        self.flight.attended = by_nobody  # and refers to this no more: what it holds is large
        self._parcels.close()
        if self._patience is not None:
            self._patience.cancel()

    async def run_unattended(self, app: ASGIApp, tee: Tee) -> bool:
        """Run the app for nobody, to renew what is stored; whether it came to an end that says something.

        An error of the server's does not: what is stored is then still the best there is.
        """
        try:
            await self._engine.limited(lambda: self.run(app, tee), REFRESH_SECONDS)
        except Exception:  # logged by `run`, but for the time limit's
            if not self._cut:
                logger.warning("the stale response for %s could not be made anew", self._fill.key)
                return False
        finally:
            tee.abandon()  # where the app goes on though it was cancelled
            self.close()
        return tee.status < 500 or tee.entry is not None

    async def _receive(self) -> Message:
        """The request's body, once. A fill has no client that could disconnect while its response can be stored."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        if self._alone_counts:
            await self._settled_or_deserted()
        else:
            await self._settled.wait()
        if self.tee is not None and self.tee.entry is not None:
            return {"type": "http.disconnect"}
        await self._stream.unfollowed()
        if self._left:
            return {"type": "http.disconnect"}
        return await (self._listen() if self._listener is None else self._listener)

    async def _settled_or_deserted(self) -> None:
        """Return once nobody waits any more: on a route that nobody named, the app may well wait for just that."""
        if self._listener is None:
            self._listener = asyncio.get_running_loop().create_task(self._listen())
        # Without waiting where nothing need be waited for: `request.is_disconnected()` only looks.
        if self._settled.is_set() or (self._listener.done() and not self._others):
            return
        settled = asyncio.ensure_future(self._settled.wait())
        try:
            await asyncio.wait({settled, self._listener}, return_when=asyncio.FIRST_COMPLETED)
            if self._others:
                await settled
        finally:
            settled.cancel()

    @property
    def _others(self) -> bool:
        """Whether anybody else is there for the response."""
        return self.flight.waiting > 0 or self._stream.followed

    async def _listen(self) -> Message:
        """The message that the leader's client is gone."""
        while (message := await self._client_receive())["type"] == "http.request":
            pass  # the body, which the app has had
        return message

    async def _send(self, message: Message) -> None:
        tee = self.tee
        assert tee is not None
        message = await tee.see(_own(message))
        if tee.entry is not None:
            self.flight.land(tee.entry)
            self._settled.set()
        elif tee.refusal is not None and not tee.failing:
            self.flight.land(tee.stand_in or tee.failure)
            self._settled.set()
        self._note_beginning()
        self._complete = message["type"] != "http.response.start" and not message.get("more_body", False)
        await self._share(tee, message)
        await self._deliver(tee, message)

    def _note_beginning(self) -> None:
        if not self._begun.done():
            self._begun.set_result(None)

    async def _share(self, tee: Tee, message: Message) -> None:
        """Give the message to those who follow while there is more to come."""
        if tee.refusal in SHAREABLE or tee.refusal is None:
            self._stream.give(message)
            if tee.refusal is not None:
                await self._stream.keep_up(self._engine.clock)
            elif message.get("more_body", False) and not self._previewed:
                self._open(tee)
        else:
            self._stream.cut()

    def _open(self, tee: Tee) -> None:
        """Let others follow from here on, if the response as far as it is known may be theirs."""
        self._previewed = True
        begun = tee.preview()
        if begun is not None:
            self._stream.open(begun)
            self.flight.open(self._stream)

    async def _deliver(self, tee: Tee, message: Message) -> None:
        if tee.refusal is None or tee.failing:
            if not self._left:
                self._parcels.put(message)
                self._given += 1
                if self._given % BREATHE == 0:  # an app may have nothing to wait for, and its client still does
                    await asyncio.sleep(0)
            return
        if self._left:
            self._cut = message.get("more_body", False) and not self._stream.followed
            if self._cut:  # it might never end, and no client would slow it down
                raise OSError("nobody is there for the rest of a response that may not be stored")
            return
        sent = asyncio.get_running_loop().create_future()
        self._parcels.put(message, sent)
        if self._stream.followed:
            await self._deliver_beside_others(sent)
        else:
            await sent

    async def _deliver_beside_others(self, sent: asyncio.Future[None]) -> None:
        """Wait for the leader as for any follower; that its client is gone, or too slow, is not for the others."""
        await first(sent, self._engine.clock, BEHIND_SECONDS)
        self._behind = not sent.done()
        if self._behind or (sent.exception() is not None and self._stream.followed):
            self.leave()
        else:
            sent.result()

    # ---- the leader's side, in the request's task ----

    async def begins_within(self, seconds: float) -> bool:
        """Wait for the response to begin, for `seconds` at the most; whether it did."""
        await first(self._begun, self._engine.clock, max(0.0, seconds))
        return self._begun.done()

    async def relay(self, send: Send) -> None:
        """Hand on each message until there are no more; raises what the app raised."""
        while (parcel := await self._parcels.get()) is not None:
            message, sent = parcel
            try:
                await send(message)
            except asyncio.CancelledError:
                self._tell(sent)  # `leave` says what becomes of the app
                raise
            except Exception as error:
                if sent is None:
                    raise
                self._tell(sent, error)  # the response is the leader's alone: so is the app's reaction
            else:
                self._tell(sent)
            if self._behind:
                raise FellBehindError("the rest of the response is not to be had")
        await asyncio.shield(self.flight.task)

    def _tell(self, sent: asyncio.Future[None] | None, error: Exception | None = None) -> None:
        """What has become of a message; unless the app has not waited to hear it."""
        if sent is None or sent.done() or self._behind:
            return
        if error is None:
            sent.set_result(None)
        else:
            sent.set_exception(error)

    def leave(self) -> None:
        """The leader is there no more."""
        self._left = True
        for _, sent in self._parcels.take_all():
            self._tell(sent, OSError("the client is gone"))
        self._end_if_deserted()

    def _end_if_deserted(self) -> None:
        """End the app where nobody is there for whom it goes on, nor anything to store for others."""
        if not self._left or self._unattended or self._stream.followed:
            return
        if self._complete or self.flight.task.done():
            return
        if self.tee is not None and self.tee.refusal is not None and not self.tee.failing:
            self.flight.task.cancel()
        elif not self._finish:
            self.flight.abandon()
        elif self._patience is None:
            self._limit_its_time()

    def _limit_its_time(self) -> None:
        """End an app that never answers, a while after nobody waits for it any more. Real time."""

        def over() -> None:
            if self.flight.wanted:
                self._limit_its_time()
            elif not self.flight.landed:
                self.flight.task.cancel()

        self._patience = asyncio.get_running_loop().call_later(REFRESH_SECONDS, over)


def _own(message: Message) -> Message:
    """A copy for those who take it later: the app may use the message again, and its buffer, too."""
    body = message.get("body")
    if body is None or isinstance(body, bytes) or not isinstance(body, OCTETS):
        return dict(message)
    return {**message, "body": bytes(body)}
