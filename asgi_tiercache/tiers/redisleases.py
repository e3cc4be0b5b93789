"""Leases in Redis: a key with an expiry and a random token in it, and a channel of the same name.

A free lease costs one `SET NX PX`, and its end one script. Whoever finds it held costs `SUBSCRIBE` and `PTTL` besides,
and sleeps until the holder says that it is done, or until the lease has run out. Meanwhile one `PING` per worker now
and then tells whether there is still a Redis to hear from.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from redis.exceptions import NoScriptError, ResponseError

from asgi_tiercache.errors import TierError
from asgi_tiercache.signals import Signals, TierFailed
from asgi_tiercache.tiers.breaker import Breaker, describe
from asgi_tiercache.tiers.clients import Script
from asgi_tiercache.tiers.leases import Busy, Ended, Lease
from asgi_tiercache.tiers.loops import OneTask, PerLoop, end, first
from asgi_tiercache.tiers.messages import Message, Messages
from asgi_tiercache.tiers.redis import RedisLink
from asgi_tiercache.types import Clock

LONGEST_LEASE = 300.0
"""Seconds that a lease is taken for, at the most. What stands longer in its place is none."""
RENEWED_FOR = 60.0
"""Seconds after which a lease is not renewed any more: a handler that never returns is not waited for."""
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 1.0
"""Seconds between two looks at a lease, growing, where no message can be heard; and between two tries to end one."""
LOOKS = 4
"""At the breaker, which costs nothing, between two questions whether Redis is still there."""
DEAF_FOR = 60.0
"""Seconds for which a refusal to listen is remembered: access rules do not change by themselves."""

RENEW = Script(
    "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end return redis.call('PEXPIRE', KEYS[1], ARGV[2])"
)
RELEASE = Script("""
local held = redis.pcall('GET', KEYS[1]) == ARGV[1]
if held then
  redis.call('DEL', KEYS[1])
elseif ARGV[2] ~= 'stored' then
  return 0
