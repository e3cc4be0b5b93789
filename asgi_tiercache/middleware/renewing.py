"""Responses made anew behind everybody's back: what is stale, and what soon will be."""

from __future__ import annotations

import copy

from starlette.types import Message, Scope

from asgi_tiercache.engine.entries import Found
from asgi_tiercache.keys.withhold import NOBODYS_ADDRESS
from asgi_tiercache.middleware.asking import Asking
from asgi_tiercache.middleware.exchange import Exchange
from asgi_tiercache.middleware.relay import ResponseFill
from asgi_tiercache.middleware.request import WHOLE_OR_MARKER
from asgi_tiercache.signals import Refreshed
from asgi_tiercache.stampede import Flight
from asgi_tiercache.tiers.leases import Lease
from asgi_tiercache.types import PART, WHOLE, Entry

MADE = "made"
"""Where a response was found that the handler has just made."""
MOST_ANTICIPATED = 8_192
"""Bytes of a request that is kept to have its response made anew; thousands may be."""
_LINE_BYTES = 64


class Renewing:
    """One stored response, and the request that can have it made anew.

    Args:
        exchange: The request.
        asking: What it knows, the response among it.
    """

    __slots__ = ("_asking", "_exchange")

    def __init__(self, exchange: Exchange, asking: Asking) -> None:
        self._exchange = exchange
        self._asking = asking

    def refresh(self) -> None:
        """Make what was found anew, behind the back of the client that is given it."""
        exchange, engine, asking = self._exchange, self._exchange.engine, self._asking
        asked, found = exchange.request.scope, asking.found
        if asked["method"] == "HEAD" or found is None or not engine.may_refresh(exchange.fill_key):
            return
        # Middleware above goes on using its own, and may yet put what it finds there into this client's answer.
        own = {name: _copy_of(asked[name]) for name in ("session", "state") if name in asked}
        request = exchange.request._replace(scope={**asked, **own})
        scope = exchange.route.keys.withhold(request.scope, request.key)
        fill = engine.begin(exchange.fill_key)
        response = ResponseFill(engine, fill, scope, exchange.receive, body=exchange.body, unattended=True)
        ended = "failed"

        async def here(lease: Lease) -> Found | None:
            nonlocal ended
            app, tee = asking.begin(fill, scope, request=request, lease=lease, stand_in=False)
            if not await response.run_unattended(app, tee):
                return found  # which is still the best there is
            await asking.let_go(tee)
            ended = tee.refusal or "stored"
            if tee.entry is None:
                return None
            self.anticipate(tee.entry)
            return Found(tee.entry, MADE)

        async def work(flight: Flight[Entry]) -> None:
            response.led_by(flight)
            place, key = exchange.route.place, exchange.fill_key
            kinds = PART if found.entry.status in PART else WHOLE if found.entry.vary else WHOLE_OR_MARKER
            renewal = await engine.renew(place, key, found.entry.canonical, found.entry, here, kinds=kinds)
            if renewal == "found" and (theirs := place.bucket.held.get(key)) is not None:
                self.anticipate(theirs)
            outcome = renewal if renewal in ("found", "elsewhere") else ended
            engine.signals.emit(Refreshed(exchange.route.name, outcome))

        place = exchange.route.place
        if not engine.refresh(exchange.fill_key, work, owner=fill, place=place, entry=found.entry):
            engine.signals.emit(Refreshed(exchange.route.name, "dropped"))

    def anticipate(self, entry: Entry) -> None:
        """Have `entry` made anew before it is asked for again, where the policy wants that.

        The handler is given then what it is given now, which is what the key holds; but never the client's address. Not
        where the request is a large one.
        """
        exchange = self._exchange
        if not exchange.route.policy.refresh_ahead or _weight(exchange) > MOST_ANTICIPATED:
            return
        scope: Scope = {**exchange.handler_scope(), "client": NOBODYS_ADDRESS}
        own = {name: _copy_of(scope[name]) for name in ("session", "state") if name in scope}
        request = exchange.request._replace(scope={**scope, **own})
        nobody = Exchange(exchange.engine, exchange.app, exchange.route, request, _gone, _nowhere, body=exchange.body)
        nobody.fill_key = exchange.key_of(entry)

        def renew(held: Entry) -> None:
            Renewing(nobody, Asking(nobody, Found(held, "L1"))).refresh()

        exchange.engine.watch(exchange.route.place, nobody.fill_key, entry, renew)


def _weight(exchange: Exchange) -> int:
    """Bytes that the client made its request, and so what is kept of it, hold; roughly."""
    scope = exchange.request.scope
    lines = sum(_LINE_BYTES + len(name) + len(value) for name, value in scope["headers"])
    return lines + 2 * (len(scope["path"]) + len(scope["query_string"])) + len(exchange.body)


async def _gone() -> Message:
    return {"type": "http.disconnect"}


async def _nowhere(_: Message) -> None:
    pass


def _copy_of(value: object) -> object:
    """A copy of a session or of the state, with the notes that a session takes of its own use: copying is none."""
    own = copy.copy(value)
    if hasattr(own, "__dict__"):
        vars(own).clear()
        vars(own).update(vars(value))
    return own
