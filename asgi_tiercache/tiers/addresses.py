"""From a URL to a maker of clients, with redis-py's own retries and timeouts off: one deadline of ours rules."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import SSLConnection, parse_url, to_bool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.maint_notifications import MaintNotificationsConfig

from asgi_tiercache.errors import ConfigError
from asgi_tiercache.tiers.clients import Client, SingleClient
from asgi_tiercache.tiers.cluster import ClusterClient
from asgi_tiercache.tiers.sentinel import MasterPool, SentinelClient

Make = Callable[[], Client]

# What redis-py leaves without types.
_ConnectionPool: Any = ConnectionPool
_MasterPool: Any = MasterPool
_Sentinel: Any = Sentinel

SENTINEL_TIMEOUT = 0.1
"""Seconds that one Sentinel may take, so that within the deadline the next one can be asked."""

EXPECTED = (
    "redis://[[user]:password@]host[:port][/db], rediss://..., unix:///path,"
    " redis+cluster://[[user]:password@]host[:port][,host...], rediss+cluster://...,"
    " redis+sentinel://[[user]:password@]host[:port][,host...]/service[/db] or rediss+sentinel://..."
)


def maker(url: str, *, credential_provider: CredentialProvider | None, max_connections: int) -> Make:
    """What makes a client of the Redis at `url`, tried out without connecting.

    Raises:
        ConfigError: the URL or the provider cannot be used. The message does not quote the URL: who knows which part
            is the password.
    """
    if credential_provider is not None and not isinstance(credential_provider, CredentialProvider):
        raise ConfigError("credential_provider", f"must be redis-py's CredentialProvider, not {credential_provider!r}")
    extra: dict[str, Any] = {"max_connections": max_connections}  # fewer would make errors of a rush
    if credential_provider is not None:
        extra["credential_provider"] = credential_provider
    try:
        make = _KINDS[urlsplit(url).scheme](url, extra)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            "url", f"is not one that redis-py can use ({type(error).__name__}); expected {EXPECTED}"
        ) from None
    return make


def without_secrets(url: str) -> str:
    """`url` without password and options."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    return f"{parts.scheme}://{name}{colon and ':***'}{at}{hosts}{parts.path}"


def _single(url: str, extra: dict[str, Any]) -> Make:
    parts = urlsplit(url)
    if parts.scheme != "unix":
        _database(parts.path)
    options = {**_options(url, extra), **_settings(ConnectionPool)}
    _ConnectionPool(**options).make_connection()
    return lambda: SingleClient(Redis.from_pool(ConnectionPool(**options)))


def _cluster(url: str, extra: dict[str, Any]) -> Make:
    parts = urlsplit(url)
    if _database(parts.path):
        raise ConfigError("url", "a cluster has no database but 0")
    options = _without_address(_options(_of_first_host(url), extra))
    if options.get("read_from_replicas") or options.get("load_balancing_strategy"):
        # The control state has to be the newest, and redis-py's choice is one for all commands.
        raise ConfigError("url", "a cluster is read from its primaries: no read_from_replicas, no load_balancing")
    for name in options.keys() & {"require_full_coverage", "dynamic_startup_nodes"}:
        options[name] = to_bool(options[name])
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
    # At the first MOVED the slot is patched. A fifth would close every connection, in the midst of other calls.
    options = {**options, **_settings(RedisCluster), "reinitialize_steps": 0}
    hosts = _hosts(parts.netloc, 6379)

    def make() -> RedisCluster:
        return RedisCluster(startup_nodes=[ClusterNode(*host) for host in hosts], **options)

    next(iter(make().nodes_manager.startup_nodes.values())).acquire_connection()
    return lambda: ClusterClient(make())


def _sentinel(url: str, extra: dict[str, Any]) -> Make:
    parts = urlsplit(url)
    service, _, database = unquote(parts.path).strip("/").partition("/")
    if not service:
        raise ConfigError("url", "names no service: redis+sentinel://host[:port][,host...]/service[/db]")
    options = _without_address(_options(_of_first_host(url), extra))
    options.setdefault("db", _database(database))
    own = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
    asking = {name: value for name, value in options.items() if name.startswith("ssl")}
    bounds = {"socket_timeout": SENTINEL_TIMEOUT, "socket_connect_timeout": SENTINEL_TIMEOUT}
    asking = {**asking, **_settings(Redis), **bounds, **own}
    options = {**options, **_settings(ConnectionPool)}
    hosts = _hosts(parts.netloc, 26379)

    def make() -> SentinelClient:
        sentinel = _Sentinel(hosts, sentinel_kwargs=asking)
        return SentinelClient(Redis.from_pool(_MasterPool(service, sentinel, **options)))

    make().redis.connection_pool.make_connection()
    return make


_KINDS = {
    **dict.fromkeys(("redis", "rediss", "unix"), _single),
    **dict.fromkeys(("redis+cluster", "rediss+cluster"), _cluster),
    **dict.fromkeys(("redis+sentinel", "rediss+sentinel"), _sentinel),
}


def _options(url: str, extra: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = dict(parse_url(url))
    if "credential_provider" in extra and ("username" in options or "password" in options):
        raise ConfigError("credential_provider", "the URL names a user or a password already")
    if options.get("max_connections", 1) < 1:
        raise ValueError("max_connections")
    return {**options, **extra}


def _without_address(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in ("host", "port")}


def _settings(owner: type) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": None,
        "socket_connect_timeout": None,
        "health_check_interval": 0,
        "decode_responses": False,
    }
    # While they are on, the pool skips its check for unread bytes on a connection. Older clients lack them.
    if "maint_notifications_config" in inspect.signature(owner).parameters:
        settings["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)
    return settings


def _of_first_host(url: str) -> str:
    """`url` as redis-py takes it for one server, for the sake of its user, password and options."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    scheme = parts.scheme.partition("+")[0]
    query = f"?{parts.query}" if parts.query else ""
    return f"{scheme}://{user}{at}{hosts.partition(',')[0]}{query}"


def _hosts(netloc: str, port: int) -> list[tuple[str, int]]:
    """Host and port of each of the servers."""
    found = [urlsplit(f"//{host}") for host in netloc.rpartition("@")[2].split(",")]
    hosts = [(unquote(each.hostname or ""), each.port or port) for each in found]
    if not all(host for host, _ in hosts):
        raise ValueError("a host is missing")
    return hosts


def _database(path: str) -> int:
    """redis-py takes `/typo` for database 0."""
    return int(path.strip("/") or 0)
