"""Fixtures for every test: real Redis servers, one of each version on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.certificates import Certificates
from tests.clusters import ClusterServers, SentinelServers
from tests.servers import MISSING, RedisServer, find_binaries

BINARIES = find_binaries()

# No deadline: machines are shared. More examples by HYPOTHESIS_MAX_EXAMPLES, where a test does not set its own number.
settings.register_profile(
    "tiercache", deadline=None, max_examples=int(os.environ.get("HYPOTHESIS_MAX_EXAMPLES", "100"))
)
settings.load_profile("tiercache")


def pytest_sessionstart() -> None:
    if not BINARIES:
        raise pytest.UsageError(MISSING)


@pytest.fixture(scope="session")
def redis_servers() -> Iterator[dict[str, RedisServer]]:
    """A running server of each version; tests that stop or empty one start their own instead."""
    servers = {version: RedisServer(binary) for version, binary in BINARIES.items()}
    try:
        yield {version: server.start() for version, server in servers.items()}
    finally:
        for server in servers.values():
            server.close()


@pytest.fixture(scope="session", params=list(BINARIES))
def each_redis(request: pytest.FixtureRequest, redis_servers: dict[str, RedisServer]) -> RedisServer:
    """Each running server in turn, for what must hold on every version."""
    return redis_servers[request.param]


@pytest.fixture(scope="session")
def redis_server(redis_servers: dict[str, RedisServer]) -> RedisServer:
    """One running server, the same for all tests of the session."""
    return next(iter(redis_servers.values()))


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A running server that the test may stop, pause or kill."""
    server = RedisServer(next(iter(BINARIES.values())))
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[ClusterServers]:
    """A running cluster of six nodes; tests that fail one over start their own instead."""
    cluster = ClusterServers(next(iter(BINARIES.values())))
    try:
        yield cluster.start()
    finally:
        cluster.close()


@pytest.fixture(scope="session")
def redis_sentinels() -> Iterator[SentinelServers]:
    """A running master with replicas and Sentinels; likewise."""
    sentinels = SentinelServers(next(iter(BINARIES.values())))
    try:
        yield sentinels.start()
    finally:
        sentinels.close()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A certificate authority of the tests, and a certificate for 127.0.0.1 by it."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def tls_redis(certificates: Certificates) -> Iterator[RedisServer]:
    """A running server that speaks TLS alone."""
    for binary in BINARIES.values():
        server = RedisServer(binary, certificates.server_options())
        try:
            yield server.start()
        except RuntimeError:
            continue
        finally:
            server.close()
        return
    pytest.skip("no Redis here was built with TLS; that of Debian is (apt-get install redis-server)")
