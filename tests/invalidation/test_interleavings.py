"""The real code through many orders of events; and faults, planted here, that the same schedules must find."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

import pytest

from asgi_tiercache.engine.core import Engine
from asgi_tiercache.engine.entries import Place
from asgi_tiercache.engine.fill import Fill
from asgi_tiercache.invalidation.knowledge import Knowledge, Verdict
from asgi_tiercache.invalidation.lease import Lease
from asgi_tiercache.invalidation.log import Answer, Appended, Purge
from asgi_tiercache.invalidation.service import Invalidation
from asgi_tiercache.stampede import Flight, Flights
from asgi_tiercache.tiers.memory import Memory
from asgi_tiercache.types import Entry, Stamp
from tests.invalidation.race import GatedLog, Process, World, explore
from tests.invalidation.scripted import ScriptedLog, Worker
from tests.tiers.doubles import until

SCHEDULES = int(os.environ.get("TIERCACHE_SCHEDULES", "400"))
"""How many schedules the code itself has to stand; more in a long run."""


def test_no_order_of_events_serves_what_was_invalidated() -> None:
    violation = explore(range(SCHEDULES))
    assert violation is None, violation


# ---- planted faults ----


class StampsAtStore(Engine):
    """I2: the stamp says what was known at the end."""

    def keep(self, place: Place, key: str, entry: Entry, **options: Any) -> None:
        entry.stamp = self.invalidation.stamp()
        super().keep(place, key, entry, **options)


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
    def begin(self, key: str, asked: bytes = b"") -> Fill:
        return ForgetfulFill(self.invalidation.stamp(), key=key, asked=asked)


class ProudFill(Fill):
    """I2: a fill that reads a stale value, or one that nobody judged, keeps its own stamp."""

    def inherit(self, tags: Iterable[str], stamp: Stamp, *, fresh: bool) -> None:
        super().inherit(tags, stamp, fresh=True)


class KeepsItsStamp(Engine):
    def begin(self, key: str, asked: bytes = b"") -> Fill:
        return ProudFill(self.invalidation.stamp(), key=key, asked=asked)


class NeverJudges(Engine):
    """I3: L1 is not judged on a hit."""

    def recall(self, bucket: Any, key: str, canonical: bytes, now: float) -> Entry | None:
        entry: Entry | None = bucket.get(key, now)
        return entry


class DeletesInstead(Knowledge):
    """None of the rules: what is invalidated is deleted in L2 and by whoever hears of it, and nothing is judged."""

    world: World
    memory: Memory

    def judge(self, entry: Entry) -> Verdict:
        return Verdict.FRESH

    def _note(self, purge: Purge, id_: int) -> None:
        super()._note(purge, id_)
        self.memory.clear()
        self.world.tier.data.clear()


class TrustsItsMap(Knowledge):
    """I5: whatever the horizon, an empty map means that nothing happened."""

    def judge(self, entry: Entry) -> Verdict:
        verdict = super().judge(entry)
        return Verdict.FRESH if verdict is Verdict.UNKNOWN else verdict


class CheckedForEver(Knowledge):
    """I5: that an entry was asked about is a flag, not a position: a gap before the answer arrived is overlooked."""

    def learn(self, entry: Entry, answer: Answer) -> Verdict:
        verdict = super().learn(entry, answer)
        entry.at = 10**9
        return verdict


class KeepsNoIds(Knowledge):
    """I5: what an answer said of an entry is remembered, the ids that it named are not."""

    def learn(self, entry: Entry, answer: Answer) -> Verdict:
        hard, soft = dict(self._hard), dict(self._soft)
        verdict = super().learn(entry, answer)
        self._hard, self._soft = hard, soft
        entry.at = max(entry.at, answer.clock)
        return verdict


class ForgetsQuietly(Knowledge):
    """I5: tags are forgotten, the horizon stays."""

    def _bound(self) -> None:
        horizon = self.horizon
        super()._bound()
        self.horizon = horizon


class ForgetsThatItWasStale(Knowledge):
    """I5: a stale entry counts as checked, although its soft id may be forgotten."""

    def judge(self, entry: Entry) -> Verdict:
        verdict = super().judge(entry)
        if verdict is Verdict.STALE:
            entry.at = max(entry.at, self.position)
        return verdict


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
    def _verdict(entry: Entry, epoch: str, floor: int, soft_floor: int, hard: Any, soft: Any) -> Verdict:
        entry.stamp = Stamp(epoch, entry.stamp.position)
        return Knowledge._verdict(entry, epoch, floor, soft_floor, hard, soft)


class OneField(Knowledge):
    """I10: the latest invalidation of a tag counts, hard or soft: a soft one revives what a hard one made invalid."""

    def _note(self, purge: Purge, id_: int) -> None:
        super()._note(purge, id_)
        for tag in purge.tags:
            (self._hard if purge.soft else self._soft).pop(tag, None)


class OneFieldInTheLog(GatedLog):
    """I10: the same in the control hash."""

    async def append(self, purge: Purge, *, replicate: bool = False) -> Appended:
        for tag in purge.tags:
            (self.ids if purge.soft else self.soft).pop(tag, None)
        return await super().append(purge)


class TakesAnyFlight(Flights[Entry]):
    """I6: every flight counts as young."""

    def lead(
        self, key: str, work: Callable[[Flight[Entry]], Coroutine[Any, Any, None]], *, owner: object = None
    ) -> Flight[Entry]:
        flight = super().lead(key, work, owner=owner)
        flight.number += 10**9
        return flight


class LateRepliesCount(Invalidation):
    """I7: an answer counts although the worker has changed its epoch since it asked."""

    def _hear(self, answer: Answer, sent: Stamp) -> bool:
        return super()._hear(answer, self.knowledge.stamp()._replace(position=sent.position))


class HoldsNothing(Invalidation):
    """I9: what did not reach the log is only queued."""

    def judge_here(self, entry: Entry) -> Verdict:
        return self.knowledge.judge(entry)


class NeverAsksAgain(Lease):
    """I7: one answer is good for ever."""

    def renew(self, sent: float) -> None:
        super().renew(sent)
        self.until = self.attention_at = float("inf")


class KeepsItsEpoch(GatedLog):
    """I4: control state that was lost is made again as if nothing had happened."""

    def _make_control(self) -> None:
        super()._make_control()
        self.epochs -= 1


class AnswersWithoutFloor(GatedLog):
    """I4: nobody hears of a clear but those who follow."""

    async def _answered(self, tags: Sequence[str]) -> Answer:
        return (await super()._answered(tags))._replace(floor=0)


class TrimsWithoutFloor(GatedLog):
    """I4: fields are trimmed, the floor is not raised."""

    def trim(self) -> None:
        floor = self.floor
        super().trim()
        self.floor = floor


def _engine(kind: type[Engine]) -> Callable[[Process, World], None]:
    def plant(worker: Process, world: World) -> None:
        worker.cache.engine.__class__ = kind

    return plant


def _knowledge(kind: type[Knowledge]) -> Callable[[Process, World], None]:
    def plant(worker: Process, world: World) -> None:
        knowledge = worker.cache.engine.knowledge
        knowledge.__class__ = kind
        if isinstance(knowledge, StampsWithTheLogsClock):
            knowledge.log = world.log

    return plant


def _service(kind: type[Invalidation]) -> Callable[[Process, World], None]:
    def plant(worker: Process, world: World) -> None:
        worker.cache.engine.invalidation.__class__ = kind

    return plant


def _deleting(worker: Process, world: World) -> None:
    knowledge = worker.cache.engine.knowledge
    knowledge.__class__ = DeletesInstead
    assert isinstance(knowledge, DeletesInstead)
    knowledge.world, knowledge.memory = world, worker.cache.engine.memory


def _lease(worker: Process, world: World) -> None:
    worker.cache.engine.lease.__class__ = NeverAsksAgain


def _log(kind: type[GatedLog]) -> Callable[[Process, World], None]:
    def plant(worker: Process, world: World) -> None:
        world.log.__class__ = kind

    return plant


def _asking(plant: Callable[[Process, World], None]) -> Callable[[Process, World], None]:
    """`plant` in worlds in which the log is asked about entries often, and answers late."""

    def plant_there(worker: Process, world: World) -> None:
        world.forgetful, world.slow, world.keys = True, "reply to ask", "xy"
        plant(worker, world)

    return plant_there


def _any_flight(worker: Process, world: World) -> None:
    worker.cache.engine.fills = TakesAnyFlight()


@pytest.mark.parametrize(
    ("plant", "first"),  # the seed to begin at, so that the rarer ones are met soon
    [
        pytest.param(_deleting, 0, id="keys deleted and that broadcast"),
        pytest.param(_engine(StampsAtStore), 45, id="stamp taken when storing"),
        pytest.param(_engine(InheritsNothing), 190, id="nested read without inherited tags"),
        pytest.param(_engine(KeepsItsStamp), 240, id="stamp kept after reading a stale value"),
        pytest.param(_engine(NeverJudges), 0, id="L1 not judged on a hit"),
        pytest.param(_knowledge(StampsWithTheLogsClock), 470, id="stamp newer than what was applied"),
        pytest.param(_knowledge(TrustsItsMap), 20, id="horizon ignored"),
        pytest.param(_asking(_knowledge(CheckedForEver)), 200, id="checked is a flag"),
        pytest.param(_knowledge(KeepsNoIds), 20, id="ids of answers not kept"),
        pytest.param(_knowledge(ForgetsQuietly), 250, id="tags forgotten, horizon kept"),
        pytest.param(_asking(_knowledge(ForgetsThatItWasStale)), 530, id="stale counts as checked"),
        pytest.param(_knowledge(IgnoresGaps), 20, id="gap ignored"),
        pytest.param(_knowledge(NeverLooksAgain), 0, id="version never raised"),
        pytest.param(_knowledge(IgnoresEpochs), 340, id="no epoch in the stamp"),
        pytest.param(_knowledge(OneField), 440, id="soft and hard ids in one field of the map"),
        pytest.param(_any_flight, 65, id="followers take any flight"),
        pytest.param(_service(HoldsNothing), 970, id="held invalidations not applied here"),
        pytest.param(_lease, 0, id="lease without an end"),
        pytest.param(_log(KeepsItsEpoch), 340, id="lost control state made again in the old epoch"),
        pytest.param(_log(AnswersWithoutFloor), 740, id="floor left out of answers"),
        pytest.param(_log(TrimsWithoutFloor), 740, id="fields trimmed, floor not raised"),
        pytest.param(_log(OneFieldInTheLog), 870, id="soft and hard ids in one field of the log"),
    ],
)
def test_a_planted_fault_is_found(plant: Callable[[Process, World], None], first: int) -> None:
    violation = explore(range(first, first + 4_000), plant=plant)
    assert violation is not None
    assert "STALE" in violation


def test_an_answer_older_than_the_epoch_is_found_to_count_by_a_schedule_of_its_own() -> None:
    """I7: too rare among random ones. The reply to a question comes last, when all that it says is overtaken."""

    async def served_afterwards(make: type[Invalidation]) -> bool:
        log = ScriptedLog()
        first = await Worker(log).started()
        entry = first.fill("a")
        await first.service.invalidate(["other"])
        worker = await Worker(log, make=make).started()
        log.pause()
        judging = asyncio.create_task(worker.service.judge(entry))
        await until(lambda: len(log.waiting) == 1)
        invalidating = asyncio.create_task(worker.service.invalidate(["a"]))
        await until(lambda: len(log.waiting) == 2)
        log.release(1)
        await invalidating
        log.lose_control()
        worker.clock.tick(2.0)
        confirming = asyncio.create_task(worker.service.confirm())
        await until(lambda: len(log.waiting) == 2)
        log.release(1)
        await confirming
        log.resume()
        await judging
        return worker.service.current(entry)

    assert not asyncio.run(served_afterwards(Invalidation))
    assert asyncio.run(served_afterwards(LateRepliesCount))
