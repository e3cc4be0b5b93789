"""A small HTTP/1.1 client that can do what clients do: pipeline, leave in the middle, take a body piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


class CutError(Exception):
    """The connection ended before the response did.

    Args:
        reused: Whether it had served others before, and not a byte of this one came.
        response: What came of it.
    """

    def __init__(self, response: Response | None, *, reused: bool = False) -> None:
        super().__init__("the connection ended")
        self.response = response
        self.reused = reused


@dataclass(slots=True)
class Response:
    """What came; names of fields in lower case, the last line of each."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Connection:
    """One connection to a worker, made when first it is needed.

    Args:
        port: The worker's, on the loopback.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._served = 0

    async def send(self, requests: Sequence[bytes]) -> None:
        """Send requests, one behind the other.

        Raises:
            OSError: nobody listens, or the connection is gone.
        """
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
            self._served = 0
        self._writer.write(b"".join(requests))
        await self._writer.drain()

    async def receive(self, *, bodiless: bool = False, body: bool = True) -> Response:
        """The next response.

        Args:
            bodiless: It answers HEAD.
            body: Read the body, too; without it, the connection is of no more use.

        Raises:
            CutError: the connection ended before it was complete.
        """
        assert self._reader is not None
        response = None
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
            response = _parsed(head)
            if body and not bodiless and response.status not in (204, 304):
                await self._read_body(self._reader, response)
        except (asyncio.IncompleteReadError, OSError) as error:
            began = response is not None or bool(getattr(error, "partial", b""))
            raise CutError(response, reused=self._served > 0 and not began) from None
        self._served += 1
        if response.headers.get("connection") == "close":
            self.close()
        return response

    def close(self) -> None:
        """Leave, whatever is still to come."""
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = self._reader = None

    @staticmethod
    async def _read_body(reader: asyncio.StreamReader, response: Response) -> None:
        if (length := response.headers.get("content-length")) is not None:
            try:
                response.body = await reader.readexactly(int(length))
            except asyncio.IncompleteReadError as error:
                response.body = error.partial
                raise
        elif response.headers.get("transfer-encoding") == "chunked":
            while size := int(await reader.readuntil(b"\r\n"), 16):
                response.body += (await reader.readexactly(size + 2))[:-2]
            await reader.readexactly(2)
        else:
            response.body = await reader.read()


def request(
    method: str, target: str, headers: Mapping[str, str] | Sequence[tuple[str, str]] = (), body: bytes = b""
) -> bytes:
    """A request as it is sent."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    lines = [f"{method} {target} HTTP/1.1", "host: chaos", *(f"{name}: {value}" for name, value in pairs)]
    if body:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _parsed(head: bytes) -> Response:
    first, *lines = head.decode("latin-1").rstrip().split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Response(int(first.split(" ")[1]), headers)
