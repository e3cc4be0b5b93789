"""The log in a real Redis: what only Redis can prove (rules I1, I3, I4), and two caches that share one."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from redis import Redis

from asgi_tiercache import TierCache
from asgi_tiercache.errors import TierError
from asgi_tiercache.invalidation.lease import Trust
from asgi_tiercache.invalidation.log import MAX_PATTERNS, Purge, position_at
from asgi_tiercache.invalidation.redislog import RedisLog
from asgi_tiercache.signals import TierFailed
from asgi_tiercache.testing import TickingClock
from asgi_tiercache.tiers.breaker import Breaker
from asgi_tiercache.tiers.redis import RedisLink
from asgi_tiercache.types import SystemClock
from tests.engine.doubles import written
from tests.faults.proxy import Fault, FaultProxy
from tests.servers import RedisServer
from tests.tiers.doubles import Recorder

T = TypeVar("T")

DEADLINE = 5.0
END = 2**64 - 1
"""The largest number in an id of a stream."""


class Redises:
    """One namespace of one server, and whoever uses it."""

    def __init__(self, server: RedisServer) -> None:
        self.namespace = f"test-{secrets.token_hex(4)}"
        self.control = f"{{{self.namespace}}}:control"
        self.stream = f"{{{self.namespace}}}:log"
        self.clock = TickingClock()
        self.url = server.url

    def client(self) -> Redis:
        return Redis.from_url(self.url, decode_responses=True)

    def link(self) -> RedisLink:
        return RedisLink(self.url)

    def log(self) -> RedisLog:
        breaker = Breaker(tier="L2", deadline=DEADLINE, clock=SystemClock(), signals=Recorder())
        return RedisLog(RedisLink(self.url), breaker, namespace=self.namespace)

    def cache(self) -> TierCache:
        return TierCache.from_url(self.url, namespace=self.namespace, clock=self.clock, deadline=DEADLINE)


@pytest.fixture
def redises(each_redis: RedisServer) -> Redises:
    return Redises(each_redis)


def with_log(redises: Redises, use: Callable[[RedisLog], Awaitable[T]]) -> T:
    async def body() -> T:
        return await use(redises.log())

    return asyncio.run(body())


# ---- the log ----


def test_asking_first_makes_the_control_hash_once(redises: Redises) -> None:
    async def use(log: RedisLog) -> None:
        answer = await log.ask(["a"])
        assert (answer.clock, answer.floor, answer.ids) == (0, 0, (0,))
        assert answer.epoch
        assert (await redises.log().ask(())).epoch == answer.epoch

    with_log(redises, use)
    with redises.client() as client:
        assert set(client.hgetall(redises.control)) == {"epoch", "clock", "floor", "soft", "run_id"}


def test_an_invalidation_stands_in_the_log_and_in_the_hash(redises: Redises) -> None:
    async def use(log: RedisLog) -> None:
        first = await log.append(
            Purge(
                (
                    "a",
                    "b",
                )
            )
        )
        second = await log.append(Purge(("b",)))
        assert (first.previous, second.previous) == (0, first.id)
        assert 0 < first.id < second.id < 2**63
        answer = await log.ask(["b", "never", "a"])
        assert (answer.epoch, answer.clock, answer.floor) == (first.epoch, second.id, 0)
        assert answer.ids == (second.id, 0, first.id)

    with_log(redises, use)
    with redises.client() as client:
        assert client.xlen(redises.stream) == 2


def test_clearing_raises_the_floor(redises: Redises) -> None:
    async def use(log: RedisLog) -> None:
        await log.append(Purge(("a",)))
        cleared = await log.append(Purge(everything=True))
        answer = await log.ask(["a"])
        assert (answer.floor, answer.clock) == (cleared.id, cleared.id)

    with_log(redises, use)


def test_positions_only_grow_also_within_one_millisecond_and_for_two_workers(redises: Redises) -> None:
    async def use(log: RedisLog) -> None:
        other = redises.log()
        made = await asyncio.gather(*(worker.append(Purge((f"t{n}",))) for n in range(50) for worker in (log, other)))
        ids = sorted(appended.id for appended in made)
        assert len(set(ids)) == 100
        assert sorted(appended.previous for appended in made) == [0, *ids[:-1]], "each names the one before it"

    with_log(redises, use)


def test_positions_grow_also_when_the_clock_of_the_server_was_set_back(redises: Redises) -> None:
    async def use(log: RedisLog) -> None:
        first = await log.append(Purge(("a",)))
        ahead = (first.id >> 20) + 23 * 3_600_000
        with redises.client() as client:
            client.hset(redises.control, "clock", f"{ahead}-7")
        second = await log.append(Purge(("b",)))
        third = await log.append(Purge(("c",)))
        assert first.id < second.previous == (ahead << 20) + 7
        assert (second.id, third.id) == (second.previous + 1, second.previous + 2)
        assert second.epoch == third.epoch == first.epoch

    with_log(redises, use)


def test_a_clock_of_the_server_that_was_a_day_ahead_costs_an_epoch(redises: Redises) -> None:
    """Positions from then would never be passed: what was dated ahead would not be cached until it is that day."""

    async def use(log: RedisLog) -> None:
        first = await log.append(Purge(("a",)))
        ahead = f"{(first.id >> 20) + 25 * 3_600_000}-0"
        with redises.client() as client:
            client.hset(redises.control, "clock", ahead)
            client.xadd(redises.stream, {"kind": "hard"}, id=ahead)
        second = await log.append(Purge(("b",)))
        assert second.epoch != first.epoch
        assert first.id <= second.id < first.id + position_at(60)

    with_log(redises, use)


@pytest.mark.parametrize("top", ["4000000000000-5", "9000000000000-5", f"{END}-{END - 1}", f"{END}-{END}"])
@pytest.mark.parametrize("control", ["kept", "lost"])
def test_whoever_sets_the_stream_ahead_does_not_set_the_clock_ahead(redises: Redises, top: str, control: str) -> None:
    async def use(log: RedisLog) -> None:
        first = await log.append(Purge(("a",)))
        with redises.client() as client:
            client.xadd(redises.stream, {"a": "b"}, id=top)
            if control == "lost":
                client.delete(redises.control)
        made = [await log.append(Purge((tag,))) for tag in "bc"]
        assert (made[0].epoch == first.epoch) is (control == "kept")
        assert first.id <= made[0].id < made[1].id < first.id + position_at(60)
        assert [record.id for record in await log.read(0)][-2:] == [appended.id for appended in made]
        assert (await log.ask(["c"])).ids == (made[1].id,)

    with_log(redises, use)


@pytest.mark.parametrize("operation", ["ask", "append", "clear"])
def test_whoever_finds_no_control_hash_makes_one_with_a_new_epoch(redises: Redises, operation: str) -> None:
    async def use(log: RedisLog) -> None:
        before = await log.append(Purge(("a",)))
        with redises.client() as client:
            client.delete(redises.control)
        if operation == "ask":
            answer = await log.ask(["a"])
            assert (answer.clock, answer.floor, answer.ids) == (before.id, 0, (0,)), "the clock goes on"
            epoch = answer.epoch
        else:
            appended = await (
                log.append(Purge(("b",))) if operation == "append" else log.append(Purge(everything=True))
            )
            assert appended.previous == before.id < appended.id
            epoch = appended.epoch
        assert epoch != before.epoch
        assert (await log.ask(())).epoch == epoch

    with_log(redises, use)


def test_a_redis_that_lost_everything_begins_a_new_epoch(own_redis: RedisServer) -> None:
    redises = Redises(own_redis)

    async def use(log: RedisLog) -> None:
        before = await log.append(Purge(("a",)))
        with redises.client() as client:
            client.flushall()
            client.script_flush()
        after = await log.append(Purge(("a",)))
        assert after.epoch != before.epoch
        assert after.previous == 0

    with_log(redises, use)


def test_namespaces_keep_apart(each_redis: RedisServer) -> None:
    first, second = Redises(each_redis), Redises(each_redis)

    async def body() -> None:
        await first.log().append(Purge(("a",)))
        assert (await second.log().ask(["a"])).ids == (0,)

    asyncio.run(body())


@pytest.mark.parametrize("tag", ["a:b", "é", "a b", "'\"\\", "{x}", "%", "\ud800", "x" * 256], ids=ascii)
def test_any_text_may_be_a_tag(redises: Redises, tag: str) -> None:
    async def use(log: RedisLog) -> None:
        appended = await log.append(
            Purge(
                (
                    tag,
                    "other",
                )
            )
        )
        assert (await log.ask(["other", tag])).ids == (appended.id, appended.id)

    with_log(redises, use)


def test_ten_thousand_tags_at_once_are_one_invalidation(redises: Redises) -> None:
    tags = [f"tag {n}" for n in range(10_000)]

    async def use(log: RedisLog) -> None:
        appended = await log.append(Purge(tuple(tags)))
        assert set((await log.ask(tags)).ids) == {appended.id}

    with_log(redises, use)


def test_soft_invalidations_have_fields_of_their_own(redises: Redises) -> None:
    async def use(log: RedisLog) -> None:
        hard = await log.append(Purge(("a",)))
        soft = await log.append(Purge(("a",), soft=True))
        everything = await log.append(Purge(everything=True, soft=True))
        answer = await log.ask(["a"])
        assert (answer.ids, answer.soft_ids) == ((hard.id,), (soft.id,))
        assert (answer.floor, answer.soft_floor) == (0, everything.id)

    with_log(redises, use)


def test_followers_read_what_was_asked_for_and_by_whom(redises: Redises) -> None:
    async def use(log: RedisLog) -> None:
        other = redises.log()
        purges = [
            Purge(("a", "\ud800"), soft=True),
            Purge(patterns=("x*", "y?")),
            Purge(everything=True, settle=0.25),
            Purge(("b",), ("z*",)),
        ]
        made = [await worker.append(purge) for worker, purge in zip((log, other, other, log), purges, strict=True)]
        for records in (await log.read(0), await log.follow(0)):
            assert [record.purge for record in records] == purges
            assert [(record.epoch, record.id, record.previous) for record in records] == [
                (appended.epoch, appended.id, appended.previous) for appended in made
            ]
            assert [record.own for record in records] == [True, False, False, True]
        assert [record.id for record in await log.read(made[1].id)] == [made[2].id, made[3].id]
        assert await log.read(made[3].id) == []

    with_log(redises, use)


def test_what_a_forked_process_has_invalidated_is_not_ones_own(redises: Redises) -> None:
    """As under a server that loads the app and then forks its workers."""
    program = f"""
        import asyncio, os, sys
        from asgi_tiercache.invalidation.log import Purge
        from asgi_tiercache.invalidation.redislog import RedisLog
        from asgi_tiercache.tiers.redis import RedisLink

        log = RedisLog(RedisLink("{redises.url}"), namespace="{redises.namespace}")
        if child := os.fork():
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            (record,) = asyncio.run(log.read(0))
            sys.exit(code or record.own)
        asyncio.run(log.append(Purge(("a",))))
        """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False, timeout=30)
    assert ended.returncode == 0


def test_following_waits_for_the_next_invalidation(redises: Redises) -> None:
    async def use(log: RedisLog) -> None:
        first = await log.append(Purge(("a",)))
        following = asyncio.create_task(log.follow(first.id))
        second = await redises.log().append(Purge(("b",)))
        (record,) = await asyncio.wait_for(following, DEADLINE)
        assert (record.id, record.previous) == (second.id, first.id)

    with_log(redises, use)


def test_entries_of_the_stream_that_no_script_of_ours_wrote_are_passed_over(redises: Redises) -> None:
    async def use(log: RedisLog) -> None:
        first = await log.append(Purge(("a",)))
        with redises.client() as client:
            client.xadd(redises.stream, {"kind": "nonsense"})
            for malformed in (
                {"tags": "[[["},
                {"tags": "[" * 100_000},
                {"tags": '"ab"'},
                {"tags": "[1]"},
                {"patterns": "{}"},
                {"settle": "9" * 400},
                {"settle": "-1"},
                {"previous": "9" * 20},
                {"previous": "1_0-+1"},
            ):
                client.xadd(redises.stream, {"kind": "hard", "epoch": "e", "previous": "1-1", **malformed})
        second = await log.append(Purge(("b",)))
        assert [record.id for record in await log.read(0)] == [first.id, second.id]

    with_log(redises, use)


@pytest.mark.parametrize(
    ("name", "value"), [("clock", "9" * 20), ("floor", "1_0-0"), ("soft", "-1"), ("patterns", '{"a":' * 100_000)]
)
def test_whoever_asks_of_control_state_that_no_script_of_ours_wrote_begins_a_new_epoch(
    redises: Redises, name: str, value: str
) -> None:
    async def use(log: RedisLog) -> None:
        before = (await log.append(Purge(("a",)))).epoch
        with redises.client() as client:
            client.hset(redises.control, name, value)
        answer = await log.ask(["a"])
        assert (answer.epoch != before, answer.floor, answer.ids) == (True, 0, (0,))
        assert (await log.ask(["a"])).epoch == answer.epoch

    with_log(redises, use)


def test_what_is_dated_ahead_counts_from_then_on_and_the_clock_passes_it_by_itself(redises: Redises) -> None:
    async def use(log: RedisLog) -> None:
        made = await log.append(Purge(("a",), settle=3_600))
        answer = await log.ask(["a"])
        assert (answer.clock, answer.ids) == (made.id, (made.id + position_at(3_600),))
        again = await log.append(Purge(("a", "b")))
        assert (await log.ask(["a", "b"])).ids == (made.id + position_at(3_600), again.id), "nothing is taken back"
        assert (await log.confirm()).clock == again.id
        with redises.client() as client:
            client.hset(redises.control, "due", f"{(again.id >> 20) + 1}-0")
        await until_true(lambda: moved_past(log, again.id))
        (tick,) = await log.read(again.id)
        assert tick.previous == again.id
        assert not tick.purge

    with_log(redises, use)


async def moved_past(log: RedisLog, position: int) -> bool:
    return (await log.confirm()).clock > position


async def until_true(holds: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(10_000):
        if await holds():
            return
    raise AssertionError("never")


def test_a_short_date_ahead_is_passed_while_a_longer_one_lasts(redises: Redises) -> None:
    """Otherwise what settles in a moment would not be cached for an hour, because something else takes that long."""

    async def use(log: RedisLog) -> None:
        await log.append(Purge(("slow",), settle=3600))
        settled = (await log.append(Purge(("quick",), settle=0.05))).id + position_at(0.05)
        async with asyncio.timeout(DEADLINE):
            while (await log.confirm()).clock < settled:  # noqa: ASYNC110 - the server's clock has no event
                await asyncio.sleep(0.05)
        clock, news = (await log.confirm()).clock, len(await log.read(0))
        for _ in range(20):
            await log.confirm()
        assert len(await log.read(0)) <= news + 1, "the clock is moved on about once a second, however many ask"
        assert (await log.ask(["slow"])).ids[0] > clock

    with_log(redises, use)


def test_a_clear_because_of_too_many_patterns_reaches_as_far_ahead_as_they_did(redises: Redises) -> None:
    async def use(log: RedisLog) -> None:
        ahead = (await log.append(Purge(patterns=("slow:*:x",), settle=60))).id + position_at(60)
        for number in range(MAX_PATTERNS):
            await log.append(Purge(patterns=(f"{number}*",)))
        answer = await log.ask([])
        assert answer.patterns == ()
        assert answer.floor >= ahead

    with_log(redises, use)


def test_positions_grow_also_when_a_million_invalidations_fall_into_a_millisecond(redises: Redises) -> None:
    """As where the server's clock was set back for long: the sequence number has 20 bits in a position."""

    async def use(log: RedisLog) -> None:
        await log.append(Purge(("a",)))
        with redises.client() as client:
            ms = int(client.hget(redises.control, "clock").split("-")[0]) + 3_600_000
            client.hset(redises.control, "clock", f"{ms}-{0xFFFFF - 1}")
        ids = [(await log.append(Purge(("a",)))).id for _ in range(3)]
        assert ids == [(ms << 20) + 0xFFFFF, (ms + 1) << 20, ((ms + 1) << 20) + 1]
        assert [[record.id for record in await log.read(id_)] for id_ in ids] == [ids[1:], ids[2:], []]

    with_log(redises, use)


