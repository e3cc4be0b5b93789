"""`FileResponse`, which handles ranges itself, and `StaticFiles`, which handles conditions as well, below the cache."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_tiercache import STATIC, Policy
from asgi_tiercache.testing import assert_hit, assert_miss
from tests.frameworks.apps import Clocked, app_with, at
from tests.middleware.asgi import ask, run

NOW = 1_700_000_000
MODIFIED = NOW - 10_000
TEXT = "".join(f"line {number:04}\n" for number in range(100))
SIZE = len(TEXT)


class Hundred:
    """Puts `Cache-Control` on what has none, as a small middleware of a user's does."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_lifetime(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"cache-control", b"max-age=100"))
            await send(message)

        await self.app(scope, receive, with_lifetime)


class Counting(StaticFiles):
    """Counts what reaches it."""

    seen: list[Scope]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(scope)
        await super().__call__(scope, receive, send)


WAYS: dict[str, dict[str, Any]] = {
    "http": {"below": [Middleware(Hundred)]},
    "rfc9111": {"default": Policy.rfc9111()},  # a tenth of the time since it was modified: 1,000 s
    "explicit": {"routes": {"/files/*": Policy(ttl=100), "/one": Policy(ttl=100)}},
    "explicit-kept": {"routes": {"/files/*": Policy(ttl=100, retention=3600), "/one": Policy(ttl=100, retention=3600)}},
    "static": {"routes": {"/files/*": STATIC, "/one": STATIC}},
}
every_way = pytest.mark.parametrize("way", WAYS)
expiring = pytest.mark.parametrize("way", ["http", "rfc9111", "explicit-kept"])
paths = pytest.mark.parametrize("path", ["/one", "/files/text.txt"])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in ("text.txt", "index.html", "404.html", "sub/index.html"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        write(file, TEXT if name == "text.txt" else f"<p>{name}</p>")
    return tmp_path


def write(file: Path, text: str, modified: float = MODIFIED) -> None:
    file.write_text(text)
    os.utime(file, (modified, modified))


class Site:
    """An app with the directory at `/files`, and its text at `/one`, sent by a handler."""

    def __init__(self, directory: Path, way: str, *, html: bool = False, **options: Any) -> None:
        self.clocked = Clocked()
        self.directory = directory
        self.files = Counting(directory=directory, html=html)
        self.seen = self.files.seen = list[Scope]()
        self.app = app_with(self.clocked.cache, **{**WAYS[way], **options})
        self.app.mount("/files", self.files)
        self._add_one(self.app)
        self.client = TestClient(self.app, follow_redirects=False)

    def _add_one(self, app: FastAPI) -> None:
        @app.api_route("/one", methods=["GET", "HEAD"])
        async def one(request: Request) -> FileResponse:
            self.seen.append(request.scope)
            return FileResponse(self.directory / "text.txt")

    def asked(self, name: str) -> list[str | None]:
        """What the origin was told in a field, request by request."""
        return [dict(scope["headers"]).get(name.encode(), b"").decode() or None for scope in self.seen]


@every_way
@paths
def test_a_file_is_stored_and_sent_whole(directory: Path, way: str, path: str) -> None:
    site = Site(directory, way)
    first = site.client.get(path)
    assert_miss(first, stored=True)
    again = site.client.get(path)
    assert_hit(again, "L1")
    assert again.text == first.text == TEXT
    for name in ("etag", "last-modified", "content-length", "content-type", "accept-ranges"):
        assert again.headers[name] == first.headers[name]
    assert len(site.seen) == 1


@every_way
@paths
@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bytes=0-9", (0, 9)),
        ("bytes=100-", (100, SIZE - 1)),
        ("bytes=-10", (SIZE - 10, SIZE - 1)),
        ("bytes=0-9999", (0, SIZE - 1)),
    ],
)
def test_one_range_by_the_file_or_from_the_cache_is_the_same(
    directory: Path, way: str, path: str, before: int, asked: str, expected: tuple[int, int]
) -> None:
    site = Site(directory, way)
    for _ in range(before):
        site.client.get(path)
    response = site.client.get(path, headers={"range": asked})
    first, last = expected
    assert response.status_code == 206
    assert response.text == TEXT[first : last + 1]
    assert response.headers["content-range"] == f"bytes {first}-{last}/{SIZE}"
    assert response.headers["content-length"] == str(last + 1 - first)
    assert len(site.seen) == 1
    assert site.client.get(path).text == TEXT  # a part is never taken for the whole
    assert site.client.get(path).status_code == 200


