"""Another server in place of the one that was asked so far: each is what the row of the table says."""

from __future__ import annotations

import gc
import logging
from typing import Literal

import pytest

from tests.clusters import ClusterServers
from tests.faults import failovers
from tests.faults.company import Company, played
from tests.faults.scenario import patiently
from tests.faults.table import Row
from tests.servers import RedisServer

logger = logging.getLogger(__name__)


@pytest.mark.parametrize("row", [failovers.FAILED_OVER], ids=lambda row: row.name)
def test_a_master_that_becomes_a_replica_is_left_for_the_new_one(company: Company, row: Row) -> None:
    """Its connections stay open, and its address leads elsewhere: reading from it would go on for ever."""
    logger.info("%s", company.played(row))


@pytest.mark.parametrize("trusting", [False, True])
@pytest.mark.parametrize("new", ["quiet", "goes on"])
def test_an_invalidation_that_a_failover_lost_holds_where_somebody_knows_it(
    own_redis: RedisServer, trusting: bool, new: Literal["quiet", "goes on"]
) -> None:
    told = failovers.lost_write(own_redis, trusting=trusting, new=new)
    logger.info("trust_restart=%s, %s: %s", trusting, new, told)
    gc.collect()  # a connection that nobody closed warns


def test_without_trust_a_failover_that_nobody_lived_through_brings_nothing_old_back(own_redis: RedisServer) -> None:
    logger.info("%s", failovers.lost_write_that_nobody_knows(own_redis))
    gc.collect()


def played_in(cluster: ClusterServers, row: Row) -> None:
    logger.info("%s", patiently(lambda: played(row, failovers.in_cluster(cluster))))
    gc.collect()


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=[pytest.mark.long] * row.rare, id=row.name) for row in failovers.CONTROL_MOVES],
)
def test_the_slot_of_the_control_state_moves(redis_cluster: ClusterServers, row: Row) -> None:
    played_in(redis_cluster, row)


def test_slots_of_entries_move(redis_cluster: ClusterServers) -> None:
    played_in(redis_cluster, failovers.ENTRIES_MOVE)


def test_an_address_of_one_node_of_a_cluster_breaks_nothing(redis_cluster: ClusterServers) -> None:
    logger.info("%s", failovers.one_node_alone(redis_cluster))
    gc.collect()


@pytest.mark.long
@pytest.mark.parametrize("row", [failovers.PARTLY_DOWN], ids=lambda row: row.name)
def test_a_part_of_a_cluster_is_down_and_comes_back(company: Company, row: Row) -> None:
    logger.info("%s", company.played(row))
