"""What a policy is checked for against the declared inputs of a FastAPI route, at start."""

from __future__ import annotations

from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, Header, Request
from starlette.testclient import TestClient

from asgi_tiercache import ConfigError, Policy, TierCache, TierCacheMiddleware
from tests.middleware.asgi import ask, run

ALWAYS = Policy(ttl=60, dependencies="always")


def _tenant(x_tenant: Annotated[str, Header()]) -> str:
    return x_tenant


def test_a_value_that_the_handler_takes_must_be_keyed() -> None:
    app = FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=TierCache(), routes={"/": ALWAYS})

    @app.get("/")
    async def read(name: Annotated[str, Depends(_tenant)]) -> str:
        return name

    async def test() -> None:
        with pytest.raises(ConfigError, match="x-tenant"):
            await ask(app)

    run(test())


def test_a_value_that_the_handler_takes_may_be_keyed() -> None:
    app = FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=TierCache(), routes={"/": ALWAYS.but(vary_on=("x-tenant",))})

    @app.get("/")
    async def read(name: Annotated[str, Depends(_tenant)]) -> str:
        return name

    client = TestClient(app)
    assert [client.get("/", headers={"x-tenant": name}).json() for name in "aba"] == ["a", "b", "a"]


def test_a_handler_that_takes_the_whole_request_is_refused() -> None:
    app = FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=TierCache(), routes={"/": ALWAYS})

    @app.get("/")
    async def read(request: Request) -> str:
        return "text"

    async def test() -> None:
        with pytest.raises(ConfigError, match="dependencies"):
            await ask(app)

    run(test())


def test_an_unkeyed_security_dependency_is_refused_at_start() -> None:
    app = FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=TierCache(), routes={"/": Policy(ttl=60)})

    @app.get("/")
    async def read(x_token: Annotated[str, Header()]) -> str:
        return x_token

    async def test() -> None:
        with pytest.raises(ConfigError, match="x-token"):
            await ask(app)

    run(test())
