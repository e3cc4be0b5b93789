"""Apps, servers and clients that do anything that ASGI lets them do, and much that it does not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.middleware.asgi import OURS, http_scope

RUN = b"x-run"
"""The response header that tells in which run of the app a response was made."""


class RefusedError(Exception):
    """What a server raises at a message that it cannot send."""


class OwnError(Exception):
    """What apps raise here."""


RAISED: dict[str, type[BaseException]] = {
    "own": OwnError,
    "os": OSError,
    "lookup": LookupError,
    "runtime": RuntimeError,
    "timeout": TimeoutError,
    "cancelled": asyncio.CancelledError,
    "group": ExceptionGroup,
}


def error_of(kind: str) -> BaseException:
    """A new exception of the kind called so in `RAISED`."""
    if kind == "group":
        return ExceptionGroup("several", [OwnError()])
    return RAISED[kind]("as it is")


class Step(NamedTuple):
    """What an app does next."""

    name: str
    """`send`, `receive`, `wait`, `raise` or `return`."""
    value: Any = None
    """The message, the kind of the exception, or the number of turns of the loop."""


@dataclass
class ScriptedApp:
    """Does what its steps say, the same at each run but for the number in its header.

    Attributes:
        steps: What it does.
        swallows: Whether it goes on when the server refuses a message.
        waits: Whether it waits for what it receives, for as long as it takes.
        runs: How often it was called.
        running: How many of these have not ended.
    """

    steps: Sequence[Step]
    swallows: bool = False
    runs: int = 0
    running: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One run."""
        self.runs += 1
        self.running += 1
        number = self.runs
        try:
            for step in self.steps:
                if step.name == "return":
                    return
                if step.name == "send":
                    await self._send(numbered(step.value, number), send)
                elif step.name == "receive":
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(receive(), 0)
                elif step.name == "wait":
                    for _ in range(step.value):
                        await asyncio.sleep(0)
                else:
                    raise error_of(step.value)
        finally:
            self.running -= 1

    async def _send(self, message: Message, send: Send) -> None:
        try:
            await send(message)
        except Exception:
            if not self.swallows:
                raise


def numbered(message: Message, number: int) -> Message:
    """A copy of `message`; one that begins a response says in which run."""
    if message.get("type") == "http.response.start" and isinstance(message.get("headers"), list):
        return {**message, "headers": [*message["headers"], (RUN, b"%d" % number)]}
    return dict(message)


def malformed(message: Message) -> bool:
    """Whether no server can send it: a field is missing, or of a type that the specification does not have."""
    kind = message.get("type")
    if kind == "http.response.start":
        lines = message.get("headers", [])
        return type(message.get("status")) is not int or not isinstance(lines, list) or not all(map(_is_line, lines))
    if kind == "http.response.body":
        return not isinstance(message.get("body", b""), bytes | bytearray | memoryview)
    if kind == "http.response.pathsend":
        return not isinstance(message.get("path"), str)
    return not isinstance(kind, str)


def _is_line(line: Any) -> bool:
    return isinstance(line, tuple | list) and len(line) == 2 and all(isinstance(each, bytes) for each in line)


