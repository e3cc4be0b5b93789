from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest

from asgi_tiercache.invalidation.held import MAX_HELD
from asgi_tiercache.invalidation.knowledge import Verdict
from asgi_tiercache.invalidation.lease import Trust
from asgi_tiercache.invalidation.log import MAX_PATTERNS, Appended, ProcessLog, Purge
from asgi_tiercache.invalidation.service import Invalidation
from asgi_tiercache.signals import Invalidated
from asgi_tiercache.testing import TickingClock
from asgi_tiercache.types import Stamp
from tests.invalidation.scripted import ScriptedLog, Worker, an_entry
from tests.tiers.doubles import Recorder, ticks, until


async def under_way(call: Coroutine[object, object, object], log: ScriptedLog) -> asyncio.Task[object]:
    """`call` as a task that has come as far as a reply of the paused log."""
    replies = len(log.waiting)
    task = asyncio.get_running_loop().create_task(call)
    await until(lambda: len(log.waiting) > replies)
    return task


# ---- stamps and verdicts ----


def test_a_fill_is_stamped_with_what_its_worker_knows_not_with_the_logs_clock() -> None:
    async def body() -> None:
        log = ScriptedLog()
        worker, other = await Worker(log).started(), await Worker(log).started()
        await other.service.invalidate(["a"])
        assert log.clock == 1
        assert worker.service.stamp() == Stamp("epoch 1", 0)

    asyncio.run(body())


def test_a_fill_that_began_before_an_invalidation_is_not_valid_after_it() -> None:
    async def body() -> None:
        worker = await Worker(ScriptedLog()).started()
        entry = worker.fill("a", "b")
        assert worker.service.current(entry)
        await worker.service.invalidate(["b"])
        assert not worker.service.current(entry)
        assert await worker.service.judge(entry) is Verdict.INVALID
        assert worker.service.current(worker.fill("a", "b"))

    asyncio.run(body())


def test_an_entry_that_this_worker_can_judge_is_not_asked_about() -> None:
    async def body() -> None:
        log = ScriptedLog()
        worker = await Worker(log).started()
        entry = worker.fill("a")
        asked = log.count("ask")
        assert await worker.service.judge(entry) is Verdict.FRESH
        assert log.count("ask") == asked

    asyncio.run(body())


def test_an_entry_from_before_the_horizon_is_asked_about_once() -> None:
    async def body() -> None:
        log = ScriptedLog()
        first = await Worker(log).started()
        entry = first.fill("a")
        await first.service.invalidate(["other"])
        second = await Worker(log).started()
        assert not second.service.current(entry)
        assert await second.service.judge(entry) is Verdict.FRESH
        assert log.calls[-1] == ("ask", ("a",))
        assert second.service.current(entry)
        asked = log.count("ask")
        assert await second.service.judge(entry) is Verdict.FRESH
        assert log.count("ask") == asked

    asyncio.run(body())


def test_an_entry_invalidated_before_this_worker_started_is_refused_by_the_log() -> None:
    async def body() -> None:
        log = ScriptedLog()
        first = await Worker(log).started()
        entry = first.fill("a")
        await first.service.invalidate(["a"])
        second = await Worker(log).started()
        assert await second.service.judge(entry) is Verdict.INVALID

    asyncio.run(body())


def test_an_entry_that_cannot_be_judged_is_not_used_while_the_log_is_out_of_reach() -> None:
    async def body() -> None:
        log = ScriptedLog()
        first = await Worker(log).started()
        entry = first.fill("a")
        await first.service.invalidate(["other"])
        second = await Worker(log).started()
        log.fail()
        assert await second.service.judge(entry) is Verdict.INVALID

    asyncio.run(body())


