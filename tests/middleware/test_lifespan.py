"""The cache starts and closes with the app."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from asgi_tiercache import SESSION, ConfigError, Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.testing import ScriptedTier, assert_hit
from tests.middleware.apps import Handler, app_of
from tests.middleware.asgi import PATIENCE, ask, run, running

POLICY = Policy(ttl=60)
LIFESPAN: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}


class Server:
    """The server's side of a lifespan, as uvicorn plays it."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()

    async def receive(self) -> Message:
        """What the app hears."""
        return await self._to_app.get()

    async def send(self, message: Message) -> None:
        """What the app says."""
        self.sent.append(message)
        self._from_app.put_nowait(message)

    async def tell(self, kind: str) -> Message:
        """Say something to the app, and wait for the answer."""
        self._to_app.put_nowait({"type": f"lifespan.{kind}"})
        async with asyncio.timeout(PATIENCE):
            return await self._from_app.get()


class Resource:
    """Something that an app opens at its start and has to close again."""

    def __init__(self, error: Exception | None = None) -> None:
        self.log: list[str] = []
        self._error = error

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """The app's own lifespan."""
        self.log.append("open")
        if self._error is not None:
            raise self._error
        try:
            yield
        finally:
            self.log.append("close")


def _app(resource: Resource, policy: Policy, cache: TierCache | None = None) -> Starlette:
    ours = Middleware(TierCacheMiddleware, cache=cache or TierCache(), routes={"/": policy})
    return Starlette(routes=[Route("/", Handler().answer)], middleware=[ours], lifespan=resource.lifespan)


def test_an_app_starts_and_stops_as_without_us() -> None:
    resource = Resource()
    with TestClient(_app(resource, POLICY)) as client:
        client.get("/")
        assert_hit(client.get("/"))
    assert resource.log == ["open", "close"]


def test_what_is_queued_is_written_before_the_app_has_stopped() -> None:
    tier = ScriptedTier()
    app = app_of(Handler(), POLICY, cache=TierCache(l2=tier))

    async def test() -> None:
        async with running(app) as sent:
            await ask(app)
        assert len(tier.data) == 1
        assert tier.calls[-1] == "aclose"
        assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]

    run(test())


def test_a_failing_startup_fails_as_without_us() -> None:
    resource = Resource(LookupError("no database"))
    server = Server()

    async def test() -> None:
        task = asyncio.create_task(_app(resource, POLICY)(dict(LIFESPAN), server.receive, server.send))
        message = await server.tell("startup")
        assert message["type"] == "lifespan.startup.failed"
        assert "no database" in message["message"]
        with pytest.raises(LookupError):
            await asyncio.wait_for(task, PATIENCE)

    run(test())


def test_a_failing_startup_reaches_the_test_client() -> None:
    with pytest.raises(LookupError), TestClient(_app(Resource(LookupError("no database")), POLICY)):
        pass


def test_a_policy_that_does_not_fit_fails_the_startup() -> None:
    server = Server()

    async def test() -> None:
        app = _app(Resource(), SESSION)
        task = asyncio.create_task(app(dict(LIFESPAN), server.receive, server.send))
        message = await server.tell("startup")
        assert message["type"] == "lifespan.startup.failed"
        assert "user" in message["message"]
        task.cancel()
        await asyncio.wait([task])

    run(test())


def test_an_app_whose_startup_failed_ends_and_closes_what_it_opened() -> None:
    """A server does not say shutdown after that, and the test client waits for the app to end."""
    resource, server = Resource(), Server()

    async def test() -> None:
        app = _app(resource, SESSION)
        task = asyncio.create_task(app(dict(LIFESPAN), server.receive, server.send))
        await server.tell("startup")
        done, _ = await asyncio.wait([task], timeout=1)
        task.cancel()
        assert done
        with pytest.raises(ConfigError, match="user"):
            task.result()
        assert resource.log == ["open", "close"]

    run(test())


def test_without_a_lifespan_a_policy_that_does_not_fit_fails_every_request() -> None:
    app = app_of(Handler(), SESSION)

    async def test() -> None:
        for _ in range(2):
            with pytest.raises(ConfigError, match="user"):
                await ask(app)

    run(test())


def test_an_app_that_knows_no_lifespan_is_served() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError("unknown scope")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"text"})

    ours = TierCacheMiddleware(app, cache=TierCache(), routes={"/": POLICY})
    server = Server()

    async def test() -> None:
        with pytest.raises(RuntimeError, match="unknown scope"):
            await ours(dict(LIFESPAN), server.receive, server.send)
        await ask(ours)
        assert (await ask(ours)).hit

    run(test())


def test_a_tier_that_is_out_of_reach_does_not_keep_the_app_from_starting() -> None:
    tier = ScriptedTier()
    tier.fail()
    handler = Handler()
    with TestClient(app_of(handler, POLICY, cache=TierCache(l2=tier))) as client:
        client.get("/")
        assert_hit(client.get("/"), "L1")


def test_an_app_can_be_started_again() -> None:
    resource = Resource()
    app = _app(resource, POLICY)
    for hit in (False, True):
        with TestClient(app) as client:
            assert ("hit" in client.get("/").headers["cache-status"]) is hit
    assert resource.log == ["open", "close"] * 2