def test_patterns_are_told_apart_up_to_a_bound_then_become_a_clear(redises: Redises) -> None:
    async def use(log: RedisLog) -> None:
        made = [await log.append(Purge(patterns=(f"a*{number}",))) for number in range(MAX_PATTERNS)]
        assert sorted((await log.ask(())).patterns) == sorted(
            (f"a*{number}", appended.id, 0) for number, appended in enumerate(made)
        )
        soft = await log.append(Purge(patterns=("a*0",), soft=True))
        assert ("a*0", made[0].id, soft.id) in (await log.ask(())).patterns, "one that is known needs no room"
        last = await log.append(Purge(("t",), ("one too many",), soft=True))
        assert last.everything
        answer = await log.ask(["t"])
        assert (answer.floor, answer.patterns, answer.ids, answer.soft_ids) == (last.id, (), (0,), (0,))
        assert (await log.read(soft.id))[0].purge == Purge(everything=True)

    with_log(redises, use)


def test_patterns_from_before_the_floor_make_room(redises: Redises) -> None:
    async def use(log: RedisLog) -> None:
        for number in range(MAX_PATTERNS):
            await log.append(Purge(patterns=(f"a*{number}",)))
        await log.append(Purge(everything=True))
        made = await log.append(Purge(patterns=("b*",)))
        assert not made.everything
        assert (await log.ask(())).patterns == (("b*", made.id, 0),)

    with_log(redises, use)


