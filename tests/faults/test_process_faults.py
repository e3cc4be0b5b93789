"""Workers in processes of their own that stand still or are killed, event loops held up, and clients that leave."""

from __future__ import annotations

import gc
from typing import Literal

import pytest

from tests.faults import processes
from tests.faults.processes import PAUSED, Kind, When
from tests.servers import RedisServer

pauses = pytest.mark.parametrize("seconds", [PAUSED, pytest.param(30.0, marks=pytest.mark.long)])
whens = pytest.mark.parametrize("when", ["while it waits", "as it goes on"])


@pauses
@pytest.mark.parametrize("connections", [pytest.param("kept", marks=pytest.mark.long), "lost"])
def test_a_worker_that_stood_still_serves_nothing_that_was_invalidated_meanwhile(
    own_redis: RedisServer, seconds: float, connections: Literal["kept", "lost"]
) -> None:
    processes.stood_still(own_redis, seconds, connections=connections)


@pauses
def test_what_a_worker_was_making_when_it_stood_still_is_not_served_once_invalidated(
    own_redis: RedisServer, seconds: float
) -> None:
    processes.stood_still_while_filling(own_redis, seconds)


def test_a_process_killed_with_queued_writes_costs_others_a_miss(own_redis: RedisServer) -> None:
    processes.killed_with_writes(own_redis)


def test_a_process_killed_with_held_invalidations_had_said_that_they_were_not_durable(own_redis: RedisServer) -> None:
    processes.killed_with_invalidations(own_redis)


def test_a_process_that_ends_as_it_should_sends_what_it_has_queued(own_redis: RedisServer) -> None:
    processes.ended(own_redis)


def test_an_app_that_holds_its_event_loop_up_opens_no_breaker(own_redis: RedisServer) -> None:
    processes.held_up(own_redis)
    gc.collect()  # a connection that nobody closed warns


@whens
@pytest.mark.parametrize(
    "kind", ["item", pytest.param("sure", marks=pytest.mark.long), pytest.param("free", marks=pytest.mark.long), "mine"]
)
@pytest.mark.parametrize("found", [True, False], ids=["in Redis", "nowhere"])
def test_whoever_leaves_at_any_point_leaves_nothing_behind(
    own_redis: RedisServer, found: bool, kind: Kind, when: When
) -> None:
    assert processes.left_requests(own_redis, kind, when, found=found) >= 1
    gc.collect()


@whens
@pytest.mark.parametrize("kind", ["item", pytest.param("sure", marks=pytest.mark.long)])
def test_whoever_leaves_while_a_worker_connects_leaves_nothing_behind(
    own_redis: RedisServer, kind: Kind, when: When
) -> None:
    assert processes.left_while_connecting(own_redis, kind, when) >= 2
    gc.collect()


@whens
def test_whoever_leaves_an_invalidation_at_any_point_has_invalidated(own_redis: RedisServer, when: When) -> None:
    assert processes.left_invalidations(own_redis, when) >= 1
    gc.collect()