def test_what_is_invalidated_here_while_the_log_answers_about_it_counts() -> None:
    async def body() -> None:
        log = ScriptedLog()
        first = await Worker(log).started()
        entry = first.fill("a")
        await first.service.invalidate(["other"])
        second = await Worker(log).started()
        log.pause()
        verdict = await under_way(second.service.judge(entry), log)
        invalidating = await under_way(second.service.invalidate(["a"]), log)
        log.release(1)
        await invalidating
        log.release()
        assert await verdict is Verdict.INVALID

    asyncio.run(body())


def test_an_answer_to_a_question_from_before_the_epoch_changed_is_void() -> None:
    async def body() -> None:
        log = ScriptedLog()
        first = await Worker(log).started()
        entry = first.fill("a")
        await first.service.invalidate(["other"])
        worker = await Worker(log).started()
        log.pause()
        verdict = await under_way(worker.service.judge(entry), log)
        log.lose_control()
        invalidating = await under_way(worker.service.invalidate(["b"]), log)
        log.release(1)
        await invalidating
        log.resume()
        assert await verdict is Verdict.INVALID
        assert worker.service.stamp() == Stamp("epoch 2", 2)

    asyncio.run(body())


def test_the_reply_to_an_invalidation_from_before_the_epoch_changed_does_not_bring_the_old_epoch_back() -> None:
    """I7: otherwise the worker forgets what it has invalidated in the new epoch, and trusts entries of the old one."""

    async def body() -> None:
        log = ScriptedLog()
        worker, other = await Worker(log).started(), await Worker(log).started()
        log.pause()
        late = await under_way(worker.service.invalidate(["x"]), log)  # done in epoch 1, the reply takes its time
        joining = await under_way(other.service.invalidate(["y"]), log)
        log.release(1)
        await joining
        old = other.fill("a")  # of epoch 1, later than x
        log.lose_control()
        asking = await under_way(worker.service.invalidate(["a"]), log)
        log.release(-1)
        await asking
        assert worker.service.stamp().epoch == "epoch 2"
        log.resume()
        await late
        assert await worker.service.judge(old) is Verdict.INVALID, "what this worker has invalidated is served again"
        assert worker.service.stamp().epoch == "epoch 2"

    asyncio.run(body())


def test_the_late_reply_to_a_clear_does_not_bring_the_old_epoch_back() -> None:
    async def body() -> None:
        log = ScriptedLog()
        worker = await Worker(log).started()
        log.pause()
        late = await under_way(worker.service.clear(), log)
        log.lose_control()
        asking = await under_way(worker.service.invalidate(["a"]), log)
        log.release(1)
        await asking
        log.resume()
        await late
        assert worker.service.stamp().epoch == "epoch 2"

    asyncio.run(body())


def test_an_invalidation_that_met_an_epoch_newer_than_the_workers_holds_here_when_it_returns() -> None:
    """Sent in epoch 1, done in epoch 3, and in between the worker has learned of epoch 2: late, yet not void."""

    class SlowOnTheWay(ScriptedLog):
        arrives = asyncio.Event()

        async def append(self, purge: Purge, *, replicate: bool = False) -> Appended:
            await self.arrives.wait()
            return await super().append(purge, replicate=replicate)

    async def body() -> None:
        log = SlowOnTheWay()
        worker = await Worker(log).started()
        invalidating = asyncio.create_task(worker.service.invalidate(["a"]))
        await ticks(2)
        log.lose_control()
        worker.clock.tick(1.0)
        await worker.service.confirm()
        assert worker.service.stamp().epoch == "epoch 2"
        entry = worker.fill("a")
        assert worker.service.current(entry)
        log.lose_control()
        log.arrives.set()
        await invalidating
        assert log.epoch == "epoch 3"
        assert not worker.service.current(entry)
        assert await worker.service.judge(entry) is Verdict.INVALID

    asyncio.run(body())


# ---- epochs ----


