"""The cache between two real sockets: uvicorn around it, a raw client before it, a scripted origin behind it.

A reverse proxy of a few lines is the app. It reads what the origin sends as tolerantly as it can, so that a field value
arrives at the cache as the origin has written it, however malformed. All of it shares the test's event loop and a clock
that stands still; nothing sleeps.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import Any, Concatenate, ParamSpec

import uvicorn
from starlette.types import Receive, Scope, Send

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.testing import TickingClock
from tests.middleware.asgi import PATIENCE, run, until

P = ParamSpec("P")

RFC9111 = Policy.rfc9111()
HOST = "Host: example.org"
_BODILESS = frozenset({204, 304})

Line = str | bytes
"""A field line as it goes over the wire, without its end."""


class Answer:
    """What the origin sends, byte by byte.

    Args:
        lines: Field lines; `Content-Length` is added where there is content, unless the lines speak of its length.
        status: The status code.
        body: The content; None: a text that differs from one answer to the next.
        gate: The origin waits for it before it answers.
        cut: Bytes of the content that are not sent: the connection closes before.
    """

    def __init__(
        self,
        *lines: Line,
        status: int = 200,
        body: bytes | str | None = None,
        gate: asyncio.Event | None = None,
        cut: int = 0,
    ) -> None:
        self.lines = lines
        self.status = status
        self.body = body.encode() if isinstance(body, str) else body
        self.gate = gate
        self.cut = cut

    def sent(self, number: int, method: str) -> bytes:
        """All bytes of the answer to the request with that number."""
        body = self.body if self.body is not None else b"answer %d" % number
        lines = [_bytes(line) for line in self.lines]
        bodiless = self.status in _BODILESS or method == "HEAD"
        names = {line.partition(b":")[0].lower() for line in lines}
        if not bodiless and not names & {b"content-length", b"transfer-encoding"}:
            lines.append(b"Content-Length: %d" % len(body))
        head = b"\r\n".join((b"HTTP/1.1 %d Whatever" % self.status, *lines, b"", b""))
        return head if bodiless else head + body[: len(body) - self.cut]


@dataclass(eq=False)
class Raw:
    """Exactly these bytes, in place of an `Answer`; none at all: the origin hangs up."""

    data: bytes
    gate: asyncio.Event | None = None

    def sent(self, number: int, method: str) -> bytes:
        """All bytes of the answer."""
        return self.data


DOWN = Raw(b"")
"""The origin hangs up without an answer."""


@dataclass(frozen=True)
class Message:
    """The field lines and the content of a message; `message["age"]` is a field by its lower-case name."""

    lines: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        """The values of all field lines called `name`."""
        return [value for key, value in self.lines if key == name]

    def __getitem__(self, name: str) -> str:
        """The value of a field, its lines joined; empty where there is none."""
        return ", ".join(self.values(name))

    def __contains__(self, name: object) -> bool:
        return any(key == name for key, _ in self.lines)


@dataclass(frozen=True)
class Seen(Message):
    """A request that reached the origin."""

    method: str
    target: str


class Origin:
    """A server that answers as scripted, one request for each connection; the last answer of a script repeats."""

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        """What reached it."""
        self._script: list[Answer | Raw] = []
        self._server: asyncio.Server | None = None

    @property
    def asked(self) -> int:
        """How many requests reached it."""
        return len(self.requests)

    @property
    def last(self) -> Seen:
        """The last request that reached it."""
        return self.requests[-1]

    def script(self, *answers: Answer | Raw) -> None:
        """Answer the next requests so; what was left of the script before is forgotten."""
        self._script = list(answers)

    async def was_asked(self, times: int) -> None:
        """Wait until that many requests have reached it in all."""
        await until(lambda: self.asked >= times)

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def stop(self) -> None:
        """Listen no more."""
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to it."""
        assert self._server is not None
        return await asyncio.open_connection(*self._server.sockets[0].getsockname())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, lines = _head(await reader.readuntil(b"\r\n\r\n"))
        method, target, _ = head.split(" ", 2)
        seen = Seen(lines, b"", method, target)
        if length := seen["content-length"]:
            seen = replace(seen, body=await reader.readexactly(int(length)))
        self.requests.append(seen)
        number = self.asked
        answer = self._script[0] if len(self._script) == 1 else self._script.pop(0)
        if answer.gate is not None:
            await answer.gate.wait()
        writer.write(answer.sent(number, method))
        writer.close()
        await writer.wait_closed()


