"""The program whose handlers speak HTTP does what its comments say."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from types import ModuleType

import pytest
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from asgi_tiercache import TierCache, TierCacheMiddleware
from asgi_tiercache.testing import TickingClock, assert_hit, assert_miss
from examples import http_caching


@pytest.fixture
def program() -> ModuleType:
    """The module as if it had just been started."""
    return importlib.reload(http_caching)


@pytest.fixture
def clock(program: ModuleType) -> TickingClock:
    """Of a cache that takes the place of the program's own."""
    clock = TickingClock()
    program.app.user_middleware[:] = [Middleware(TierCacheMiddleware, cache=TierCache(clock=clock))]
    return clock


@pytest.fixture
def client(program: ModuleType, clock: TickingClock) -> Iterator[TestClient]:
    with TestClient(program.app) as client:
        yield client


def test_an_article_is_validated_once_it_is_stale(client: TestClient, clock: TickingClock) -> None:
    first = client.get("/articles/tea")
    assert_miss(first, stored=True)
    assert_hit(client.get("/articles/tea"), "L1")
    clock.tick(11)
    validated = client.get("/articles/tea")
    assert validated.headers["cache-status"] == "tiercache; fwd=stale; fwd-status=304; stored"
    assert validated.json() == first.json() == {"text": "Three minutes.", "version": 1}
    assert_hit(client.get("/articles/tea"), "L1")
    assert client.get("/articles/tea", headers={"if-none-match": first.headers["etag"]}).status_code == 304


def test_an_edit_purges_the_article_and_its_group_and_nothing_else(client: TestClient) -> None:
    for path in ("/articles", "/articles/tea", "/articles/coffee"):
        client.get(path)
        assert_hit(client.get(path))
    assert client.put("/articles/tea", json={"text": "Cold brew."}).status_code == 204
    assert client.get("/articles/tea").json() == {"text": "Cold brew.", "version": 2}
    assert client.get("/articles").json() == ["tea, version 2", "coffee, version 1"]
    assert_hit(client.get("/articles/coffee"))


def test_an_article_that_does_not_exist_is_asked_for_each_time(client: TestClient) -> None:
    for _ in range(2):
        response = client.get("/articles/water")
        assert_miss(response, stored=False)
        assert response.status_code == 404