def test_losing_the_control_state_empties_memory_and_invalidates_what_came_before() -> None:
    async def body() -> None:
        log = ScriptedLog()
        worker = await Worker(log).started()
        entry, dropped = worker.fill("a"), worker.dropped
        log.lose_control()
        worker.clock.tick(2)
        assert await worker.service.confirm() is Trust.VERIFIED
        assert worker.dropped == dropped + 1
        assert await worker.service.judge(entry) is Verdict.INVALID
        assert worker.service.stamp().epoch == "epoch 2"

    asyncio.run(body())


def test_an_invalidation_that_meets_lost_control_state_empties_memory() -> None:
    async def body() -> None:
        log = ScriptedLog()
        worker = await Worker(log).started()
        entry, dropped = worker.fill("a"), worker.dropped
        log.lose_control()
        receipt = await worker.service.invalidate(["b"])
        assert (receipt.durable, worker.dropped) == (True, dropped + 1)
        assert not worker.service.current(entry)

    asyncio.run(body())


def test_workers_that_never_reached_the_log_do_not_trust_each_others_entries() -> None:
    """Both know nothing, so neither can say that nothing was invalidated between the two."""

    async def body() -> None:
        log = ScriptedLog()
        log.fail()
        first, second = await Worker(log).started(), await Worker(log).started()
        assert first.service.current(first.fill("a")), "its own entries are its own affair"
        assert await second.service.judge(first.fill("a")) is Verdict.INVALID

    asyncio.run(body())


# ---- the lease ----


def test_within_the_lease_no_question_is_asked_and_nothing_waits() -> None:
    async def body() -> None:
        log = ScriptedLog()
        worker = await Worker(log).started()
        asked = log.count("confirm")
        worker.clock.tick(0.4)
        assert worker.clock.monotonic() < worker.service.lease.attention_at
        assert log.count("confirm") == asked

    asyncio.run(body())


def test_past_half_the_lease_it_is_renewed_in_the_background_by_one_question() -> None:
    async def body() -> None:
        log = ScriptedLog()
        worker = await Worker(log).started()
        worker.clock.tick(0.6)
        assert worker.clock.monotonic() >= worker.service.lease.attention_at
        log.pause()
        assert await worker.service.confirm() is Trust.VERIFIED, "nobody waits for the question"
        assert worker.clock.monotonic() < worker.service.lease.attention_at, "and nobody asks again meanwhile"
        await until(lambda: len(log.waiting) == 1)
        log.resume()
        await ticks(5)
        worker.clock.tick(0.9)  # 1.5 after the first question, 0.9 after the second
        log.pause()
        assert await worker.service.confirm() is Trust.VERIFIED
        log.resume()
        await ticks(5)

    asyncio.run(body())


def test_after_the_lease_the_log_is_asked_first_by_one_question_for_all() -> None:
    async def body() -> None:
        log = ScriptedLog()
        worker = await Worker(log).started()
        asked = log.count("confirm")
        worker.clock.tick(1.0)
        log.pause()
        waiting = [asyncio.create_task(worker.service.confirm()) for _ in range(5)]
        await until(lambda: len(log.waiting) == 1)
        assert not any(task.done() for task in waiting)
        log.resume()
        assert await asyncio.gather(*waiting) == [Trust.VERIFIED] * 5
        assert log.count("confirm") == asked + 1

    asyncio.run(body())


def test_a_waiter_that_is_cancelled_does_not_end_the_question() -> None:
    async def body() -> None:
        log = ScriptedLog()
        worker = Worker(log)
        log.pause()
        first, second = (asyncio.create_task(worker.service.confirm()) for _ in range(2))
        await until(lambda: len(log.waiting) == 1)
        first.cancel()
        await ticks(3)
        log.resume()
        assert await second is Trust.VERIFIED

    asyncio.run(body())


def test_the_lease_counts_from_when_the_question_was_sent() -> None:
    async def body() -> None:
        log = ScriptedLog()
        worker = Worker(log)
        log.pause()
        asking = await under_way(worker.service.confirm(), log)
        worker.clock.tick(0.7)
        log.resume()
        await asking
        worker.clock.tick(0.3)
        asked = log.count("confirm")
        await worker.service.confirm()
        assert log.count("confirm") == asked + 1

    asyncio.run(body())


