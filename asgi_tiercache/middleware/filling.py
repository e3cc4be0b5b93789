"""The way of a request that no stored response answers as it is: a response of another fill, or of its own."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import Message

from asgi_tiercache.engine.entries import Found
from asgi_tiercache.http.conditional import PARTIAL_AND_CONDITIONAL
from asgi_tiercache.middleware.answer import ConditionalSend
from asgi_tiercache.middleware.asking import Asking, LateResponseError
from asgi_tiercache.middleware.exchange import Exchange
from asgi_tiercache.middleware.following import Following, has_failed
from asgi_tiercache.middleware.leading import Leading
from asgi_tiercache.middleware.request import recall
from asgi_tiercache.stampede import Flight
from asgi_tiercache.types import Entry


class Filling:
    """One request that needs the handler.

    1. A key that lately could not be shared, or whose response each request has to validate for itself: the handler
       answers, and the tee watches.
    2. Somebody else is filling: wait, and judge what comes; but not where that fill waits for this request.
    3. Otherwise: fill, here or, as the lease says, on another worker, and relay.

    Where something valid is stored, the handler is only asked whether it still holds; and where that may be used stale,
    it is the answer if the handler fails, or takes too long.

    Args:
        exchange: The request.
        found: What is stored for it, valid and yet not to be used as it is.
        others: Stored responses of other variants, which the handler may find just as good.
    """

    __slots__ = ("_asking", "_exchange")

    def __init__(self, exchange: Exchange, found: Found | None = None, others: Sequence[Entry] = ()) -> None:
        self._exchange = exchange
        self._asking = Asking(exchange, found, others)

    async def follow_or_fill(self, flight: Flight[Entry] | None = None) -> None:
        """Answer the request with a new response; `flight` is known to be under way for it."""
        exchange, engine = self._exchange, self._exchange.engine
        for _ in range(2):
            if exchange.request.demands.directives.no_store or self._is_for_nobody_else():
                break
            if flight is None:
                entry = self._recalled()
                if entry is not None:
                    return await exchange.answer(entry, "L1")  # a fill has landed since this request looked
                flight = engine.joinable(exchange.fill_key, exchange.request.key.canonical)
            if flight is None:
                return await Leading(exchange, self._asking).lead()
            if not engine.may_wait(flight):
                break
            key = exchange.fill_key
            if await Following(exchange, self._asking).follow(flight):
                return
            self._asking.waited = True
            if has_failed(flight) or (not flight.landed and exchange.fill_key == key):
                break  # who waits for the next one would only wait in turn
            flight = None
        await self.watch()

    def _recalled(self) -> Entry | None:
        exchange, engine = self._exchange, self._exchange.engine
        if exchange.route.policy.verify:
            return None
        request = exchange.request
        return recall(engine, exchange.route, request.key, request.scope, engine.clock.monotonic())

    def _is_for_nobody_else(self) -> bool:
        """Whether nobody need wait for the response: it may not be shared, or not without asking the handler again."""
        found = self._asking.found
        return self._could_not_be_shared() or (found is not None and found.entry.lifetime <= 0)

    def _could_not_be_shared(self) -> bool:
        exchange = self._exchange
        name = exchange.request.demands.shared_name(exchange.fill_key)
        return exchange.engine.unshareable.holds(name, exchange.engine.clock.monotonic())

    async def watch(self, *, partial: bool = False, beside_part: bool = False) -> None:
        """Run the handler in the request's own task: nobody is to wait for it. What may be stored is stored.

        Of a key that could not be shared, conditions reach the handler: it alone can answer them, and what it answers
        is for whoever asked. So does the range of a request for a part.

        Args:
            partial: The request asks for a part.
            beside_part: A part is stored, and does not hold all that it asks for.
        """
        exchange, asking = self._exchange, self._asking
        scope = exchange.handler_scope()
        asked = [line for line in exchange.request.scope["headers"] if line[0] in PARTIAL_AND_CONDITIONAL]
        as_it_came = bool(asked) and (partial or self._could_not_be_shared())
        to_client = ConditionalSend.around(exchange.request.scope, exchange.send, exchange.engine.clock.time)
        if as_it_came:
            if not exchange.route.runs_dependencies:  # to those the request comes as it is
                scope["headers"] = [*scope["headers"], *asked]
            to_client = exchange.send
        fill = exchange.engine.begin(exchange.fill_key)
        forwarded = "partial" if beside_part else ""
        asks = not (partial or as_it_came)
        app, tee = asking.begin(fill, scope, forwarded=forwarded, partial=partial, asks=asks)
        if as_it_came and not partial:
            tee.abandon("conditional")
        late = False

        async def send(message: Message) -> None:
            message = await tee.see(message)
            exchange.show(scope)
            await to_client(message)

        try:
            with exchange.engine.running(fill):
                await app(scope, exchange.receive_again(), send)
            await asking.let_go(tee)
        except LateResponseError:
            late = True
            await exchange.gateway_timeout("too-late")
        finally:
            tee.abandon()
            exchange.show(scope)
            asking.learn(tee, late=late)
