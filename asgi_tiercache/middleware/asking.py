"""How the handler is asked: under what conditions, for how long, and what is learned from its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_tiercache.engine.core import Engine, TooLateError
from asgi_tiercache.engine.entries import Found
from asgi_tiercache.engine.fill import Fill
from asgi_tiercache.middleware.exchange import Exchange
from asgi_tiercache.middleware.request import Request, part_of
from asgi_tiercache.middleware.tee import Tee
from asgi_tiercache.middleware.validating import ValidatingApp
from asgi_tiercache.tiers.leases import WITHOUT, Lease
from asgi_tiercache.types import Entry


class Asking:
    """What one request knows when it asks the handler.

    Args:
        exchange: The request.
        found: What is stored for it, and not to be used as it is.
        others: Stored responses of other variants, which the handler may find just as good.
    """

    __slots__ = ("_exchange", "_others", "found", "waited")

    def __init__(self, exchange: Exchange, found: Found | None, others: Sequence[Entry] = ()) -> None:
        self._exchange = exchange
        self.found = found
        self._others = others
        self.waited = False
        """Whether another one's response was waited for in vain."""

    def begin(
        self,
        fill: Fill,
        scope: Scope,
        *,
        request: Request | None = None,
        forwarded: str = "",
        lease: Lease = WITHOUT,
        partial: bool = False,
        stand_in: bool = True,
        asks: bool = True,
    ) -> tuple[ASGIApp, Tee]:
        """The app to run now, and what watches it.

        Args:
            fill: Is stamped anew: what is asked about has to hold at this very moment.
            scope: What the app will be given.
            request: The request; by default that of the exchange.
            forwarded: Why the request goes on, if not for what was found.
            lease: Ends with the response.
            partial: The request asks for a part.
            stand_in: What was found may be the answer where the handler fails.
            asks: The handler may be asked whether what is stored still holds.
        """
        exchange = self._exchange
        exchange.engine.start(fill)
        hard = exchange.route.policy.hard_timeout
        app = exchange.app if hard is None else LimitedApp(exchange.engine, exchange.app, hard)
        validation = self._validation(app, stand_in=stand_in) if asks else None
        tee = Tee(
            exchange.engine,
            exchange.route,
            request or exchange.request,
            fill,
            scope,
            forwarded=forwarded or self.forwarded(),
            collapsed=False if self.waited else None,
            validation=validation,
            partial=partial,
            known=self.found is not None,
            lease=lease,
        )
        return validation or app, tee

    def _validation(self, app: ASGIApp, *, stand_in: bool) -> ValidatingApp | None:
        """The app, to be asked whether what is stored still holds; None where nothing is.

        What was invalidated is not asked about, be it softly: to whoever did that, it does not hold.
        """
        exchange, found = self._exchange, self.found
        stored = [found.entry] if found is not None and exchange.still_holds(found.entry) else []
        others = [entry for entry in self._others if exchange.still_holds(entry)]
        if not (stored or others) or exchange.route.runs_dependencies:
            return None

        def may_stand_in(entry: Entry, status: int | None) -> bool:
            return stand_in and entry in stored and exchange.may_stand_in(entry, status)

        return ValidatingApp(app, [*stored, *others], may_stand_in=may_stand_in, asks=exchange.route.validates)

    def forwarded(self) -> str:
        """Why the request goes on to the handler (RFC 9211, section 2.2)."""
        exchange, found = self._exchange, self.found
        if found is None:
            return "uri-miss" if exchange.fill_key == exchange.request.key.text else "vary-miss"
        fresh = not found.stale and exchange.engine.clock.monotonic() < found.entry.born + found.entry.lifetime
        return "request" if fresh else "stale"

    def soft_seconds(self, owner: object) -> float | None:
        """Seconds for which this request still waits before it takes what is stale; None: it has nothing to take."""
        exchange, found = self._exchange, self.found
        soft = exchange.route.policy.soft_timeout
        if soft is None or found is None or not isinstance(owner, Fill) or exchange.route.runs_dependencies:
            return None
        if not exchange.may_stand_in(found.entry):
            return None
        return max(0.0, owner.begun + soft - exchange.engine.clock.monotonic())

    async def stand_in(self, *, collapsed: bool = False) -> bool:
        """Answer with what was found, if it may stand in for a response that fails or takes too long."""
        exchange, found, forwarded = self._exchange, self.found, self.forwarded()
        if found is None or not exchange.may_stand_in(found.entry):
            return False
        stale, tier = forwarded == "stale", "flight" if collapsed else found.tier
        await exchange.answer(found.entry, tier, fresh=False, stale=stale, collapsed=forwarded if collapsed else "")
        return True

    async def let_go(self, tee: Tee) -> None:
        """Drop what was found, where the handler had a full answer to give that may not take its place.

        What is not to be stored any more is not to be used any more (RFC 9111, section 4.3.3).
        """
        if self.found is not None and tee.supersedes:
            key = self._exchange.request.key
            keys = {self._exchange.fill_key, part_of(key).text}
            if self.found.entry.canonical == key.canonical:  # else a marker stands there, which other variants need
                keys.add(key.text)
            await self._exchange.engine.forget(*keys)

    def learn(self, tee: Tee, *, late: bool = False) -> None:
        """Note what the response was like; `late`: the client was given something else, which is reported already."""
        exchange = self._exchange
        exchange.engine.inherit(tee.tags(), tee.fill.stamp, fresh=False)
        if late:
            return
        exchange.route.count()
        if tee.entry is not None:
            exchange.route.saw_storable()
        elif tee.refusal and tee.status and not tee.is_passing and tee.stand_in is None:
            exchange.route.saw_unstorable()
        exchange.report("miss", tee.reason)


class LateResponseError(TooLateError):
    """The response has not begun in time. What a handler raises is never one, even if a function of its is too late."""


class LimitedApp:
    """The app, whose response has to begin within so many seconds.

    Raises `LateResponseError` where it does not. The app is cancelled then; one that ignores that keeps nobody.
    """

    def __init__(self, engine: Engine, app: ASGIApp, seconds: float) -> None:
        self._engine = engine
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app on one request."""
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when there is a response, or none will come."""
        over = False

        async def note(message: Message) -> None:
            if over:
                raise OSError("nobody waits for this response any more")
            if not begun.done():
                begun.set_result(None)
            await send(message)

        async def ask() -> None:
            try:
                await self._app(scope, receive, note)
            finally:
                if not begun.done():
                    begun.set_result(None)

        try:
            await self._engine.limited(ask, self._seconds, until=begun)
        except TooLateError as error:
            if begun.done():  # the app's own
                raise
            raise LateResponseError(str(error)) from None
        finally:
            over = True
            begun.cancel()
