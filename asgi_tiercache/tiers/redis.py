"""L2: Redis, by redis-py, with the client's own retries and timeouts off: the guard's one deadline rules."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis, RedisCluster
from redis.credentials import CredentialProvider
from redis.exceptions import NoScriptError, ResponseError

from asgi_tiercache.errors import ConfigError, TierError
from asgi_tiercache.tiers.addresses import maker, without_secrets
from asgi_tiercache.tiers.breaker import describe
from asgi_tiercache.tiers.clients import Argument, Client, Command, Script, SingleClient
from asgi_tiercache.tiers.cluster import ClusterClient
from asgi_tiercache.tiers.connections import KeptConnections
from asgi_tiercache.tiers.given import GivenClient
from asgi_tiercache.tiers.loops import PerLoop
from asgi_tiercache.types import Tier, Write

MAX_AT_ONCE = 48
"""Operations on one event loop that are under way at a time."""
MAX_CONNECTIONS = 2 * MAX_AT_ONCE
"""Connections of one event loop to one server: those kept at hand for reads, and those of the pool."""
HEADS_AT_ONCE = 100
"""Entries that a scan looks into at once; a client spends some 10 microseconds on each."""
_NO_STRING = b""
"""What is read where a list or a hash stands: bytes that are nobody's entry."""
_SPECIAL = re.compile(rb"[*?\[\]\\^]")
"""What means more than itself in a pattern of Redis."""


