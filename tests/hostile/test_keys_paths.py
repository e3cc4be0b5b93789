"""Paths that somebody on the way reads in another way than the app: no entry serves two of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from tests.hostile.apps import MODES, PUBLIC, asked, behind, everything, mirrored, seen
from tests.hostile.sockets import Answer, raw, served
from tests.middleware.asgi import Reply, run

modes = pytest.mark.parametrize("policy", MODES.values(), ids=MODES)

TARGETS = (
    "/account",
    "/account/",
    "//account",
    "/account//",
    "/account/x.css",
    "/account/x.js",
    "/account;x.css",
    "/account;/x.css",
    "/account%3Bx.css",
    "/account%3bx.css",
    "/account/;x.css",
    "/account%2Fx.css",
    "/account%2fx.css",
    "/account%252Fx.css",
    "/account%5Cx.css",
    "/account\\x.css",
    "/account%00",
    "/account%00x.css",
    "/account%0A",
    "/account%0a",
    "/account%09",
    "/account%20",
    "/account+",
    "/account%2B",
    "/account%23x.css",
    "/account%3Fx.css",
    "/account%3F",
    "/%61ccount",
    "/%41ccount",
    "/ACCOUNT",
    "/account/.",
    "/account/..",
    "/account/x/..",
    "/account/./x.css",
    "/account/../account",
    "/x/../account",
    "/static/../account",
    "/static/%2e%2e/account",
    "/static/%2E%2E/account",
    "/static/.%2e/account",
    "/static/..%2faccount",
    "/static%2f..%2faccount",
    "/static/%252e%252e/account",
    "/static/x.css",
    "/%2e/account",
    "/%2e%2e/account",
    "/account%C3%A9",
    "/accounte%CC%81",
    "/account%FF",
    "/account%FE",
    "/account%C0%AF",
    "/account%EF%BF%BD",
    "/account:x",
    "/account*",
    "/account%7Bx%7D",
    "/account[x]",
    "/",
)
BROKEN = ("/account%0Ax.css", "/account%0D%0Ax.css")
"""Targets of two lines, which converters do not all take."""
NOWHERE = ("*", "account", "/static/a%0Ab/c")
"""Targets that no route of the app below takes."""


def show(name: str) -> Any:
    async def endpoint(request: Request) -> Response:
        return JSONResponse({"route": name, **everything(request)}, headers=PUBLIC)

    return endpoint


def routes() -> list[BaseRoute]:
    """Routes of which each could be taken for another, where paths are put in order first."""
    return [
        Route("/account", show("account"), methods=["GET", "PUT"]),
        Route("/account/{rest:path}", show("below"), methods=["GET", "PUT"]),
        Mount(
            "/static", routes=[Route(path, show("file"), methods=["GET", "PUT"]) for path in ("/{file}", "/{_:path}")]
        ),
        Route("/{one}", show("one"), methods=["GET", "PUT"]),
        Route("/{rest:path}", show("rest"), methods=["GET", "PUT"]),
    ]


def scope_of(target: str) -> dict[str, Any]:
    """What a server makes of a target: uvicorn decodes it as UTF-8, and puts U+FFFD for what is none."""
    return {"path": unquote_to_bytes(target).decode("utf-8", "replace"), "raw_path": target.encode()}


@modes
def test_each_path_is_answered_as_the_app_alone_would(policy: Policy) -> None:
    async def test() -> None:
        app = mirrored(policy, routes=routes())
        bare = Starlette(routes=routes())
        for again in (False, True):
            for target in (*TARGETS, *BROKEN):
                reply, expected = await asked(app, **scope_of(target)), await asked(bare, **scope_of(target))
                assert (reply.status, seen(reply)["route"]) == (expected.status, seen(expected)["route"]), target
                assert seen(reply)["raw_path"] == target
                assert seen(reply)["path"] == scope_of(target)["path"]
                assert reply.hit == again, target
            for target in NOWHERE:
                reply, expected = await asked(app, **scope_of(target)), await asked(bare, **scope_of(target))
                assert (reply.status, reply.body, reply.hit) == (expected.status, expected.body, False), target

    run(test())


@modes
def test_on_the_wire_too(policy: Policy) -> None:
    with served(mirrored(policy, routes=routes())) as port:
        for again in (False, True):
            for target in TARGETS:
                answer = get(port, target)
                assert (answer.status, answer.json["raw_path"], answer.hit) == (200, target, again), target


def get(port: int, target: str, *lines: str) -> Answer:
    head = "\r\n".join((f"GET {target} HTTP/1.1", "Host: example.org", "Connection: close", *lines, "", ""))
    return raw(port, head.encode("latin-1"))


@modes
def test_a_server_that_tells_no_raw_path_keeps_them_apart_as_far_as_the_app_can(policy: Policy) -> None:
    async def test() -> None:
        app = mirrored(policy, routes=routes())
        for target in TARGETS:
            reply = await asked(app, path=scope_of(target)["path"], raw_path=None)
            assert seen(reply)["path"] == scope_of(target)["path"]

    run(test())


@modes
def test_a_path_that_middleware_has_rewritten_and_the_one_it_was_stay_apart(policy: Policy) -> None:
    """What was sent may be read from `raw_path`, what it became from `path`: both count."""

    async def test() -> None:
        app = mirrored(policy, routes=routes())
        for path, raw_path in [("/a", b"/a"), ("/a", b"/b"), ("/b", b"/a"), ("/b", b"/b"), ("/a", None)]:
            reply = await asked(app, path=path, raw_path=raw_path)
            assert not reply.hit
            assert (seen(reply)["path"], seen(reply)["raw_path"]) == (path, (raw_path or b"").decode())

    run(test())


@modes
@pytest.mark.parametrize("target", TARGETS)
def test_what_a_path_is_purged_by_is_what_the_app_was_given(target: str, policy: Policy) -> None:
    """`invalidate_path` and an unsafe request both reach what is stored, and the paths beside it stay."""
    scope = scope_of(target)

    async def purged_by(purge: Any) -> None:
        cache = TierCache()
        app = mirrored(policy, cache=cache, routes=routes())
        for _ in range(2):
            replies = [await asked(app, **scope), await asked(app, path="/beside")]
        assert [reply.hit for reply in replies] == [True, True]
        await purge(cache, app)
        assert not (await asked(app, **scope)).hit
        assert (await asked(app, path="/beside")).hit

    async def by_path(cache: TierCache, _: ASGIApp) -> None:
        await cache.invalidate_path(scope["path"])

    async def by_request(_: TierCache, app: ASGIApp) -> None:
        assert (await asked(app, method="PUT", **scope)).status == 200

    async def test() -> None:
        await purged_by(by_path)
        await purged_by(by_request)

    run(test())


WITH_ROOT = [
    ("/api", "/api/x", b"/api/x"),
    ("", "/api/x", b"/api/x"),
    ("/api", "/x", b"/x"),
    ("/api", "/x", None),
    ("", "/api/x", None),
    ("/api/x", "/", None),
]


@modes
def test_root_path_and_path_do_not_run_into_each_other(policy: Policy) -> None:
    async def test() -> None:
        app = mirrored(policy)
        for again in (False, True):
            for root, path, raw_path in WITH_ROOT:
                reply = await asked(app, root_path=root, path=path, raw_path=raw_path)
                assert (seen(reply)["path"], seen(reply)["base"]) == (path, f"http://example.org{root}/")
                assert reply.hit == again

    run(test())


# ---- cache deception: a page of one user under a name that looks as if it were for all ----

SAYING = {
    "explicit": (Policy(ttl=60), {}),
    "lax": (Policy(ttl=60, strict=False), {}),
    "by prefix": (Policy(ttl=600), PUBLIC),
    "http, silent": (Policy.http(), {}),
    "http, max-age": (Policy.http(), {"cache-control": "max-age=60"}),
    "http, expires": (Policy.http(), {"expires": "Fri, 01 Jan 2100 00:00:00 GMT"}),
    "http, its own lifetime": (Policy.http(ttl=60), {}),
}


@contextmanager
def account(policy: Policy, headers: dict[str, str]) -> Iterator[tuple[int, list[str]]]:
    """An app whose router finds the account page for whatever stands below it; yields the port, and who asked."""
    names: list[str] = []

    async def page(request: Request) -> Response:
        names.append(request.cookies.get("name", "nobody"))
        return JSONResponse({"name": names[-1], "path": request.url.path}, headers=headers)

    app = Starlette(routes=[Route("/account{rest:path}", page), Route("/{rest:path}", page)])
    with served(behind(app, policy, routes={"/account/*": policy, "/static/*": policy})) as port:
        yield port, names


@pytest.mark.parametrize(("policy", "headers"), SAYING.values(), ids=SAYING)
def test_no_name_makes_a_page_of_one_user_one_for_all(policy: Policy, headers: dict[str, str]) -> None:
    with account(policy, headers) as (port, names):
        for target in TARGETS:
            for name in ("ann", "nobody", "bob", "ann"):
                answer = get(port, target, *([f"Cookie: name={name}"] if name != "nobody" else []))
                assert answer.json["name"] == name, target
                assert not answer.hit or name == "nobody"
        assert names.count("ann") == 2 * len(TARGETS)


# ---- apps whose own paths mean something ----


def test_files_are_those_that_the_app_serves(tmp_path: Path) -> None:
    """Starlette puts the path of a file in order by itself: the entry of one spelling is never that of another file."""
    (tmp_path / "public").mkdir()
    for name in ("secret.txt", "public/a.txt", "public/b.txt"):
        (tmp_path / name).write_text(name)
    targets = ["/a.txt", "/b.txt", "/%61.txt", "/x/../b.txt", "/x/%2e%2e/a.txt", "//a.txt", "/../secret.txt"]
    targets += ["/..%2fsecret.txt", "/a.txt%00", "/a.txt/", "/A.txt", "/b.txt;a.txt", "/a.txt%0A", "/./b.txt"]

    async def bodies(app: ASGIApp) -> list[tuple[int, bytes]]:
        replies = [await asked(app, **scope_of(f"/static{target}")) for target in targets]
        return [(reply.status, reply.body) for reply in replies]

    async def test() -> None:
        mounted = [Mount("/static", StaticFiles(directory=tmp_path / "public"))]
        expected = await bodies(Starlette(routes=mounted))
        app = Starlette(routes=mounted)
        app.add_middleware(TierCacheMiddleware, cache=TierCache(), routes={"/static/*": Policy(ttl=60, files=1_000)})
        for _ in range(2):
            assert await bodies(app) == expected
        assert b"secret.txt" not in [body for _, body in expected]

    run(test())


@modes
def test_parameters_and_tags_are_those_of_the_path_that_was_asked(policy: Policy) -> None:
    """Two spellings of one parameter go together; what merely looks like it stays."""
    cache, app = TierCache(), FastAPI()

    @app.get("/things/{name:path}")
    @cache.response(policy.but(tags=["thing:{name}"]))
    async def thing(name: str, response: Response) -> str:
        response.headers.update(PUBLIC)
        return name

    app.add_middleware(TierCacheMiddleware, cache=cache)
    spellings = {"a": "a", "%61": "a", "a%2Fb": "a/b", "a/b": "a/b", "a:b": "a:b", "a%3Ab": "a:b", "a%253Ab": "a%3Ab"}
    spellings |= {"*": "*", "a%2A": "a*", "%7Bname%7D": "{name}", "a%09": "a\t", "a%00": "a\0", "a%23b": "a#b"}

    async def hits() -> dict[str, bool]:
        replies: dict[str, Reply] = {each: await asked(app, **scope_of(f"/things/{each}")) for each in spellings}
        assert {each: json.loads(reply.body) for each, reply in replies.items()} == spellings
        return {each: reply.hit for each, reply in replies.items()}

    async def test() -> None:
        await hits()
        assert all((await hits()).values())
        for name in spellings.values():
            await cache.invalidate("thing:{name}", name=name)
            assert await hits() == {each: spelled != name for each, spelled in spellings.items()}

    run(test())
