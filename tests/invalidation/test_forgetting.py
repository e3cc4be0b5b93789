"""What is forgotten, and what other threads see meanwhile."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

import pytest

from asgi_tiercache.invalidation.knowledge import Knowledge, Verdict
from asgi_tiercache.invalidation.log import MAX_PATTERNS, Answer, Appended, ProcessLog, Purge, Record, position_at
from asgi_tiercache.testing import TickingClock
from asgi_tiercache.types import Entry, Stamp
from tests.invalidation.scripted import ScriptedLog, Worker, an_entry


class Interruption:
    """Runs something else before a line of this package, as another thread might.

    Args:
        what: Is run, for as long as it is called for.
        at: Before which line, counted from 0; None: before every one.
    """

    def __init__(self, what: Callable[[], object], *, at: int | None = None) -> None:
        self.lines = 0
        self._what = what
        self._at = at

    def __enter__(self) -> Interruption:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        if "asgi_tiercache" not in frame.f_code.co_filename:
            return None
        if event == "line":
            self.lines += 1
            if self._at in (None, self.lines - 1):
                sys.settrace(None)
                self._what()
                sys.settrace(self._trace)
        return self._trace


def knowing(*records: tuple[int, Purge], remembered: int = 100, position: int = 0) -> Knowledge:
    knowledge = Knowledge(remembered=remembered)
    knowledge.start_anew("e", position)
    for id_, purge in records:
        knowledge.apply(Record("e", id_, knowledge.position, purge))
    return knowledge


# ---- threads ----


CHANGES: dict[str, Callable[[Knowledge], object]] = {
    "the same tag again": lambda it: it.apply(Record("e", 3, 2, Purge(("a",)))),
    "forgetting": lambda it: it.apply(Record("e", 3, 2, Purge(("c",)))),
    "forgetting by one's own": lambda it: it.appended(Appended("e", 9, 8), Purge(("c",))),
    "another epoch": lambda it: it.apply(Record("f", 3, 2, Purge(("c",)))),
    "another epoch in an answer": lambda it: it.heard(Answer("f", 9, 0, ())),
    "another epoch whose log is younger": lambda it: it.heard(Answer("f", 0, 0, ())),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_invalid_is_fresh_at_no_moment_of_a_change(change: Callable[[Knowledge], object]) -> None:
    def prepared() -> tuple[Knowledge, Entry]:
        return knowing((1, Purge(("a",))), (2, Purge(("b",))), remembered=2), an_entry(Stamp("e", 0), "a")

    knowledge, old = prepared()
    seen = list[Verdict]()
    with Interruption(lambda: seen.append(knowledge.judge(old))) as interruption:
        change(knowledge)
    assert interruption.lines > 3
    assert Verdict.FRESH not in seen
    for line in range(30):  # and the other way round: the change happens while somebody judges
        knowledge, old = prepared()
        with Interruption(functools.partial(change, knowledge), at=line):
            assert knowledge.judge(old) is not Verdict.FRESH


GAPS: dict[str, Callable[[Knowledge], object]] = {
    "a record": lambda it: it.apply(Record("e", 9, 8, Purge(("c",)))),
    "an answer": lambda it: it.skip_to(9),
}


@pytest.mark.parametrize("gap", GAPS.values(), ids=GAPS)
def test_an_entry_judged_while_a_gap_shows_counts_as_checked_before_it(gap: Callable[[Knowledge], object]) -> None:
    knowledge = knowing((1, Purge(("b",))))
    entry = an_entry(Stamp("e", 1), "a")
    with Interruption(lambda: knowledge.judge(entry)):
        gap(knowledge)
    assert knowledge.judge(entry) is Verdict.UNKNOWN
    for line in range(30):
        knowledge, entry = knowing((1, Purge(("b",)))), an_entry(Stamp("e", 1), "a")
        with Interruption(functools.partial(gap, knowledge), at=line) as interruption:
            knowledge.judge(entry)
        if interruption.lines <= line:
            break  # `judge` has no more lines
        assert knowledge.judge(entry) is Verdict.UNKNOWN


def test_a_stamp_taken_while_the_epoch_changes_is_of_one_of_the_two() -> None:
    knowledge = knowing(position=500)
    seen = list[Stamp]()
    with Interruption(lambda: seen.append(knowledge.stamp())):
        knowledge.heard(Answer("f", 3, 0, ()))
    assert {stamp for stamp in seen if stamp.epoch == "f"} == {Stamp("f", 3)}


def test_what_is_held_is_fresh_at_no_moment_while_another_thread_sends_it() -> None:
    for line in range(60):
        log = ScriptedLog()
        worker = Worker(log)

        async def hold(worker: Worker = worker, log: ScriptedLog = log) -> Entry:
            await worker.service.confirm()
            entry = worker.fill("a")
            log.fail()
            await worker.service.invalidate(["a"])
            log.recover()
            return entry

        async def send(worker: Worker = worker) -> None:
            await worker.service.confirm()

        old = asyncio.run(hold())
        with Interruption(functools.partial(_run, send), at=line) as interruption:
            verdict = worker.service.judge_here(old)
        assert verdict is Verdict.INVALID
        if interruption.lines <= line:
            return
    raise AssertionError("it has more lines than that")


def _run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


# ---- stale entries ----


@pytest.mark.parametrize("what", ["tag", "pattern"])
def test_an_entry_that_the_log_calls_stale_is_not_fresh_once_that_is_forgotten(what: str) -> None:
    knowledge = knowing(position=100, remembered=1)
    entry = an_entry(Stamp("e", 1), "*key:k", "a")
    soft_ids, patterns = ((0, 5), ()) if what == "tag" else ((), (("k*", 0, 5),))
    assert knowledge.learn(entry, Answer("e", 100, 0, (0, 0), 0, soft_ids, patterns)) is Verdict.STALE
    others = [Purge(("other",))] if what == "tag" else [Purge((), (f"{each}*",)) for each in range(MAX_PATTERNS)]
    for number, purge in enumerate(others, 101):
        knowledge.apply(Record("e", number, number - 1, dataclasses.replace(purge, soft=True)))
    assert knowledge.judge(entry) is not Verdict.FRESH


# ---- dated ahead ----


def test_what_is_dated_ahead_is_the_last_to_be_forgotten() -> None:
    ahead = position_at(60)
    knowledge = knowing((1, Purge(("slow",), settle=60)), remembered=4)
    for number in range(2, 100):
        knowledge.apply(Record("e", number, number - 1, Purge((f"other {number}",))))
    assert knowledge.horizon < ahead, "everything else can still be judged here"
    assert knowledge.judge(an_entry(Stamp("e", 99), "slow")) is Verdict.INVALID
    assert knowledge.judge(an_entry(Stamp("e", 99), "quick")) is Verdict.FRESH


@pytest.mark.parametrize("how", ["clear", "too many patterns", "too many tags"])
@pytest.mark.parametrize("what", [Purge(("a",), settle=60), Purge((), ("a*",), settle=60)])
def test_a_process_log_keeps_what_is_dated_beyond_a_clear(how: str, what: Purge) -> None:
    async def body() -> None:
        log = ProcessLog(clock=TickingClock(), remembered=10)
        settled = (await log.append(what)).id + position_at(60)
        if how == "clear":
            await log.append(Purge(everything=True))
        elif how == "too many patterns":
            for number in range(MAX_PATTERNS + 1):
                await log.append(Purge((), (f"{number}*",)))
        else:
            for number in range(30):
                await log.append(Purge((f"other {number}",)))
        answer = await log.ask(["a"])
        patterns = max((hard for _, hard, _ in answer.patterns), default=0)
        assert max(answer.ids[0], patterns, answer.floor) >= settled

    asyncio.run(body())
