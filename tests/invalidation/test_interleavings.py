"""The real code through many orders of events; and faults, planted here, that the same schedules must find."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

import pytest

from asgi_tiercache.engine.core import Engine, Place
from asgi_tiercache.engine.fill import Fill
from asgi_tiercache.invalidation.knowledge import Knowledge, Verdict
from asgi_tiercache.invalidation.log import Answer
from asgi_tiercache.invalidation.service import Invalidation
from asgi_tiercache.stampede import Flight, Flights
from asgi_tiercache.types import Entry, Stamp
from tests.invalidation.race import GatedLog, Process, World, explore

SCHEDULES = int(os.environ.get("TIERCACHE_SCHEDULES", "400"))
"""How many schedules the code itself has to stand; more in a long run."""


def test_no_order_of_events_serves_what_was_invalidated() -> None:
    violation = explore(range(SCHEDULES))
    assert violation is None, violation


# ---- planted faults ----


class StampsAtStore(Engine):
    """I2: the stamp says what was known at the end."""

    def keep(self, place: Place, key: str, entry: Entry) -> None:
        entry.stamp = self.invalidation.stamp()
        super().keep(place, key, entry)


class StampsWithTheLogsClock(Knowledge):
    """I2: a newer clock than what this worker has applied."""

    log: GatedLog

    def stamp(self) -> Stamp:
        return Stamp(self.epoch, max(self.position, self.log.clock))


class ForgetfulFill(Fill):
    """I2: a nested value's tags are not handed on."""

    def inherit(self, tags: Iterable[str], stamp: Stamp, *, fresh: bool) -> None:
        pass


class InheritsNothing(Engine):
    def begin(self, key: str) -> Fill:
        return ForgetfulFill(self.invalidation.stamp(), key=key)


class TrustsItsMap(Knowledge):
    """I5: whatever the horizon, an empty map means that nothing happened."""

    def judge(self, entry: Entry) -> Verdict:
        verdict = super().judge(entry)
        return Verdict.VALID if verdict is Verdict.UNKNOWN else verdict


class IgnoresGaps(Knowledge):
    """I8: the position moves on, the horizon does not."""

    def _advance(self, position: int, *, missed: bool) -> None:
        super()._advance(position, missed=False)


class NeverLooksAgain(Knowledge):
    """I5: what was found valid once is not looked at again."""

    @property
    def version(self) -> int:
        return 0

    @version.setter
    def version(self, value: int) -> None:
        pass


class IgnoresEpochs(Knowledge):
    """I4: entries of another epoch count."""

    @staticmethod
    def _invalid(entry: Entry, epoch: str, floor: int, id_of: Callable[[str, int], int]) -> bool:
        _, position = entry.stamp
        return position < floor or any(id_of(tag, 0) > position for tag in entry.tags)


class TakesAnyFlight(Flights[Entry]):
    """I6: every flight counts as young."""

    def lead(
        self, key: str, work: Callable[[Flight[Entry]], Coroutine[Any, Any, None]], *, owner: object = None
    ) -> Flight[Entry]:
        flight = super().lead(key, work, owner=owner)
        flight.number += 10**9
        return flight


class HoldsNothing(Invalidation):
    """I9: what did not reach the log is only queued."""

    def _awaiting(self, entry: Entry) -> bool:
        return False


class NeverAsksAgain(Invalidation):
    """I7: one answer is good for ever."""

    def _lease(self, sent: float) -> None:
        super()._lease(sent)
        self._leased_until = self.attention_at = float("inf")


class NeverJudges(Engine):
    """I3: L1 is not judged on a hit."""

    def recall(self, bucket: Any, key: str, canonical: bytes, now: float) -> Entry | None:
        entry: Entry | None = bucket.get(key, now)
        return entry


class KeepsItsEpoch(GatedLog):
    """I4: control state that was lost is made again as if nothing had happened."""

    def _make_control(self) -> None:
        super()._make_control()
        self.epochs -= 1


class AnswersWithoutFloor(GatedLog):
    """I4: nobody hears of a clear but its own worker."""

    async def ask(self, tags: Sequence[str]) -> Answer:
        return (await super().ask(tags))._replace(floor=0)


def _engine(kind: type[Engine]) -> Callable[[Process, World], None]:
    def plant(worker: Process, world: World) -> None:
        worker.cache.engine.__class__ = kind

    return plant


def _knowledge(kind: type[Knowledge]) -> Callable[[Process, World], None]:
    def plant(worker: Process, world: World) -> None:
        knowledge = kind()
        if isinstance(knowledge, StampsWithTheLogsClock):
            knowledge.log = world.log
        worker.cache.engine.invalidation.knowledge = knowledge

    return plant


def _service(kind: type[Invalidation]) -> Callable[[Process, World], None]:
    def plant(worker: Process, world: World) -> None:
        worker.cache.engine.invalidation.__class__ = kind

    return plant


def _log(kind: type[GatedLog]) -> Callable[[Process, World], None]:
    def plant(worker: Process, world: World) -> None:
        world.log.__class__ = kind

    return plant


def _any_flight(worker: Process, world: World) -> None:
    worker.cache.engine.fills = TakesAnyFlight()


@pytest.mark.parametrize(
    ("plant", "first"),  # the seed to begin at, so that the rarer ones are met soon
    [
        pytest.param(_engine(StampsAtStore), 280, id="stamp taken when storing"),
        pytest.param(_engine(InheritsNothing), 64, id="nested read without inherited tags"),
        pytest.param(_engine(NeverJudges), 0, id="L1 not judged on a hit"),
        pytest.param(_knowledge(StampsWithTheLogsClock), 328, id="stamp newer than what was applied"),
        pytest.param(_knowledge(TrustsItsMap), 0, id="horizon ignored"),
        pytest.param(_knowledge(IgnoresGaps), 0, id="gap ignored"),
        pytest.param(_knowledge(NeverLooksAgain), 0, id="version never raised"),
        pytest.param(_knowledge(IgnoresEpochs), 256, id="no epoch in the stamp"),
        pytest.param(_any_flight, 450, id="followers take any flight"),
        pytest.param(_service(HoldsNothing), 592, id="held invalidations not applied here"),
        pytest.param(_service(NeverAsksAgain), 0, id="lease without an end"),
        pytest.param(_log(KeepsItsEpoch), 256, id="lost control state made again in the old epoch"),
        pytest.param(_log(AnswersWithoutFloor), 328, id="floor left out of answers"),
    ],
)
def test_a_planted_fault_is_found(plant: Callable[[Process, World], None], first: int) -> None:
    violation = explore(range(first, first + 4_000), plant=plant)
    assert violation is not None
    assert "STALE" in violation