def test_the_control_hash_is_bounded_by_giving_up_the_older_half_of_its_tags(redises: Redises) -> None:
    async def use(log: RedisLog) -> None:
        log = RedisLog(redises.link(), namespace=redises.namespace, max_fields=200)
        made = [await log.append(Purge((f"tag {number}",))) for number in range(1_000)]
        with redises.client() as client:
            assert client.hlen(redises.control) < 400
        answer = await log.ask(["tag 0", "tag 999"])
        assert answer.ids == (0, made[-1].id)
        assert made[700].id < answer.floor < made[-1].id, "what was given up is invalid, the rest is not"

    with_log(redises, use)


def test_another_server_behind_the_address_begins_a_new_epoch_once_for_the_fleet(redises: Redises) -> None:
    async def use(log: RedisLog) -> None:
        before = await log.confirm()
        appended = await log.append(Purge(("a",)))
        with redises.client() as client:
            client.hset(redises.control, "run_id", "of the server before it restarted")
        trusting = RedisLog(redises.link(), namespace=redises.namespace, trust_restart=True)
        assert (await trusting.confirm()).epoch == before.epoch
        with redises.client() as client:
            client.hset(redises.control, "run_id", "of the server before it restarted")
        after = await log.confirm()
        assert after.epoch != before.epoch
        assert after.clock == appended.id, "the clock goes on"
        assert (await redises.log().confirm()).epoch == after.epoch
        assert (await log.ask(["a"])).ids == (0,)

    with_log(redises, use)


