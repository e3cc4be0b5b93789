"""uvicorn, and clients that write to it what no library would."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import Any

from tests.frameworks.test_over_a_socket import served

__all__ = ["Answer", "raw", "served"]

SECONDS = 10.0


@dataclass(frozen=True)
class Answer:
    """All that came before the server hung up."""

    data: bytes

    @property
    def status(self) -> int:
        """Of the first response."""
        return int(self.data.split(b" ", 2)[1])

    @property
    def body(self) -> bytes:
        """Of the first response, and whatever follows it."""
        return self.data.partition(b"\r\n\r\n")[2]

    @property
    def json(self) -> Any:
        """What the body says."""
        return json.loads(self.body)

    @property
    def cache_status(self) -> str:
        """The field of the first response; empty where there is none."""
        for line in self.data.partition(b"\r\n\r\n")[0].split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"cache-status":
                return value.strip().decode()
        return ""

    @property
    def hit(self) -> bool:
        """Whether the handler did not run."""
        return "hit" in self.cache_status.split("; ")


def raw(port: int, request: bytes) -> Answer:
    """What the server at `port` says to exactly these bytes, which have it hang up."""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        connection.sendall(request)
        received = b""
        while chunk := connection.recv(65_536):
            received += chunk
    return Answer(received)
