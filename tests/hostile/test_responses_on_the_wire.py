"""Hostile responses through uvicorn and a socket: what a client receives, byte by byte."""

from __future__ import annotations

import socket

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from tests.frameworks.test_over_a_socket import served

LINES = {
    "line end": (b"x-a", b"b\r\nset-cookie: session=evil"),
    "response": (b"x-a", b"b\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"),
    "NUL": (b"x-a", b"b\0"),
    "name": (b"x-a: b\r\nx-b", b"c"),
}


def received(port: int) -> bytes:
    """All that comes in answer to one request, until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: example.org\r\nconnection: close\r\n\r\n")
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def without_date_and_ours(answer: bytes) -> list[bytes]:
    return [line for line in answer.split(b"\r\n") if not line.startswith((b"date:", b"cache-status:", b"age:"))]


def behind(app: ASGIApp, policy: Policy) -> ASGIApp:
    return TierCacheMiddleware(app, cache=TierCache(), routes={"/": policy})


@pytest.mark.parametrize("how", LINES)
@pytest.mark.parametrize("policy", [Policy(ttl=60), Policy.http(), Policy.rfc9111()], ids=lambda policy: policy.mode)
def test_a_split_response_is_the_apps_own_and_no_hit(policy: Policy, how: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            lines = [(b"content-length", b"4"), (b"cache-control", b"max-age=60"), LINES[how]]
            await send({"type": "http.response.start", "status": 200, "headers": lines})
            await send({"type": "http.response.body", "body": b"text"})

    with served(app) as port:
        alone = without_date_and_ours(received(port))
    with served(behind(app, policy)) as port:
        for _ in range(2):
            answer = received(port)
            assert without_date_and_ours(answer) == alone
            assert b"; hit" not in answer


@pytest.mark.parametrize("length", [b"3", b"5"])
def test_a_wrong_length_is_to_the_client_what_it_is_without_us(length: bytes) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
            await send({"type": "http.response.body", "body": b"text"})

    with served(app) as port:
        alone = without_date_and_ours(received(port))
    with served(behind(app, Policy(ttl=60))) as port:
        for _ in range(2):
            assert without_date_and_ours(received(port)) == alone
