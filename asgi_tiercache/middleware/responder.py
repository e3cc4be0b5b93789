"""One request's way through the cache, once L1 could not answer it at once."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from asgi_tiercache.engine.entries import Found
from asgi_tiercache.http.reuse import Use
from asgi_tiercache.invalidation.lease import Trust
from asgi_tiercache.middleware.answer import covers
from asgi_tiercache.middleware.asking import Asking
from asgi_tiercache.middleware.exchange import Exchange
from asgi_tiercache.middleware.filling import Filling
from asgi_tiercache.middleware.head import HeadExchange
from asgi_tiercache.middleware.renewing import Renewing
from asgi_tiercache.middleware.request import NO_DEMANDS, WHOLE_OR_MARKER, part_of
from asgi_tiercache.stampede import Flight
from asgi_tiercache.types import MARKER, PART, WHOLE, Entry


class Responder(Exchange):
    """Finds the way that a request takes.

    1. While Redis cannot confirm what is valid, and the policy does not serve on trust: pass by.
    2. A stored response that this request may be given: send it. Where it is stale and may be used while it is
       validated, that happens behind the client's back.
    3. `only-if-cached`: 504.
    4. A request for a part, HEAD, or a body that nobody announced: the handler answers.
    5. Otherwise: a fill, which asks whether what is stored still holds.
    """

    __slots__ = ("_others", "_part")

    async def respond(self) -> None:
        """Answer the request, one way or another."""
        if self.started >= self.engine.lease.attention_at:
            self.trust = await self.engine.trust(self.route.policy)
            if self.trust is Trust.LAPSED:
                return await self.pass_by("unverified")
        self._others: Sequence[Entry] = ()
        self._part: Found | None = None
        flight = self._being_made()
        found = None if flight is not None else await self._find()
        if found is not None:
            use = self.use_of(found, self.engine.clock.monotonic())
            if use is not Use.VALIDATE:
                if use is Use.WHILE_REVALIDATED or (found.early(self.started) and self.may_refresh):
                    Renewing(self, Asking(self, found)).refresh()
                await self.answer(found.entry, found.tier, fresh=not found.stale, stale=use is not Use.FRESH)
                if self.route.looks_ahead and found.tier != "L1":
                    Renewing(self, Asking(self, found)).anticipate(found.entry)
                return
        if self.request.demands.directives.only_if_cached:
            return await self.gateway_timeout("only-if-cached")
        await self._ask(found, flight)

    def _being_made(self) -> Flight[Entry] | None:
        """The fill of what this request asks for, which has no wishes of its own: whoever leads it has looked."""
        if self.request.demands is not NO_DEMANDS or self.fill_key in self.route.bucket.held:
            return None
        return self.engine.joinable(self.fill_key, self.request.key.canonical)

    def _find(self) -> Awaitable[Found | None]:
        """What is stored that may answer."""
        in_part = self.request.key.partial and not self.route.explicit
        return self._look_up_whole_or_part() if in_part else self._look_up()

    async def _look_up_whole_or_part(self) -> Found | None:
        """Of a whole and a part of it, the more recent (RFC 9111, section 4): a whole that is fresh is that, as a part
        that contradicts it ends its freshness.
        """
        whole = await self._look_up()
        if whole is not None and self.use_of(whole, self.engine.clock.monotonic()) is Use.FRESH:
            return whole
        part = await self._look_up_part()
        if whole is None or (part is not None and part.entry.created > whole.entry.created):
            return part
        return whole

    async def _look_up(self) -> Found | None:
        """What is stored for this request, valid, and not kept from it by its credentials."""
        key = self.request.key
        place = self.route.place
        found = await self.engine.fetch(place, key.text, key.canonical, WHOLE_OR_MARKER)
        if found is not None and found.entry.status == MARKER:
            marker = found.entry
            chosen = self.choose(marker)
            found = await self.engine.fetch(place, chosen.text, chosen.canonical, WHOLE)
            if found is None:
                self._others = self.route.variants.others(key, marker)
        demands = self.request.demands
        return found if found is None or demands is NO_DEMANDS or demands.may_see(found.entry) else None

    async def _look_up_part(self) -> Found | None:
        """A stored part that holds all that the request asks for (RFC 9111, section 3.3)."""
        key = part_of(self.request.key)
        found = await self.engine.fetch(self.route.place, key.text, key.canonical, PART)
        if found is None or not self.request.demands.may_see(found.entry):
            return None
        self._part = found
        return found if covers(found.entry, self.request.scope) else None

    async def _ask(self, found: Found | None, flight: Flight[Entry] | None) -> None:
        """Have the handler answer, in the way that the request allows."""
        filling = Filling(self, found, self._others)
        if self.request.scope["method"] == "HEAD":
            if found is None or self.route.explicit or not self.still_holds(found.entry):
                return await self.pass_by("head", forward="method")
            return await HeadExchange(self, found).run()
        if self.request.key.partial:
            if self.route.explicit:
                return await self.pass_by("range")
            return await filling.watch(partial=True, beside_part=found is None and self._part is not None)
        if await self.has_body():
            return await self.pass_by("body")
        await filling.follow_or_fill(flight)
