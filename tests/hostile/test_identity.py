"""Who asks: nobody is given what was made for another, whatever carries the identity, in every mode."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.responses import JSONResponse as FastAPIResponse
from fastapi.security import APIKeyHeader, APIKeyQuery
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, SimpleUser
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from asgi_tiercache import ConfigError, Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.invalidation.log import ProcessLog
from asgi_tiercache.testing import ScriptedTier
from tests.hostile.apps import Line, asked, mirrored, seen
from tests.hostile.sockets import raw, served
from tests.middleware.asgi import Exchange, Reply, http_scope, run, turns

Sent = dict[str, Any]
Carrier = Callable[[str], Sent]


def header(name: str, value: str = "{}") -> Carrier:
    return lambda who: {"headers": [(name.encode(), value.format(who).encode())]}


HEADERS = (
    "x-api-key",
    "x-auth-token",
    "proxy-authorization",
    "x-forwarded-user",
    "x-auth-request-email",
    "remote-user",
    "cf-access-jwt-assertion",
    "x-amzn-oidc-data",
    "x-goog-iap-jwt-assertion",
    "x-ms-client-principal",
)
STANDARD: Mapping[str, Carrier] = {
    "authorization": header("authorization", "Bearer {}"),
    "cookie": header("cookie", "name={}"),
    "session": lambda who: {"session": {"name": who}},
    "user": lambda who: {"user": SimpleUser(who)},
    "auth": lambda who: {"auth": AuthCredentials([who])},
    "tls": lambda who: {"extensions": {"tls": {"client_cert_name": f"CN={who}", "tls_version": 0x0304}}},
}
CARRIERS: Mapping[str, Carrier] = {**STANDARD, **{name: header(name) for name in HEADERS}}
carriers = pytest.mark.parametrize("carrier", CARRIERS)
WHO = ("ann", "nobody", "bob", "ann", "nobody", "bob", "bob")


def told(request: Request) -> str:
    """Whose request it is, by whatever says so."""
    scope = request.scope
    says = [value.decode().split("=")[-1].split()[-1] for name, value in scope["headers"] if name.decode() in CARRIERS]
    says += [*(scope.get("session") or {}).values(), *scope.get("auth", AuthCredentials()).scopes]
    says += [scope["user"].username] if getattr(scope.get("user"), "is_authenticated", False) else []
    tls = scope.get("extensions", {}).get("tls", {})
    says += [name.partition("=")[2]] if (name := tls.get("client_cert_name")) else []
    return says[0] if says else "nobody"


def app_for(
    policy: Policy, headers: Mapping[str, str], *, cache: TierCache | None = None, slow: bool = False
) -> Starlette:
    async def answer(request: Request) -> Response:
        if slow:
            await turns()
        return PlainTextResponse(told(request), headers=dict(headers))

    return mirrored(policy, cache=cache, routes=[Route("/", answer)])


async def ask(app: Starlette, carrier: str, who: str) -> Reply:
    return await Exchange(app, scope_of(carrier, who)).reply()


def scope_of(carrier: str, who: str) -> Any:
    return http_scope(**(CARRIERS[carrier](who) if who != "nobody" else {}))


SHARED_BY_NOBODY: Mapping[str, tuple[Policy, Mapping[str, str]]] = {
    "lax": (Policy(ttl=60, strict=False), {}),
    "lax, public": (Policy(ttl=60, strict=False), {"cache-control": "public, max-age=60"}),
    "http, max-age": (Policy.http(), {"cache-control": "max-age=60"}),
    "http, expires": (Policy.http(), {"expires": "Fri, 01 Jan 2100 00:00:00 GMT"}),
    "http, must-revalidate": (Policy.http(), {"cache-control": "max-age=60, must-revalidate"}),
    "http, its own lifetime": (Policy.http(ttl=60), {}),
    "http, validated": (Policy.http(), {"cache-control": "max-age=0", "etag": '"same for all"'}),
    "http, private": (Policy.http(), {"cache-control": "private, s-maxage=60"}),
}
modes = pytest.mark.parametrize(("policy", "headers"), SHARED_BY_NOBODY.values(), ids=SHARED_BY_NOBODY)


@carriers
@modes
def test_whoever_says_who_asks_gets_and_gives_only_their_own(
    carrier: str, policy: Policy, headers: Mapping[str, str]
) -> None:
    async def test() -> None:
        app = app_for(policy, headers)
        for who in WHO:
            reply = await ask(app, carrier, who)
            assert reply.body == who.encode()
            assert not reply.hit or who == "nobody"

    run(test())


@carriers
@modes
def test_nor_while_others_wait(carrier: str, policy: Policy, headers: Mapping[str, str]) -> None:
    async def test() -> None:
        for order in itertools.permutations(("ann", "bob", "nobody")):
            app = app_for(policy, headers, slow=True)
            under_way = [(who, Exchange(app, scope_of(carrier, who))) for who in (*order, *order)]
            for who, each in under_way:
                assert (await each.reply()).body == who.encode(), order

    run(test())


@carriers
@modes
def test_nor_by_way_of_another_worker(carrier: str, policy: Policy, headers: Mapping[str, str]) -> None:
    async def test() -> None:
        tier, log = ScriptedTier(), ProcessLog()
        for who in WHO:
            cache = TierCache(l2=tier, log=log)
            assert (await ask(app_for(policy, headers, cache=cache), carrier, who)).body == who.encode()
            await cache.aclose()

    run(test())


@carriers
def test_under_a_strict_policy_it_passes_by_or_is_withheld(carrier: str) -> None:
    async def test() -> None:
        app = app_for(Policy(ttl=60), {"cache-control": "public, max-age=60"})
        for who in WHO:
            reply = await ask(app, carrier, who)
            if carrier in STANDARD and who != "nobody":
                assert reply.body == who.encode()
                assert f"detail={carrier}" in reply.cache_status
            else:
                assert reply.body == b"nobody"

    run(test())


@carriers
@pytest.mark.parametrize("policy", [Policy(ttl=60), Policy(ttl=60, strict=False), Policy.http()])
def test_what_is_ignored_reaches_nobody(carrier: str, policy: Policy) -> None:
    async def test() -> None:
        app = app_for(policy.but(ignore=[carrier]), {"cache-control": "max-age=60"})
        replies = [await ask(app, carrier, who) for who in WHO]
        assert [reply.body for reply in replies] == [b"nobody"] * len(WHO)
        assert all(reply.hit for reply in replies[1:])

    run(test())


KEYED: Mapping[str, tuple[str, Policy]] = {
    "authorization": ("authorization", Policy(ttl=60, vary_on=["authorization"])),
    "authorization, http": ("authorization", Policy.http(vary_on=["authorization"])),
    "cookie": ("cookie", Policy(ttl=60, cookies=["name"])),
    "cookie, whole": ("cookie", Policy(ttl=60, vary_on=["cookie"])),
    "cookie, http": ("cookie", Policy.http(cookies=["name"])),
    "x-api-key": ("x-api-key", Policy(ttl=60, vary_on=["x-api-key"])),
    "x-api-key, lax": ("x-api-key", Policy(ttl=60, vary_on=["x-api-key"], strict=False)),
    "x-api-key, http": ("x-api-key", Policy.http(vary_on=["x-api-key"])),
    "user": ("user", Policy(ttl=60, user=lambda scope: scope["user"].username if "user" in scope else "nobody")),
    "session": ("session", Policy(ttl=60, user=lambda scope: scope.get("session", {}).get("name", "nobody"))),
    "tls": ("tls", Policy(ttl=60, user=lambda scope: repr(scope.get("extensions")))),
}


@pytest.mark.parametrize(("carrier", "policy"), KEYED.values(), ids=KEYED)
def test_what_is_keyed_keeps_them_apart_and_each_has_hits(carrier: str, policy: Policy) -> None:
    async def test() -> None:
        app = app_for(policy, {"cache-control": "max-age=60"})
        known: set[str] = set()
        for who in WHO:
            reply = await ask(app, carrier, who)
            assert (reply.body, reply.hit) == (who.encode(), who in known)
            known.add(who)

    run(test())


@pytest.mark.parametrize("policy", [Policy.rfc9111(), Policy.rfc9111(ttl=60)])
def test_by_the_letter_of_the_rfc_authorization_is_kept_apart_and_nothing_else(policy: Policy) -> None:
    async def test() -> None:
        for carrier in CARRIERS:
            app = app_for(policy, {"cache-control": "max-age=60"})
            bodies = [(await ask(app, carrier, who)).body.decode() for who in WHO]
            assert (bodies == list(WHO)) == (carrier == "authorization"), carrier

    run(test())


def test_what_says_that_it_is_public_is_for_all_in_http_mode() -> None:
    async def test() -> None:
        for carrier in CARRIERS:
            app = app_for(Policy.http(), {"cache-control": "public, max-age=60"})
            await ask(app, carrier, "nobody")
            assert (await ask(app, carrier, "ann")).hit

    run(test())


# ---- credentials that only the app knows ----

PARTNER = APIKeyHeader(name="X-Partner", auto_error=False)


def test_in_http_mode_a_header_that_a_route_declares_as_its_credential_is_one() -> None:
    app = FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=TierCache())

    @app.get("/")
    async def whose(name: Annotated[str | None, Depends(PARTNER)]) -> Response:
        return FastAPIResponse(name or "nobody", headers={"cache-control": "max-age=60"})

    async def test() -> None:
        for who in WHO:
            lines: list[Line] = [(b"x-partner", who.encode())] if who != "nobody" else []
            reply = await asked(app, *lines)
            assert reply.body == f'"{who}"'.encode()
            assert not reply.hit or who == "nobody"
        assert reply.cache_status

    run(test())


def test_a_declared_name_that_no_header_can_have_disturbs_nobody() -> None:
    app = FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=TierCache())

    @app.get("/", dependencies=[Depends(APIKeyHeader(name="X-Schlüssel", auto_error=False))])
    async def answer() -> Response:
        return FastAPIResponse("answer", headers={"cache-control": "max-age=60"})

    async def test() -> None:
        assert [(await asked(app)).hit for _ in range(2)] == [False, True]
        assert (await asked(app, ("x-schlüssel".encode("latin-1"), b"ann"))).status == 200

    run(test())


@pytest.mark.parametrize("policy", [Policy(ttl=60), Policy(ttl=60, strict=False), Policy.http(), Policy.rfc9111()])
def test_credentials_in_the_query_are_part_of_the_key(policy: Policy) -> None:
    async def test() -> None:
        app = mirrored(policy)
        for query in (b"token=ann", b"token=bob", b"", b"token="):
            reply = await asked(app, query_string=query)
            assert (seen(reply)["query"], reply.hit) == (query.decode(), False)
            assert (await asked(app, query_string=query)).hit

    run(test())


def test_credentials_in_the_query_that_are_dropped_are_withheld_and_declared_ones_are_refused_at_start() -> None:
    async def test() -> None:
        app = mirrored(Policy(ttl=60, drop_query=["token"]))
        for query in (b"token=ann", b"t%6Fken=bob"):
            assert seen(await asked(app, query_string=query))["query"] == ""
        declared = FastAPI()
        policy = Policy(ttl=60, drop_query=["token"])
        declared.add_middleware(TierCacheMiddleware, cache=TierCache(), routes={"/": policy})

        @declared.get("/")
        async def whose(token: Annotated[str, Depends(APIKeyQuery(name="token"))]) -> str:
            return token

        with pytest.raises(ConfigError, match="token"):
            await asked(declared, query_string=b"token=ann")

    run(test())


# ---- as it comes over the wire ----

SPELLINGS = (
    "Authorization: Bearer ann",
    "AUTHORIZATION: Bearer ann",
    "aUTHORIZATION:Bearer ann",
    "authorization:   Bearer ann",
    "Authorization:",
    "Authorization: ",
    "Authorization: Basic",
    "Cookie: name=ann",
    "COOKIE: name=ann",
    "cookie:name=ann",
    "Cookie:",
    "Cookie: ;",
    "Cookie: theme=dark\r\nCookie: name=ann",
    "X-Api-Key: ann",
    "X-API-KEY: ann",
)


@modes
def test_no_spelling_of_a_credential_is_overlooked(policy: Policy, headers: Mapping[str, str]) -> None:
    async def answer(request: Request) -> Response:
        who = "ann" if any(name in CARRIERS and "ann" in value for name, value in request.headers.items()) else "nobody"
        return PlainTextResponse(who, headers=dict(headers))

    def get(*lines: str) -> Any:
        head = "\r\n".join(("GET / HTTP/1.1", "Host: example.org", *lines, "Connection: close", "", ""))
        return raw(port, head.encode())

    with served(mirrored(policy, routes=[Route("/", answer)])) as port:
        for line in SPELLINGS:
            mine, others = get(line), get()
            assert not mine.hit, line
            assert mine.body == (b"ann" if "ann" in line else b"nobody"), line
            assert others.body == b"nobody", line
        assert get("X: 1", " Authorization: Bearer ann").body == b"nobody", "a folded line is a part of the one before"
        assert get("Authorization : Bearer ann").status == 400
        assert get().body == b"nobody"


def test_a_header_name_that_no_server_should_pass_on_reaches_no_strict_handler() -> None:
    """ASGI has servers send names in lower case. Frameworks look for nothing else, and neither do keys."""

    async def test() -> None:
        app = mirrored(Policy(ttl=60))
        for name in (b"Authorization", b"AUTHORIZATION", b"Cookie", b"authorization ", b"x_api_key"):
            reply = await asked(app, (name, b"ann"))
            assert b"ann" not in reply.body

    run(test())


def test_concurrent_users_of_one_key_callable_are_not_mixed_up() -> None:
    """The callable is asked for each request, also while another's is being answered."""

    async def answer(request: Request) -> Response:
        await asyncio.sleep(0)
        return PlainTextResponse(request.headers["authorization"])

    def user(scope: Mapping[str, Any]) -> str:
        return str(dict(scope["headers"])[b"authorization"], "ascii")

    async def test() -> None:
        app = mirrored(Policy(ttl=60, user=user), routes=[Route("/", answer)])
        for _ in range(2):
            under_way = [
                (name, Exchange(app, http_scope(headers=[(b"authorization", name)])))
                for name in (b"ann", b"bob", b"ann", b"carl", b"bob")
            ]
            for name, each in under_way:
                assert (await each.reply()).body == name

    run(test())
