"""`TierCache`: the cache as its users meet it, composed of what lies below."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from redis.asyncio import Redis, RedisCluster
from redis.credentials import CredentialProvider
from starlette.requests import Request
from starlette.types import ASGIApp

from asgi_tiercache.codec.values import ValueCodec, codec_for
from asgi_tiercache.config import Policy, check_of_responses, check_seconds, check_texts
from asgi_tiercache.decorator import CachedFunctions
from asgi_tiercache.decorator.bridge import Bridge
from asgi_tiercache.decorator.cached import awaitable_loader
from asgi_tiercache.engine.calls import Call
from asgi_tiercache.engine.core import Engine
from asgi_tiercache.engine.fill import Fill
from asgi_tiercache.engine.tags import key_tag
from asgi_tiercache.engine.values import Values
from asgi_tiercache.errors import ConfigError
from asgi_tiercache.events import Events
from asgi_tiercache.invalidation.lease import MAX_LAG, MAX_UNVERIFIED
from asgi_tiercache.invalidation.log import InvalidationLog, ProcessLog
from asgi_tiercache.invalidation.redislog import RedisLog
from asgi_tiercache.invalidation.service import Invalidation
from asgi_tiercache.keys.escape import frame
from asgi_tiercache.keys.template import literal_tag
from asgi_tiercache.logs import ONE_LINE_EACH, FailureLog
from asgi_tiercache.outbox import Outboxes
from asgi_tiercache.purging import Purger, Purging
from asgi_tiercache.signals import Signals
from asgi_tiercache.stats import RegionSize, Stats
from asgi_tiercache.statsapp import make_stats_app
from asgi_tiercache.tiers.breaker import AT_ONCE, Breaker
from asgi_tiercache.tiers.guard import Guarded
from asgi_tiercache.tiers.leases import NO_LEASES, Leases
from asgi_tiercache.tiers.memory import Memory
from asgi_tiercache.tiers.redis import RedisLink, RedisTier
from asgi_tiercache.tiers.redisleases import RedisLeases
from asgi_tiercache.tiers.stack import Stack
from asgi_tiercache.types import Clock, Stamp, SystemClock, Tier

logger = logging.getLogger("asgi_tiercache")

F = TypeVar("F", bound=Callable[..., Any])

MARK = "__tiercache__"
CLOSE_SECONDS = 5.0
FLUSH_SECONDS = 1.0
DEADLINE = 0.3
_NAMESPACE = re.compile(r"[A-Za-z0-9._-]{0,64}")
_DIRECT = Policy(ttl=1, max_keys=None)
"""Of values stored directly: each `set` brings a lifetime of its own, and who names a key in code wants it stored."""


class TierCache(Purging):
    """A cache over memory and, where one is given, a lower tier such as Redis.

    `TierCache()` is memory-only; `TierCache.from_url("redis://...")` has Redis as L2 and as the log of
    invalidations. The middleware starts and closes it; without an app, `async with cache:` does.

    Args:
        l2: A lower tier; it is put behind a deadline and a circuit breaker.
        log: Where invalidations are recorded; default: in this process.
        namespace: Begins every key, so that several caches can share a Redis.
        deadline: Seconds that a lower tier may take for all that one request or call asks of it while it fails. An
            answer that takes more than a third of it is a slow one: a tier whose every answer is slow counts as failed,
            so for a Redis that is far away it must be larger.
        max_lag: Seconds for which a worker may judge by what it last heard of the log.
        max_unverified: Seconds for which policies with `unverified="serve"` go on while the log is out of reach.
        leases: Which of several workers computes; default: as Redis says, where that is `l2`.
        clock: Where time comes from.
        random: Where chance comes from: like `random.random`.

    Raises:
        ConfigError: an option is wrong; the message names it.
    """

    def __init__(
        self,
        *,
        l2: Tier | None = None,
        log: InvalidationLog | None = None,
        namespace: str = "",
        deadline: float = DEADLINE,
        max_lag: float = MAX_LAG,
        max_unverified: float = MAX_UNVERIFIED,
        leases: Leases | None = None,
        clock: Clock | None = None,
        random: Callable[[], float] = random.random,
    ) -> None:
        check_seconds("deadline", deadline)
        if l2 is not None and not hasattr(l2, "get_many"):
            raise ConfigError("l2", f"must be a tier, not {l2!r}; TierCache.from_url() takes a URL")
        if log is not None and not hasattr(log, "append"):
            raise ConfigError("log", f"must be an invalidation log, not {log!r}")
        self.namespace = _checked(namespace)
        """Begins every key."""
        self.disabled = os.environ.get("TIERCACHE_DISABLED", "") == "1"
        """Whether everything passes by: `TIERCACHE_DISABLED=1` in the environment."""
        self.engine = _engine(
            l2,
            log,
            clock or SystemClock(),
            deadline=deadline,
            max_lag=check_seconds("max_lag", max_lag),
            max_unverified=check_seconds("max_unverified", max_unverified, zero=True),
            leases=leases,
            random=random,
        )
        """What the middleware and the decorators work with."""
        self._values = Values(self.engine)
        self._bridge = Bridge(self._values, home=lambda: self._home, close=self.aclose)
        self._functions = CachedFunctions(
            self.engine, self._values, self._bridge, namespace=self.namespace, disabled=self.disabled
        )
        purger = Purger(self.engine.invalidation, self.engine.reclaimer, self.namespace)
        self.outboxes = Outboxes(purger)
        """Where requests put what they have changed; for the middleware."""
        events = Events(self.engine, self.outboxes, namespace=self.namespace, waiter=self._bridge.waiter)
        super().__init__(purger, self.engine.invalidation, events)
        self._stats = Stats(self._regions, lambda: self.engine.invalidation.held)
        self._stats.listen_to(self.engine.signals)
        logger.addFilter(ONE_LINE_EACH)
        self.engine.signals.subscribe(FailureLog(), *FailureLog.KINDS)
        self._place = self.engine.place(_DIRECT)
        self._codec = codec_for(Any, where="cache.set")
        self._home: asyncio.AbstractEventLoop | None = None
        self._marked: list[str] = []
        self._served = False

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        credential_provider: CredentialProvider | None = None,
        namespace: str = "",
        trust_restart: bool = False,
        **options: Any,
    ) -> Self:
        """A cache with Redis as L2 and as the log of invalidations. Nothing is connected before the first use.

        Args:
            url: `redis://`, `rediss://` and `unix://` as redis-py takes them; `redis+cluster://host[:port][,host...]`;
                `redis+sentinel://host[:port][,host...]/service[/db]`; the last two also with `rediss+`, for TLS.
            credential_provider: redis-py's, in place of user and password in the URL.
            namespace: Begins every key, so that several caches can share a Redis.
            trust_restart: Use what is in Redis after it was restarted or failed over. Only for a Redis that never loses
                a write that it has acknowledged, since a lost invalidation would bring old data back.
            options: Those of the constructor.

        Raises:
            ConfigError: the URL does not parse, or an option is wrong.
        """
        link = RedisLink(url, credential_provider=credential_provider)
        return cls._over(link, namespace, trust_restart, options)

    @classmethod
    def from_client(
        cls,
        client: Redis | RedisCluster,
        *,
        namespace: str = "",
        trust_restart: bool = False,
        **options: Any,
    ) -> Self:
        """Likewise, by a client of `redis.asyncio` that the application made and will close, after the cache.

        It is used as it is, on the event loop that it belongs to; on another one Redis counts as out of reach. Its
        own retries and timeouts stay in force within the `deadline`.

        Args:
            client: A `redis.asyncio.Redis`, also one by `Sentinel.master_for`, or a `redis.asyncio.RedisCluster`.
            namespace: Begins every key, so that several caches can share a Redis.
            trust_restart: As of `from_url`.
            options: Those of the constructor.

        Raises:
            ConfigError: the client blocks, decodes responses or reads from replicas, or an option is wrong.
        """
        return cls._over(RedisLink(client=client), namespace, trust_restart, options)

    @classmethod
    def _over(cls, link: RedisLink, namespace: str, trust_restart: bool, options: dict[str, Any]) -> Self:
        log = RedisLog(link, namespace=_checked(namespace), trust_restart=trust_restart)
        return cls(l2=RedisTier(link), log=log, namespace=namespace, **options)

    def __repr__(self) -> str:
        return f"<TierCache {self.namespace or '(no namespace)'} {self.engine!r}>"

    # ---- life ----

    async def start(self) -> None:
        """Make ready on the running loop. Redis being out of reach is no error.

        Raises:
            ConfigError: a function emits an event that was not declared.
        """
        self._events.check()
        self._home = asyncio.get_running_loop()
        if self._marked and not self._served:
            names, self._marked = ", ".join(self._marked), []
            logger.warning("@cache.response is on %s, but no TierCacheMiddleware serves this cache", names)
        await self.engine.invalidation.start()

    async def aclose(self) -> None:
        """Let what is under way end and flush what is queued, and let go of what belongs to the running loop.

        For at most 5 seconds in all, but at least one for what is queued; with Redis out of reach, for a few deadlines.
        What is in memory stays there; the cache can be used again, on this loop or another.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + CLOSE_SECONDS
        await self.engine.aclose(CLOSE_SECONDS)
        await self.engine.reclaimer.aclose()
        await self.engine.invalidation.aclose(max(until - loop.time(), 0.0))
        if self.engine.stack is not None:
            await self.engine.stack.aclose(max(until - loop.time(), FLUSH_SECONDS))
        if self._home is asyncio.get_running_loop():
            self._home = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def close(self) -> None:
        """End what plain functions called outside any event loop have started; programs end without it, too."""
        self._bridge.close()

    # ---- decorators ----

    def response(self, policy: Policy | None = None, **options: Any) -> Callable[[F], F]:
        """Mark an endpoint: the middleware caches its responses by `policy`, or by a `Policy(**options)`.

        The endpoint is returned unchanged, so the order of decorators does not matter.

        Example:
            `@cache.response(ttl=300, tags=["video:{video_id}"])`

        Raises:
            ConfigError: an option is wrong; the message names it.
        """
        chosen = check_of_responses(_policy("response", policy, options))
        self.engine.memory.bucket(chosen.region)  # two policies may not draw one region's bounds

        def mark(endpoint: F) -> F:
            marks = getattr(endpoint, MARK, ())
            if any(owner is self for owner, _ in marks):
                raise ConfigError("response", f"{endpoint!r} has a policy of this cache already")
            try:
                setattr(endpoint, MARK, (*marks, (self, chosen)))
            except AttributeError:
                raise ConfigError("response", f"{endpoint!r} cannot be marked; name its path in routes=") from None
            self._marked.append(getattr(endpoint, "__qualname__", repr(endpoint)))
            return endpoint

        return mark

    def cached(
        self,
        template: str | None = None,
        policy: Policy | None = None,
        *,
        ignore: Sequence[str] = (),
        codec: ValueCodec | None = None,
        **options: Any,
    ) -> Callable[[F], F]:
        """Cache the values of a function, async or plain, by a `policy` or a `Policy(**options)`.

        A plain function may be called from worker threads and from programs without an event loop; on an event loop's
        own thread it raises `BlockingCallError`. Where Redis fails, a call takes as much longer as `get_or_set` does.

        Example:
            `@cache.cached("user:profile:{user_id}", ttl=1800, tags=["user:{user_id}"])`

        Args:
            template: The key; every parameter is in it or in `ignore`. None: the function's name and its arguments.
            policy: A preset or a policy of your own.
            ignore: Parameters that the value does not depend on.
            codec: How values become bytes; default: by the annotated return type.
            options: Options of `Policy`.

        Raises:
            ConfigError: an option, the template or a tag does not fit the function.
            CodecError: the annotated return type cannot come back from a cache.
        """
        if callable(template):
            raise ConfigError("cached", "needs parentheses: @cache.cached(ttl=...)")
        chosen = _policy("cached", policy, options)

        def decorate(function: F) -> F:
            return self._functions.decorate(function, template, chosen, ignore=tuple(ignore), codec=codec)

        return decorate

    @property
    def current(self) -> Fill:
        """The handler or cached function that is running: `cache.current.tag("author:7")`.

        Raises:
            NoFillError: none is running in this context.
        """
        return self.engine.current

    def policy_of(self, endpoint: object) -> Policy | None:
        """The policy that `response` has put on `endpoint`; of a class-based one, on its `get`."""
        marks = getattr(endpoint, MARK, None)
        if marks is None and isinstance(endpoint, type):
            marks = getattr(getattr(endpoint, "get", None), MARK, None)
        return next((policy for owner, policy in marks or () if owner is self), None)

    def serve(self) -> None:
        """Called by the middleware that serves this cache."""
        self._served = True

    # ---- values: where Redis fails, each takes one `deadline` at the most, and no time once the breaker is open ----

    async def get(self, key: str, default: Any = None) -> Any:
        """The value that `set` stored under `key`, else `default`. None may be a value.

        Takes one `deadline` at the most where Redis fails; then it is `default`.
        """
        if self.disabled:
            return default
        found = await self._values.get(self._call(key))
        return default if found is None else found[0]

    async def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """The values stored under `keys`, without those that are not there; lower tiers are asked once for all.

        Takes one `deadline` at the most where Redis fails; then there are those in memory.
        """
        wanted = list(dict.fromkeys(keys))
        if self.disabled:
            return {}
        with self.engine.reads.together():
            found = await asyncio.gather(*(self._values.get(self._call(key)) for key in wanted))
        return {key: value[0] for key, value in zip(wanted, found, strict=True) if value is not None}

    async def set(
        self, key: str, value: Any, *, ttl: float, tags: Iterable[str] = (), since: Stamp | None = None
    ) -> None:
        """Store `value` under `key` for `ttl` seconds: in memory before this returns, in Redis afterwards.

        Takes one `deadline` at the most where Redis fails, for the log may have to be asked first.

        Args:
            key: Anything but control characters.
            value: What `get` will return, as it is.
            ttl: Seconds.
            tags: What it is invalidated by.
            since: `cache.stamp()` from before the value was read; without it an invalidation that happened between
                reading and storing is not seen.

        Raises:
            CodecError: the value would not come back as it is; the message names key and type.
            ConfigError: `ttl`, a tag or the key is wrong.
        """
        check_seconds("ttl", ttl)
        call = self._call(key, tags)
        if not self.disabled:
            await self._values.set(call, value, ttl=ttl, since=since)

    async def get_or_set(self, key: str, loader: Callable[[], Any], *, ttl: float, tags: Iterable[str] = ()) -> Any:
        """The value under `key`, else what `loader` returns, computed once for all who wait.

        Where Redis fails, this takes one `deadline` longer than `loader` at the most; where another worker's value was
        being waited for, half of one more.

        Args:
            key: Anything but control characters.
            loader: Takes nothing, returns the value or an awaitable of it.
            ttl: Seconds.
            tags: What the value is invalidated by.

        Raises:
            CodecError: the value would not come back as it is.
        """
        check_seconds("ttl", ttl)
        load = awaitable_loader(loader)
        if self.disabled:
            return await self._functions.uncached(load)()
        call = self._call(key, tags)._replace(ttl=ttl)
        return await self._values.get_or_fill(call, load)

    async def delete(self, *keys: str) -> None:
        """Forget the values under `keys` (of `set`, of functions with a template), on every worker.

        Takes one `deadline` at the most where Redis fails; then they are forgotten here, and on other workers as soon
        as Redis can be told.
        """
        names = [self._purger.full(key) for key in keys]
        await self.engine.forget(*names)
        await self.engine.invalidation.invalidate([key_tag(name) for name in names], kind="key")

    def stamp(self) -> Stamp:
        """What this worker knows of invalidations; take it before reading what is given to `set(since=...)`."""
        return self.engine.invalidation.stamp()

    # ---- statistics ----

    def stats(self) -> dict[str, Any]:
        """Counters, hit rates and latencies since this process began, those of single routes included."""
        return self._snapshot(True)

    def stats_app(
        self,
        *,
        token: str | None = None,
        authorize: Callable[[Request], bool | Awaitable[bool]] | None = None,
    ) -> ASGIApp:
        """An app to mount: `GET /stats`. Without a token (`Authorization: Bearer ...`) or `authorize`: aggregates.

        Raises:
            ConfigError: the token is empty.
        """
        return make_stats_app(self._snapshot, token=token, authorize=authorize)

    def _snapshot(self, routes: bool) -> dict[str, Any]:
        for report in self.engine.reporters:
            report()
        return self._stats.snapshot(routes=routes)

    def _regions(self) -> Iterable[RegionSize]:
        for bucket in self.engine.memory.buckets():
            region = bucket.region
            yield RegionSize(
                region.name, len(bucket), bucket.bytes, region.max_entries, region.max_bytes, bucket.evictions
            )

    # ---- keys ----

    def _call(self, key: str, tags: Iterable[str] = ()) -> Call:
        full = self._purger.full(key)
        canonical = frame(b"value", full.encode("utf-8", "surrogatepass"))
        names = tuple(literal_tag(each, option="tags") for each in check_texts("tags", tags))
        return Call(self._place, full, canonical, self._codec, names, namespace=self.namespace)