class Proxy:
    """The app below the cache: passes requests and responses on as they are, but for their framing."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        answer = await self._ask(scope, await _whole(receive))
        status, lines, rest = _final(answer)
        body = _content(lines, rest)
        missing = _missing(lines, body) if scope["method"] != "HEAD" and status not in _BODILESS else 0
        headers = [line for line in lines if line[0] != b"transfer-encoding"]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if missing:
            await send({"type": "http.response.body", "body": body, "more_body": True})
            raise ConnectionResetError("the origin hung up in the middle of its answer")
        await send({"type": "http.response.body", "body": body})

    async def _ask(self, scope: Scope, body: bytes) -> bytes:
        query = scope["query_string"]
        target = scope["raw_path"] + (b"?" + query if query else b"")
        head = [b"%b %b HTTP/1.1" % (scope["method"].encode(), target)]
        head += [b"%b: %b" % line for line in scope["headers"]]
        reader, writer = await self._origin.connect()
        try:
            writer.write(b"\r\n".join((*head, b"", body)))
            answer = await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()
        if not answer:
            raise ConnectionError("the origin does not answer")
        return answer


@dataclass(frozen=True)
class Reply(Message):
    """What the client received."""

    status: int
    complete: bool = True
    """Whether the content came to its end."""

    @property
    def text(self) -> str:
        """The content."""
        return self.body.decode("latin-1")

    @property
    def age(self) -> int | None:
        """The value of `Age`; None where there is none."""
        return int(self["age"]) if "age" in self else None

    @property
    def told(self) -> dict[str, str]:
        """The parameters of our member of `Cache-Status`; a flag has the value `"?1"`."""
        member = self["cache-status"].rpartition(",")[2]
        cache, *parameters = (part.strip() for part in member.split(";"))
        assert cache in ("tiercache", ""), member
        pairs = (parameter.partition("=") for parameter in parameters)
        return {name: value if equals else "?1" for name, equals, value in pairs}

    @property
    def hit(self) -> bool:
        """Whether the cache says that it answered by itself."""
        return "hit" in self.told

    @property
    def stored(self) -> bool:
        """Whether the cache says that it stored the response."""
        return "stored" in self.told


@dataclass(eq=False)
class World:
    """Client, cache and origin."""

    cache: TierCache
    clock: TickingClock
    origin: Origin
    state: uvicorn.server.ServerState
    address: tuple[str, int]
    under_way: int = 0
    """Exchanges that have not come to their end."""

    def date(self, seconds: float = 0.0) -> str:
        """The HTTP-date that many seconds from now."""
        return formatdate(self.clock.time() + seconds, usegmt=True)

    async def get(self, *lines: Line, path: str = "/") -> Reply:
        """Send a GET with these field lines, and wait for all of the answer."""
        return await self.request("GET", *lines, path=path)

    async def head(self, *lines: Line, path: str = "/") -> Reply:
        """Likewise a HEAD."""
        return await self.request("HEAD", *lines, path=path)

    async def request(self, method: str, *lines: Line, path: str = "/", body: bytes = b"", host: str = HOST) -> Reply:
        """Likewise any method; content is announced if there is some."""
        length = (f"Content-Length: {len(body)}",) if body else ()
        head = (f"{method} {path} HTTP/1.1", host, *lines, *length, "", "")
        return await self.exchange(b"\r\n".join(map(_bytes, head)) + body, method=method)

    async def exchange(self, data: bytes, *, method: str = "GET") -> Reply:
        """Send exactly `data`; returns once the answer has come and the server has nothing left to do for it."""
        self.under_way += 1
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            async with asyncio.timeout(PATIENCE):
                writer.write(data)
                reply = await _reply(reader, method)
        finally:
            self.under_way -= 1
            writer.close()
            await writer.wait_closed()
        if not self.under_way:
            await until(lambda: not self.state.tasks)
        return reply

    async def reuses(self, *lines: Line, status: int = 200, after: float = 1.0, method: str = "GET") -> bool:
        """Whether a response with these field lines answers a GET for its URI, a new one, `after` seconds later."""
        path = f"/reused/{self.origin.asked}"
        self.origin.script(Answer(*lines, status=status))
        await self.request(method, path=path)
        self.clock.tick(after)
        before = self.origin.asked
        reply = await self.get(path=path)
        assert reply.hit is (self.origin.asked == before), "Cache-Status says what did not happen"
        return reply.hit


@asynccontextmanager
async def world(policy: Policy = RFC9111) -> AsyncIterator[World]:
    """A cache with that policy for every path, empty, between its two sockets."""
    clock, origin = TickingClock(), Origin()
    cache = TierCache(clock=clock)
    await origin.start()
    server = uvicorn.Server(_config(TierCacheMiddleware(Proxy(origin), cache=cache, default=policy)))
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    # Not `serve`: that looks after signals, and takes a tenth of a second to end.
    await server.startup()
    (listener,) = server.servers
    try:
        yield World(cache, clock, origin, server.server_state, listener.sockets[0].getsockname())
        await until(lambda: not server.server_state.connections and not server.server_state.tasks)
    finally:
        listener.close()
        await cache.aclose()
        await origin.stop()


def _config(app: TierCacheMiddleware) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
    )


def over_sockets(test: Callable[Concatenate[World, P], Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test in a `world` of its own, which is its first argument."""
    return in_world(RFC9111)(test)