def test_without_a_replica_nothing_counts_as_replicated(redises: Redises) -> None:
    async def use(log: RedisLog) -> None:
        made = await log.append(Purge(("a",)), replicate=True)
        assert not made.replicated
        assert (await log.ask(["a"])).ids == (made.id,)

    with_log(redises, use)


def test_a_redis_out_of_memory_forgets_the_control_state_rather_than_keep_what_is_old(own_redis: RedisServer) -> None:
    redises = Redises(own_redis)

    async def use(log: RedisLog) -> None:
        before = await log.append(Purge(tuple(f"a tag of some length {number}" for number in range(20_000))))
        with redises.client() as client:
            client.delete(redises.stream)
            client.config_set("maxmemory", client.info("memory")["used_memory"] - 100_000)
        after = await log.append(Purge(("a",)))
        assert after.epoch != before.epoch

    with_log(redises, use)


GARBAGE = ("", "garbage", "-1-0", "1-", "9" * 30 + "-0", "[]", '{"a": 1}', '{"a": ["x", "y"]}', "\xff")
HEAD = ("epoch", "clock", "floor", "soft")


@pytest.mark.parametrize("field", [*HEAD, "patterns", "due", "mark", "marked", "counted", "sweep"])
@pytest.mark.parametrize("operation", ["confirm", "append"])
def test_control_state_that_no_script_of_ours_wrote_is_none(redises: Redises, field: str, operation: str) -> None:
    """Or every invalidation would fail until somebody deletes it."""

    async def use(log: RedisLog) -> None:
        for garbage in [text for text in GARBAGE if (field, text) not in {("epoch", "garbage"), ("patterns", "[]")}]:
            await log.append(Purge(("a",), ("a*",), settle=60))
            before = (await log.confirm()).epoch
            with redises.client() as client:
                client.hset(redises.control, field, garbage)
            if operation == "confirm":
                assert (await log.confirm()).epoch != before, garbage
            else:
                assert (await log.append(Purge(("b",)))).epoch != before, garbage
                assert (await log.ask(["b"])).ids[0] > 0

    with_log(redises, use)


