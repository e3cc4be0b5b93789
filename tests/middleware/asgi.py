"""Raw ASGI: requests whose client and server side a test scripts, where order matters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Lines = Iterable[tuple[bytes, bytes]]

PATIENCE = 5.0
"""Seconds after which a test that waits for something fails."""
OURS = frozenset({b"age", b"cache-status"})
"""The field lines that the middleware adds."""


def http_scope(
    path: str = "/", *, method: str = "GET", query: bytes = b"", headers: Lines = (), **changes: Any
) -> Scope:
    """A request as uvicorn would present it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "server": ("127.0.0.1", 8000),
        "client": ("192.0.2.1", 50000),
        "root_path": "",
        "path": path,
        "raw_path": quote(path).encode(),
        "query_string": query,
        "headers": [(b"host", b"example.org"), *headers],
        "state": {},
        **changes,
    }


class Reply(NamedTuple):
    """All that an app sent in answer to one request."""

    messages: list[Message]

    @property
    def status(self) -> int:
        """Of the one start message."""
        (start,) = (message for message in self.messages if message["type"] == "http.response.start")
        status: int = start["status"]
        return status

    @property
    def body(self) -> bytes:
        """Of all body messages."""
        return b"".join(message.get("body", b"") for message in self.messages)

    @property
    def cache_status(self) -> str:
        """The last `Cache-Status`; empty where there is none."""
        (start,) = (message for message in self.messages if message["type"] == "http.response.start")
        return next((value.decode() for name, value in reversed(start["headers"]) if name == b"cache-status"), "")

    @property
    def hit(self) -> bool:
        """Whether the handler did not run for this request."""
        told = self.cache_status.split("; ")
        return "hit" in told or "collapsed" in told


class Exchange:
    """One request under way, with a client that does what the test says.

    Args:
        app: What is asked.
        scope: The request; default: `GET /`.
        body: The request's body, in one message.
        refuse: Which message of the response, counted from 0, the client's connection refuses with an `OSError`.
    """

    def __init__(
        self, app: ASGIApp, scope: Scope | None = None, *, body: bytes = b"", refuse: int | None = None
    ) -> None:
        self.messages: list[Message] = []
        self._app = app
        self._scope = scope or http_scope()
        self._body: bytes | None = body
        self._refuse = refuse
        self._gone = asyncio.Event()
        self._news = asyncio.Condition()
        self.task = asyncio.create_task(self._run())

    async def until(self, number: int) -> None:
        """Wait until `number` messages have arrived."""
        async with asyncio.timeout(PATIENCE), self._news:
            await self._news.wait_for(lambda: len(self.messages) >= number)

    async def reply(self) -> Reply:
        """Wait for the app to end; raises what it raised."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.shield(self.task)
        return Reply(self.messages)

    def disconnect(self) -> None:
        """From now on `receive` says that the client is gone."""
        self._gone.set()

    async def cancel(self) -> None:
        """Cancel the request's task, as servers do that do not wait for a client that is gone."""
        self.task.cancel()
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait([self.task])

    async def _run(self) -> None:
        await self._app(self._scope, self._receive, self._send)

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._refuse is not None and len(self.messages) >= self._refuse:
            raise OSError("the client is gone")
        async with self._news:
            self.messages.append(message)
            self._news.notify_all()


async def ask(app: ASGIApp, path: str = "/", *, body: bytes = b"", **scope: Any) -> Reply:
    """Send one request, and wait for all of the answer."""
    return await Exchange(app, http_scope(path, **scope), body=body).reply()


@asynccontextmanager
async def running(app: ASGIApp) -> AsyncIterator[list[Message]]:
    """The app between its `lifespan` startup and shutdown; yields the messages that it sends meanwhile."""
    sent: list[Message] = []
    said: asyncio.Queue[Message] = asyncio.Queue()
    told: asyncio.Queue[Message] = asyncio.Queue()

    async def send(message: Message) -> None:
        sent.append(message)
        told.put_nowait(message)

    task = asyncio.create_task(
        _call(app, {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, said.get, send)
    )
    said.put_nowait({"type": "lifespan.startup"})
    async with asyncio.timeout(PATIENCE):
        await told.get()
    yield sent
    said.put_nowait({"type": "lifespan.shutdown"})
    async with asyncio.timeout(PATIENCE):
        await task


async def _call(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop run until `holds()`."""
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0)


async def turns(number: int = 20) -> None:
    """Let everything that can go on without us do so."""
    for _ in range(number):
        await asyncio.sleep(0)


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine; fails where it hangs."""

    async def bounded() -> None:
        async with asyncio.timeout(2 * PATIENCE):
            await work

    asyncio.run(bounded())