@dataclass
class Client:
    """One request and the server between, which refuses what cannot be sent.

    Attributes:
        receives: The messages that `receive` gives, before it says nothing more until `disconnect`.
        refuse: From which message of the response on the connection is gone.
        leaves: In which turn of the loop the client leaves; None: it stays.
        how: `cancel` or `disconnect`.
    """

    receives: Sequence[Message] = ({"type": "http.request", "body": b"", "more_body": False},)
    refuse: int | None = None
    leaves: int | None = None
    how: str = "disconnect"
    seen: list[Message] = field(default_factory=list)
    error: BaseException | None = None
    left: bool = False
    refused: bool = False
    """Whether the server has refused a message."""

    async def ask(self, app: ASGIApp, scope: Scope | None = None) -> None:
        """Ask `app`, to its end."""
        gone = asyncio.Event()
        pending = list(self.receives)

        async def receive() -> Message:
            if pending:
                return dict(pending.pop(0))
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if self.refuse is not None and len(self.seen) >= self.refuse:
                self.left = True
                raise OSError("the client is gone")
            if malformed(message):
                self.refused = True
                raise RefusedError(repr(message))
            self.seen.append(message)

        async def call() -> None:
            await app(scope or http_scope(), receive, send)

        task = asyncio.create_task(call())
        if self.leaves is not None:
            await self._leave(task, gone, self.leaves)
        await asyncio.wait([task])
        self.error = asyncio.CancelledError() if task.cancelled() else task.exception()

    async def _leave(self, task: asyncio.Task[None], gone: asyncio.Event, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        if not task.done():
            self.left = True
            if self.how == "cancel":
                task.cancel()
            gone.set()

    @property
    def run(self) -> int:
        """The run of the app in which the response was made; 0 where none began."""
        for message in self.seen:
            if message["type"] == "http.response.start":
                return int(dict(message.get("headers", ())).get(RUN, b"0"))
        return 0

    @property
    def plain(self) -> list[Message]:
        """What was seen, without what the cache adds."""
        return [_without_ours(message) for message in self.seen]

    @property
    def content(self) -> bytes:
        """Of all body messages, up to the end of the response."""
        content = b""
        for message in self.seen:
            if message["type"] == "http.response.body":
                content += bytes(message.get("body", b""))
                if not message.get("more_body", False):
                    break
            if message["type"] == "http.response.pathsend" and (file := _file(message)) is not None:
                content += file
                break
        return content

    @property
    def starts(self) -> list[tuple[Any, frozenset[tuple[bytes, bytes]]]]:
        """Status and header lines of each start, without those that belong to one connection."""
        connection = {b"connection", b"x-hop", b"transfer-encoding", b"age", b"cache-status"}
        return [
            (message["status"], frozenset(line for line in _lower(message) if line[0] not in connection))
            for message in self.seen
            if message["type"] == "http.response.start"
        ]


def _lower(message: Message) -> list[tuple[bytes, bytes]]:
    return [(name.lower(), value) for name, value in message.get("headers", ())]


def _without_ours(message: Message) -> Message:
    if message["type"] != "http.response.start":
        return {name: bytes(value) if name == "body" else value for name, value in message.items()}
    lines = [(name, value) for name, value in _lower(message) if name not in OURS or value in (b"inner; hit", b"7")]
    return {**message, "headers": lines}


def _file(message: Message) -> bytes | None:
    """What the file holds that is sent by path; None where there is none to be read."""
    try:
        return Path(message["path"]).read_bytes()
    except OSError:
        return None


def _as_body(message: Message) -> Message:
    """`message`, but a body in place of a file that can be read."""
    if message.get("type") != "http.response.pathsend" or malformed(message) or (file := _file(message)) is None:
        return message
    return {"type": "http.response.body", "body": file}


def complete(steps: Sequence[Step]) -> bool:
    """Whether the app sends one whole response and nothing that may not be stored, whatever it does after that.

    A file that can be read may be stored in place of a body, if the policy says so.
    """
    size, declared, begun = 0, set[bytes](), False
    for step in steps:
        if step.name in ("raise", "return"):
            return False
        if step.name != "send":
            continue
        message = step.value if size else _as_body(step.value)
        kind = message.get("type")
        if malformed(message) or kind not in ("http.response.start", "http.response.body"):
            return False
        if kind == "http.response.start":
            if begun or message.get("trailers"):
                return False
            begun = True
            declared = {value for name, value in message.get("headers", ()) if name.lower() == b"content-length"}
            continue
        if not begun:
            return False
        size += len(message.get("body", b""))
        if not message.get("more_body", False):
            return not declared or declared == {b"%d" % size}
    return False
