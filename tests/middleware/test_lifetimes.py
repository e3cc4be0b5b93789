"""How long answers live, which are stored at all, and what the client is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from asgi_tiercache import FREQUENT, SESSION, STATIC, TEMPORARY, ConfigError, Policy, Region, TierCache
from asgi_tiercache.invalidation.log import ProcessLog
from asgi_tiercache.middleware import TierCacheMiddleware
from asgi_tiercache.testing import ScriptedTier, TickingClock, assert_hit, assert_miss
from tests.middleware.apps import Handler, app_of, client_of
from tests.middleware.asgi import ask, run, until


def test_an_answer_lives_as_long_as_its_ttl() -> None:
    clock, handler = TickingClock(), Handler()
    client = client_of(handler, Policy(ttl=60), cache=TierCache(clock=clock))
    client.get("/")
    clock.tick(59.9)
    assert_hit(client.get("/"))
    clock.tick(0.2)
    assert_miss(client.get("/"))
    assert_hit(client.get("/"))


def test_a_hit_says_its_age_and_what_is_left() -> None:
    clock = TickingClock()
    client = client_of(Handler(), Policy(ttl=60), cache=TierCache(clock=clock))
    assert "age" not in client.get("/").headers
    for age in (0, 1, 30):
        response = client.get("/")
        assert response.headers["age"] == str(age)
        assert response.headers["cache-status"] == f"tiercache; hit; ttl={60 - age}; detail=L1"
        clock.tick(29 if age else 1)


def test_the_wall_clock_set_back_revives_nothing() -> None:
    clock, handler = TickingClock(), Handler()
    client = client_of(handler, Policy(ttl=60), cache=TierCache(clock=clock))
    client.get("/")
    clock.tick(61)
    clock.jump(-3600)
    assert_miss(client.get("/"))


def test_the_copy_in_the_process_lives_as_long_as_l1_ttl() -> None:
    clock, handler = TickingClock(), Handler()
    tier = ScriptedTier(clock=clock)
    app = app_of(handler, Policy(ttl=60, l1_ttl=10), cache=TierCache(clock=clock, l2=tier))

    async def test() -> None:
        await ask(app)
        await until(lambda: bool(tier.data))
        clock.tick(9)
        assert "detail=L1" in (await ask(app)).cache_status
        clock.tick(2)
        assert "detail=L2" in (await ask(app)).cache_status
        assert "ttl=49; detail=L1" in (await ask(app)).cache_status
        clock.tick(50)
        assert not (await ask(app)).hit

    run(test())


@pytest.mark.parametrize(("status", "stored"), [(200, True), (203, True), (301, True), (404, False), (500, False)])
def test_by_default_only_some_statuses_are_stored(status: int, stored: bool) -> None:
    handler = Handler(lambda _: PlainTextResponse("text", status_code=status))
    client = client_of(handler, Policy(ttl=60))
    assert_miss(client.get("/", follow_redirects=False), stored=stored)
    client.get("/", follow_redirects=False)
    assert handler.calls == (1 if stored else 2)


def test_statuses_names_what_is_stored() -> None:
    handler = Handler(lambda request: PlainTextResponse("", status_code=int(request.query_params["status"])))
    client = client_of(handler, Policy(ttl=60, statuses=(404,)))
    assert_miss(client.get("/?status=404"), stored=True)
    assert_hit(client.get("/?status=404"))
    assert_miss(client.get("/?status=200"), stored=False)


def test_a_status_has_a_lifetime_of_its_own() -> None:
    clock = TickingClock()
    handler = Handler(lambda request: PlainTextResponse("", status_code=int(request.query_params["status"])))
    client = client_of(handler, Policy(ttl=60, status_ttl={404: 5}), cache=TierCache(clock=clock))
    for status in (200, 404):
        client.get(f"/?status={status}")
        assert_hit(client.get(f"/?status={status}"))
    clock.tick(6)
    assert_miss(client.get("/?status=404"))
    assert_hit(client.get("/?status=200"))


def test_a_status_with_lifetime_zero_is_not_stored() -> None:
    client = client_of(Handler(), Policy(ttl=60, status_ttl={200: 0}))
    assert_miss(client.get("/"), stored=False)
    assert_miss(client.get("/"))


@pytest.mark.parametrize(
    ("downstream", "told"),
    [("keep", "max-age=5"), ("remove", None), ("no-cache", "no-cache")],
)
def test_the_client_is_told_the_same_on_a_miss_and_on_a_hit(downstream: str, told: str | None) -> None:
    headers = {"cache-control": "max-age=5", "expires": "0"}
    client = client_of(Handler(lambda _: PlainTextResponse("", headers=headers)), Policy(ttl=60, downstream=downstream))
    miss, hit = client.get("/"), client.get("/")
    assert_hit(hit)
    for response in (miss, hit):
        assert response.headers.get("cache-control") == told
        assert ("expires" in response.headers) is (downstream == "keep")


def test_in_http_mode_the_client_is_told_what_downstream_says() -> None:
    handler = Handler(lambda _: PlainTextResponse("", headers={"cache-control": "s-maxage=60"}))
    client = client_of(handler, Policy.http(downstream="no-cache"))
    miss, hit = client.get("/"), client.get("/")
    assert_hit(hit)
    assert [response.headers["cache-control"] for response in (miss, hit)] == ["no-cache", "no-cache"]


def test_what_the_handler_tells_the_client_does_not_shorten_the_ttl() -> None:
    clock = TickingClock()
    handler = Handler(lambda _: PlainTextResponse("", headers={"cache-control": "max-age=5"}))
    client = client_of(handler, Policy(ttl=60), cache=TierCache(clock=clock))
    client.get("/")
    clock.tick(30)
    assert_hit(client.get("/"))


@pytest.mark.parametrize("header", ["no-store", "private", "no-cache"])
def test_what_the_handler_forbids_is_not_stored(header: str) -> None:
    handler = Handler(lambda _: PlainTextResponse("", headers={"cache-control": header}))
    client = client_of(handler, Policy(ttl=60))
    assert f"detail={header}" in client.get("/").headers["cache-status"]
    client.get("/")
    assert handler.calls == 2


def test_a_response_that_sets_a_cookie_is_not_stored() -> None:
    handler = Handler(lambda _: PlainTextResponse("", headers={"set-cookie": "a=1"}))
    client = client_of(handler, Policy(ttl=60))
    assert "detail=set-cookie" in client.get("/").headers["cache-status"]
    assert TestClient(client.app).get("/").headers["set-cookie"] == "a=1"
    assert handler.calls == 2


@pytest.mark.parametrize(("size", "stored"), [(8, True), (9, False)])
@pytest.mark.parametrize("announced", [True, False])
def test_a_body_is_stored_up_to_max_body(size: int, stored: bool, announced: bool) -> None:
    def respond(_: Request) -> PlainTextResponse:
        response = PlainTextResponse(b"x" * size)
        if not announced:
            del response.headers["content-length"]
        return response

    handler = Handler(respond)
    client = client_of(handler, Policy(ttl=60, max_body=8))
    assert [len(client.get("/").content) for _ in range(2)] == [size, size]
    assert handler.calls == (1 if stored else 2)


@pytest.mark.parametrize(("files", "stored"), [(0, False), (4, False), (5, True)])
def test_files_sent_by_path_are_stored_up_to_files(files: int, stored: bool, tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    file.write_bytes(b"12345")
    calls: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.pathsend", "path": str(file)})

    ours = TierCacheMiddleware(app, cache=TierCache(), routes={"/": Policy(ttl=60, files=files)})

    async def test() -> None:
        first, second = await ask(ours), await ask(ours)
        assert first.messages[1] == {"type": "http.response.pathsend", "path": str(file)}
        assert second.hit is stored
        if stored:
            assert second.body == b"12345"
        assert len(calls) == (1 if stored else 2)

    run(test())


@pytest.mark.parametrize("policy", [STATIC, FREQUENT, TEMPORARY])
def test_a_preset_keeps_its_lifetimes_and_its_region(policy: Policy) -> None:
    clock, cache_tier = TickingClock(), ScriptedTier()
    cache = TierCache(clock=clock, l2=cache_tier)
    app = app_of(Handler(), policy, cache=cache)

    async def test() -> None:
        await ask(app)
        await until(lambda: bool(cache_tier.data))
        assert len(cache.engine.memory.bucket(policy.region)) == 1
        clock.tick((policy.l1_ttl or 0) - 1)
        assert "detail=L1" in (await ask(app)).cache_status
        clock.tick(2)
        assert "detail=L2" in (await ask(app)).cache_status
        clock.tick(policy.ttl or 0)
        assert not (await ask(app)).hit

    run(test())


def test_a_region_is_bounded_for_itself() -> None:
    cache = TierCache()
    policy = Policy(ttl=60, region=Region(name="small", max_entries=2))
    client = client_of(Handler(), policy, cache=cache, path="/{item}")
    for item in "abc":
        client.get(f"/{item}")
    assert_hit(client.get("/c"))
    assert_miss(client.get("/a"))


def test_the_session_preset_without_a_user_is_refused() -> None:
    app = app_of(Handler(), SESSION)

    async def test() -> None:
        with pytest.raises(ConfigError, match="user"):
            await ask(app)

    run(test())


def test_the_session_preset_with_a_user_is_served() -> None:
    handler = Handler()
    policy = SESSION.but(user=lambda scope: scope["query_string"])
    client = client_of(handler, policy)
    client.get("/?ann")
    assert_hit(client.get("/?ann"))
    assert_miss(client.get("/?bob"))


def test_an_entry_of_another_epoch_is_not_served() -> None:
    """Two processes without a common log know nothing of each other's invalidations."""
    tier, handler = ScriptedTier(), Handler()
    apps = [app_of(handler, Policy(ttl=60), cache=TierCache(l2=tier, log=ProcessLog())) for _ in range(2)]

    async def test() -> None:
        await ask(apps[0])
        await until(lambda: bool(tier.data))
        assert not (await ask(apps[1])).hit

    run(test())