def test_an_answer_that_took_longer_than_the_lease_lets_nobody_judge_by_it() -> None:
    """Who joins a question that was sent long ago must not take its answer for the present state of the log."""

    async def body() -> None:
        log, clock = ScriptedLog(), TickingClock()
        worker, other = await Worker(log, clock=clock).started(), await Worker(log, clock=clock).started()
        entry = worker.fill("a")
        clock.tick(1.0)
        log.pause()
        asking = await under_way(worker.service.confirm(), log)
        invalidating = await under_way(other.service.invalidate(["a"]), log)
        log.release(1)
        await invalidating
        clock.tick(1.5)
        joining = asyncio.create_task(worker.service.confirm())
        await ticks(3)
        log.resume()
        await asking
        assert await joining is not Trust.VERIFIED or not worker.service.current(entry)

    asyncio.run(body())


def test_what_others_invalidated_is_seen_once_the_lease_is_over() -> None:
    async def body() -> None:
        log, clock = ScriptedLog(), TickingClock()
        worker, other = await Worker(log, clock=clock).started(), await Worker(log, clock=clock).started()
        entry = worker.fill("a")
        await other.service.invalidate(["a"])
        assert worker.service.current(entry), "within the lease"
        clock.tick(1.0)
        assert await worker.service.confirm() is Trust.VERIFIED
        assert not worker.service.current(entry)
        assert await worker.service.judge(entry) is Verdict.INVALID

    asyncio.run(body())


def test_a_gap_keeps_memory_and_asks_about_what_was_filled_before_it() -> None:
    async def body() -> None:
        log, clock = ScriptedLog(), TickingClock()
        worker, other = await Worker(log, clock=clock).started(), await Worker(log, clock=clock).started()
        entry, dropped = worker.fill("a"), worker.dropped
        await other.service.invalidate(["b"])
        log.records.clear()
        clock.tick(1.0)
        await worker.service.confirm()
        assert worker.dropped == dropped
        assert not worker.service.current(entry)
        assert await worker.service.judge(entry) is Verdict.FRESH
        assert log.calls[-1] == ("ask", ("a",))

    asyncio.run(body())


def test_with_the_log_out_of_reach_trust_fades_and_then_ends() -> None:
    async def body() -> None:
        log = ScriptedLog()
        worker = await Worker(log, max_lag=1.0, max_unverified=60.0).started()
        log.fail()
        worker.clock.tick(1.0)
        assert await worker.service.confirm() is Trust.UNVERIFIED
        worker.clock.tick(59.9)
        assert await worker.service.confirm() is Trust.UNVERIFIED
        worker.clock.tick(0.1)
        assert await worker.service.confirm() is Trust.LAPSED
        log.recover()
        assert await worker.service.confirm() is Trust.VERIFIED

    asyncio.run(body())


def test_a_log_that_was_never_reached_is_unverified_from_the_start_and_then_lapses() -> None:
    async def body() -> None:
        log = ScriptedLog()
        log.fail()
        worker = Worker(log, max_unverified=60.0)
        assert await worker.service.confirm() is Trust.UNVERIFIED
        worker.clock.tick(60.0)
        assert await worker.service.confirm() is Trust.LAPSED

    asyncio.run(body())


def test_a_process_log_needs_no_lease() -> None:
    clock = TickingClock()
    invalidation = Invalidation(ProcessLog(), clock=clock, signals=Recorder(), drop_memory=lambda: None)
    assert asyncio.run(invalidation.confirm()) is Trust.VERIFIED
    clock.tick(10**9)
    assert clock.monotonic() < invalidation.lease.attention_at


