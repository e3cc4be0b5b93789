"""Options that add to the key, name it, or start it afresh."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from asgi_tiercache import ConfigError, Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.invalidation.log import ProcessLog
from asgi_tiercache.testing import ScriptedTier, assert_hit, assert_miss
from tests.middleware.apps import Handler, app_of, client_of
from tests.middleware.asgi import Exchange, Reply, ask, run, until


def test_a_key_callable_adds_to_the_key() -> None:
    handler = Handler()
    policy = Policy(ttl=60, key=lambda scope: dict(scope["headers"]).get(b"x-plan", b"free"))
    client = client_of(handler, policy)
    texts = [client.get("/", headers={"x-plan": plan}).text for plan in ("gold", "free", "gold")]
    assert texts == ["answer 1", "answer 2", "answer 1"]


def test_a_key_callable_replaces_nothing() -> None:
    handler = Handler()
    client = client_of(handler, Policy(ttl=60, key=lambda _: "same"))
    assert client.get("/?q=1").text != client.get("/?q=2").text


def test_a_key_callable_that_raises_passes_by() -> None:
    handler = Handler()
    client = client_of(handler, Policy(ttl=60, key=lambda scope: str(scope["nothing of the kind"])))
    for _ in range(2):
        assert "detail=key-callable" in client.get("/").headers["cache-status"]
    assert handler.calls == 2


@pytest.mark.parametrize("option", ["user", "key"])
def test_a_coroutine_function_is_refused_at_once(option: str) -> None:
    async def source(scope: object) -> str:
        return "x"

    with pytest.raises(ConfigError, match=option):
        Policy(ttl=60, **{option: source})  # type: ignore[arg-type]


class _Fleet:
    """Two processes that share a Redis: what one stores the other may find."""

    def __init__(self) -> None:
        self.tier = ScriptedTier()
        self._log = ProcessLog()

    def worker(self, handler: Handler, policy: Policy, *, namespace: str = "", path: str = "/") -> Starlette:
        cache = TierCache(l2=self.tier, log=self._log, namespace=namespace)
        return app_of(handler, policy, cache=cache, path=path)

    async def ask_in_turn(self, first: Starlette, second: Starlette, path: str = "/", **request: Any) -> Reply:
        """Ask the first, wait until its answer has reached the tier, and ask the second."""
        await ask(first, path, **request)
        await until(lambda: bool(self.tier.data))
        return await ask(second, path, **request)


def test_another_process_finds_what_the_first_stored() -> None:
    fleet, handler = _Fleet(), Handler()

    async def test() -> None:
        reply = await fleet.ask_in_turn(fleet.worker(handler, Policy(ttl=60)), fleet.worker(handler, Policy(ttl=60)))
        assert reply.body == b"answer 1"
        assert "detail=L2" in reply.cache_status

    run(test())


@pytest.mark.parametrize(
    "changed",
    [
        Policy(ttl=60, version="2"),
        Policy(ttl=60, tags=("a",)),
        Policy(ttl=60, drop_query=("x",)),
        Policy(ttl=60, strict=False),
        Policy(ttl=60, ignore=("x-a",)),
        Policy(ttl=60, vary_on=("x-a",)),
        Policy(ttl=60, cookies=("a",)),
    ],
    ids=["version", "tags", "drop_query", "strict", "ignore", "vary_on", "cookies"],
)
def test_a_deployment_that_changes_the_key_options_starts_afresh(changed: Policy) -> None:
    fleet, handler = _Fleet(), Handler()

    async def test() -> None:
        reply = await fleet.ask_in_turn(fleet.worker(handler, Policy(ttl=60)), fleet.worker(handler, changed))
        assert reply.body == b"answer 2"

    run(test())


def test_a_deployment_that_changes_only_a_lifetime_keeps_what_it_had() -> None:
    fleet, handler = _Fleet(), Handler()

    async def test() -> None:
        old, new = fleet.worker(handler, Policy(ttl=60)), fleet.worker(handler, Policy(ttl=90))
        assert (await fleet.ask_in_turn(old, new)).hit

    run(test())


def test_a_namespace_begins_every_key() -> None:
    fleet, handler = _Fleet(), Handler()

    async def test() -> None:
        first, second = (fleet.worker(handler, Policy(ttl=60), namespace=name) for name in ("shop", "blog"))
        reply = await fleet.ask_in_turn(first, second)
        assert reply.body == b"answer 2"
        await until(lambda: len(fleet.tier.data) == 2)
        assert sorted(key.split(":")[0] for key in fleet.tier.data) == ["blog", "shop"]

    run(test())


def test_a_key_names_the_path() -> None:
    fleet = _Fleet()

    async def test() -> None:
        worker = fleet.worker(Handler(), Policy(ttl=60), path="/secrets/{token}")
        await fleet.ask_in_turn(worker, worker, "/secrets/abc")
        assert all(key.startswith("api:response:/secrets/abc:") for key in fleet.tier.data)

    run(test())


def test_a_hashed_path_appears_nowhere_in_what_is_stored() -> None:
    fleet = _Fleet()

    async def test() -> None:
        worker = fleet.worker(Handler(), Policy(ttl=60, hash_path=True), path="/secrets/{token}")
        reply = await fleet.ask_in_turn(worker, worker, "/secrets/abc")
        assert reply.hit
        for key, data in fleet.tier.data.items():
            assert "abc" not in key
            assert b"secrets/abc" not in data

    run(test())


def test_hashed_paths_do_not_share_answers() -> None:
    handler = Handler()
    client = client_of(handler, Policy(ttl=60, hash_path=True), path="/{token}")
    assert [client.get(f"/{token}").text for token in "aba"] == ["answer 1", "answer 2", "answer 1"]


@pytest.mark.parametrize("secret", [b"Bearer hush", b"theme=hush"])
def test_credentials_are_never_stored_in_clear(secret: bytes) -> None:
    fleet = _Fleet()
    policy = Policy(ttl=60, vary_on=("authorization",), cookies=("theme",))

    async def test() -> None:
        worker = fleet.worker(Handler(), policy)
        name = b"authorization" if b"Bearer" in secret else b"cookie"
        await fleet.ask_in_turn(worker, worker, headers=[(name, secret)])
        assert all(b"hush" not in data for data in fleet.tier.data.values())

    run(test())


def _echo() -> Handler:
    async def respond(request: Request) -> PlainTextResponse:
        return PlainTextResponse(await request.body())

    return Handler(respond)


def test_a_keyed_body_tells_answers_apart() -> None:
    handler = _echo()
    client = client_of(handler, Policy(ttl=60, body=True))
    texts = [client.request("GET", "/", content=body).text for body in (b"one", b"two", b"one")]
    assert texts == ["one", "two", "one"]
    assert handler.calls == 2
    assert client.get("/").text == ""


def test_a_keyed_body_in_pieces_is_the_same_body() -> None:
    handler = _echo()
    client = client_of(handler, Policy(ttl=60, body=True))
    client.request("GET", "/", content=b"onetwo")
    response = client.request("GET", "/", content=iter([b"one", b"two"]))
    assert response.text == "onetwo"
    assert_hit(response)


def test_a_body_above_the_bound_passes_by_whole() -> None:
    handler = _echo()
    client = client_of(handler, Policy(ttl=60, body=True, max_body=8))
    for _ in range(2):
        response = client.request("GET", "/", content=iter([b"12345", b"67890", b"x"]))
        assert response.text == "1234567890x"
        assert_miss(response)


def test_a_keyed_body_that_could_not_be_shared_is_given_once() -> None:
    """After it, `receive` waits for the client to go, as it would without us."""
    heard: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        heard.append((await receive())["type"])
        await send({"type": "http.response.start", "status": 404, "headers": []})
        heard.append((await receive())["type"])
        await send({"type": "http.response.body", "body": b""})

    ours = TierCacheMiddleware(app, cache=TierCache(), routes={"/": Policy(ttl=60, body=True)})

    async def test() -> None:
        for _ in range(2):
            heard.clear()
            exchange = Exchange(ours, body=b"one")
            await exchange.until(1)
            exchange.disconnect()
            await exchange.reply()
            assert heard == ["http.request", "http.disconnect"]

    run(test())
