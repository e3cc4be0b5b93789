"""Apps under test must not notice us, whatever loop they run in; and everything can be switched off."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import pytest
import trio
from fastapi import FastAPI
from starlette.testclient import TestClient
from starlette.types import Message

from asgi_tiercache import SESSION, STATIC, Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.testing import ScriptedTier, assert_hit
from tests.middleware.apps import Handler, app_of
from tests.middleware.asgi import ask, http_scope, run

POLICY = Policy(ttl=60)


@pytest.mark.parametrize("l2", [True, False])
def test_each_request_may_run_in_a_loop_of_its_own(l2: bool) -> None:
    handler = Handler()
    app = app_of(handler, POLICY, cache=TierCache(l2=ScriptedTier() if l2 else None), path="/{item}")
    client = TestClient(app)
    for _ in range(3):
        for item in "abc":
            response = client.get(f"/{item}")
    assert_hit(response, "L1")
    assert handler.calls == 3


def test_with_and_without_a_lifespan_in_turn() -> None:
    handler = Handler()
    app = app_of(handler, POLICY, cache=TierCache(l2=ScriptedTier()))
    TestClient(app).get("/")
    for _ in range(2):
        with TestClient(app) as client:
            assert_hit(client.get("/"))
        assert_hit(TestClient(app).get("/"))
    assert handler.calls == 1


def test_loops_in_several_threads_share_what_is_in_memory() -> None:
    handler = Handler()
    app = app_of(handler, POLICY)
    TestClient(app).get("/")
    with ThreadPoolExecutor(4) as threads:
        responses = list(threads.map(lambda _: TestClient(app).get("/"), range(20)))
    assert {response.text for response in responses} == {"answer 1"}


def test_sync_handlers_run_as_without_us() -> None:
    app = FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=TierCache(), routes={"/": POLICY})
    calls: list[int] = []

    @app.get("/")
    def read() -> str:
        calls.append(1)
        return "text"

    for client in (TestClient(app), TestClient(app)):
        assert client.get("/").json() == "text"
    assert len(calls) == 1


async def _trio_get(app: object) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    with trio.fail_after(5):
        await app(http_scope(), receive, send)  # type: ignore[operator]
    return sent


@pytest.mark.parametrize("policy", [POLICY, Policy.http(), Policy.http(ttl=60), None])
def test_under_trio_requests_pass_by(policy: Policy | None) -> None:
    handler = Handler()
    app = app_of(handler, policy)
    for number in (1, 2):
        messages = trio.run(_trio_get, app)
        assert messages[1]["body"] == f"answer {number}".encode()


Backend = Literal["asyncio", "trio"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_test_client_of_either_kind_gets_its_answers(backend: Backend) -> None:
    client = TestClient(app_of(Handler(), POLICY), backend=backend)
    assert client.get("/").text == "answer 1"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_lifespan_of_either_kind_starts(backend: Backend) -> None:
    with TestClient(app_of(Handler(), POLICY), backend=backend) as client:
        assert client.get("/").text == "answer 1"


@pytest.fixture
def _disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERCACHE_DISABLED", "1")


@pytest.mark.usefixtures("_disabled")
@pytest.mark.parametrize("policy", [POLICY, STATIC, Policy.http()])
def test_switched_off_nothing_is_cached(policy: Policy) -> None:
    tier, handler = ScriptedTier(), Handler()
    with TestClient(app_of(handler, policy, cache=TierCache(l2=tier))) as client:
        for number in (1, 2, 3):
            response = client.get("/", headers={"x-other": "b"})
            assert response.text == f"answer {number}"
            assert "cache-status" not in response.headers
    assert handler.seen.headers["x-other"] == "b"
    assert tier.calls == []


@pytest.mark.usefixtures("_disabled")
def test_switched_off_no_policy_is_looked_at() -> None:
    with TestClient(app_of(Handler(), SESSION)) as client:
        assert client.get("/").text == "answer 1"


@pytest.mark.usefixtures("_disabled")
def test_switched_off_what_handlers_say_does_nothing() -> None:
    cache, app = TierCache(), FastAPI()
    app.add_middleware(TierCacheMiddleware, cache=cache)

    @app.get("/")
    @cache.response(POLICY)
    async def read() -> str:
        cache.current.tag("a")
        cache.current.set_ttl(5)
        cache.current.no_store()
        return "text"

    assert TestClient(app).get("/").json() == "text"


@pytest.mark.parametrize("value", ["", "0"])
def test_another_value_switches_nothing_off(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERCACHE_DISABLED", value)
    app = app_of(Handler(), POLICY)

    async def test() -> None:
        await ask(app)
        assert (await ask(app)).hit

    run(test())
