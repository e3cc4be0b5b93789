"""A client that the application shares with the cache: what it does to it does no harm."""

from __future__ import annotations

import gc
import logging

import pytest

from tests.faults import given_clients
from tests.faults.given_clients import POOLS
from tests.servers import RedisServer

logger = logging.getLogger(__name__)


@pytest.mark.parametrize("pool", list(POOLS))
def test_an_application_that_holds_every_connection_of_the_pool_is_left_alone(
    own_redis: RedisServer, pool: str
) -> None:
    logger.info("%s: %s", pool, given_clients.exhausted(own_redis, pool))
    gc.collect()  # a connection that nobody closed warns


def test_push_messages_to_connections_of_a_shared_pool_do_no_harm(own_redis: RedisServer) -> None:
    logger.info("%s", given_clients.pushed(own_redis))
    gc.collect()
