"""Values of functions, and those stored directly: what of them is at hand, and what `Computing` is for."""

from __future__ import annotations

from typing import Any

from asgi_tiercache.engine.calls import Call
from asgi_tiercache.engine.computing import Computing, Loader, loaded, recall, report, use_of
from asgi_tiercache.engine.core import Engine
from asgi_tiercache.engine.fill import Fill
from asgi_tiercache.engine.tags import MAX_TAGS
from asgi_tiercache.errors import CodecError
from asgi_tiercache.http.reuse import Use
from asgi_tiercache.invalidation.lease import Trust
from asgi_tiercache.types import VALUES, Stamp


class Values:
    """Function values and directly stored ones, over the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def get(self, call: Call) -> tuple[Any] | None:
        """The value in a tuple of one, since None is a value; None where there is no value."""
        engine = self._engine
        started = engine.clock.monotonic()
        if await engine.trust(call.place.policy) is not Trust.LAPSED:
            hit = recall(engine, call, started) or await self._fresh(call, started)
            if hit is not None:
                return hit
        report(engine, call, "miss", "", started)
        return None

    async def get_or_fill(self, call: Call, load: Loader, *, unattended: Loader | None = None) -> Any:
        """The value, from the cache or from `load`, which runs once for all who wait.

        Args:
            call: What is asked for.
            load: Computes it, while somebody waits.
            unattended: Computes it where nobody does; default: `load`.

        Raises:
            CodecError: what `load` returned would not come back from the cache as it is.
            TimeoutError: it was not done within `hard_timeout`.
        """
        engine, policy = self._engine, call.place.policy
        started, arrived = engine.clock.monotonic(), engine.fills.begun
        if policy.refresh_ahead:
            engine.ahead.seen(call.key)
        trust = Trust.VERIFIED if started < engine.lease.attention_at else await engine.trust(policy)
        hit = recall(engine, call, started) if trust is not Trust.LAPSED else None
        if hit is not None:
            return hit[0]
        computing = Computing(engine, call, load, unattended or load, started=started, arrived=arrived)
        return await (computing.alone(store=False) if trust is Trust.LAPSED else computing.value())

    async def set(self, call: Call, value: Any, *, ttl: float, since: Stamp | None = None) -> None:
        """Store `value`, read when the log stood at `since`.

        Raises:
            CodecError: the value would not come back as it is, or it carries too many tags.
        """
        engine = self._engine
        await engine.trust(call.place.policy)  # a first contact with the log would make what is stored worthless
        fill = Fill(since or engine.invalidation.stamp())
        fill.ttl = ttl
        if call.refusal(fill):
            raise CodecError(f"{call.key}: more than {MAX_TAGS} tags")
        engine.keep(call.place, call.key, call.entry(fill, value, engine.clock.time()))

    async def _fresh(self, call: Call, started: float) -> tuple[Any] | None:
        """What is stored further down; nothing stale, for there is nobody here who could make it anew."""
        engine = self._engine
        found = await engine.fetch(call.place, call.key, call.canonical, VALUES)
        if found is None or use_of(engine, found) is not Use.FRESH:
            return None
        return loaded(engine, call, found, started)
