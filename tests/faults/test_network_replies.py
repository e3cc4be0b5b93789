"""Replies of every wrong kind: to whoever asks Redis they are a `TierError` or a miss, never anything else."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from asgi_tiercache.codec.entries import Rejected, decode
from asgi_tiercache.errors import TierError
from asgi_tiercache.invalidation.log import Purge
from asgi_tiercache.invalidation.redislog import RedisLog
from asgi_tiercache.tiers.redis import RedisLink, RedisTier
from asgi_tiercache.types import Write
from tests.faults.proxy import Fault, FaultProxy
from tests.servers import RedisServer

COMPLETE = {
    "an integer": b":5\r\n",
    "a large integer": b":9223372036854775807\r\n",
    "nil": b"$-1\r\n",
    "null list": b"*-1\r\n",
    "OK": b"+OK\r\n",
    "nothing": b"$0\r\n\r\n",
    "a string": b"$5\r\nwrong\r\n",
    "a string of four": b"$4\r\nfour\r\n",
    "an error": b"-ERR no\r\n",
    "an unknown error": b"-\r\n",
    "an empty list": b"*0\r\n",
    "a list of one": b"*1\r\n$3\r\nfoo\r\n",
    "a list of integers": b"*4\r\n:1\r\n:2\r\n:3\r\n:4\r\n",
    "a list of strings": b"*4\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n",
    "a list of nils": b"*4\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n",
    "a list with an error": b"*4\r\n-ERR no\r\n-ERR no\r\n-ERR no\r\n-ERR no\r\n",
    "a list of lists": b"*1\r\n*2\r\n$1\r\na\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*1\r\n$1\r\nx\r\n",
    "a map": b"%1\r\n+a\r\n:1\r\n",
    "a set": b"~1\r\n+a\r\n",
    "a float": b",1.5\r\n",
    "true": b"#t\r\n",
    "null": b"_\r\n",
    "what is asked about one tag": b"*7\r\n$4\r\nabcd\r\n$3\r\n1-0\r\n" + b"$3\r\n0-0\r\n" * 2 + b"$-1\r\n" * 3,
    "two replies": b"$1\r\na\r\n$1\r\nb\r\n",
    "no Redis": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "zeros": bytes(100),
}
INCOMPLETE = {
    "half a string": b"$5\r\nwr",
    "a string of 1 TB": b"$999999999999\r\n",
    "half a list": b"*2\r\n$1\r\na\r\n",
    "a list of 4 billion": b"*4294967295\r\n",
    "nested lists": b"*1\r\n" * 100_000,
    "a push alone": b">1\r\n+x\r\n",
}
PATIENCE = 0.05
"""Seconds for which half a reply is waited for."""
SLOW = "append and wait"
"""For a replica, of which there is none: asked only where no such reply is awaited."""


class Asking:
    """Everything that is asked of Redis."""

    def __init__(self, url: str) -> None:
        link = RedisLink(url)
        self.tier = RedisTier(link)
        log = RedisLog(link, namespace="replies")
        self.questions: dict[str, Callable[[], Awaitable[Any]]] = {
            "get": lambda: self.tier.get_many(["a"]),
            "get many": lambda: self.tier.get_many(["a", "b"]),
            "set": lambda: self.tier.set_many([Write("a", b"1", 60.0)]),
            "delete": lambda: self.tier.delete_many(["a"]),
            "ping": self.tier.ping,
            "confirm": log.confirm,
            "ask": lambda: log.ask(["a", "b"]),
            "append": lambda: log.append(Purge(("a",))),
            SLOW: lambda: log.append(Purge(("a",)), replicate=True),
            "read": lambda: log.read(0),
            "follow": lambda: log.follow(0),
            "scan": self._scan,
        }

    async def ask_all(self, *, well: bool, ended: bool = False) -> None:
        """Ask everything at once, each on a connection that is open already, where it was asked before."""
        await asyncio.gather(
            *(self._ask(name, well=well, ended=ended) for name in self.questions if not (well and name == SLOW))
        )

    async def _ask(self, name: str, *, well: bool, ended: bool) -> None:
        try:
            async with asyncio.timeout(5 if well else PATIENCE):
                answer = await self.questions[name]()
        except (TierError, TimeoutError):
            assert not well, name
        else:
            assert well or ended or name not in ("ping", "ask"), f"that was no answer: {answer}"
            if name.startswith("get"):
                assert all(data is None or isinstance(decode(data), Rejected) for data in answer)

    async def _scan(self) -> None:
        async for _ in self.tier.scan("", lambda _: True, 10):
            pass


def _check(server: RedisServer, reply: bytes) -> None:
    async def body(proxy: FaultProxy) -> None:
        asking = Asking(proxy.url)
        await asking.ask_all(well=True)
        proxy.begin(Fault(garbage=reply))
        await asking.ask_all(well=False)
        proxy.end()
        for _ in range(2):  # a connection that holds a reply too many is found out when it is used, and closed
            await asking.ask_all(well=False, ended=True)
        assert await asking.tier.get_many(["b", "b"]) == [None, None]
        await asking.ask_all(well=True)
        await asking.tier.aclose()

    with FaultProxy(server.port) as proxy:
        asyncio.run(body(proxy))
    gc.collect()


@pytest.mark.parametrize("reply", COMPLETE.values(), ids=COMPLETE)
def test_a_reply_of_another_kind_is_a_failure_of_the_tier(redis_server: RedisServer, reply: bytes) -> None:
    _check(redis_server, reply)


@pytest.mark.parametrize("reply", INCOMPLETE.values(), ids=INCOMPLETE)
def test_a_reply_without_end_is_one_that_is_waited_for_until_the_deadline(
    redis_server: RedisServer, reply: bytes
) -> None:
    _check(redis_server, reply)
