"""What clients try, against whole stacks: to be given another's answer, to leave one for others, to cost too much."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.codec import codec_for
from asgi_tiercache.config import Region
from asgi_tiercache.errors import CodecError
from asgi_tiercache.http.vary import LONGEST_NORMALISED, variant
from asgi_tiercache.keys.request import MEMOS_BYTES, Memos, RequestKeys
from asgi_tiercache.middleware.renewing import MOST_ANTICIPATED
from asgi_tiercache.middleware.variants import Variants
from asgi_tiercache.testing import TickingClock
from tests.hostile.apps import MODES, Line, asked, behind, mirrored
from tests.middleware.asgi import Exchange, Reply, ask, http_scope, run, turns

HTTP, STRICT = MODES["http"], MODES["strict"]
HTTP_MODES = pytest.mark.parametrize("policy", [HTTP, MODES["rfc9111"]], ids=["http", "rfc9111"])
WITHOUT_STRICT = pytest.mark.parametrize(
    "policy", [MODES[name] for name in ("lax", "http", "rfc9111")], ids=["lax", "http", "rfc9111"]
)
PUBLIC = {"cache-control": "public, max-age=60"}


# ---- another one's answer ----

WHO = [
    "private-token",
    "ssl-client-cert",
    "tailscale-user-login",
    "x-authenticated-userid",
    "x-authentik-username",
    "x-client-cert",
    "x-consumer-id",
    "x-consumer-username",
    "x-credential-identifier",
    "x-forwarded-access-token",
    "x-forwarded-preferred-username",
    "x-goog-authenticated-user-email",
    "x-goog-authenticated-user-id",
    "x-jwt-assertion",
    "x-pomerium-jwt-assertion",
    "x-session-id",
    "x-session-token",
    "x-ssl-client-cert",
    "x-ssl-client-s-dn",
    "x-user",
    "x-user-email",
    "x-user-id",
    "x-webauth-user",
]
"""Fields that gateways and apps know their users by; others are in `test_identity`."""


def _personal(request: Request) -> Response:
    """A page for all, with a token for who is logged in, which a 304 and the answer to HEAD have as well."""
    user = request.cookies.get("sid")
    headers = {"etag": '"1"', **({"x-csrf-token": f"of {user}"} if user else PUBLIC)}
    if request.headers.get("if-none-match") == '"1"':
        return Response(status_code=304, headers=headers)
    return PlainTextResponse("page", headers=headers)


def _fields(reply: Reply) -> dict[bytes, bytes]:
    return dict(reply.messages[0]["headers"])


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_a_user_is_told_beside_a_304_or_an_answer_to_head_is_no_other_ones(method: str) -> None:
    async def test() -> None:
        app = behind(Starlette(routes=[Route("/", _personal)]), HTTP)
        await asked(app)
        alice = (b"cookie", b"sid=alice"), (b"cache-control", b"no-cache")
        assert _fields(await asked(app, *alice, method=method))[b"x-csrf-token"] == b"of alice"
        for line in ((), ((b"cookie", b"sid=bob"),)):
            reply = await asked(app, *line)
            assert (reply.hit, reply.body) == (True, b"page")
            assert b"x-csrf-token" not in _fields(reply)

    run(test())


def test_nor_is_it_for_those_who_wait_while_the_response_is_validated() -> None:
    async def test() -> None:
        clock, go = TickingClock(), asyncio.Event()

        async def page(request: Request) -> Response:
            if "if-none-match" in request.headers:
                await go.wait()
            return _personal(request)

        app = behind(Starlette(routes=[Route("/", page)]), HTTP, cache=TierCache(clock=clock))
        await asked(app)
        clock.tick(61)
        alice = Exchange(app, http_scope(headers=[(b"cookie", b"sid=alice")]))
        await turns()
        waiting = [Exchange(app, http_scope()) for _ in range(3)]
        await turns()
        go.set()
        assert _fields(await alice.reply())[b"x-csrf-token"] == b"of alice"
        for each in waiting:
            assert b"x-csrf-token" not in _fields(await each.reply())

    run(test())


def test_a_certificate_that_the_policy_withholds_makes_no_answer_to_a_post_one_for_all() -> None:
    async def test() -> None:
        async def endpoint(request: Request) -> Response:
            name = request.scope["extensions"]["tls"]["client_cert_name"]
            return PlainTextResponse(str(name), headers={"content-location": "/", "cache-control": "max-age=60"})

        app = behind(Starlette(routes=[Route("/", endpoint, methods=["GET", "POST"])]), HTTP.but(ignore=["tls"]))
        tls = {"tls": {"client_cert_chain": ["-"], "client_cert_name": "CN=alice"}}
        await asked(app, method="POST", extensions=tls)
        reply = await asked(app, extensions=tls)
        assert (reply.hit, reply.body) == (False, b"None")

    run(test())


@pytest.mark.parametrize("name", WHO)
def test_who_asks_by_the_word_of_a_proxy_or_a_token_gets_and_gives_only_their_own(name: str) -> None:
    async def test() -> None:
        async def page(request: Request) -> Response:
            return PlainTextResponse(request.headers.get(name, "nobody"), headers={"cache-control": "max-age=60"})

        app = behind(Starlette(routes=[Route("/", page)]), HTTP)
        for user in (b"alice", b"bob", b"nobody", b"alice"):
            line = [] if user == b"nobody" else [(name.encode(), user)]
            assert (await asked(app, *line)).body == user

    run(test())


# ---- an answer for others ----


@pytest.mark.parametrize("status", [400, 406, 408, 411, 412, 413, 415, 416, 417, 421, 422, 425, 426])
def test_an_error_that_one_request_has_provoked_is_stored_for_nobody(status: int) -> None:
    async def test() -> None:
        async def page(request: Request) -> Response:
            return PlainTextResponse("", status if "x-metadata" in request.headers else 200, headers=PUBLIC)

        app = behind(Starlette(routes=[Route("/", page)]), HTTP)
        assert (await asked(app, (b"x-metadata", b"\t" * 8_000))).status == status
        assert (await asked(app)).status == 200

    run(test())


@HTTP_MODES
def test_nor_does_it_drop_what_is_stored_for_all(policy: Policy) -> None:
    async def test() -> None:
        async def page(request: Request) -> Response:
            bad = "x-bad" in request.headers
            return PlainTextResponse("", 400 if bad else 200, headers={} if bad else PUBLIC)

        app = behind(Starlette(routes=[Route("/", page)]), policy)
        await asked(app)
        assert (await asked(app, (b"x-bad", b"1"), (b"cache-control", b"no-cache"))).status == 400
        assert (await asked(app)).hit

    run(test())


def test_nor_is_a_parameter_in_a_header_that_fastapi_refuses() -> None:
    async def test() -> None:
        app = FastAPI()

        @app.middleware("http")
        async def cacheable(request: Request, call_next: Any) -> Response:
            response: Response = await call_next(request)
            response.headers.update(PUBLIC)
            return response

        @app.get("/")
        async def page(x_page_size: int = Header(10)) -> int:
            return x_page_size

        cached: ASGIApp = TierCacheMiddleware(app, cache=TierCache())
        assert (await asked(cached, (b"x-page-size", b"many"))).status == 422
        assert (await asked(cached)).status == 200

    run(test())


def test_a_status_that_the_policy_names_is_stored_all_the_same() -> None:
    async def test() -> None:
        async def page(_: Request) -> Response:
            return PlainTextResponse("", 422)

        app = behind(Starlette(routes=[Route("/", page)]), HTTP.but(status_ttl={422: 5}))
        await asked(app)
        assert (await asked(app)).hit

    run(test())


def _cgi(names: str = "") -> Starlette:
    """A WSGI app that shows the header fields that it was given, and varies on `names`."""

    def app(environ: Mapping[str, Any], start: Any) -> list[bytes]:
        start("200 OK", [(name.title(), value) for name, value in {**PUBLIC, "vary": names}.items() if value])
        return [json.dumps({name: value for name, value in environ.items() if name.startswith("HTTP_")}).encode()]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and in every FastAPI app that has not been changed since
        from starlette.middleware.wsgi import WSGIMiddleware
    return Starlette(routes=[Mount("/", WSGIMiddleware(app))])


@WITHOUT_STRICT
@pytest.mark.parametrize(
    "name",
    [b"x_forwarded_host", b"x_forwarded-host", b"x-forwarded_host", b"x_http_method_override", b"x_original-url"],
)
def test_no_underscore_makes_a_header_count_to_the_app_and_not_to_the_key(name: bytes, policy: Policy) -> None:
    async def test() -> None:
        app = behind(_cgi(), policy)
        evil = await asked(app, (name, b"evil"))
        assert b"evil" in evil.body
        assert b"evil" not in (await asked(app)).body
        assert (await asked(app)).hit

    run(test())


def test_nor_makes_one_a_credential_of_nobody() -> None:
    async def test() -> None:
        app = behind(_cgi(), MODES["lax"])
        await asked(app, (b"x_api_key", b"alice"))
        assert b"alice" not in (await asked(app)).body

    run(test())


@WITHOUT_STRICT
def test_nor_does_one_stand_in_for_a_keyed_header(policy: Policy) -> None:
    async def test() -> None:
        app = behind(_cgi(), policy.but(vary_on=["x-tenant"]))
        await asked(app, (b"x_tenant", b"evil"))
        assert b"evil" not in (await asked(app)).body

    run(test())


def test_nor_does_one_get_past_what_the_policy_withholds() -> None:
    async def test() -> None:
        app = behind(_cgi(), HTTP.but(ignore=["x-forwarded-host"]))
        assert b"evil" not in (await asked(app, (b"x_forwarded_host", b"evil"))).body

    run(test())


@WITHOUT_STRICT
def test_nor_does_one_get_past_vary(policy: Policy) -> None:
    async def test() -> None:
        app = behind(_cgi("x-colour"), policy)
        await asked(app, (b"x_colour", b"evil"))
        reply = await asked(app)
        assert b"evil" not in reply.body
        assert (await asked(app)).hit

    run(test())


def _guarded(policy: Policy, cache: TierCache) -> ASGIApp:
    """A page for who may see it; to others there is none, or middleware has them log in."""
    app = FastAPI()

    def may_see(authorization: str | None = Header(None)) -> None:
        if authorization != "good":
            raise HTTPException(404)

    @app.get("/x", dependencies=[Depends(may_see)])
    async def page() -> str:
        return "page"

    @app.middleware("http")
    async def log_in(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        return response if "authorization" in request.headers else PlainTextResponse("log in", headers=PUBLIC)

    app.add_middleware(TierCacheMiddleware, cache=cache, default=policy)
    return app


@pytest.mark.parametrize("line", [(), ((b"authorization", b"bad"),)], ids=["nobody", "somebody"])
@pytest.mark.parametrize("mode", ["explicit", "http"])
def test_what_is_said_to_those_whom_dependencies_refuse_is_for_nobody_else(mode: str, line: tuple[Line, ...]) -> None:
    async def test() -> None:
        clock = TickingClock()
        options: Any = {"ttl": 60, "status_ttl": {404: 60}, "dependencies": "always", "retention": 60}
        policy = Policy(**options) if mode == "explicit" else Policy.http(**options)
        cache = TierCache(clock=clock)
        app = _guarded(policy, cache)
        good = (b"authorization", b"good")
        for stored in range(2):
            assert (await asked(app, *line, path="/x")).body != b'"page"'
            assert len(cache.engine.memory.bucket(policy.region)) == stored
            replies = [await asked(app, good, path="/x") for _ in range(2)]
            assert [reply.body for reply in replies] == [b'"page"'] * 2
            assert replies[1].hit
            clock.tick(61)

    run(test())


# ---- errors for those who come at the same time ----


@HTTP_MODES
def test_a_request_that_the_handler_cannot_bear_fails_nobody_else_who_asks_meanwhile(policy: Policy) -> None:
    async def test() -> None:
        begun, go = asyncio.Event(), asyncio.Event()

        async def page(request: Request) -> Response:
            if "x-bomb" in request.headers:
                begun.set()
                await go.wait()
                raise LookupError("a header that nobody expected")
            return PlainTextResponse("page", headers=PUBLIC)

        app = behind(Starlette(routes=[Route("/", page)]), policy)
        await asked(app)  # so that others wait for it
        evil = Exchange(app, http_scope(query=b"1", headers=[(b"x-bomb", b"1")]))
        await begun.wait()
        honest = [Exchange(app, http_scope(query=b"1")) for _ in range(3)]
        await turns()
        go.set()
        with pytest.raises(LookupError):
            await evil.reply()
        assert {(reply.status, reply.body) for reply in [await each.reply() for each in honest]} == {(200, b"page")}

    run(test())


# ---- messages that are none ----


def _sends(*messages: Any) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if any(name == b"if-none-match" for name, _ in scope["headers"]):
            await send(messages[0])
        else:
            lines = [(b"etag", b'"1"'), (b"cache-control", b"max-age=60")]
            await send({"type": "http.response.start", "status": 200, "headers": lines})
        await send({"type": "http.response.body", "body": b"page"})

    return app


@HTTP_MODES
@pytest.mark.parametrize("lines", [[("etag", '"1"')], [(b"content-length", 4)], [(4, b"x")], [None], 5], ids=repr)
def test_a_304_that_is_none_is_for_the_server_to_judge(lines: Any, policy: Policy) -> None:
    async def test() -> None:
        clock = TickingClock()
        odd = {"type": "http.response.start", "status": 304, "headers": lines}
        app = TierCacheMiddleware(_sends(odd), cache=TierCache(clock=clock), default=policy)
        await ask(app)
        clock.tick(61)
        start = (await ask(app)).messages[0]
        assert {**start, "headers": None} == {**odd, "headers": None}
        assert start["headers"] == lines

    run(test())


@pytest.mark.parametrize("kind", ["descriptor", "nul", "nothing"])
def test_a_file_is_read_by_its_name_alone(kind: str, tmp_path: Path) -> None:
    async def test() -> None:
        secret = tmp_path / "secret"
        secret.write_bytes(b"of another request")
        descriptor = os.open(secret, os.O_RDONLY)
        path: Any = {"descriptor": descriptor, "nul": "a\0b", "nothing": None}[kind]

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.pathsend", "path": path})

        try:
            cached = TierCacheMiddleware(app, cache=TierCache(), default=Policy(ttl=60, files=1_000))
            for _ in range(2):
                reply = await ask(cached)
                assert reply.messages[1] == {"type": "http.response.pathsend", "path": path}
            os.fstat(descriptor)  # which is open still
        finally:
            os.close(descriptor)

    run(test())


# ---- costs ----


def test_a_large_request_is_not_kept_to_be_asked_again() -> None:
    async def test() -> None:
        clock = TickingClock()
        cache = TierCache(clock=clock)
        policy = Policy(ttl=60, refresh_ahead=True, region=Region(name="ahead", max_entries=1))
        app = mirrored(policy, cache=cache)
        for size, watched in ((10, 1), (MOST_ANTICIPATED, 0)):
            line = (b"accept", b"a" * size)
            for _ in range(3):
                await asked(app, line, path=f"/{size}")
                clock.tick(1)
            held = cache.engine.ahead._watches.get().rhythms
            assert held._watched == watched, size
            held.clear()
        await cache.aclose()

    run(test())


def test_what_all_routes_remember_of_requests_is_bounded_together() -> None:
    memos = Memos(100_000)
    routes = [RequestKeys(HTTP, memos=memos) for _ in range(50)]
    for number in range(50):
        for keys in routes:
            keys.of(http_scope(f"/{number}", query=b"x" * 1_000))
            assert sum(other._memo_bytes for other in routes) <= memos.taken <= 100_000


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("policy", MODES.values(), ids=MODES)
def test_variants_that_nobody_needs_keep_none_out_that_others_ask_for(policy: Policy, times: int) -> None:
    async def test() -> None:
        app = mirrored(policy, headers={**PUBLIC, "vary": "accept-language"})
        for number in range(100 * times):
            await asked(app, (b"accept-language", b"x-%d" % (number // times)))
        await asked(app, (b"accept-language", b"en"))
        assert (await asked(app, (b"accept-language", b"en"))).hit

    run(test())


def test_so_is_what_they_remember_of_variants() -> None:
    async def test() -> None:
        cache = TierCache()
        memos = cache.engine.memos
        app = mirrored(HTTP, cache=cache, headers={**PUBLIC, "vary": "x-a"})
        for number in range(30):
            await asked(app, (b"x-a", b"%d" % number), path="/long" + 300 * "x")
        taken = memos.taken
        await asked(app, (b"x-a", b"new"), path="/long" + 300 * "x")
        assert memos.taken > taken, "though the key was known"
        (variants,) = (each for each in memos._all if isinstance(each, Variants) and each._remembered)
        memos.take(MEMOS_BYTES)
        assert not variants._remembered

    run(test())


@pytest.mark.parametrize("name", ["accept", "accept-encoding", "accept-language", "accept-charset"])
def test_a_value_that_is_too_long_to_be_normalised_is_equal_to_itself_alone(name: str) -> None:
    long = b"a," * LONGEST_NORMALISED
    one, same, other = ([(name.encode(), value)] for value in (long, long, b" " + long.replace(b",", b" ,")))
    assert variant((name,), one) == variant((name,), same) != variant((name,), other)


@HTTP_MODES
def test_directives_too_many_to_be_read_are_a_wish_to_be_left_alone(policy: Policy) -> None:
    async def test() -> None:
        app = mirrored(policy)
        await asked(app)
        many = (b"cache-control", b"max-stale=1," * 1_000)
        assert not (await asked(app, many)).hit
        await asked(app, many, path="/a")
        assert not (await asked(app, path="/a")).hit

    run(test())


@pytest.mark.parametrize("annotation", [set[int], frozenset[int], dict[int, int], Any], ids=str)
def test_stored_numbers_that_all_have_one_hash_are_no_value(annotation: Any) -> None:
    codec = codec_for(annotation, where="numbers")
    for count, fits in ((900, True), (3_000, False)):
        alike = [number * sys.hash_info.modulus for number in range(10, 10 + count)]
        value = dict.fromkeys(alike, 1) if annotation == dict[int, int] else set(alike)
        data = codec.dump(frozenset(alike) if annotation == frozenset[int] else value)
        if fits:
            assert codec.load(data) == value
        else:
            with pytest.raises(CodecError):
                codec.load(data)