def test_a_question_left_behind_by_an_ended_loop_holds_nobody_up() -> None:
    log = ScriptedLog()
    worker = Worker(log)

    async def leave() -> None:
        log.pause()
        await under_way(worker.service.confirm(), log)

    asyncio.run(leave())
    log.waiting.clear()
    log.resume()
    assert asyncio.run(worker.service.confirm()) is Trust.VERIFIED


# ---- receipts ----


def test_a_receipt_tells_position_names_and_that_it_stands_in_the_log() -> None:
    async def body() -> None:
        worker = await Worker(ScriptedLog()).started()
        receipt = await worker.service.invalidate(["a", "b", "a"], kind="key")
        assert (receipt.durable, receipt.position, receipt.names) == (True, 1, ("a", "b"))
        receipt = await worker.service.clear()
        assert (receipt.durable, receipt.position, receipt.names) == (True, 2, ())
        assert worker.signals.of(Invalidated) == [Invalidated("key", 2, True), Invalidated("all", 0, True)]

    asyncio.run(body())


def test_invalidating_nothing_asks_nobody_and_purges_nothing() -> None:
    async def body() -> None:
        log = ScriptedLog()
        worker = await Worker(log).started()
        entry = worker.fill("a")
        receipt = await worker.service.invalidate([])
        assert (receipt.durable, receipt.position, receipt.names) == (True, None, ())
        assert log.count("append") == log.count("clear") == 0
        assert worker.service.current(entry)

    asyncio.run(body())


def test_clearing_empties_memory_and_outlasts_fills_under_way() -> None:
    async def body() -> None:
        worker = await Worker(ScriptedLog()).started()
        stamp, dropped = worker.service.stamp(), worker.dropped
        await worker.service.clear()
        assert worker.dropped == dropped + 1
        assert await worker.service.judge(an_entry(stamp, "a")) is Verdict.INVALID
        assert worker.service.current(worker.fill("a"))

    asyncio.run(body())


# ---- invalidations that the log has not taken (I9) ----


def test_an_invalidation_that_the_log_refuses_holds_here_at_once_and_is_reported() -> None:
    async def body() -> None:
        log = ScriptedLog()
        worker = await Worker(log).started()
        entry, untouched = worker.fill("a"), worker.fill("b")
        assert worker.service.current(entry)
        log.fail()
        receipt = await worker.service.invalidate(["a"])
        assert (receipt.durable, receipt.position, receipt.names) == (False, None, ("a",))
        assert worker.signals.of(Invalidated) == [Invalidated("tag", 1, False)]
        assert not worker.service.current(entry)
        assert await worker.service.judge(entry) is Verdict.INVALID
        assert worker.service.current(untouched)

    asyncio.run(body())


def test_a_fill_that_ends_while_its_tag_is_held_is_not_used() -> None:
    async def body() -> None:
        log = ScriptedLog()
        worker = await Worker(log).started()
        log.fail()
        await worker.service.invalidate(["a"])
        assert not worker.service.current(worker.fill("a"))

    asyncio.run(body())


def test_what_was_held_is_sent_before_the_lease_is_renewed() -> None:
    async def body() -> None:
        log = ScriptedLog()
        worker = await Worker(log).started()
        entry = worker.fill("a")
        log.fail()
        await worker.service.invalidate(["a"])
        assert await worker.service.confirm() is Trust.UNVERIFIED
        log.recover()
        log.calls.clear()
        assert await worker.service.confirm() is Trust.VERIFIED
        assert log.calls == [("append", ("a",)), ("confirm", ())]
        assert await worker.service.judge(entry) is Verdict.INVALID
        assert worker.service.current(worker.fill("a"))

    asyncio.run(body())


def test_a_question_under_way_while_an_invalidation_is_held_does_not_renew_the_lease() -> None:
    async def body() -> None:
        log = ScriptedLog()
        first = await Worker(log).started()
        unknown = first.fill("b")
        await first.service.invalidate(["other"])
        worker = await Worker(log).started()
        log.pause()
        asking = await under_way(worker.service.judge(unknown), log)
        log.fail()
        await worker.service.invalidate(["a"])
        log.recover()
        log.resume()
        await asking
        await worker.service.confirm()
        assert log.ids.get("a"), "the held invalidation was not sent, but the lease was renewed"

    asyncio.run(body())


