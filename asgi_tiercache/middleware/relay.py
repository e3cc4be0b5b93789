"""The fill of a response: the app runs in a task of its own, its messages flow to the request that set it off.

Nothing is held back: the request that leads relays each message at once. As long as the response may be stored, the app
need not wait for that, since others may be waiting for the response, and the tee bounds what piles up. Once it is the
leader's alone, a slow client slows the app down as it would without a cache, and one that is gone ends it.
"""

from __future__ import annotations

import asyncio
import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_tiercache.engine.core import REFRESH_SECONDS, Engine
from asgi_tiercache.middleware.tee import Tee
from asgi_tiercache.stampede import Flight
from asgi_tiercache.types import Entry

logger = logging.getLogger("asgi_tiercache")

_Parcel = tuple[Message, "asyncio.Future[None] | None"]
"""A message, and where its sender waits to hear that it was sent."""


class ResponseFill:
    """One run of the app for a response that may be stored.

    Args:
        app: The app below the middleware.
        scope: What the handler is given: see `RequestKeys.withhold`.
        receive: The leader's own; it is listened to only once the response is the leader's alone.
        tee: Watches the messages.
        body: The request body, where it has been read to be keyed.
        alone_counts: Whether the app hears that the leader's client is gone as long as nobody else waits.
    """

    def __init__(
        self,
        engine: Engine,
        app: ASGIApp,
        scope: Scope,
        receive: Receive,
        tee: Tee,
        *,
        body: bytes = b"",
        alone_counts: bool = False,
    ) -> None:
        self._engine = engine
        self._app = app
        self._scope = scope
        self._client_receive = receive
        self._tee = tee
        self._body: bytes | None = body
        self._parcels: asyncio.Queue[_Parcel | None] = asyncio.Queue()
        self._settled = asyncio.Event()
        self._left = False
        self._unattended = False
        self._cut = False
        self._alone_counts = alone_counts
        self._listener: asyncio.Task[Message] | None = None
        self.flight: Flight[Entry]
        """Set by whoever started it."""

    # ---- the app's side, in the flight's task ----

    async def run(self, flight: Flight[Entry]) -> None:
        """Run the app to its end."""
        self.flight = flight
        self._engine.variable.set(self._tee.fill)
        try:
            await self._app(self._scope, self._receive, self._send)
        except Exception:
            if self._left and not self._cut:  # nobody is there to raise it to
                logger.exception(
                    "a handler failed %s", "for nobody" if self._unattended else "after its client had left"
                )
            raise
        finally:
            if self._listener is not None:
                self._listener.cancel()
            self._tee.abandon()
            self._settled.set()
            self._parcels.put_nowait(None)

    async def run_unattended(self, flight: Flight[Entry]) -> bool:
        """Run the app for nobody, to renew what is stored; whether it came to an end that says something.

        An error of the server's does not: what is stored is then still the best there is.
        """
        self._left = self._unattended = True
        try:
            async with asyncio.timeout(REFRESH_SECONDS):
                await self.run(flight)
        except Exception:  # logged by `run`, but for the time limit's
            if not self._cut:
                logger.warning("the stale response for %s could not be made anew", self._tee.fill.key)
                return False
        return self._tee.status < 500 or self._tee.entry is not None

    async def _receive(self) -> Message:
        """The request's body, once. A fill has no client that could disconnect while its response can be stored."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        if self._alone_counts:
            await self._settled_or_deserted()
        else:
            await self._settled.wait()
        if self._tee.entry is not None or self._left:
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
        message = await self._tee.see(message)
        if self._tee.entry is not None:
            self.flight.land(self._tee.entry)
            self._settled.set()
        elif self._tee.refusal is not None:
            self.flight.land(self._tee.stand_in)
            self._settled.set()
        await self._deliver(message)

    async def _deliver(self, message: Message) -> None:
        if self._tee.refusal is None:
            if not self._left:
                self._parcels.put_nowait((message, None))
            return
        if self._unattended:
            self._cut = message.get("more_body", False)
            if self._cut:  # it might never end, and no client would slow it down
                raise OSError("nobody is there for the rest of a response that may not be stored")
            return
        if self._left:
            raise OSError("the client is gone, and the response may not be stored")
        sent = asyncio.get_running_loop().create_future()
        self._parcels.put_nowait((message, sent))
        await sent

    # ---- the leader's side, in the request's task ----

    async def relay(self, send: Send) -> None:
        """Hand on each message until the app has ended; raises what the app raised."""
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
            self._leave()

    def _leave(self) -> None:
        self._left = True
        while not self._parcels.empty():
            parcel = self._parcels.get_nowait()
            if parcel is not None and parcel[1] is not None and not parcel[1].done():
                parcel[1].set_exception(OSError("the client is gone"))
        if self._tee.refusal is not None and not self.flight.task.done():
            self.flight.task.cancel()
