"""`request.state` as middleware above leaves it: it may say who is asking."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.testing import assert_hit, assert_miss


class KeyToTenant:
    """Puts the tenant that a key belongs to into the state, as custom authentication does."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            key = Request(scope).headers.get("x-api-key")
            if key is not None:
                scope.setdefault("state", {})["tenant"] = f"tenant of {key}"
        await self.app(scope, receive, send)


async def whose(request: Request) -> PlainTextResponse:
    return PlainTextResponse(getattr(request.state, "tenant", "nobody"))


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
    yield {"database": "the same for all"}


def client_of(policy: Policy) -> TestClient:
    ours = Middleware(TierCacheMiddleware, cache=TierCache(), routes={"/": policy})
    return TestClient(
        Starlette(routes=[Route("/", whose)], middleware=[Middleware(KeyToTenant), ours], lifespan=lifespan)
    )


def test_a_request_of_which_the_state_says_something_passes_by() -> None:
    with client_of(Policy(ttl=60)) as client:
        for key in ("a", "b", "a"):
            response = client.get("/", headers={"x-api-key": key})
            assert response.text == f"tenant of {key}"
            assert "detail=state" in response.headers["cache-status"]


def test_what_the_lifespan_put_there_keeps_nobody_out() -> None:
    with client_of(Policy(ttl=60)) as client:
        assert_miss(client.get("/"), stored=True)
        assert_hit(client.get("/"))


def test_a_user_in_the_key_lets_the_state_in() -> None:
    def user(scope: Scope) -> str | None:
        tenant: str | None = scope.get("state", {}).get("tenant")
        return tenant

    with client_of(Policy(ttl=60, user=user)) as client:
        for key in ("a", "b", "a", "b"):
            assert client.get("/", headers={"x-api-key": key}).text == f"tenant of {key}"
        assert_hit(client.get("/", headers={"x-api-key": "a"}))


def test_without_strict_the_state_is_the_apps_own_affair() -> None:
    with client_of(Policy(ttl=60, strict=False, ignore=["x-api-key"])) as client:
        client.get("/", headers={"x-api-key": "a"})
        assert_hit(client.get("/", headers={"x-api-key": "b"}))
