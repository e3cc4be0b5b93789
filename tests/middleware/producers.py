"""Apps that do what a test says, message by message, and clients that take what they are sent when they are told to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from tests.middleware.asgi import http_scope, until

Header = tuple[bytes, bytes]


class Production:
    """One call of a `Producer`."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.ended: BaseException | None = None
        """What has ended it, if it was not told to end."""
        self.over = False
        self._send = send
        self._orders: asyncio.Queue[tuple[Message | BaseException | None, asyncio.Future[None]]] = asyncio.Queue()

    def order(self, message: Message | BaseException | None) -> asyncio.Future[None]:
        """Have it send a message, raise an exception, or return; done once it has."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._orders.put_nowait((message, done))
        return done

    async def start(self, *headers: Header, status: int = 200, content: bytes | None = b"one ") -> None:
        """Send the start of the response, and the first part of its content."""
        await self.order({"type": "http.response.start", "status": status, "headers": list(headers)})
        if content is not None:
            await self.part(content)

    async def part(self, content: bytes) -> None:
        """Send more content, but not the last of it."""
        await self.order({"type": "http.response.body", "body": content, "more_body": True})

    async def last(self, content: bytes = b"") -> None:
        """Send the last of the content, and return."""
        await self.order({"type": "http.response.body", "body": content, "more_body": False})
        self.order(None)

    async def run(self, *, stubborn: bool) -> None:
        try:
            while True:
                try:
                    order, done = await self._orders.get()
                except asyncio.CancelledError as error:
                    self.ended = error
                    if not stubborn:
                        raise
                    continue
                if isinstance(order, BaseException):
                    raise order
                if order is None:
                    return
                await self._send(order)
                done.set_result(None)
        except BaseException as error:
            self.ended = error
            raise
        finally:
            self.over = True


class Producer:
    """An app that sends what its test orders.

    Args:
        stubborn: It ignores being cancelled.
    """

    def __init__(self, *, stubborn: bool = False) -> None:
        self.productions: list[Production] = []
        self._stubborn = stubborn

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        production = Production(scope, receive, send)
        self.productions.append(production)
        await production.run(stubborn=self._stubborn)

    @property
    def calls(self) -> int:
        return len(self.productions)

    async def called(self, times: int = 1) -> Production:
        """The call with that number, once it is there."""
        await until(lambda: self.calls >= times)
        return self.productions[times - 1]


class Slow:
    """A client that takes one message each time that it is told to."""

    def __init__(self, app: ASGIApp, scope: Scope | None = None) -> None:
        self.messages: list[Message] = []
        self._allowed = asyncio.Semaphore(0)
        self._asked = False
        self.task = asyncio.ensure_future(self._ask(app, scope or http_scope()))

    def take(self, number: int = 1) -> None:
        for _ in range(number):
            self._allowed.release()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    async def _ask(self, app: ASGIApp, scope: Scope) -> None:
        await app(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        if self._asked:
            await asyncio.Event().wait()
        self._asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _send(self, message: Message) -> None:
        await self._allowed.acquire()
        self.messages.append(message)


def ours(app: ASGIApp, policy: Policy, cache: TierCache, *, paths: Iterable[str] = ("/",)) -> TierCacheMiddleware:
    """`app` behind the middleware, without a framework."""
    return TierCacheMiddleware(app, cache=cache, routes=dict.fromkeys(paths, policy))


def is_idle(cache: TierCache) -> bool:
    """Whether nothing is being filled."""
    return not cache.engine.fills.tasks()