@pytest.mark.parametrize("operation", ["ask", "confirm", "append"])
@pytest.mark.parametrize("field", HEAD)
def test_control_state_without_one_of_its_fields_is_none(redises: Redises, field: str, operation: str) -> None:
    """A lost floor would revive what a `clear()` had invalidated."""

    async def use(log: RedisLog) -> None:
        before = (await log.append(Purge(everything=True))).epoch
        with redises.client() as client:
            client.hdel(redises.control, field)
        assert (await asked(log, operation)) != before

    with_log(redises, use)


@pytest.mark.parametrize("operation", ["ask", "confirm", "append"])
@pytest.mark.parametrize("which", ["control", "stream", "both"])
def test_keys_of_another_type_make_room(redises: Redises, which: str, operation: str) -> None:
    async def use(log: RedisLog) -> None:
        before = (await log.append(Purge(("a",)))).epoch
        with redises.client() as client:
            for key in (redises.control, redises.stream):
                if which in (("control", "both") if key == redises.control else ("stream", "both")):
                    client.delete(key)
                    client.lpush(key, "1")
        assert (await asked(log, operation) != before) is (which != "stream")
        made = await log.append(Purge(("b",)))
        assert [record.id for record in await log.read(made.previous)][-1:] == [made.id]

    with_log(redises, use)


