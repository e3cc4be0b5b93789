"""A client of redis-py that the application made itself and shares with the cache."""

from __future__ import annotations

import asyncio

import redis
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.sentinel import SentinelConnectionPool

from asgi_tiercache.errors import ConfigError
from asgi_tiercache.tiers.clients import Client, SingleClient
from asgi_tiercache.tiers.cluster import ClusterClient
from asgi_tiercache.tiers.loops import WrongLoopError
from asgi_tiercache.tiers.sentinel import SentinelClient


class GivenClient:
    """Hands `client` out, on the one event loop whose connections it has.

    Args:
        client: Of `redis.asyncio`; it goes on belonging to whoever made it.

    Raises:
        ConfigError: it is no such client, decodes what it reads, or reads from replicas.
    """

    def __init__(self, client: Redis | RedisCluster) -> None:
        _check(client)
        self._client = client
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def max_connections(self) -> int:
        """How many operations may be under way at a time."""
        client = self._client
        if isinstance(client, RedisCluster):
            return max(1, int(client.connection_kwargs["max_connections"]))
        return max(1, int(client.connection_pool.max_connections))

    def get(self) -> Client:
        """The client for the running loop.

        Raises:
            WrongLoopError: it belongs to another loop, which still goes on: its connections would never answer here.
        """
        running = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not running and not self._loop.is_closed():
            raise WrongLoopError("the client that was given belongs to another event loop")
        self._loop = running
        if isinstance(self._client, RedisCluster):
            return ClusterClient(self._client, given=True)
        if isinstance(self._client.connection_pool, SentinelConnectionPool):
            return SentinelClient(self._client, given=True)
        return SingleClient(self._client, given=True)

    def __repr__(self) -> str:
        return f"<GivenClient {type(self._client).__name__}>"


def _check(client: object) -> None:
    if isinstance(client, redis.Redis | redis.RedisCluster):
        raise ConfigError("client", "must be one of redis.asyncio; that of redis itself blocks the event loop")
    if not isinstance(client, Redis | RedisCluster):
        raise ConfigError("client", f"must be a redis.asyncio.Redis or RedisCluster, not {type(client).__name__}")
    if client.get_encoder().decode_responses:
        raise ConfigError("client", "must not decode responses: entries are bytes")
    if isinstance(client, RedisCluster):
        replicas = bool(client.read_from_replicas or client.load_balancing_strategy)
    else:
        pool = client.connection_pool
        replicas = isinstance(pool, SentinelConnectionPool) and not pool.is_master
    if replicas:
        raise ConfigError("client", "must not read from replicas: what they say of invalidations may be old")