def in_world(
    policy: Policy,
) -> Callable[[Callable[Concatenate[World, P], Coroutine[Any, Any, None]]], Callable[P, None]]:
    """Likewise with a policy."""

    def decorate(test: Callable[Concatenate[World, P], Coroutine[Any, Any, None]]) -> Callable[P, None]:
        @functools.wraps(test)
        def in_a_world(*args: P.args, **kwargs: P.kwargs) -> None:
            async def test_it() -> None:
                async with world(policy) as w:
                    await test(w, *args, **kwargs)

            run(test_it())

        signature = inspect.signature(test)
        _, *others = signature.parameters.values()
        # What pytest goes by: the world is no fixture.
        in_a_world.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined]
        return in_a_world

    return decorate


# ---- bytes ----


def _bytes(line: Line) -> bytes:
    return line.encode("latin-1") if isinstance(line, str) else line


def _head(data: bytes) -> tuple[str, list[tuple[str, str]]]:
    """The first line of a message, and its field lines with names in lower case."""
    first, *lines = data.decode("latin-1").strip("\r\n").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return first, [(name.lower(), value.strip(" \t")) for name, _, value in pairs]


async def _whole(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _final(answer: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, field lines and the rest of the first response in `answer` that is not an interim one."""
    while True:
        head, _, answer = answer.partition(b"\r\n\r\n")
        first, lines = _head(head)
        status = int(first.split(" ")[1])
        if status >= 200:
            return status, [(name.encode("latin-1"), value.encode("latin-1")) for name, value in lines], answer


def _content(lines: list[tuple[bytes, bytes]], rest: bytes) -> bytes:
    if (b"transfer-encoding", b"chunked") in lines:
        return _dechunked(rest)
    lengths = [int(value) for name, value in lines if name == b"content-length" and value.isdigit()]
    return rest[: lengths[0]] if lengths else rest


def _dechunked(rest: bytes) -> bytes:
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            break
        body, rest = body + rest[:length], rest[length + 2 :]
    return body


def _missing(lines: list[tuple[bytes, bytes]], body: bytes) -> int:
    lengths = [int(value) for name, value in lines if name == b"content-length" and value.isdigit()]
    return max(0, lengths[0] - len(body)) if lengths else 0


async def _reply(reader: asyncio.StreamReader, method: str) -> Reply:
    first, lines = _head(await reader.readuntil(b"\r\n\r\n"))
    status = int(first.split(" ")[1])
    reply = Reply(lines, b"", status)
    if method == "HEAD" or status in _BODILESS:
        return reply
    try:
        if reply["transfer-encoding"] == "chunked":
            return replace(reply, body=await _chunks(reader))
        return replace(reply, body=await reader.readexactly(int(reply["content-length"])))
    except asyncio.IncompleteReadError as error:
        return replace(reply, body=error.partial, complete=False)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while length := int((await reader.readuntil(b"\r\n")).strip(), 16):
        body += (await reader.readexactly(length + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return body