@pytest.mark.parametrize("operation", ["confirm", "append"])
@pytest.mark.parametrize("field", ["floor", "soft"])
def test_a_floor_that_time_will_not_reach_is_none(redises: Redises, field: str, operation: str) -> None:
    """Or nothing would be valid any more, for years."""

    async def use(log: RedisLog) -> None:
        before = (await log.append(Purge(everything=True, settle=86_400))).epoch
        assert await asked(log, operation) == before
        with redises.client() as client:
            client.hset(redises.control, field, "8796093022207-0")
        assert await asked(log, operation) != before

    with_log(redises, use)


async def asked(log: RedisLog, operation: str) -> str:
    """The epoch, as one of the ways to ask Redis tells it."""
    if operation == "append":
        return (await log.append(Purge(("b",)))).epoch
    return (await (log.confirm() if operation == "confirm" else log.ask(["b"]))).epoch


@pytest.mark.parametrize("value", ["garbage", "+1-0"])
def test_a_malformed_id_of_a_tag_is_a_failure_until_the_tag_is_invalidated(redises: Redises, value: str) -> None:
    async def use(log: RedisLog) -> None:
        await log.append(Purge(("other",), settle=60))
        with redises.client() as client:
            client.hset(redises.control, "t:a", value)
        with pytest.raises(TierError):
            await log.ask(["a"])
        made = await log.append(Purge(("a",)))
        assert (await log.ask(["a"])).ids == (made.id,)

    with_log(redises, use)


def test_a_replica_cannot_confirm_that_nothing_was_invalidated(own_redis: RedisServer) -> None:
    redises = Redises(own_redis)

    async def use(log: RedisLog) -> None:
        await log.append(Purge(("a",)))
        with redises.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", "1")
            with pytest.raises(TierError, match="ReadOnlyError"):
                await log.confirm()
            client.execute_command("REPLICAOF", "NO", "ONE")
        await log.confirm()

    with_log(redises, use)


