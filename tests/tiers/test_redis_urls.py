"""What a URL, a client or a provider of credentials may be, told before anything is connected."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.sentinel import Sentinel
from redis.cluster import LoadBalancingStrategy
from redis.credentials import UsernamePasswordCredentialProvider

from asgi_tiercache import TierCache
from asgi_tiercache.errors import ConfigError
from asgi_tiercache.tiers.clients import SingleClient
from asgi_tiercache.tiers.cluster import ClusterClient
from asgi_tiercache.tiers.given import GivenClient
from asgi_tiercache.tiers.redis import RedisLink
from asgi_tiercache.tiers.sentinel import SentinelClient

_Sentinel: Any = Sentinel
PROVIDER = UsernamePasswordCredentialProvider("user", "hunter2")


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://localhost",
        "redis+cluster://a.example:7000,b.example:7001,[::1]:7002",
        "rediss+cluster://127.0.0.1/0",
        "redis+cluster://127.0.0.1?require_full_coverage=no&client_name=shop",
        "redis+sentinel://localhost/shop",
        "redis+sentinel://a.example,b.example:26380,[::1]/shop/2",
        "rediss+sentinel://localhost/shop?ssl_cert_reqs=none&sentinel_username=watcher&sentinel_password=x",
    ],
)
def test_urls_of_each_kind_are_accepted(url: str) -> None:
    assert repr(RedisLink(url)) == f"<RedisLink {url.partition('?')[0]}>"


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://",
        "redis+cluster://a,",
        "redis+cluster://,a",
        "redis+cluster://localhost:none",
        "redis+cluster://localhost:99999",
        "redis+cluster://localhost/1",
        "redis+cluster://localhost/one",
        "redis+cluster://localhost?db=1",
        "redis+cluster://localhost?no_such_option=1",
        "redis+cluster://localhost?protocol=9",
        "redis+cluster://localhost?max_connections=0",
        "redis+cluster://localhost?read_from_replicas=yes",
        "redis+cluster://localhost?load_balancing_strategy=random",
        "unix+cluster:///run/redis.sock",
        "unix+sentinel://localhost/shop",
        "http+cluster://localhost",
        "redis+cluster+sentinel://localhost",
        "redis+sentinels://localhost/shop",
        "redis+sentinel://localhost",
        "redis+sentinel://localhost/",
        "redis+sentinel:///shop",
        "redis+sentinel://a,,b/shop",
        "redis+sentinel://localhost/shop/one",
        "redis+sentinel://localhost/shop/1/2",
        "redis+sentinel://localhost/shop?no_such_option=1",
        "redis+sentinel://localhost/shop?sentinel_secret=1",
        "unix+sentinel:///run/redis.sock/shop",
    ],
)
def test_a_url_that_cannot_be_used_is_an_error_that_names_the_option(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RedisLink(url)
    assert caught.value.option == "url"


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://u:hunter2@a:none,b",
        "redis+cluster://u:hunter2@a/1",
        "redis+cluster://a?password=hunter2&x=1",
        "redis+sentinel://u:hunter2@a",
        "redis+sentinel://u:hunter2@a/shop/one",
        "redis+sentinel://a/shop?sentinel_password=hunter2&x=1",
    ],
)
def test_an_error_about_a_url_does_not_show_the_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RedisLink(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("kind", ["cluster://u:hunter2@a,b", "sentinel://u:hunter2@a,b/shop?sentinel_password=hunter2"])
def test_its_repr_shows_the_hosts_but_no_password(kind: str) -> None:
    shown = repr(RedisLink(f"redis+{kind}"))
    assert "hunter2" not in shown
    assert "u:***@a,b" in shown


def test_a_clusters_own_retries_timeouts_and_maintenance_notifications_are_off() -> None:
    async def body() -> None:
        client: RedisCluster = RedisLink("redis+cluster://u:p@h1.example:1,h2.example?socket_timeout=5").client()
        options = client.connection_kwargs
        assert client.retry.get_retries() == 0
        assert [options[name] for name in ("socket_timeout", "socket_connect_timeout")] == [None, None]
        assert (options["health_check_interval"], options["decode_responses"]) == (0, False)
        assert (options["username"], options["password"], options["max_connections"]) == ("u", "p", 96)
        assert set(client.nodes_manager.startup_nodes) == {"h1.example:1", "h2.example:6379"}

    asyncio.run(body())


def test_a_masters_own_retries_and_timeouts_are_off_and_sentinels_answer_within_the_deadline() -> None:
    async def body() -> None:
        link = RedisLink("rediss+sentinel://u:p@h1:1,h2/shop/3?ssl_cert_reqs=none&sentinel_password=q")
        pool: Any = link.client().connection_pool
        options = pool.connection_kwargs
        assert options["retry"].get_retries() == 0
        assert [options[name] for name in ("socket_timeout", "socket_connect_timeout")] == [None, None]
        assert [options[name] for name in ("username", "password", "db")] == ["u", "p", 3]
        assert (pool.service_name, pool.max_connections) == ("shop", 96)
        asked = [sentinel.connection_pool.connection_kwargs for sentinel in pool.sentinel_manager.sentinels]
        assert [(each["host"], each["port"]) for each in asked] == [("h1", 1), ("h2", 26379)]
        for each in asked:
            assert (each["username"], each["password"], each["ssl_cert_reqs"]) == (None, "q", "none")
            assert each["socket_timeout"] == each["socket_connect_timeout"] == 0.1
            assert each["retry"].get_retries() == 0

    asyncio.run(body())


@pytest.mark.parametrize("host", ["redis://", "redis+cluster://", "rediss+sentinel://", "redis://u@", "redis://:p@"])
def test_a_credential_provider_takes_the_place_of_user_and_password(host: str) -> None:
    url = f"{host}localhost{'/shop' if 'sentinel' in host else ''}"
    if "@" not in host:
        RedisLink(url, credential_provider=PROVIDER)
        return
    with pytest.raises(ConfigError) as caught:
        RedisLink(url, credential_provider=PROVIDER)
    assert caught.value.option == "credential_provider"


def test_a_credential_provider_of_another_make_is_an_error() -> None:
    with pytest.raises(ConfigError, match="credential_provider: must be redis-py's"):
        TierCache.from_url("redis://localhost", credential_provider=("user", "password"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="belongs to the client"):
        RedisLink(client=Redis(), credential_provider=PROVIDER)


@pytest.mark.parametrize(
    ("client", "problem"),
    [
        (redis.Redis, "blocks the event loop"),
        (lambda: "redis://localhost", "not str"),
        (lambda: None, "either a URL or a client"),
        (lambda: Redis(decode_responses=True), "decode"),
        (lambda: RedisCluster(host="127.0.0.1", decode_responses=True), "decode"),
        (lambda: RedisCluster(host="127.0.0.1", load_balancing_strategy=LoadBalancingStrategy.ROUND_ROBIN), "replicas"),
        (lambda: _Sentinel([("127.0.0.1", 1)]).slave_for("shop"), "replicas"),
    ],
    ids=["blocking", "url", "none", "decodes", "cluster decodes", "cluster of replicas", "replica"],
)
def test_a_client_that_cannot_be_used_is_an_error_that_says_why(client: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        TierCache.from_client(client())


@pytest.mark.parametrize(
    ("client", "kind"),
    [
        (Redis, SingleClient),
        (lambda: RedisCluster(host="127.0.0.1"), ClusterClient),
        (lambda: _Sentinel([("127.0.0.1", 1)]).master_for("shop"), SentinelClient),
    ],
    ids=["server", "cluster", "sentinel"],
)
def test_a_given_client_is_treated_as_what_it_is(client: Callable[[], Any], kind: type) -> None:
    async def body() -> None:
        assert type(GivenClient(client()).get()) is kind

    asyncio.run(body())
