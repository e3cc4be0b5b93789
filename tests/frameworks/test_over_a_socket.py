"""The most telling of it with uvicorn and a socket between: what is sent, byte by byte, and when."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from asgi_tiercache import Policy
from tests.frameworks.apps import HTTP_MODES, Clocked, app_with, name_of

PATIENCE = 10.0
TEXT = "0123456789" * 100

http_modes = pytest.mark.parametrize("policy", HTTP_MODES, ids=name_of)


@contextmanager
def served(app: ASGIApp) -> Iterator[int]:
    """The app under uvicorn in a thread of its own; yields the port."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="on"))
    started = threading.Event()

    async def serve() -> None:
        running = asyncio.create_task(server.serve())
        while not server.started and not running.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.001)
        started.set()
        await running

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    assert started.wait(PATIENCE)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(PATIENCE)


class Answer:
    """One response as it came over the wire."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.body = response.read()
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.cache_status = self.headers.get("cache-status", "")


class Client:
    """One connection that is kept: a response of a wrong length would spoil the next."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def get(self, path: str = "/", method: str = "GET", **headers: str) -> Answer:
        """Ask, and read all of the answer."""
        self.connection.request(method, path, headers={key.replace("_", "-"): value for key, value in headers.items()})
        return Answer(self.connection.getresponse())


@contextmanager
def client_of(app: ASGIApp) -> Iterator[Client]:
    with served(app) as port:
        client = Client(port)
        try:
            yield client
        finally:
            client.connection.close()


def _judging(app: FastAPI) -> list[str | None]:
    asked = list[str | None]()

    @app.api_route("/", methods=["GET", "HEAD"])
    async def handler(request: Request) -> Response:
        asked.append(request.headers.get("if-none-match"))
        headers = {"ETag": '"one"', "Cache-Control": "max-age=60"}
        if asked[-1] == '"one"':
            return Response(status_code=304, headers=headers)
        return Response(TEXT, media_type="text/plain", headers=headers)

    return asked


@http_modes
def test_each_answer_is_framed_as_it_should_be(policy: Policy) -> None:
    clocked = Clocked()
    app = app_with(clocked.cache, default=policy)
    asked = _judging(app)
    with client_of(app) as client:
        for _ in range(3):
            assert client.get(if_none_match='"one"').status == 304
            assert client.get().body.decode() == TEXT
            assert client.get(if_none_match='"one"').body == b""
            part = client.get(range="bytes=5-9")
            assert (part.status, part.body, part.headers["content-range"]) == (206, b"56789", "bytes 5-9/1000")
            several = client.get(range="bytes=0-1,5-6")
            assert (several.status, int(several.headers["content-length"])) == (206, len(several.body))
            assert client.get(range="bytes=1000-").status == 416
            head = client.get(method="HEAD")
            assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "1000")
            assert client.get().headers["age"] == "0"
            clocked.tick(61)
    assert asked == [None, '"one"', '"one"']


@http_modes
@pytest.mark.parametrize("place", ["above", "below"])
def test_compressed_and_plain_bytes_stay_apart(policy: Policy, place: str) -> None:
    clocked = Clocked()
    zipped = {place: [Middleware(GZipMiddleware)]}
    app = app_with(clocked.cache, default=policy, **zipped)  # type: ignore[arg-type]
    _judging(app)
    with client_of(app) as client:
        for _ in range(3):
            for _ in range(2):
                packed, plain = client.get(accept_encoding="gzip"), client.get(accept_encoding="identity")
                assert gzip.decompress(packed.body).decode() == plain.body.decode() == TEXT
                assert "content-encoding" not in plain.headers
            clocked.tick(61)


@http_modes
def test_files_with_ranges_and_validation(policy: Policy, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    app = app_with(Clocked().cache, default=policy)

    @app.api_route("/one", methods=["GET", "HEAD"])
    async def one() -> FileResponse:
        return FileResponse(tmp_path / "text.txt", headers={"Cache-Control": "max-age=60"})

    app.mount("/files", StaticFiles(directory=tmp_path))
    with client_of(app) as client:
        for path in ("/one", "/files/text.txt"):
            for _ in range(3):
                assert client.get(path, range="bytes=990-").body == b"0123456789"
                whole = client.get(path)
                assert whole.body.decode() == TEXT
                assert client.get(path, if_none_match=whole.headers["etag"]).status == 304
                assert client.get(path, if_modified_since=whole.headers["last-modified"]).status == 304
                assert client.get(path, method="HEAD").headers["content-length"] == "1000"
                resumed = client.get(path, range="bytes=0-9", if_range=whole.headers["etag"])
                assert (resumed.status, resumed.body) == (206, b"0123456789")
            assert client.get("/files/other").status == 404
        assert "hit" in client.get("/one").cache_status


@http_modes
@pytest.mark.parametrize("media_type", ["text/plain", "text/event-stream"])
@pytest.mark.parametrize("validating", [False, True])
def test_the_first_bytes_of_a_stream_come_before_the_last_are_made(
    policy: Policy, media_type: str, validating: bool
) -> None:
    """The handler goes on only once a client has had the first ones."""
    clocked, go_on, version = Clocked(), threading.Event(), ["1"]
    app = app_with(clocked.cache, default=policy)

    @app.get("/")
    async def stream() -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            yield "data: one\n\n"
            await asyncio.to_thread(go_on.wait, PATIENCE)
            yield "data: two\n\n"

        headers = {"Cache-Control": "max-age=60", "ETag": f'"{version[0]}"'}
        return StreamingResponse(lines(), media_type=media_type, headers=headers)

    with client_of(app) as client:
        if validating:
            go_on.set()
            client.get()
            clocked.tick(61)
            version[0] = "2"
            go_on.clear()
        client.connection.request("GET", "/")
        response = client.connection.getresponse()
        assert response.read1(1000) == b"data: one\n\n"
        assert not go_on.is_set()
        go_on.set()
        assert response.read() == b"data: two\n\n"
        again = client.get()
        assert again.body == b"data: one\n\ndata: two\n\n"
        assert ("hit" in again.cache_status) is (media_type == "text/plain")


@http_modes
def test_a_write_is_seen_by_the_next_request_of_the_same_connection(policy: Policy) -> None:
    app, text = app_with(default=policy), ["old"]

    @app.get("/")
    async def read() -> Response:
        return Response(text[0], headers={"Cache-Control": "max-age=60"})

    @app.put("/", status_code=204)
    async def write(value: str) -> None:
        text[0] = value

    with client_of(app) as client:
        for value in "abc":
            client.get()
            assert "hit" in client.get().cache_status
            assert client.get(f"/?value={value}", "PUT").status == 204
            assert client.get().body.decode() == value
