"""Headers that an app heeds and no key holds: what web cache poisoning is made of.

The names are those of the literature: J. Kettle, "Practical Web Cache Poisoning" and "Web Cache Entanglement"; H. V.
Nguyen, L. Lo Iacono, H. Federrath, "Your Cache Has Fallen"; and those that the frameworks of other languages heed.
"""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from tests.hostile.apps import MODES, PUBLIC, Line, asked, mirrored, seen
from tests.middleware.asgi import run

EVIL = b"evil.example"
# Not those of the package: one that was taken out there would be taken out here.
FORWARDED = (
    b"forwarded",
    b"front-end-https",
    b"x-forwarded-host",
    b"x-forwarded-path",
    b"x-forwarded-port",
    b"x-forwarded-prefix",
    b"x-forwarded-proto",
    b"x-forwarded-protocol",
    b"x-forwarded-scheme",
    b"x-forwarded-server",
    b"x-forwarded-ssl",
    b"x-forwarded-uri",
    b"x-host",
    b"x-http-host-override",
    b"x-original-host",
    b"x-original-uri",
    b"x-scheme",
    b"x-script-name",
    b"x-url-scheme",
)
RETARGETING = (
    b"x-http-method",
    b"x-http-method-override",
    b"x-method-override",
    b"x-original-url",
    b"x-rewrite-url",
)
WHO_ASKS = (
    b"x-forwarded-for",
    b"x-real-ip",
    b"true-client-ip",
    b"cf-connecting-ip",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"x-forwarded",
    b"via",
)
OTHERS = (
    b"user-agent",
    b"referer",
    b"x-amz-website-redirect-location",
    b"x-middleware-prefetch",
    b"x-invoke-status",
    b"x-requested-with",
    b"x-wap-profile",
    b"max-forwards",
    b"from",
    b"upgrade-insecure-requests",
    b"content-type",
)
REACHING = {name: policy for name, policy in MODES.items() if name != "strict"}
reaching = pytest.mark.parametrize("policy", REACHING.values(), ids=REACHING)


def names_of(names: tuple[bytes, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", sorted(names), ids=lambda name: name.decode())


@names_of((*FORWARDED, *RETARGETING, *WHO_ASKS, *OTHERS))
def test_under_a_strict_policy_no_such_header_reaches_the_handler(name: bytes) -> None:
    async def test() -> None:
        app = mirrored(MODES["strict"])
        poisoned = await asked(app, (name, EVIL))
        assert "stored" in poisoned.cache_status
        assert EVIL not in poisoned.body
        assert name.decode() not in dict(seen(poisoned)["headers"])
        clean = await asked(app)
        assert clean.hit
        assert clean.body == poisoned.body

    run(test())


@reaching
@names_of(FORWARDED)
def test_what_proxies_say_of_the_uri_is_part_of_it_wherever_it_reaches_the_handler(name: bytes, policy: Policy) -> None:
    async def test() -> None:
        app = mirrored(policy)
        poisoned, clean = await asked(app, (name, EVIL)), await asked(app)
        assert EVIL in poisoned.body
        assert not clean.hit
        assert EVIL not in clean.body
        for lines in ([(name, EVIL)], [(name, b"other.example")], [(name, EVIL), (name, b"")], []):
            reply = await asked(app, *lines)
            sent = [[line[0].decode(), line[1].decode()] for line in lines]
            assert [line for line in seen(reply)["headers"] if line[0] == name.decode()] == sent

    run(test())


@reaching
def test_behind_a_proxy_that_says_the_same_of_every_request_all_share_an_answer(policy: Policy) -> None:
    async def test() -> None:
        app = mirrored(policy)
        proxy: list[Line] = [(b"x-forwarded-proto", b"https"), (b"x-forwarded-host", b"shop.example")]
        first = await asked(app, *proxy, (b"x-forwarded-for", b"192.0.2.1"))
        assert not first.hit
        assert (await asked(app, *proxy, (b"x-forwarded-for", b"192.0.2.2"))).hit
        assert (await asked(app, *reversed(proxy))).hit

    run(test())


@reaching
@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        (b"for=192.0.2.1;host=a;proto=https", b"for=192.0.2.2;host=a;proto=https", True),
        (b'for="[2001:db8::1]:443";proto=https, for=_hidden;by=p-1', b"for=unknown;proto=https, for=b;by=p-2", True),
        (b"For=192.0.2.1;Host=a", b"for=192.0.2.1;host=b", False),
        (b"host=a", b"host=b", False),
        (b'for="x;host=a"', b'for="x;host=b"', False),
        (b'for="\\";host=a"', b'for="\\";host=b"', False),
        (b"host=a;for=1,host=b", b"host=b;for=1,host=a", False),
        (b"xfor=a", b"xfor=b", False),
        (b"for=a b", b"for=a c", False),
        (b"for=host=a", b"for=host=b", False),
    ],
)
def test_of_forwarded_all_counts_but_the_addresses(one: bytes, other: bytes, shared: bool, policy: Policy) -> None:
    async def test() -> None:
        app = mirrored(policy)
        await asked(app, (b"forwarded", one))
        assert (await asked(app, (b"forwarded", other))).hit == shared
        assert (await asked(app, (b"forwarded", one))).hit

    run(test())