end
-- The user may have no right to the channel: then those who wait look for themselves.
redis.pcall('PUBLISH', KEYS[1], ARGV[2])
return held and 1 or 0
""")

_SAID = {ended.value.encode(): ended for ended in (Ended.STORED, Ended.NOTHING)}


class RedisLeases:
    """Leases that all workers share.

    Args:
        link: Where Redis is; closed by its tier.
        breaker: Deadline and circuit breaker, shared with the tier on the same server.
        clock: Measures waits and renewals.
        signals: Receives a `TierFailed` for what the server refuses. That opens no breaker: entries may still be read
            where nothing can be written.
        prefix: Put before each key, as the tier does it.
        renewed_for: Seconds for which a lease is renewed at the most.
    """

    def __init__(
        self,
        link: RedisLink,
        breaker: Breaker,
        *,
        clock: Clock,
        signals: Signals,
        prefix: str = "",
        renewed_for: float = RENEWED_FOR,
    ) -> None:
        self.clock = clock
        """The clock of waits and renewals."""
        self.renewed_for = renewed_for
        """Seconds for which a lease is renewed at the most."""
        self._link = link
        self._breaker = breaker
        self._signals = signals
        self._prefix = prefix
        self._deaf_until = clock.monotonic()
        self._held: PerLoop[dict[asyncio.Task[None], RedisLease]] = PerLoop(dict, self._let_go)
        self._watching = PerLoop(OneTask, OneTask.aclose)
        self._messages = PerLoop(lambda: Messages(link, clock, breaker.deadline.seconds), _close)

    def __repr__(self) -> str:
        return f"<RedisLeases {self._link!r}>"

    async def acquire(self, key: str, seconds: float) -> Lease | Busy | None:
        """One command, on the shortest way; none where Redis takes no writes at the moment."""
        if self._breaker.writes.state != "closed":
            return None
        name, token = self._name(key), secrets.token_hex(8).encode()
        seconds = min(max(seconds, 0.001), LONGEST_LEASE)
        try:
            lease = RedisLease(self, name, token, seconds, self._held.get())
        except RuntimeError:
            return None  # this loop is ending
        try:
            reply = await self.ask(lease.take, patient=False)
        except asyncio.CancelledError:
            lease.give_back()
            raise
        if reply is True or reply == b"OK":
            lease.keep()
            return lease
        if isinstance(reply, TierError):
            lease.give_back()
        return RedisBusy(self, name, seconds) if reply is None else None

    async def aclose(self) -> None:
        """End the running loop's leases, within the deadline, and its connection for messages."""
        await self._held.aclose()
        await self._watching.aclose()
        await self._messages.aclose()

    # ---- for the leases ----

    async def ask(self, call: Callable[[], Awaitable[Any]], *, patient: bool = True) -> Any:
        """What `call` returns, under the breaker; an exception is returned, too.

        Args:
            call: Asks Redis.
            patient: Wait for a turn, though others have waited for theirs for long.
        """

        async def asked() -> Any:
            try:
                return await call()
            except ResponseError as refusal:
                return refusal

        try:
            reply = await self._breaker.run("lease", asked, probe=self._ping, patient=patient)
        except TierError as error:
            return error
        if isinstance(reply, ResponseError):
            self._signals.emit(TierFailed(self._breaker.tier, "lease", describe(reply)))
        return reply

    async def take(self, name: bytes, token: bytes, seconds: float) -> Any:
        """What Redis says to the wish for a lease, not under the breaker: True or `b"OK"` where it was free."""
        return await self._link.ask(b"SET", name, token, b"NX", b"PX", _ms(seconds))

    async def renew(self, name: bytes, token: bytes, seconds: float) -> Any:
        """1: the lease is good for `seconds` from when this was sent; 0: it is somebody else's, or gone."""
        return await self.ask(lambda: self._run(RENEW, name, token, _ms(seconds)))

    async def release(self, name: bytes, token: bytes, ended: Ended) -> Any:
        """Delete the lease if it is still the one of `token`, and tell whoever waits; of what is stored in any case.

        A `TierError`: Redis has not said that it did.
        """
        return await self.ask(lambda: self._run(RELEASE, name, token, ended.value.encode()))

    async def wait(self, name: bytes, seconds: float, limit: float) -> Ended:
        """Wait for the lease `name`, taken for `seconds` at a time, for at most `limit` seconds."""
        try:
            messages = self._messages.get()
        except RuntimeError:
            return Ended.NOTHING  # this loop is ending
        until = self.clock.monotonic() + limit
        with messages.waiting(name) as heard:
            # First this, then a look: what ends after the look is told, what has ended before it is gone.
            listening = await self._subscribe(messages, name)
            if listening:  # the task outlives the request that happens to be the first
                contextvars.Context().run(self._watching.get().begin, lambda: self._watch(messages))
            message, pause = (heard, math.inf) if listening else _deaf()
            while (left := await self._left(name, seconds)) is not None:
                if not left and not message.done():
                    return Ended.GONE
                await first(message, self.clock, min(left, pause, until - self.clock.monotonic()))
                pause = min(2 * pause, max(pause, LONGEST_PAUSE))
                if message.done():
                    if (said := message.result()) is not None:
                        return _SAID.get(said, Ended.GONE)
                    message, pause = _deaf()  # the connection is gone
                elif self.clock.monotonic() >= until:
                    return Ended.PATIENCE
            return Ended.NOTHING

    async def _ping(self) -> None:
        await self._link.ping((self._prefix + "{}probe").encode())

    async def _watch(self, messages: Messages) -> None:
        """Ask Redis whether it is still there, while anybody waits for a message: from a dead one none comes.

        One question, however many wait. Where it is not answered, they hear so; sooner where others have found out.
        """
        pause = self._breaker.deadline.seconds / 2 / LOOKS
        while messages.awaited:
            for _ in range(LOOKS):
                await self.clock.sleep(pause)
                if self._breaker.is_open:
                    break
            if messages.awaited and isinstance(await self.ask(self._ping), TierError):
                await messages.aclose()

    async def _run(self, script: Script, name: bytes, *arguments: bytes) -> Any:
        """What `script` returns: as `RedisLink.evaluate`, but on the shortest way, which needs no connection more."""
        try:
            return await self._link.ask(b"EVALSHA", script.digest.encode(), b"1", name, *arguments)
        except NoScriptError:
            return await self._link.ask(b"EVAL", script.text.encode(), b"1", name, *arguments)

    async def _subscribe(self, messages: Messages, name: bytes) -> bool:
        """Whether what is said on `name` from here on will be heard."""
        if self.clock.monotonic() < self._deaf_until:
            return False
        reply = await self.ask(lambda: messages.subscribe(name))
        if isinstance(reply, ResponseError):
            self._deaf_until = self.clock.monotonic() + DEAF_FOR
        elif isinstance(reply, TierError):
            await messages.aclose()  # it may hang for long after Redis is well again
        return not isinstance(reply, Exception)

    async def _left(self, name: bytes, seconds: float) -> float | None:
        """Seconds until the lease runs out, 0.0 where there is none; None: nobody can say."""
        left = await self.ask(lambda: self._link.ask(b"PTTL", name))
        if not isinstance(left, int):
            return None
        if left == -2:
            return 0.0
        if not 0 <= left <= LONGEST_LEASE * 1000:
            # No lease of ours stands for ever, and this must not, either.
            await self.ask(lambda: self._link.ask(b"PEXPIRE", name, _ms(seconds)))
            return seconds
        return (left + 1) / 1000

    def _name(self, key: str) -> bytes:
        # No entry's key has a brace in it; and with nothing between the two of them a cluster goes by the whole key.
        return (self._prefix + key).replace("{", "%7B").encode("utf-8", "surrogatepass") + b"{}lease"

    async def _let_go(self, held: dict[asyncio.Task[None], RedisLease]) -> None:
        for lease in held.values():
            lease.let_go()
        if held:
            await asyncio.wait(held, timeout=self._breaker.deadline.seconds)
        for task in tuple(held):  # each takes itself out as it ends
            await end(task)


