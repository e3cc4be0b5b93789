"""The fill of a response: the app runs in a task of its own, its messages flow to the request that set it off.

Nothing is held back: the request that leads relays each message at once. As long as the response may be stored, the app
need not wait for that, since others may be waiting for the response, and the tee bounds what piles up. Once it is the
leader's alone, a slow client slows the app down as it would without a cache, and one that is gone ends it.
"""

from __future__ import annotations

import asyncio
import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_tiercache.engine.core import REFRESH_SECONDS, Engine, Found
from asgi_tiercache.engine.fill import Fill
from asgi_tiercache.middleware.stream import SHAREABLE, Stream
from asgi_tiercache.middleware.tee import Tee
from asgi_tiercache.stampede import Flight
from asgi_tiercache.tiers.loops import first
from asgi_tiercache.types import Entry

logger = logging.getLogger("asgi_tiercache")

_Parcel = tuple[Message, "asyncio.Future[None] | None"]
"""A message, and where its sender waits to hear that it was sent."""


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
    ) -> None:
        self._engine = engine
        self._fill = fill
        self._scope = scope
        self._client_receive = receive
        self._body: bytes | None = body
        self._parcels: asyncio.Queue[_Parcel | None] = asyncio.Queue()
        self._begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settled = asyncio.Event()
        self._stream = Stream()
        self._left = False
        self._unattended = False
        self._cut = False
        self._alone_counts = alone_counts
        self._finish = finish
        self._listener: asyncio.Task[Message] | None = None
        self.tee: Tee | None = None
        """Watches the messages, once the app runs."""
        self.found: Found | None = None
        """What answers the leader in place of the app's response: another worker's, or what was stored before."""
        self.flight: Flight[Entry]
        """Set by whoever started it."""

    # ---- the app's side, in the flight's task ----

    async def run(self, app: ASGIApp, tee: Tee) -> None:
        """Run the app to its end."""
        self.tee = tee
        self._engine.variable.set(self._fill)
        try:
            await app(self._scope, self._receive, self._send)
        except Exception:
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
        self._parcels.put_nowait(None)

    async def run_unattended(self, app: ASGIApp, tee: Tee) -> bool:
        """Run the app for nobody, to renew what is stored; whether it came to an end that says something.

        An error of the server's does not: what is stored is then still the best there is.
        """
        self._left = self._unattended = True
        try:
            async with asyncio.timeout(REFRESH_SECONDS):
                await self.run(app, tee)
        except Exception:  # logged by `run`, but for the time limit's
            if not self._cut:
                logger.warning("the stale response for %s could not be made anew", self._fill.key)
                return False
        finally:
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
        if (self.tee is not None and self.tee.entry is not None) or self._left:
            return {"type": "http.disconnect"}
        return await (self._listen() if self._listener is None else self._listener)

    async def _settled_or_deserted(self) -> None:
        """Return once nobody waits any more: on a route that nobody named, the app may well wait for just that."""
        if self._listener is None:
            self._listener = asyncio.get_running_loop().create_task(self._listen())
        # Without waiting where nothing need be waited for: `request.is_disconnected()` only looks.
        if self._settled.is_set() or (self._listener.done() and not self.flight.waiting):
            return
        settled = asyncio.ensure_future(self._settled.wait())
        try:
            await asyncio.wait({settled, self._listener}, return_when=asyncio.FIRST_COMPLETED)
            if self.flight.waiting:
                await settled
        finally:
            settled.cancel()

    async def _listen(self) -> Message:
        """The message that the leader's client is gone."""
        while (message := await self._client_receive())["type"] == "http.request":
            pass  # the body, which the app has had
        return message

    async def _send(self, message: Message) -> None:
        tee = self.tee
        assert tee is not None
        message = await tee.see(message)
        if tee.entry is not None:
            self.flight.land(tee.entry)
            self._settled.set()
        elif tee.refusal is not None and not tee.failing:
            self.flight.land(tee.stand_in or tee.failure)
            self._settled.set()
        self._note_beginning()
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
            elif message.get("more_body", False) and not self._stream.opened and (begun := tee.preview()):
                self._stream.open(begun)
                self.flight.open(self._stream)
        else:
            self._stream.cut()

    async def _deliver(self, tee: Tee, message: Message) -> None:
        if tee.refusal is None or tee.failing:
            if not self._left:
                self._parcels.put_nowait((message, None))
            return
        if self._unattended:
            self._cut = message.get("more_body", False)
            if self._cut:  # it might never end, and no client would slow it down
                raise OSError("nobody is there for the rest of a response that may not be stored")
            return
        if self._left and not self._stream.followed:
            raise OSError("the client is gone, and the response may not be stored")
        if self._left:
            return
        sent = asyncio.get_running_loop().create_future()
        self._parcels.put_nowait((message, sent))
        await sent

    # ---- the leader's side, in the request's task ----

    async def begins_within(self, seconds: float) -> bool:
        """Wait for the response to begin, for `seconds` at the most; whether it did."""
        await first(self._begun, self._engine.clock, max(0.0, seconds))
        return self._begun.done()

    async def relay(self, send: Send) -> None:
        """Hand on each message until there are no more; raises what the app raised."""
        try:
            while (parcel := await self._parcels.get()) is not None:
                message, sent = parcel
                try:
                    await send(message)
                except Exception as error:
                    if sent is None:
                        raise
                    if not sent.done():
                        sent.set_exception(error)  # the response is the leader's alone: so is the app's reaction
                else:
                    if sent is not None and not sent.done():
                        sent.set_result(None)
            await asyncio.shield(self.flight.task)
        finally:
            self.leave()

    def leave(self) -> None:
        """The leader is there no more."""
        self._left = True
        while not self._parcels.empty():
            parcel = self._parcels.get_nowait()
            if parcel is not None and parcel[1] is not None and not parcel[1].done():
                parcel[1].set_exception(OSError("the client is gone"))
        if self.flight.task.done() or self._stream.followed:
            return
        if self.tee is not None and self.tee.refusal is not None and not self.tee.failing:
            self.flight.task.cancel()
        elif not self._finish:
            self.flight.abandon()
