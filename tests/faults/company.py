"""Rows that are played several at once, each before servers of its own and in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager

from tests.faults.scenario import TooSlowError, patiently, play
from tests.faults.table import Figures, Row, Stage
from tests.servers import RedisServer, find_binaries

AT_ONCE = 4
"""Most of what a row takes is waiting: for deadlines, for probes, for the fault's end."""


class Company:
    """Rows under way.

    Args:
        rows: What will be asked for, in this order.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="row")
        self._plays: dict[str, Future[Figures]] = {row.name: self._pool.submit(played_alone, row) for row in rows}

    def played(self, row: Row) -> Figures:
        """What was measured; a row that was too slow in company is played again, alone."""
        try:
            return self._plays[row.name].result()
        except TooSlowError:
            wait(self._plays.values())
            return patiently(lambda: played_alone(row))

    def close(self) -> None:
        """Begin no more, and wait for those under way."""
        self._pool.shutdown(cancel_futures=True)


def played(row: Row, setting: AbstractContextManager[Stage]) -> Figures:
    """What one play of `row` has measured."""
    with setting as stage:
        return asyncio.run(play(row, stage))


def played_alone(row: Row) -> Figures:
    """Likewise, before servers of its own."""
    with own_redis() as server:
        return played(row, row.setting(server))


@contextlib.contextmanager
def own_redis() -> Iterator[RedisServer]:
    """A running server that may be stopped, paused or killed."""
    server = RedisServer(_binary())
    try:
        yield server.start()
    finally:
        server.close()


@functools.cache
def _binary() -> str:
    return next(iter(find_binaries().values()))