def test_a_connection_that_ended_unnoticed_does_not_leave_the_question_unanswered(own_redis: RedisServer) -> None:
    async def body() -> None:
        with FaultProxy(own_redis.port) as proxy:
            signals = Recorder()
            breaker = Breaker(tier="L2", deadline=DEADLINE, clock=SystemClock(), signals=signals)
            log = RedisLog(RedisLink(proxy.url), breaker)
            epoch = (await log.confirm()).epoch
            proxy.begin(Fault(reset_after=0, on="open"))
            assert (await log.confirm()).epoch == epoch
            assert signals.of(TierFailed) == []

    asyncio.run(body())


def test_a_server_that_is_gone_is_a_tier_error(own_redis: RedisServer) -> None:
    redises = Redises(own_redis)

    async def use(log: RedisLog) -> None:
        await log.append(Purge(("a",)))
        own_redis.stop()
        with pytest.raises(TierError):
            await log.ask(["a"])
        with pytest.raises(TierError):
            await log.append(Purge(("a",)))

    with_log(redises, use)


# ---- caches over it ----


def test_what_one_cache_stored_another_finds(redises: Redises) -> None:
    async def body() -> None:
        first, second = redises.cache(), redises.cache()
        async with first, second:
            await first.set("k", {"a": 1}, ttl=1000, tags=["t"])
            await written(first)
            assert await second.get("k") == {"a": 1}
            assert second.stats()["tiers"]["L2"]["hits"] == 1

    asyncio.run(body())


def test_an_invalidation_reaches_other_caches_within_the_lease(redises: Redises) -> None:
    async def body() -> None:
        first, second = redises.cache(), redises.cache()
        async with first, second:
            await first.set("k", 1, ttl=1000, tags=["t"])
            await first.set("other", 2, ttl=1000)
            await written(first)
            assert await second.get_many(["k", "other"]) == {"k": 1, "other": 2}
            receipt = await first.invalidate("t")
            assert receipt.durable
            assert await first.get("k") is None
            redises.clock.tick(1.0)
            assert await second.get_many(["k", "other"]) == {"other": 2}

    asyncio.run(body())


def test_a_restarted_worker_revives_nothing(redises: Redises) -> None:
    async def body() -> None:
        async with redises.cache() as cache:
            await cache.set("invalidated", 1, ttl=1000, tags=["t"])
            await cache.set("kept", 2, ttl=1000)
            await written(cache)
            await cache.invalidate("t")
        async with redises.cache() as again:
            assert await again.get_many(["invalidated", "kept"]) == {"kept": 2}

    asyncio.run(body())


def test_a_clear_reaches_other_caches_and_later_ones(redises: Redises) -> None:
    async def body() -> None:
        first, second = redises.cache(), redises.cache()
        async with first, second:
            await first.set("k", 1, ttl=1000)
            await written(first)
            assert await second.get("k") == 1
            await first.clear()
            redises.clock.tick(1.0)
            assert await second.get("k") is None
        async with redises.cache() as third:
            assert await third.get("k") is None

    asyncio.run(body())


def test_lost_control_state_invalidates_everything_everywhere(redises: Redises) -> None:
    async def body() -> None:
        first, second = redises.cache(), redises.cache()
        async with first, second:
            await first.set("k", 1, ttl=1000, tags=["t"])
            await written(first)
            assert await second.get("k") == 1
            await first.invalidate("t")
            with redises.client() as client:
                client.delete(redises.control)
            redises.clock.tick(1.0)
            assert await second.get("k") is None
            assert await first.get("k") is None
            await first.set("k", 2, ttl=1000)
            assert await first.get("k") == 2

    asyncio.run(body())


def test_a_log_that_went_back_and_on_is_cleared_by_whoever_knew_more(redises: Redises) -> None:
    """As after a failover with lost writes, in which somebody else invalidates before this worker asks."""

    async def test() -> None:
        async with redises.cache() as first:
            await first.set("a", "old", ttl=1000, tags=["a"])
            await written(first)
            with redises.client() as client:
                replica = client.hgetall(redises.control)
                assert (await first.invalidate("a")).durable
                client.delete(redises.control, redises.stream)
                client.hset(redises.control, mapping=replica)
            async with redises.cache() as second:
                assert await second.get("a") == "old", "nobody has told it, and Redis does not know any more"
                assert (await second.invalidate("b")).durable
                for _ in range(3):
                    redises.clock.tick(1.0)
                    assert await first.get("a") is None
                assert await second.get("a") is None

    asyncio.run(test())


