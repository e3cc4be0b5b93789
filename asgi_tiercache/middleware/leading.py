"""The way of a request that sets off a fill, for itself and for all who come to wait for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.types import Message, Scope

from asgi_tiercache.engine.entries import Found
from asgi_tiercache.engine.fill import Fill
from asgi_tiercache.middleware.answer import ConditionalSend
from asgi_tiercache.middleware.asking import Asking, LateResponseError
from asgi_tiercache.middleware.exchange import Exchange
from asgi_tiercache.middleware.relay import ResponseFill
from asgi_tiercache.middleware.renewing import MADE, Renewing
from asgi_tiercache.middleware.request import WHOLE_OR_MARKER
from asgi_tiercache.stampede import Flight
from asgi_tiercache.tiers.leases import WITHOUT, Lease
from asgi_tiercache.types import MARKER, WHOLE, Entry


class Leading:
    """One request that leads a flight: its response, or another worker's, is for all who want it.

    Args:
        exchange: The request.
        asking: What it knows when it asks the handler.
    """

    __slots__ = ("_asking", "_exchange", "_renewing")

    def __init__(self, exchange: Exchange, asking: Asking) -> None:
        self._exchange = exchange
        self._asking = asking
        self._renewing = Renewing(exchange, asking)

    async def lead(self) -> None:
        exchange, engine, asking = self._exchange, self._exchange.engine, self._asking
        policy, scope = exchange.route.policy, exchange.handler_scope()
        fill = engine.begin(exchange.fill_key, exchange.request.key.canonical)
        response = ResponseFill(
            engine,
            fill,
            scope,
            exchange.receive_again(),
            body=exchange.body,
            alone_counts=not exchange.route.explicit,
            finish=policy.finish,
        )

        async def here(lease: Lease) -> Found | None:
            app, tee = asking.begin(fill, scope, lease=lease)
            await response.run(app, tee)
            await asking.let_go(tee)
            if tee.entry is None:
                return None
            if not response.came_too_late:  # else the answer in its place was counted
                exchange.route.asked_for(exchange.key_of(tee.entry))
            if tee.admitted:
                self._renewing.anticipate(tee.entry)
            return Found(tee.entry, MADE)

        async def work(flight: Flight[Entry]) -> None:
            engine.variable.set(fill)
            try:
                made = await self._once(here)
                if made is not None and made.tier != MADE:
                    response.found = made
                    fill.failed = made.stale
                    flight.land(made.entry)
            finally:
                response.close()

        response.led_by(engine.fills.lead(exchange.fill_key, work, owner=fill))
        await self._relay(response, fill, scope)

    async def _relay(self, response: ResponseFill, fill: Fill, scope: Scope) -> None:
        """Answer with the response that this request has set off, or with what takes its place."""
        exchange = self._exchange
        send = ConditionalSend.around(exchange.request.scope, exchange.send, exchange.engine.clock.time)

        async def relay(message: Message) -> None:
            exchange.show(scope)
            await send(message)

        try:
            with exchange.engine.waiting(fill):
                if await self._stands_in_early(response, fill):
                    return
                await response.relay(relay)
        except LateResponseError:
            response.came_too_late = True
            return await exchange.gateway_timeout("too-late")
        finally:
            response.leave()
            exchange.show(scope)
            if response.tee is not None and response.found is None:
                self._asking.learn(response.tee, late=response.came_too_late)
        found = response.found
        if found is not None:
            await exchange.answer(found.entry, found.tier, fresh=not found.stale, stale=found.stale)
            if not found.stale:
                self._renewing.anticipate(found.entry)

    async def _stands_in_early(self, response: ResponseFill, fill: Fill) -> bool:
        """Answer with what may stand in for the response, where that does not begin soon enough."""
        soft = self._asking.soft_seconds(fill)
        if soft is None or await response.begins_within(soft):
            return False
        response.flight.detached = True
        response.came_too_late = await self._asking.stand_in()
        return response.came_too_late

    async def _once(self, here: Callable[[Lease], Awaitable[Found | None]]) -> Found | None:
        """What this worker makes, or another one; without a lease where nothing may come of it that could be shared."""
        exchange, found = self._exchange, self._asking.found
        if not exchange.route.proven:
            return await here(WITHOUT)
        stale = found if found is not None and exchange.may_stand_in(found.entry) else None
        place, key = exchange.route.place, exchange.fill_key
        made = await exchange.engine.once(place, key, here, look=self._look_below, stale=stale)
        if made is None or made is not stale:
            return made
        if not exchange.may_stand_in(made.entry):  # invalidated while others were waited for
            return await here(WITHOUT)
        return made._replace(stale=True)

    async def _look_below(self) -> Found | None:
        """What another worker has stored meanwhile for this request."""
        exchange, place = self._exchange, self._exchange.route.place
        key = exchange.request.key
        found = await exchange.engine.look_below(place, key.text, key.canonical, WHOLE_OR_MARKER)
        if found is not None and found.entry.status == MARKER:
            chosen = exchange.choose(found.entry)
            found = await exchange.engine.look_below(place, chosen.text, chosen.canonical, WHOLE)
        if found is None or not exchange.request.demands.met_by(found.entry, exchange.started):
            return None
        return found