class RedisLease(Lease):
    """A lease that this worker has asked for. `keep` begins the task that renews it, and in the end releases it."""

    def __init__(
        self, leases: RedisLeases, name: bytes, token: bytes, seconds: float, held: dict[asyncio.Task[None], RedisLease]
    ) -> None:
        self._leases = leases
        self._name = name
        self._token = token
        self._seconds = seconds
        self._held = held
        self._until = leases.clock.monotonic() + seconds
        self._taken = False
        self._asked = False
        self._in_vain = False
        self._closing = False
        self._ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._keeper: asyncio.Task[None]

    def __repr__(self) -> str:
        return f"<RedisLease {self._name!r}{' lost' * self.lost}>"

    @property
    def lost(self) -> bool:
        return self._taken or self._leases.clock.monotonic() >= self._until

    def end(self, ended: Ended) -> None:
        if not self._ended.done():
            self._ended.set_result(ended)

    async def released(self) -> None:
        """Return once Redis has been told that the lease has ended, or need not be."""
        await asyncio.wait([self._keeper])

    def take(self) -> Awaitable[Any]:
        """Ask Redis for it."""
        self._asked = True
        return self._leases.take(self._name, self._token, self._seconds)

    def give_back(self) -> None:
        """End it, though Redis has not said that it was given: one that hung hears of the question when it is well."""
        if self._asked:
            self.end(Ended.GONE)
            self.keep()

    def let_go(self) -> None:
        """End it for good: Redis is told once more, if it has not been yet."""
        self._closing = True
        self.end(Ended.GONE)
        if self._in_vain:
            self._keeper.cancel()

    def keep(self) -> None:
        """Begin to renew it."""
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="keeper of a lease")
        self._held[self._keeper] = self
        self._keeper.add_done_callback(self._held.pop)

    async def _keep(self) -> None:
        clock, leases = self._leases.clock, self._leases
        stop = clock.monotonic() + leases.renewed_for
        while not (self._ended.done() or self._taken):
            if self.lost:
                return
            await first(self._ended, clock, self._seconds / 3)
            sent = clock.monotonic()
            if not self._ended.done() and sent < stop:
                renewed = await leases.renew(self._name, self._token, self._seconds)
                if renewed == 1:
                    self._until = sent + self._seconds
                self._taken = renewed == 0
        await asyncio.wait([self._ended])
        ended = self._ended.result()
        if ended is Ended.STORED or not self._taken:  # what was stored is there also for those whom others keep waiting
            await self._release(ended)

    async def _release(self, ended: Ended) -> None:
        """Tell Redis until it answers: what is left there when it comes back would have others wait for nobody."""
        clock, leases = self._leases.clock, self._leases
        stop, pause = clock.monotonic() + leases.renewed_for, FIRST_PAUSE
        while isinstance(await leases.release(self._name, self._token, ended), TierError):
            if self._closing or clock.monotonic() >= stop:
                return
            self._in_vain = True
            await clock.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


class RedisBusy(Busy):
    """A lease that somebody else holds."""

    def __init__(self, leases: RedisLeases, name: bytes, seconds: float) -> None:
        self._leases = leases
        self._name = name
        self._seconds = seconds

    def __repr__(self) -> str:
        return f"<RedisBusy {self._name!r}>"

    async def wait(self, seconds: float) -> Ended:
        if seconds <= 0:
            return Ended.PATIENCE
        return await self._leases.wait(self._name, self._seconds, seconds)


def _deaf() -> tuple[Message, float]:
    """A message that never comes, and the first pause between looks instead."""
    return asyncio.get_running_loop().create_future(), FIRST_PAUSE


def _ms(seconds: float) -> bytes:
    return b"%d" % max(1, round(seconds * 1000))


async def _close(messages: Messages) -> None:
    await messages.aclose()