def test_a_stream_that_somebody_has_replaced_is_a_gap(redises: Redises) -> None:
    """Or nobody would be sure of anything until the next invalidation makes another."""

    async def test() -> None:
        async with redises.cache() as first, redises.cache() as second:
            await first.set("a", 1, ttl=1000)
            await first.engine.invalidation.tail.aclose()
            assert (await second.invalidate("b")).durable
            with redises.client() as client:
                client.delete(redises.stream)
                client.lpush(redises.stream, "1")
            redises.clock.tick(2.0)
            assert await first.engine.invalidation.confirm() is Trust.VERIFIED
            assert await first.get("a") == 1

    asyncio.run(test())


def test_what_a_replica_says_does_not_satisfy_those_who_ask_on_every_read(own_redis: RedisServer) -> None:
    redises = Redises(own_redis)

    async def test() -> None:
        cache = redises.cache()

        @cache.cached("v:{number}", ttl=1000, tags=["v"], verify=True)
        async def value(number: int) -> int:
            calls.append(number)
            return number

        calls: list[int] = []
        async with cache:
            for _ in range(2):
                await value(1)
            assert calls == [1]
            with redises.client() as client:
                client.execute_command("REPLICAOF", "127.0.0.1", "1")
                redises.clock.tick(1.0)
                await value(1)
                assert calls == [1, 1]
                client.execute_command("REPLICAOF", "NO", "ONE")

    asyncio.run(test())


def test_an_invalidation_while_redis_is_down_is_reported_held_and_sent_later(own_redis: RedisServer) -> None:
    redises = Redises(own_redis)

    async def body() -> None:
        cache = redises.cache()
        async with cache:
            await cache.set("k", 1, ttl=1000, tags=["t"])
            own_redis.stop()
            receipt = await cache.invalidate("t")
            assert not receipt.durable
            assert await cache.get("k") is None
            own_redis.start()
            async with asyncio.timeout(DEADLINE):
                while not _in_the_log(redises):
                    redises.clock.tick(1.0)
                    await cache.get("other")
                    await asyncio.sleep(0)
            assert await cache.get("k") is None

    asyncio.run(body())


def _in_the_log(redises: Redises) -> bool:
    with redises.client() as client:
        return bool(client.hexists(redises.control, "t:t"))


def test_one_odd_key_does_not_stand_in_the_way_of_every_invalidation(redises: Redises) -> None:
    """What Redis's client cannot encode would be held and fail again for ever, and the lease with it."""

    async def body() -> None:
        cache = redises.cache()
        async with cache:
            await cache.delete("odd \ud800")
            assert (await cache.invalidate("t")).durable
            assert cache.stats()["failures"] == {}
            await cache.set("k", 1, ttl=1000)
            redises.clock.tick(100.0)
            assert await cache.get("k") == 1

    asyncio.run(body())


def test_no_key_of_a_users_reaches_the_control_state(own_redis: RedisServer) -> None:
    async def body() -> None:
        cache = TierCache.from_url(own_redis.url, deadline=DEADLINE)
        async with cache:
            await cache.invalidate("before")
            for name in ("control", "log"):
                await cache.set(f"{{tiercache}}:{name}", 1, ttl=1000)
            await written(cache)
            assert (await cache.invalidate("after")).durable

    asyncio.run(body())


def test_a_cache_serves_several_event_loops_one_after_another(redises: Redises) -> None:
    cache = redises.cache()

    async def use(value: int) -> object:
        await cache.set("k", value, ttl=1000, tags=["t"])
        await cache.invalidate("t")
        await cache.set("k", value + 1, ttl=1000)
        await cache.aclose()
        return await cache.get("k")

    asyncio.run(cache.start())
    assert [asyncio.run(use(value)) for value in (1, 5)] == [2, 6]