def _engine(
    l2: Tier | None,
    log: InvalidationLog | None,
    clock: Clock,
    *,
    deadline: float,
    max_lag: float,
    max_unverified: float,
    leases: Leases | None,
    random: Callable[[], float],
) -> Engine:
    """Memory, the lower tier behind its guard, and the log, put together."""
    signals = Signals()
    at_once = l2.link.at_once if isinstance(l2, RedisTier) else AT_ONCE
    name = l2.name if l2 else "L2"
    breaker = Breaker(tier=name, deadline=deadline, clock=clock, signals=signals, at_once=at_once)
    if isinstance(log, RedisLog):
        log.breaker = breaker  # one server, one judgement on whether it is well
    tiers = [] if l2 is None else [Guarded(l2, breaker, clock=clock, signals=signals)]
    memory = Memory(signals=signals)
    invalidation = Invalidation(
        log or ProcessLog(clock=clock),
        clock=clock,
        signals=signals,
        drop_memory=memory.clear,
        max_lag=max_lag,
        max_unverified=max_unverified,
    )
    stack = Stack(tiers, clock=clock, signals=signals) if tiers else None
    if leases is None and isinstance(l2, RedisTier):
        leases = RedisLeases(l2.link, breaker, clock=clock, signals=signals, prefix=l2.prefix)
    engine = Engine(
        memory=memory,
        stack=stack,
        invalidation=invalidation,
        signals=signals,
        clock=clock,
        leases=leases or NO_LEASES,
        random=random,
    )
    engine.reporters.extend(tier.report for tier in tiers)
    return engine


def _policy(option: str, policy: Policy | None, options: Mapping[str, Any]) -> Policy:
    if policy is not None and not isinstance(policy, Policy):
        raise ConfigError(option, f"takes a Policy, not {policy!r}")
    try:
        return policy.but(**options) if policy is not None else Policy(**options)
    except TypeError as error:
        raise ConfigError(option, str(error)) from None


def _checked(namespace: str) -> str:
    if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace):
        raise ConfigError("namespace", f"must be at most 64 letters, digits, '.', '_' or '-', not {namespace!r}")
    return namespace
