"""What is done to Redis, to the ways there, and to the workers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from tests.chaos.fleet import GoneError, Processes
from tests.chaos.proxies import Proxies
from tests.chaos.timeline import Event, Timeline
from tests.servers import RedisServer

GARBAGE = ("\x00\xff" * 40, "$99999999\r\nabc", "+OK\r\n" * 20, "*3\r\n:1\r\n", "-MOVED 1 10.0.0.1:1\r\n", "!!!\r\n")


class Faults:
    """Does one thing after another, chosen by `random`, each kind before any comes again.

    Args:
        server: The Redis.
        proxies: One before each worker's connections to it.
        fleet: The workers.
        number: How many there are.
        namespace: The cache's.
        only: Those kinds alone whose names hold this.
    """

    def __init__(
        self,
        server: RedisServer,
        proxies: Proxies,
        fleet: Processes,
        timeline: Timeline,
        random: Random,
        *,
        number: int,
        namespace: str,
        only: str = "",
    ) -> None:
        self._server = server
        self._proxies = proxies
        self._fleet = fleet
        self._timeline = timeline
        self._random = random
        self._number = number
        self._namespace = namespace
        self._only = only
        self._deck: list[str] = []
        self.kinds: dict[str, Callable[[Event], Awaitable[None]]] = {
            **{f"network: {name}": self._network(name) for name in NETWORK},
            "network: reset": self._reset,
            "network: refused": self._refused,
            "redis: hangs": self._hang,
            "redis: killed, comes back empty": self._killed,
            "redis: flushed": self._command(lambda client: client.flushall()),
            "redis: scripts forgotten": self._command(lambda client: client.script_flush()),
            "redis: connections killed": self._command(
                lambda client: client.client_kill_filter(_type="normal", skipme=True)
            ),
            "redis: control state evicted": self._command(self._lose("control")),
            "redis: log evicted": self._command(self._lose("log")),
            "redis: log trimmed": self._command(
                lambda client: client.xtrim(self._slot("log"), maxlen=0, approximate=False)
            ),
            "redis: entries spoiled": self._command(self._spoil),
            "redis: out of memory": self._memory("noeviction"),
            "redis: evicts anything": self._memory("allkeys-random"),
            "worker paused": self._pause,
            "worker blocked": self._block,
            "worker killed": self._kill,
        }

    async def one(self) -> Event:
        """The next, until it is over."""
        if not self._deck:
            kinds = sorted(kind for kind in self.kinds if self._only in kind)
            self._deck = self._random.sample(kinds, len(kinds))
        name = self._deck.pop()
        single = name.startswith("worker") or (name.startswith("network") and self._random.random() < 0.5)
        worker = self._random.randrange(self._number) if single else None
        with self._timeline.event(name, worker) as event:
            await self.kinds[name](event)
        return event

    def _seconds(self) -> float:
        """How long something lasts; now and then longer than entries are used without confirmation."""
        return self._random.uniform(5.0, 6.5) if self._random.random() < 0.2 else self._random.uniform(0.5, 3.0)

    # ---- the network ----

    def _network(self, name: str) -> Callable[[Event], Awaitable[None]]:
        async def befall(event: Event) -> None:
            fault = NETWORK[name](self._random)
            await self._each(event, "begin", **fault)
            await asyncio.sleep(self._seconds())
            await self._each(event, "end")

        return befall

    async def _reset(self, event: Event) -> None:
        await self._each(event, "reset")

    async def _refused(self, event: Event) -> None:
        await self._each(event, "refuse")
        await asyncio.sleep(self._seconds())
        await self._each(event, "accept")

    async def _each(self, event: Event, what: str, **fault: Any) -> None:
        for number in range(self._number) if event.worker is None else (event.worker,):
            await asyncio.to_thread(self._proxies.do, number, what, **fault)

    # ---- Redis ----

    async def _hang(self, event: Event) -> None:
        self._server.pause()
        await asyncio.sleep(self._seconds())
        self._server.resume()

    async def _killed(self, event: Event) -> None:
        await asyncio.to_thread(self._server.kill)
        await asyncio.sleep(self._random.uniform(0.0, 2.0))
        await asyncio.to_thread(self._server.start)

    def _command(self, act: Callable[[Any], Any]) -> Callable[[Event], Awaitable[None]]:
        def do() -> None:
            with contextlib.suppress(RedisError), Redis.from_url(self._server.url) as client:  # another fault's doing
                act(client)

        async def befall(event: Event) -> None:
            await asyncio.to_thread(do)

        return befall

    def _slot(self, name: str) -> str:
        return f"{{{self._namespace}}}:{name}"

    def _lose(self, name: str) -> Callable[[Any], Any]:
        return lambda client: client.unlink(self._slot(name))

    def _spoil(self, client: Any) -> None:
        """Entries become random bytes, halves of themselves, or each other."""
        keys = [key for key in client.scan_iter(match=f"{self._namespace}:*", count=1000) if not key.endswith(b"lease")]
        values = dict(zip(keys, client.mget(keys), strict=True)) if keys else {}
        good = [(key, value) for key, value in values.items() if value]
        for key, value in self._random.sample(good, len(good) // 2):
            other = self._random.choice(good)[1]
            spoiled = self._random.choice((value[: len(value) // 2], self._random.randbytes(200), other, other, b""))
            client.set(key, spoiled, keepttl=True)

    def _memory(self, policy: str) -> Callable[[Event], Awaitable[None]]:
        async def befall(event: Event) -> None:
            await self._command(lambda client: self._limit(client, policy))(event)
            await asyncio.sleep(self._seconds())
            await self._command(lambda client: client.config_set("maxmemory", "0"))(event)

        return befall

    @staticmethod
    def _limit(client: Any, policy: str) -> None:
        client.config_set("maxmemory-policy", policy)
        used = client.info("memory")["used_memory"]
        client.config_set("maxmemory", str(int(used * 0.9)))

    # ---- the workers ----

    async def _pause(self, event: Event) -> None:
        assert event.worker is not None
        self._fleet.pause(event.worker)
        await asyncio.sleep(self._seconds())
        self._fleet.resume(event.worker)

    async def _block(self, event: Event) -> None:
        assert event.worker is not None
        with contextlib.suppress(GoneError):  # another fault has killed it
            await self._fleet.block(event.worker, self._random.uniform(0.3, 2.0))

    async def _kill(self, event: Event) -> None:
        assert event.worker is not None
        self._fleet.kill(event.worker)
        await self._fleet.restart(event.worker)

    def mend(self) -> None:
        """Let nothing of it last, whatever was under way."""
        self._server.resume()
        if not self._server.answers:
            self._server.start()
        for number in range(self._number):
            self._fleet.resume(number)
            self._proxies.do(number, "accept")
            self._proxies.do(number, "end")
        with contextlib.suppress(RedisError), Redis.from_url(self._server.url) as client:
            client.config_set("maxmemory", "0")


NETWORK: dict[str, Callable[[Random], dict[str, Any]]] = {
    "slow": lambda random: {"delay": random.choice((0.05, 0.2, 0.5))},
    "narrow": lambda random: {"rate": random.choice((2_000, 20_000, 200_000))},
    "silent": lambda random: {"silent": True, "on": random.choice(("all", "all", "open", "new"))},
    "half a reply, then silence": lambda random: {"silent_after": random.randrange(3000)},
    "truncated": lambda random: {"closed_after": random.randrange(3000)},
    "reset in a reply": lambda random: {"reset_after": random.choice((0, random.randrange(3000)))},
    "garbage": lambda random: {"garbage": random.choice(GARBAGE)},
}
"""What may befall connections: the parts of a `Fault`."""