@every_way
@paths
@pytest.mark.parametrize("before", [0, 1])
def test_several_ranges_come_in_parts(directory: Path, way: str, path: str, before: int) -> None:
    site = Site(directory, way)
    for _ in range(before):
        site.client.get(path)
    response = site.client.get(path, headers={"range": "bytes=0-9, 100-109"})
    assert response.status_code == 206
    assert response.headers["content-type"].startswith("multipart/byteranges; boundary=")
    assert int(response.headers["content-length"]) == len(response.content)
    for text in (TEXT[:10], TEXT[100:110], f"bytes 0-9/{SIZE}", f"bytes 100-109/{SIZE}"):
        assert text in response.text
    assert site.client.get(path).text == TEXT


@every_way
@paths
@pytest.mark.parametrize("before", [0, 1])
def test_a_range_beyond_the_end_is_refused(directory: Path, way: str, path: str, before: int) -> None:
    site = Site(directory, way)
    for _ in range(before):
        site.client.get(path)
    response = site.client.get(path, headers={"range": f"bytes={SIZE}-"})
    assert (response.status_code, response.headers["content-range"]) == (416, f"bytes */{SIZE}")
    assert site.client.get(path).text == TEXT


@every_way
@paths
@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("by", ["etag", "last-modified"])
def test_who_resumes_gets_the_rest_of_the_same_or_the_whole_of_another(
    directory: Path, way: str, path: str, before: int, by: str
) -> None:
    known = Site(directory, way).client.get(path).headers[by]
    site = Site(directory, way)
    for _ in range(before):
        site.client.get(path)
    same = site.client.get(path, headers={"range": "bytes=10-19", "if-range": known})
    assert (same.status_code, same.text) == (206, TEXT[10:20])
    other = '"other"' if by == "etag" else at(MODIFIED - 60)
    changed = site.client.get(path, headers={"range": "bytes=10-19", "if-range": other})
    assert (changed.status_code, changed.text) == (200, TEXT)


@every_way
@paths
@pytest.mark.parametrize("before", [0, 1])
def test_head_says_what_get_says(directory: Path, way: str, path: str, before: int) -> None:
    site = Site(directory, way)
    for _ in range(before):
        site.client.get(path)
    head, get = site.client.head(path), site.client.get(path)
    assert (head.status_code, head.content, get.text) == (200, b"", TEXT)
    for name in ("etag", "last-modified", "content-length", "content-type"):
        assert head.headers[name] == get.headers[name]


@every_way
@paths
@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("by", [("if-none-match", "etag"), ("if-modified-since", "last-modified")])
def test_a_condition_spares_the_client_the_content(
    directory: Path, way: str, path: str, before: int, by: tuple[str, str]
) -> None:
    name, validator = by
    known = Site(directory, way).client.get(path).headers[validator]
    site = Site(directory, way)
    for _ in range(before):
        site.client.get(path)
    response = site.client.get(path, headers={name: known})
    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["etag"]
    assert site.client.get(path).text == TEXT
    assert site.client.head(path, headers={name: known}).status_code == 304
    assert len(site.seen) == 1


@expiring
def test_what_has_expired_is_validated(directory: Path, way: str) -> None:
    site = Site(directory, way)
    first = site.client.get("/files/text.txt")
    site.clocked.tick(1100)
    again = site.client.get("/files/text.txt")
    assert "fwd=stale; fwd-status=304" in again.headers["cache-status"]
    assert again.text == TEXT
    assert site.asked("if-none-match") == [None, first.headers["etag"]]
    assert_hit(site.client.get("/files/text.txt"))
    part = site.client.get("/files/text.txt", headers={"range": "bytes=0-9"})
    assert_hit(part)
    assert part.text == TEXT[:10]


@expiring
@paths
def test_what_has_changed_by_then_is_sent_anew(directory: Path, way: str, path: str) -> None:
    site = Site(directory, way)
    site.client.get(path)
    site.clocked.tick(1100)
    write(directory / "text.txt", "new", NOW)
    assert site.client.get(path).text == "new"
    assert_hit(site.client.get(path))


@expiring
@paths
def test_a_range_of_what_has_expired_is_of_what_there_is_now(directory: Path, way: str, path: str) -> None:
    site = Site(directory, way)
    site.client.get(path)
    site.clocked.tick(1100)
    write(directory / "text.txt", TEXT.upper(), NOW)
    response = site.client.get(path, headers={"range": "bytes=0-9"})
    assert (response.status_code, response.text) == (206, TEXT.upper()[:10])
    assert site.client.get(path).text == TEXT.upper()