def test_an_invalidation_that_was_done_although_the_reply_was_lost_is_sent_again() -> None:
    async def body() -> None:
        log = ScriptedLog()
        worker = await Worker(log).started()
        log.lose_replies()
        receipt = await worker.service.invalidate(["a"])
        assert not receipt.durable
        filled_meanwhile = worker.fill("a")
        log.recover()
        await worker.service.confirm()
        assert log.ids["a"] == 2
        assert await worker.service.judge(filled_meanwhile) is Verdict.INVALID

    asyncio.run(body())


def test_an_invalidation_whose_caller_is_cancelled_is_not_lost() -> None:
    """The data was committed before; a client that hangs up must not leave the old value in the cache."""

    async def body() -> None:
        log = ScriptedLog()
        worker = await Worker(log).started()
        entry = worker.fill("a")
        assert worker.service.current(entry)
        log.pause()
        invalidating = await under_way(worker.service.invalidate(["a"]), log)
        invalidating.cancel()
        await asyncio.wait([invalidating])
        log.resume()
        await ticks(5)
        await worker.service.confirm()
        assert await worker.service.judge(entry) is Verdict.INVALID

    asyncio.run(body())


def test_other_workers_see_a_held_invalidation_after_its_replay() -> None:
    async def body() -> None:
        log, clock = ScriptedLog(), TickingClock()
        worker, other = await Worker(log, clock=clock).started(), await Worker(log, clock=clock).started()
        entry = other.fill("a")
        log.fail()
        await worker.service.invalidate(["a"])
        log.recover()
        await worker.service.confirm()
        clock.tick(1.0)
        await other.service.confirm()
        assert await other.service.judge(entry) is Verdict.INVALID

    asyncio.run(body())


def test_an_invalidation_held_again_during_its_replay_stays_held() -> None:
    async def body() -> None:
        log = ScriptedLog()
        worker = await Worker(log).started()
        log.fail()
        await worker.service.invalidate(["a"])
        log.recover()
        log.pause()
        replaying = await under_way(worker.service.confirm(), log)
        later = worker.fill("a")  # would be valid after this replay alone, but not after the next invalidation
        log.fail()
        await worker.service.invalidate(["a"])
        log.recover()
        log.resume()
        await replaying
        assert not worker.service.current(later)
        await worker.service.confirm()
        assert log.ids["a"] == 2
        assert await worker.service.judge(later) is Verdict.INVALID
        assert worker.service.current(worker.fill("a"))

    asyncio.run(body())


def test_a_clear_that_the_log_refuses_holds_here_and_is_sent_later() -> None:
    async def body() -> None:
        log = ScriptedLog()
        worker = await Worker(log).started()
        entry, dropped = worker.fill("a"), worker.dropped
        log.fail()
        receipt = await worker.service.clear()
        assert (receipt.durable, worker.dropped) == (False, dropped + 1)
        assert not worker.service.current(entry)
        assert not worker.service.current(worker.fill("b"))
        log.recover()
        await worker.service.confirm()
        assert log.count("clear") == 2
        assert log.floor == 1
        assert worker.service.current(worker.fill("b"))

    asyncio.run(body())


def test_a_clear_held_again_during_its_replay_stays_held() -> None:
    async def body() -> None:
        log = ScriptedLog()
        worker = await Worker(log).started()
        log.fail()
        await worker.service.clear()
        log.recover()
        log.pause()
        replaying = await under_way(worker.service.confirm(), log)
        between = worker.fill("a")
        log.fail()
        await worker.service.clear()
        log.recover()
        log.resume()
        await replaying
        assert not worker.service.current(between)
        await worker.service.confirm()
        assert log.floor == 2
        assert await worker.service.judge(between) is Verdict.INVALID
        assert worker.service.current(worker.fill("a"))

    asyncio.run(body())