class RedisLink:
    """The way to one Redis, of whichever kind: settings, and a client for each event loop that asks.

    Args:
        url: Of a server, `redis://[[user]:password@]host[:port][/db]`, `rediss://...` with TLS or `unix://[...]/path`;
            of a cluster, `redis+cluster://[[user]:password@]host[:port][,host...]`; of a master that Sentinel names,
            `redis+sentinel://[[user]:password@]host[:port][,host...]/service[/db]`; the last two also with
            `rediss+`. Options of redis-py's connections may follow after `?`.
        client: A client made elsewhere, in place of `url`. It is used as it is, with its own settings, on the event
            loop that it belongs to, and closed by whoever made it.
        credential_provider: Names user and password whenever a connection is made.

    Raises:
        ConfigError: the URL, the client or the provider cannot be used, or not exactly one of `url` and `client` is
            given.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client: Redis | RedisCluster | None = None,
        credential_provider: CredentialProvider | None = None,
    ) -> None:
        if (url is None) == (client is None):
            raise ConfigError("url", "give either a URL or a client")
        self._url = url
        self._given = None if client is None else GivenClient(client)
        self.at_once = MAX_AT_ONCE
        """Operations on one event loop that find a connection at the same time."""
        if self._given is not None:
            if credential_provider is not None:
                raise ConfigError("credential_provider", "belongs to the client, which is given")
            make: Callable[[], Client] = self._given.get
            self.at_once = min(MAX_AT_ONCE, self._given.max_connections)
        else:
            make = maker(url or "", credential_provider=credential_provider, max_connections=MAX_CONNECTIONS)
        # redis-py's pool raises where it has no connection left; a moment's wait under the deadline is better.
        self._slots = PerLoop(lambda: asyncio.Semaphore(self.at_once))
        self._clients = PerLoop(make, _close)
        self._kept = PerLoop(self._keep)
        # A given client keeps its connections to itself, and in a cluster there is one pool for each node.
        self._past_the_pool = self._given is None and urlsplit(url or "").scheme.partition("+")[2] != "cluster"

    def client(self) -> Any:
        """redis-py's client of the running event loop; closed with the loop, if not before, unless it was given.

        Raises:
            RuntimeError: no event loop is running, it is ending, or it is not that of the client that was given.
        """
        return self._clients.get().redis

    @property
    def slot(self) -> asyncio.Semaphore:
        """Held around each operation of the client, so that they never outnumber the connections of its pool."""
        return self._slots.get()

    def ask(self, *command: bytes) -> Awaitable[Any]:
        """The reply to `command`, on the shortest way: past the pool, where we have one to ourselves.

        Takes a slot where it needs one.

        Raises:
            RedisError: the server refused the command, or the connection failed.
        """
        if self._past_the_pool:
            kept = self._kept.get()
            if kept.available:
                return kept.ask(*command)
        return self.command(command[0].decode(), *command[1:])

    def _keep(self) -> KeptConnections:
        client = self._clients.get()
        kept = KeptConnections(client.redis, limit=MAX_AT_ONCE)
        if isinstance(client, SingleClient):
            client.on_leave = kept.leave
        return kept

    async def ask_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """What stands under each of `keys`, wherever they are in a cluster. Takes a slot where it needs one.

        Raises:
            RedisError: a server refused the command, or a connection failed.
        """
        if isinstance(self._clients.get(), ClusterClient):
            async with self.slot:
                replies = await self._clients.get().each([("GET", key) for key in keys])
            return _replies([None if is_wrong_type(reply) else reply for reply in replies])  # as MGET does
        found: list[bytes | None] = await self.ask(b"MGET", *keys)
        return found

    async def each(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to commands of one key each, as few round trips as there are servers. Takes a slot by itself.

        Raises:
            RedisError: the first that a server refused, or that found no connection.
        """
        async with self.slot:
            return _replies(await self._clients.get().each(commands))

    async def command(self, *command: Argument, key: Argument | None = None) -> Any:
        """The reply to one command, as redis-py's `execute_command` returns it. Takes a slot by itself.

        In a cluster a command whose connection failed is sent once more, so it may have been carried out twice.

        Args:
            command: Name and arguments. Its keys are in one slot.
            key: In a cluster, its owner is asked; for commands without a key of their own, such as `INFO` or `TIME`.

        Raises:
            RedisError: the server refused the command, or the connection failed.
        """
        async with self.slot:
            return await self._clients.get().command(*command, key=key)

    async def evaluate(self, script: Script, keys: Sequence[Argument], arguments: Sequence[Argument] = ()) -> Any:
        """What `script` returns; sent whole only where the server does not know it yet. Takes a slot by itself.

        Args:
            script: What to run.
            keys: All in one slot; one at least.
            arguments: What the script finds in `ARGV`.

        Raises:
            RedisError: the script failed, or the connection did.
        """
        rest = (len(keys), *keys, *arguments)
        try:
            return await self.command("EVALSHA", script.digest, *rest)
        except NoScriptError:
            return await self.command("EVAL", script.text, *rest)

    async def pipelined(self, *commands: Command, key: Argument) -> list[Any]:
        """The replies to commands sent together on one connection to the owner of `key`. Takes a slot by itself.

        What depends on the connection works, as `WAIT` does; and nothing comes in between on the way, though the
        server may run the commands of others between them. In a cluster all are sent once more where the owner has
        changed or the connection failed, so they may have been carried out twice.

        Raises:
            RedisError: the first that the server refused, or the connection failed.
        """
        async with self.slot:
            return _replies(await self._clients.get().together(commands, key))

    async def blocking(self, *command: Argument, key: Argument) -> Any:
        """The reply to a command that may wait, such as `XREAD BLOCK`: its connection is no read's loss.

        The connection is used again for the next such command, and closed when this call is cancelled or fails.

        Args:
            command: Name and arguments.
            key: In a cluster, its owner is asked.

        Raises:
            RedisError: the server refused the command, or the connection failed.
        """
        return await self._clients.get().blocking(*command, key=key)

    def listening(self, key: Argument) -> AbstractAsyncContextManager[Any]:
        """A context with a connection of redis-py's, open and out of any pool, to hear what is published.

        Args:
            key: In a cluster, the connection is to its owner; every node hears what is published at any.
        """
        return self._clients.get().listening(key)

    async def scan(self, match: str | bytes, *, count: int = 1000) -> AsyncGenerator[list[bytes], None]:
        """The keys of strings that fit the glob `match`, on every primary, in batches of about `count`.

        A key may come twice.
        """
        batches = self._clients.get().scan(match, count)
        while True:
            async with self.slot:
                keys = await anext(batches, None)
            if keys is None:
                return
            yield keys

    async def ping(self, key: bytes) -> None:
        """Return if Redis answers, wherever keys are kept; how a failover is noticed if the old master only hangs.

        A server that is paused for writes (`CLIENT PAUSE`, or its cluster handing it over) answers everything else: so
        it is asked to delete `key`, which nobody stores anything under. That it refuses to is an answer, too.
        """
        await self._clients.get().ping()
        with contextlib.suppress(ResponseError):
            await self.command("UNLINK", key)

    async def aclose(self) -> None:
        """Close the running loop's client, unless it was given. One is made anew when it is asked for again."""
        await self._kept.aclose()
        await self._clients.aclose()

    def __repr__(self) -> str:
        return f"<RedisLink {'of a given client' if self._url is None else without_secrets(self._url)}>"


