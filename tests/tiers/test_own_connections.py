"""Connections for commands that wait, at a scripted edge."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asgi_tiercache.tiers.clients import OwnConnections


class Connection:
    """Remembers whether it is open; what happens on the way is for the test to say."""

    def __init__(self) -> None:
        self.open = False
        self.unread = False
        self.on_connect: Any = None
        self.sent: list[tuple[Any, ...]] = []

    async def connect(self) -> None:
        if self.on_connect is not None:
            await self.on_connect()
        self.open = True

    async def can_read(self) -> bool:
        return self.unread

    async def send_command(self, *command: Any) -> None:
        self.sent.append(command)

    async def disconnect(self, nowait: bool = False) -> None:
        self.open = self.unread = False
        self.sent.append(("disconnected",))


class Bench:
    def __init__(self) -> None:
        self.made: list[Connection] = []
        self.error: BaseException | None = None
        self.go = asyncio.Event()
        self.go.set()
        self.own = OwnConnections(self._make, self._parse)

    def _make(self) -> Connection:
        self.made.append(Connection())
        return self.made[-1]

    async def _parse(self, connection: Connection, name: str) -> str:
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return f"reply to {name}"


def test_a_connection_serves_one_command_after_another() -> None:
    async def body() -> None:
        bench = Bench()
        assert [await bench.own.ask("A", 1), await bench.own.ask("B")] == ["reply to A", "reply to B"]
        assert [connection.sent for connection in bench.made] == [[("A", 1), ("B",)]]
        await bench.own.aclose()
        assert not bench.made[0].open

    asyncio.run(body())


def test_commands_at_the_same_time_have_a_connection_each() -> None:
    async def body() -> None:
        bench = Bench()
        bench.go.clear()
        waiting = [asyncio.create_task(bench.own.ask("A")) for _ in range(3)]
        await asyncio.sleep(0)
        bench.go.set()
        await asyncio.gather(*waiting)
        assert len(bench.made) == 3
        assert repr(bench.own) == "<OwnConnections idle=3 busy=0>"

    asyncio.run(body())


def test_a_command_that_fails_or_is_cancelled_closes_its_connection() -> None:
    async def body() -> None:
        bench = Bench()
        bench.error = ValueError("no reply")
        with pytest.raises(ValueError, match="no reply"):
            await bench.own.ask("A")
        bench.go.clear()
        waiting = asyncio.create_task(bench.own.ask("B"))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert [connection.open for connection in bench.made] == [False, False]
        assert repr(bench.own) == "<OwnConnections idle=0 busy=0>"

    asyncio.run(body())


def test_a_connection_told_to_end_while_it_connects_does_not_stay_open() -> None:
    """As when Sentinel, asked in the course of connecting, names another master."""

    async def body() -> None:
        connection = Connection()
        own = OwnConnections(lambda: connection, Bench()._parse)
        connection.on_connect = own.aclose
        assert await own.ask("A") == "reply to A"
        assert not connection.open

    asyncio.run(body())


def test_what_is_left_of_one_reply_never_begins_the_next() -> None:
    async def body() -> None:
        bench = Bench()
        await bench.own.ask("A")
        bench.made[0].unread = True
        await bench.own.ask("B")
        assert [connection.sent for connection in bench.made] == [[("A",), ("disconnected",), ("B",)]]
        await bench.own.aclose()

    asyncio.run(body())