def test_a_log_that_is_known_to_be_out_of_reach_is_not_asked() -> None:
    async def body() -> None:
        log = ScriptedLog()
        worker = await Worker(log).started()
        entry = worker.fill("a")
        log.fail()
        worker.clock.tick(2.0)
        log.out_of_reach = True
        log.calls.clear()
        for _ in range(100):
            assert await worker.service.confirm() is Trust.UNVERIFIED
            assert worker.service.current(entry)
        worker.clock.tick(60.0)
        assert await worker.service.confirm() is Trust.LAPSED
        assert log.calls == []
        log.recover()
        log.out_of_reach = False
        assert await worker.service.confirm() is Trust.VERIFIED

    asyncio.run(body())


def test_more_held_tags_than_the_bound_become_one_clear() -> None:
    async def body() -> None:
        log = ScriptedLog()
        worker = await Worker(log).started()
        entry = worker.fill("untouched")
        log.fail()
        await worker.service.invalidate([f"tag {n}" for n in range(MAX_HELD)])
        assert worker.service.current(entry)
        await worker.service.invalidate(["one more"])
        assert not worker.service.current(entry)
        log.recover()
        log.calls.clear()
        await worker.service.confirm()
        assert [name for name, _ in log.calls] == ["clear", "confirm"]

    asyncio.run(body())


def test_more_held_patterns_than_the_log_tells_apart_become_one_clear() -> None:
    async def body() -> None:
        log = ScriptedLog()
        worker = await Worker(log).started()
        entry = worker.fill("untouched")
        log.fail()
        for number in range(MAX_PATTERNS):
            await worker.service.invalidate((), patterns=[f"user:*:{number}"])
        assert worker.service.current(entry)
        await worker.service.invalidate((), patterns=["user:*:one more"])
        assert not worker.service.current(entry)
        log.recover()
        log.calls.clear()
        await worker.service.confirm()
        assert [name for name, _ in log.calls] == ["clear", "confirm"]

    asyncio.run(body())


def test_tags_held_many_times_are_held_once() -> None:
    async def body() -> None:
        log = ScriptedLog()
        worker = await Worker(log).started()
        log.fail()
        for _ in range(100):
            await worker.service.invalidate(["a"])
        log.recover()
        log.calls.clear()
        await worker.service.confirm()
        assert log.calls[0] == ("append", ("a",))

    asyncio.run(body())


def test_a_replay_that_meets_lost_control_state_empties_memory() -> None:
    async def body() -> None:
        log = ScriptedLog()
        worker = await Worker(log).started()
        log.fail()
        await worker.service.invalidate(["a"])
        log.recover()
        log.lose_control()
        dropped = worker.dropped
        await worker.service.confirm()
        assert worker.dropped == dropped + 1
        assert worker.service.stamp().epoch == "epoch 2"

    asyncio.run(body())


def test_a_replay_that_fails_keeps_what_is_held() -> None:
    async def body() -> None:
        log = ScriptedLog()
        worker = await Worker(log).started()
        entry = worker.fill("a")
        log.fail()
        await worker.service.invalidate(["a"])
        for _ in range(3):
            assert await worker.service.confirm() is Trust.UNVERIFIED
        assert not worker.service.current(entry)
        log.recover()
        assert await worker.service.confirm() is Trust.VERIFIED
        assert log.ids["a"] == 1

    asyncio.run(body())


@pytest.mark.parametrize("held", [False, True])
def test_the_repr_tells_an_operator_what_is_pending(held: bool) -> None:
    async def body() -> Invalidation:
        log = ScriptedLog()
        worker = await Worker(log).started()
        if held:
            log.fail()
            await worker.service.invalidate(["a"])
        return worker.service

    assert f"pending={int(held)}" in repr(asyncio.run(body()))
