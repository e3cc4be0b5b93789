"""Scopes as servers send them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from starlette.types import Scope

BROWSER: tuple[tuple[bytes, bytes], ...] = (
    (b"connection", b"keep-alive"),
    (b"user-agent", b"Mozilla/5.0"),
    (b"accept", b"text/html"),
    (b"accept-encoding", b"gzip, br"),
    (b"accept-language", b"en-GB,en;q=0.9"),
    (b"referer", b"https://example.org/"),
)


def http_scope(
    path: str = "/videos/42",
    query: bytes = b"",
    headers: Iterable[tuple[bytes, bytes]] = (),
    *,
    host: bytes | None = b"example.org",
    **changes: Any,
) -> Scope:
    """A GET request; `changes` replace or add keys of the scope, and remove those that they set to `...`."""
    lines = [] if host is None else [(b"host", host)]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "server": ("127.0.0.1", 8000),
        "client": ("192.0.2.1", 50000),
        "root_path": "",
        "path": path,
        "raw_path": quote(path).encode(),
        "query_string": query,
        "headers": [*lines, *BROWSER, *headers],
        **changes,
    }
    return {name: value for name, value in scope.items() if value is not ...}