@expiring
@paths
def test_head_of_what_has_expired_is_of_what_there_is_now(directory: Path, way: str, path: str) -> None:
    site = Site(directory, way)
    site.client.get(path)
    site.clocked.tick(1100)
    write(directory / "text.txt", "new", NOW)
    assert site.client.head(path).headers["content-length"] == "3"
    assert site.client.get(path).text == "new"


@every_way
def test_what_is_not_there_is_not_there(directory: Path, way: str) -> None:
    site = Site(directory, way)
    for _ in range(2):
        assert site.client.get("/files/other.txt").status_code == 404
        assert site.client.head("/files/other.txt").status_code == 404
        assert site.client.post("/files/text.txt").status_code == 405
    assert site.client.get("/files/text.txt").text == TEXT


def test_what_is_not_there_may_be_remembered_as_such(directory: Path) -> None:
    """By the middleware's `Cache-Control`; an explicit policy wants it said: `status_ttl={404: 60}`."""
    site = Site(directory, "http")
    site.client.get("/files/other.txt")
    assert_hit(site.client.get("/files/other.txt"))
    site = Site(directory, "explicit", routes={"/files/*": Policy(ttl=100, status_ttl={404: 60})})
    site.client.get("/files/other.txt")
    assert_hit(site.client.get("/files/other.txt"))
    site = Site(directory, "explicit")
    site.client.get("/files/other.txt")
    assert_miss(site.client.get("/files/other.txt"), stored=False)


@every_way
def test_pages_of_a_site(directory: Path, way: str) -> None:
    site = Site(directory, way, html=True)
    for _ in range(2):
        assert site.client.get("/files/").text == "<p>index.html</p>"
        assert site.client.get("/files/sub/").text == "<p>sub/index.html</p>"
        missing = site.client.get("/files/other")
        assert (missing.status_code, missing.text) == (404, "<p>404.html</p>")
        away = site.client.get("/files/sub")
        assert (away.status_code, away.headers["location"]) == (307, "http://testserver/files/sub/")
    assert_hit(site.client.get("/files/"))


# ---- sent by path ----


@every_way
@pytest.mark.parametrize(("files", "hit"), [(0, False), (SIZE, True), (SIZE - 1, False)])
def test_a_file_that_the_server_is_to_send_is_read_where_the_policy_asks_for_that(
    directory: Path, way: str, files: int, hit: bool
) -> None:
    options = {**WAYS[way]}
    if "routes" in options:
        options["routes"] = {path: policy.but(files=files) for path, policy in options["routes"].items()}
    else:
        options["default"] = options.get("default", Policy.http()).but(files=files)
    site = Site(directory, way, **options)

    async def test() -> None:
        for path in ("/one", "/files/text.txt"):
            for number in range(2):
                reply = await ask(site.app, path, extensions={"http.response.pathsend": {}})
                kinds = [message["type"] for message in reply.messages]
                if hit and number:
                    assert (reply.hit, reply.body.decode()) == (True, TEXT)
                else:
                    assert not reply.hit
                    assert kinds == ["http.response.start", "http.response.pathsend"]
            part = await ask(
                site.app, path, headers=[(b"range", b"bytes=0-9")], extensions={"http.response.pathsend": {}}
            )
            assert (part.status, part.body.decode(), part.hit) == (206, TEXT[:10], hit)

    run(test())


@expiring
def test_a_file_sent_by_path_is_validated(directory: Path, way: str) -> None:
    options = {**WAYS[way]}
    if "routes" in options:
        options["routes"] = {path: policy.but(files=SIZE) for path, policy in options["routes"].items()}
    else:
        options["default"] = options.get("default", Policy.http()).but(files=SIZE)
    site = Site(directory, way, **options)
    extensions: dict[str, Any] = {"http.response.pathsend": {}}

    async def test() -> None:
        for _ in range(3):
            for path in ("/one", "/files/text.txt"):
                reply = await ask(site.app, path, extensions=extensions)
                if any(message["type"] == "http.response.pathsend" for message in reply.messages):
                    assert "fwd-status=304" not in reply.cache_status
                else:
                    assert reply.body.decode() == TEXT
                assert (await ask(site.app, path, extensions=extensions)).hit
            site.clocked.tick(1100)
        asked = [
            value
            for scope, value in zip(site.seen, site.asked("if-none-match"), strict=True)
            if "/files" in scope["path"]
        ]
        assert asked[0] is None
        assert all(asked[1:])

    run(test())
