"""L2: Redis, by redis-py, with the client's own retries and timeouts off: the guard's one deadline rules."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from asgi_tiercache.errors import ConfigError, TierError
from asgi_tiercache.tiers.breaker import describe
from asgi_tiercache.tiers.connections import KeptConnections
from asgi_tiercache.tiers.loops import PerLoop
from asgi_tiercache.types import Tier, Write

MAX_AT_ONCE = 48
"""Operations on one event loop that are under way at a time."""
MAX_CONNECTIONS = 2 * MAX_AT_ONCE
"""Connections of one event loop to one server: those kept at hand for reads, and those of the pool."""


class RedisLink:
    """The way to one Redis: settings, and a client for each event loop that asks.

    Args:
        url: `redis://[[user]:password@]host[:port][/db]`, `rediss://...` with TLS, or `unix://[...]/path`; options of
            redis-py's connections may follow after `?`.
        client: A client made elsewhere, in place of `url`. It is used as it is, with its own settings, on the event
            loop that it belongs to, and closed by whoever made it.

    Raises:
        ConfigError: the URL cannot be used, or not exactly one of `url` and `client` is given.
    """

    def __init__(self, url: str | None = None, *, client: Redis | None = None) -> None:
        if (url is None) == (client is None):
            raise ConfigError("url", "give either a URL or a client")
        if client is not None and client.connection_pool.connection_kwargs.get("decode_responses"):
            raise ConfigError("client", "must not decode responses: entries are bytes")
        self._url = url
        self._given = client
        self._options = {} if url is None else _pool_options(url)
        # redis-py's pool raises where it has no connection left; a moment's wait under the deadline is better.
        self._slots = PerLoop(lambda: asyncio.Semaphore(MAX_AT_ONCE))
        self._clients = PerLoop(self._connect, _disconnect)
        self._kept = PerLoop(lambda: KeptConnections(self.client(), limit=MAX_AT_ONCE))

    def client(self) -> Redis:
        """The client of the running event loop; closed with the loop, if not before.

        Raises:
            RuntimeError: no event loop is running, or it is ending.
        """
        return self._given or self._clients.get()

    @property
    def slot(self) -> asyncio.Semaphore:
        """Held around each operation of the client, so that they never outnumber the connections of its pool."""
        return self._slots.get()

    def ask(self, *command: bytes) -> Awaitable[Any]:
        """The reply to `command`, on the shortest way: past the pool, unless the client was given with one of its own.

        Takes a `slot` where it needs one.

        Raises:
            RedisError: the server refused the command, or the connection failed.
        """
        if self._given is None:
            kept = self._kept.get()
            if kept.available:
                return kept.ask(*command)
        return self._ask_client(command)

    async def _ask_client(self, command: tuple[bytes, ...]) -> Any:
        client: Any = self.client()
        async with self.slot:
            return await client.execute_command(*command)

    async def aclose(self) -> None:
        """Close the running loop's client. One is made anew when it is asked for again."""
        await self._kept.aclose()
        await self._clients.aclose()

    def __repr__(self) -> str:
        return f"<RedisLink {'of a given client' if self._url is None else _without_secrets(self._url)}>"

    def _connect(self) -> Redis:
        return Redis.from_pool(ConnectionPool(**self._options))


class RedisTier(Tier):
    """Entries as plain Redis strings: GET or MGET, SET with PX, UNLINK.

    Args:
        link: The Redis; closed with the tier.
        name: As it appears in statistics.
        prefix: Put before each key.
    """

    def __init__(self, link: RedisLink, *, name: str = "L2", prefix: str = "") -> None:
        self.name = name
        self._link = link
        self._prefix = prefix

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The bytes under each key, in the order asked."""
        if not keys:
            return []
        try:  # as in `_translated`, which would cost every hit a microsecond more
            if len(keys) == 1:
                return [await self._link.ask(b"GET", self._key(keys[0]))]
            found: list[bytes | None] = await self._link.ask(b"MGET", *map(self._key, keys))
            return found
        except Exception as error:
            raise TierError(f"{self.name}: {describe(error)}") from error

    async def set_many(self, writes: Sequence[Write]) -> None:
        """Keep each of `writes` for its lifetime."""
        if not writes:
            return
        with self._translated():
            async with self._link.slot, self._link.client().pipeline(transaction=False) as pipe:
                for write in writes:
                    pipe.set(self._key(write.key), write.data, px=max(1, round(write.ttl * 1000)))
                # Raised by the pipeline itself, an error would quote the command, hence the entry's bytes.
                _raise_first(await pipe.execute(raise_on_error=False))

    async def delete_many(self, keys: Sequence[str]) -> None:
        """Forget each of `keys`."""
        if not keys:
            return
        with self._translated():
            async with self._link.slot:
                await self._link.client().unlink(*map(self._key, keys))

    async def ping(self) -> None:
        """Return if Redis answers."""
        with self._translated():
            await self._link.client().ping()

    async def aclose(self) -> None:
        """Close the running loop's connections."""
        with self._translated():
            await self._link.aclose()

    def __repr__(self) -> str:
        return f"<RedisTier {self.name}: {self._link!r}>"

    def _key(self, key: str) -> bytes:
        # Lone surrogates, as in a path that is not UTF-8, must not be an error: three in a row look like an outage.
        # Braces would choose the slot in a cluster, and could name our own control state.
        return (self._prefix + key).replace("{", "%7B").encode("utf-8", "surrogatepass")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Everything that the client raises leaves as `TierError`; more than `RedisError` and `OSError` occurs."""
        try:
            yield
        except Exception as error:
            raise TierError(f"{self.name}: {describe(error)}") from error


def _pool_options(url: str) -> dict[str, Any]:
    """Arguments of a connection pool for `url`, tried out without connecting.

    Raises:
        ConfigError: the URL cannot be used. The message does not quote it: who knows which part is the password.
    """
    try:
        options = {**parse_url(url), **_settings()}
        _check_database(url)
        pool: Any = ConnectionPool(**options)
        pool.make_connection()
    except Exception as error:
        raise ConfigError(
            "url",
            f"is not one that redis-py can use ({type(error).__name__}); expected"
            " redis://[user:password@]host[:port][/db], rediss://... or unix:///path",
        ) from None
    # Fewer than the slots may use at a time would make errors of a rush.
    return {**options, "max_connections": MAX_CONNECTIONS}


def _settings() -> dict[str, Any]:
    settings: dict[str, Any] = {
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": None,
        "socket_connect_timeout": None,
        "health_check_interval": 0,
        "decode_responses": False,
    }
    # While they are on, the pool skips its check for unread bytes on a connection. Clients before 8.1 lack them.
    if "maint_notifications_config" in inspect.signature(ConnectionPool).parameters:
        settings["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)
    return settings


def _check_database(url: str) -> None:
    """redis-py takes `/typo` for database 0."""
    parts = urlsplit(url)
    if parts.scheme != "unix":
        int(parts.path.strip("/") or 0)


def _without_secrets(url: str) -> str:
    """`url` without password and options."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    return f"{parts.scheme}://{name}{colon and ':***'}{at}{host}{parts.path}"


def _raise_first(replies: Sequence[object]) -> None:
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply


async def _disconnect(client: Redis) -> None:
    await client.aclose()