class Heeding:
    """Middleware below the cache that does as old clients ask: another method, another path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for name, value in scope["headers"]:
                if name in (b"x-original-url", b"x-rewrite-url"):
                    scope = {**scope, "path": value.decode(), "raw_path": value}
                elif name in RETARGETING:
                    scope = {**scope, "method": value.decode()}
        await self._app(scope, receive, send)


@reaching
@names_of(RETARGETING)
def test_a_request_that_asks_to_be_taken_for_another_passes_by(name: bytes, policy: Policy) -> None:
    async def named(request: Request) -> Response:
        return PlainTextResponse(f"{request.method} {request.path_params['name']}", headers=PUBLIC)

    value = b"/things/2" if name.endswith(b"url") else b"POST"

    async def test() -> None:
        routes = [Route("/things/{name}", named, methods=["GET", "POST"])]
        app = mirrored(policy, routes=routes, below=[Middleware(Heeding)])
        for _ in range(2):
            other = await asked(app, (name, value), path="/things/1")
            assert other.body == (b"GET 2" if name.endswith(b"url") else b"POST 1")
            assert f"detail={name.decode()}" in other.cache_status
            assert (await asked(app, path="/things/1")).body == b"GET 1"
        assert (await asked(app, path="/things/1")).hit
        assert (await asked(app, (name, value), path="/things/1")).body == other.body

    run(test())


@reaching
@pytest.mark.parametrize("option", ["vary_on", "ignore"])
@names_of(RETARGETING)
def test_unless_the_policy_keys_or_withholds_what_asks_for_it(name: bytes, option: str, policy: Policy) -> None:
    async def test() -> None:
        app = mirrored(policy.but(**{option: [name.decode()]}))
        assert "stored" in (await asked(app, (name, b"/1"))).cache_status
        assert (await asked(app, (name, b"/1"))).hit
        assert (await asked(app, (name, b"/2"))).hit == (option == "ignore")

    run(test())


@names_of(RETARGETING)
def test_where_dependencies_see_the_real_request_it_passes_by_too(name: bytes) -> None:
    cache, app = TierCache(), FastAPI()

    @app.api_route("/things/{name}", methods=["GET", "POST"])
    @cache.response(ttl=60, dependencies="always")
    async def thing(name: str) -> str:
        return name

    app.add_middleware(Heeding)
    app.add_middleware(TierCacheMiddleware, cache=cache)

    async def test() -> None:
        other = await asked(app, (name, b"/things/2" if name.endswith(b"url") else b"POST"), path="/things/1")
        assert f"detail={name.decode()}" in other.cache_status
        clean = await asked(app, path="/things/1")
        assert (clean.body, clean.hit) == (b'"1"', False)

    run(test())


def test_where_dependencies_see_the_real_request_what_a_response_varies_by_counts() -> None:
    class Reflecting:
        def __init__(self, app: ASGIApp) -> None:
            self._app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                scope = {**scope, "path": "/" + Headers(scope=scope).get("x-tenant", "nobody")}
            await self._app(scope, receive, send)

    cache, app = TierCache(), FastAPI()

    @app.get("/{name}")
    @cache.response(ttl=60, dependencies="always")
    async def thing(name: str, response: Response) -> str:
        response.headers["vary"] = "X-Tenant"
        return name

    app.add_middleware(Reflecting)
    app.add_middleware(TierCacheMiddleware, cache=cache)

    async def test() -> None:
        for hit in (False, True):
            for tenant in ("ann", "bob"):
                reply = await asked(app, (b"x-tenant", tenant.encode()), path="/any")
                assert (reply.body, reply.hit) == (f'"{tenant}"'.encode(), hit)

    run(test())


@pytest.mark.parametrize("policy", [MODES["http"], MODES["rfc9111"]], ids=["http", "rfc9111"])
@names_of((*WHO_ASKS, *OTHERS))
def test_in_the_http_modes_any_other_header_is_the_responses_to_name(name: bytes, policy: Policy) -> None:
    """The contract of RFC 9111: `Vary` names what counts; what it does not name, the app says, makes no difference."""

    async def test() -> None:
        app = mirrored(policy, headers={**PUBLIC, "vary": name.decode()})
        assert EVIL in (await asked(app, (name, EVIL))).body
        for _ in range(2):
            assert EVIL not in (await asked(app)).body
        assert (await asked(app)).hit
        assert (await asked(app, (name, EVIL))).hit
        app = mirrored(policy)
        await asked(app, (name, EVIL))
        assert (await asked(app)).hit

    run(test())


@names_of((*WHO_ASKS, *OTHERS))
def test_without_strict_any_other_header_is_the_responses_to_name_too(name: bytes) -> None:
    async def test() -> None:
        app = mirrored(MODES["lax"], headers={"vary": name.decode()})
        assert EVIL in (await asked(app, (name, EVIL))).body
        for _ in range(2):
            assert EVIL not in (await asked(app)).body
        assert (await asked(app)).hit

    run(test())


@pytest.mark.parametrize("policy", [Policy.http(strict=True), Policy.http(ignore=["x-forwarded-for"])])
def test_in_http_mode_what_an_app_reflects_can_be_withheld(policy: Policy) -> None:
    async def test() -> None:
        app = mirrored(policy)
        assert EVIL not in (await asked(app, (b"x-forwarded-for", EVIL))).body
        assert (await asked(app)).hit

    run(test())