class RedisTier(Tier):
    """Entries as plain Redis strings: GET or MGET, SET with PX, UNLINK.

    Args:
        link: The Redis; closed with the tier.
        name: As it appears in statistics.
        prefix: Put before each key.
    """

    def __init__(self, link: RedisLink, *, name: str = "L2", prefix: str = "") -> None:
        self.name = name
        self.link = link
        """The Redis."""
        self.prefix = prefix
        """What stands before each key."""
        self._link = link
        self._prefix = prefix

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The bytes under each key, in the order asked."""
        if not keys:
            return []
        try:  # as in `_translated`, which would cost every hit a microsecond more
            if len(keys) == 1:
                data = await self._link.ask(b"GET", self._key(keys[0]))
                return [data] if type(data) is bytes or data is None else _checked([data], 1)
            return _checked(await self._link.ask_many(list(map(self._key, keys))), len(keys))
        except Exception as error:
            if len(keys) == 1 and is_wrong_type(error):
                return [_NO_STRING]  # somebody else's key, which says nothing of Redis
            raise TierError(f"{self.name}: {describe(error)}") from error

    async def set_many(self, writes: Sequence[Write]) -> None:
        """Keep each of `writes` for its lifetime."""
        if not writes:
            return
        with self._translated():
            await self._link.each(
                [("SET", self._key(key), data, "PX", max(1, round(ttl * 1000))) for key, data, ttl in writes]
            )

    async def delete_many(self, keys: Sequence[str]) -> None:
        """Forget each of `keys`."""
        if not keys:
            return
        with self._translated():
            await self._link.each([("UNLINK", self._key(key)) for key in keys])

    async def scan(
        self, beginning: str, wanted: Callable[[str], bool], size: int
    ) -> AsyncGenerator[list[tuple[str, bytes]], None]:
        """Keys that begin with `beginning` and are `wanted`, each with the first `size` bytes of what stands under it.

        A `{` in a key comes back as `%7B`, as which it stands in Redis; the other methods take either.
        """
        match = _SPECIAL.sub(rb"\\\g<0>", self._key(beginning)) + b"*"
        with self._translated():
            async with contextlib.aclosing(self._link.scan(match)) as batches:
                async for keys in batches:
                    names = [name for name in map(self._name, keys) if name is not None and wanted(name)]
                    for first in range(0, max(len(names), 1), HEADS_AT_ONCE):
                        some = names[first : first + HEADS_AT_ONCE]
                        yield list(zip(some, await self._heads(some, size), strict=True))

    async def ping(self) -> None:
        """Return if Redis answers."""
        with self._translated():
            await self._link.ping((self._prefix + "{}probe").encode())

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

    async def _heads(self, keys: Sequence[str], size: int) -> list[bytes]:
        if not keys:
            return []
        return await self._link.each([("GETRANGE", self._key(key), 0, size - 1) for key in keys])

    def _name(self, key: bytes) -> str | None:
        """What `_key` makes `key` of, but for the braces; None for what it makes of nothing: it is not ours."""
        try:
            name = key.decode("utf-8", "surrogatepass")[len(self._prefix) :]
        except UnicodeDecodeError:
            return None
        return None if "{" in name else name

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Everything that the client raises leaves as `TierError`; more than `RedisError` and `OSError` occurs."""
        try:
            yield
        except Exception as error:
            raise TierError(f"{self.name}: {describe(error)}") from error


def is_wrong_type(reply: object) -> bool:
    """Whether `reply` is the error of a key that holds something else than the command is for."""
    return isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE")


def _checked(found: Any, number: int) -> list[bytes | None]:
    """`found`, if it can be the answer: it may come from a connection on which questions and answers are out of step.

    Raises:
        TierError: it cannot.
    """
    if type(found) is list and len(found) == number:
        for data in found:
            if type(data) is not bytes and data is not None:
                break
        else:
            return found
    raise TierError("a reply of another kind than was asked for")


def _replies(replies: list[Any]) -> list[Any]:
    """`replies`, if none of them is an error."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


async def _close(client: Client) -> None:
    await client.aclose()
