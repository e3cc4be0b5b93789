"""When what is stored is renewed, how long it lives, and which of it will be asked for again."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_tiercache.ageing import MARGIN, UNTOUCHED, FillTime, Rhythms, early_at, failure_ttl, jittered, will_be_asked
from asgi_tiercache.errors import CodecError, ConfigError
from asgi_tiercache.testing import TickingClock

TTL = 5.0
Early = Callable[["Period", float], bool]

chances = st.floats(0, 1, exclude_max=True)
seconds = st.floats(0, 1e9)


# ---- early refresh ----


@given(now=seconds, ttl=seconds, fill_seconds=seconds, beta=st.floats(0, 100), chance=chances)
def test_nothing_is_renewed_in_the_first_third_of_its_life_nor_put_off_past_its_end(
    now: float, ttl: float, fill_seconds: float, beta: float, chance: float
) -> None:
    at = early_at(now, now + ttl, fill_seconds, beta, lambda: chance)
    assert now + (now + ttl - now) * UNTOUCHED <= at <= now + ttl


@given(st.floats(0, 1, exclude_max=True), st.floats(0.1, 10))
def test_a_fill_as_long_as_the_measured_ones_ends_before_the_expiry(chance: float, beta: float) -> None:
    assert early_at(0, 1000, 3, beta, lambda: chance) <= 1000 - 3 * beta * MARGIN


@pytest.mark.parametrize(("fill_seconds", "beta"), [(0, 1), (3, 0)])
def test_without_a_measured_fill_or_without_beta_nothing_is_early(fill_seconds: float, beta: float) -> None:
    assert early_at(0, 1000, fill_seconds, beta, Random(1).random) == 1000


def test_what_has_expired_already_is_not_put_off() -> None:
    assert early_at(10, 4, 1, 1, Random(1).random) == 4


@pytest.mark.parametrize("beyond", [0.5, 1, 2, 3])
def test_before_the_margin_the_draw_is_that_of_xfetch(beyond: float) -> None:
    random, draws = Random(7), 20_000
    gaps = [1000 - early_at(0, 1000, 2, 1.5, random.random) for _ in range(draws)]
    ours = sum(gap > 3 * (MARGIN + beyond) for gap in gaps) / draws
    xfetch = [-3 * math.log(1 - random.random()) for _ in range(draws)]
    in_time = [gap for gap in xfetch if gap > 3 * MARGIN]
    theirs = sum(gap > 3 * (MARGIN + beyond) for gap in in_time) / len(in_time)
    assert ours == pytest.approx(math.exp(-beyond), abs=0.01)
    assert ours == pytest.approx(theirs, abs=0.02)


@dataclass
class Period:
    """One process, one key: what is stored, and the fill under way."""

    expires: float = 0.0
    early: float = 0.0
    last_fill: float = 0.0
    random: Random = field(default_factory=lambda: Random(5))
    starts: list[float] = field(default_factory=list)
    waited: int = 0


def by_threshold(period: Period, now: float) -> bool:
    return now >= period.early


def by_xfetch(period: Period, now: float) -> bool:
    return now - period.last_fill * math.log(1 - period.random.random()) >= period.expires


def run(rule: Early, *, rate: float, fill: Callable[[Random], float], length: float, beta: float = 1) -> Period:
    """`length` seconds of requests, `rate` in each, after a first fill."""
    period, fill_time, done, now = Period(), FillTime(), 0.0, 0.0
    period.last_fill = fill(period.random)
    filling = True
    while (now := now + period.random.expovariate(rate)) < length:
        if filling and now >= done:
            fill_time.add(period.last_fill)
            period.expires = done + TTL
            period.early = early_at(done, period.expires, fill_time.seconds, beta, period.random.random)
            filling = False
        expired = now >= period.expires
        period.waited += expired
        if not filling and (expired or rule(period, now)):
            filling = True
            period.starts.append(now)
            period.last_fill = fill(period.random)
            done = now + period.last_fill
    return period


def most_in_one_lifetime(starts: list[float]) -> int:
    return max(sum(start <= other < start + TTL for other in starts) for start in starts)


@pytest.mark.parametrize("fill_seconds", [0.01, 0.3, 1.0, 3.0])
def test_at_1000_requests_a_second_nobody_waits_and_few_fills_are_extra(fill_seconds: float) -> None:
    period = run(by_threshold, rate=1000, fill=lambda random: fill_seconds, length=100)
    assert period.waited == 0
    assert most_in_one_lifetime(period.starts) <= 3
    assert len(period.starts) <= 1.5 * 100 / TTL


def test_fills_that_take_now_longer_now_shorter_still_end_in_time() -> None:
    period = run(by_threshold, rate=1000, fill=lambda random: random.uniform(0.2, 0.4), length=100)
    assert period.waited == 0
    assert most_in_one_lifetime(period.starts) <= 3


@given(st.floats(0.001, 30), st.floats(0.01, 50))
def test_no_fill_time_and_no_beta_make_more_than_two_extra_fills(fill_seconds: float, beta: float) -> None:
    period = run(by_threshold, rate=50, fill=lambda random: fill_seconds, length=20, beta=beta)
    assert most_in_one_lifetime(period.starts) <= 3


def test_a_hot_key_takes_fewer_fills_than_by_xfetch() -> None:
    ours, theirs = (run(rule, rate=1000, fill=lambda random: 0.3, length=200) for rule in (by_threshold, by_xfetch))
    assert ours.waited == theirs.waited == 0
    assert len(ours.starts) < 0.8 * len(theirs.starts)


def test_a_cool_key_has_fewer_who_wait_than_by_xfetch() -> None:
    ours, theirs = (run(rule, rate=1, fill=lambda random: 0.3, length=20_000) for rule in (by_threshold, by_xfetch))
    assert 0 < ours.waited < theirs.waited
    assert len(ours.starts) < 1.1 * len(theirs.starts)


# ---- jitter ----


@given(ttl=st.floats(1e-3, 1e9), jitter=st.floats(0, 1, exclude_max=True), chance=chances)
def test_jitter_only_shortens_and_leaves_something(ttl: float, jitter: float, chance: float) -> None:
    lifetime = jittered(ttl, jitter, lambda: chance)
    assert 0 < lifetime <= ttl
    assert lifetime >= ttl * (1 - jitter)


def test_without_jitter_a_lifetime_is_what_it_was() -> None:
    assert jittered(60, 0, Random(1).random) == 60


def test_what_was_stored_together_expires_evenly_spread() -> None:
    random = Random(3)
    ends = [jittered(100, 0.2, random.random) for _ in range(10_000)]
    by_second = [sum(second <= end < second + 1 for end in ends) for second in range(80, 100)]
    assert sum(by_second) == len(ends)
    assert max(by_second) < 1.2 * 500


# ---- how long fills take ----


def test_before_the_first_fill_nothing_is_known() -> None:
    assert FillTime().seconds == 0


def test_the_first_fill_leaves_room_for_one_three_times_as_long() -> None:
    fill_time = FillTime()
    fill_time.add(0.2)
    assert fill_time.seconds == pytest.approx(0.6)


def test_where_fills_take_equally_long_the_margin_goes() -> None:
    fill_time = FillTime()
    for _ in range(30):
        fill_time.add(0.2)
    assert fill_time.seconds == pytest.approx(0.2, rel=0.01)


def test_fills_that_differ_keep_a_margin() -> None:
    fill_time, random, exceeded = FillTime(), Random(11), 0
    for _ in range(1000):
        seconds = random.lognormvariate(-1, 0.5)
        exceeded += fill_time.seconds < seconds
        fill_time.add(seconds)
    assert exceeded < 50


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_the_estimate_is_at_least_the_shortest_fill_and_finite(measured: list[float]) -> None:
    fill_time = FillTime()
    for one in measured:
        fill_time.add(one)
    assert min(measured) * 0.999_999 <= fill_time.seconds <= 10 * max(measured)


# ---- what will be asked for again ----


@pytest.mark.parametrize(
    ("ttl", "gap", "probable"),
    [(10, 10, True), (10, 10.05, True), (10, 10.1, False), (10, 0, True), (10, 1e-300, True), (10, 1e300, False)],
)
def test_a_request_within_the_lifetime_is_probable_up_to_a_gap_as_long(ttl: float, gap: float, probable: bool) -> None:
    assert will_be_asked(ttl, gap) is probable


def asked(rhythms: Rhythms[str], key: str, *times: float) -> None:
    for now in times:
        rhythms.seen(key, now)


def keys_due(rhythms: Rhythms[Any], now: float, limit: int = 100) -> list[str]:
    return [due.key for due in rhythms.due(now, limit)]


def test_a_key_in_rhythm_is_due_from_its_time_on_and_once() -> None:
    rhythms = Rhythms[str]()
    asked(rhythms, "a", 0, 2, 4)
    rhythms.watch("a", 8, 5, "what renews it")
    assert rhythms.next_at() == 8
    assert rhythms.due(7.9, 10) == []
    assert rhythms.due(8, 10) == [("a", "what renews it")]
    assert rhythms.due(8, 10) == []
    assert rhythms.next_at() is None


@pytest.mark.parametrize(
    ("times", "why"),
    [([0], "asked for once"), ([0, 20, 40, 60], "too slow"), ([40, 40.1, 40.2], "quiet for longer than it lives")],
)
def test_a_key_out_of_rhythm_is_not_renewed(times: list[float], why: str) -> None:
    rhythms = Rhythms[str]()
    asked(rhythms, "a", *times)
    rhythms.watch("a", 62, 5, "")
    assert keys_due(rhythms, 62) == []


def test_recent_gaps_count_more_than_old_ones() -> None:
    rhythms = Rhythms[str]()
    clock = TickingClock(monotonic=0)
    for gap in [100.0] * 5 + [1.0] * 40:
        clock.tick(gap)
        rhythms.seen("a", clock.monotonic())
    rhythms.watch("a", clock.monotonic(), 5, "")
    assert keys_due(rhythms, clock.monotonic()) == ["a"]


def test_a_key_that_was_stored_again_is_due_at_its_new_time_alone() -> None:
    rhythms = Rhythms[str]()
    asked(rhythms, "a", 0, 1, 2, 3)
    rhythms.watch("a", 4, 5, "old")
    rhythms.watch("a", 6, 5, "new")
    assert rhythms.due(5, 10) == []
    assert rhythms.due(6, 10) == [("a", "new")]


def test_what_is_due_comes_in_order_and_no_more_than_is_wanted() -> None:
    rhythms = Rhythms[str]()
    for key, at in (("late", 9), ("soon", 5), ("between", 7), ("not yet", 11)):
        asked(rhythms, key, 0, 1, 2, 3, 4)
        rhythms.watch(key, at, 20, "")
    assert keys_due(rhythms, 10, limit=2) == ["soon", "between"]
    assert keys_due(rhythms, 10, limit=2) == ["late"]
    assert rhythms.next_at() == 11


def test_a_key_nobody_asked_for_is_not_watched() -> None:
    rhythms = Rhythms[str]()
    rhythms.watch("a", 1, 5, "")
    assert rhythms.next_at() is None


def test_forgetting_all_leaves_nothing_due() -> None:
    rhythms = Rhythms[str]()
    asked(rhythms, "a", 0, 1, 2)
    rhythms.watch("a", 3, 5, "")
    rhythms.clear()
    assert (len(rhythms), rhythms.due(10, 10), rhythms.next_at()) == (0, [], None)
    asked(rhythms, "a", 11, 12)
    assert len(rhythms) == 1


def renewals(clock: TickingClock, *, gap: float, requests: int, ttl: float) -> tuple[int, int]:
    """Misses, and renewals, of a key asked for `requests` times and then no more."""
    rhythms = Rhythms[None]()
    misses = renewed = 0
    expires = 0.0
    for tick in range(int((gap * requests + 10 * ttl) * 10)):
        now = clock.monotonic()
        if tick % int(gap * 10) == 0 and tick < gap * 10 * requests:
            rhythms.seen("a", now)
            if now >= expires:
                misses += 1
                expires = now + ttl
                rhythms.watch("a", expires - 0.5, ttl, None)
        for due in rhythms.due(now, 1):
            renewed += 1
            expires = now + ttl
            rhythms.watch(due.key, expires - 0.5, ttl, None)
        clock.tick(0.1)
    return misses, renewed


def test_a_steady_key_misses_before_its_rhythm_is_known_and_never_again() -> None:
    misses, renewed = renewals(TickingClock(), gap=4, requests=200, ttl=5)
    assert misses == 1
    assert renewed == pytest.approx(4 * 200 / 4.6, abs=3)


def test_a_key_asked_for_more_rarely_than_it_expires_is_never_renewed() -> None:
    assert renewals(TickingClock(), gap=6, requests=50, ttl=5) == (50, 0)


def test_a_key_that_nobody_asks_for_any_more_is_renewed_twice_at_most() -> None:
    rhythms = Rhythms[None]()
    asked(rhythms, "a", *range(10))  # type: ignore[arg-type]
    at, times = 9.1, 0
    rhythms.watch("a", at, 5, None)
    while rhythms.due(at, 1):
        times += 1
        at += 4.5
        rhythms.watch("a", at, 5, None)
    assert 1 <= times <= 2


def test_by_chance_requests_keys_are_renewed_as_their_rate_deserves() -> None:
    def share(mean_gap: float) -> float:
        random, rhythms, now, renewed = Random(17), Rhythms[None](), 0.0, 0
        for _ in range(2000):
            now += random.expovariate(1 / mean_gap)
            rhythms.seen("a", now)
            rhythms.watch("a", now, 10, None)
            renewed += bool(rhythms.due(now, 1))
        return renewed / 2000

    assert share(2.5) > 0.98
    assert 0.3 < share(10) < 0.7
    assert share(40) < 0.02


def test_keys_asked_for_once_do_not_drive_out_those_in_rhythm() -> None:
    rhythms = Rhythms[str](limit=100)
    popular = [f"popular {number}" for number in range(50)]
    for second in range(300):
        asked(rhythms, popular[second % 50], second, second + 0.5)
        asked(rhythms, f"once {second}", second)
    for key in popular:
        rhythms.watch(key, 300, 400, "")
    assert len(rhythms) == 100
    assert set(keys_due(rhythms, 300)) == set(popular)


def test_a_key_that_has_lost_its_rhythm_goes_in_the_end() -> None:
    rhythms = Rhythms[str](limit=10)
    asked(rhythms, "quiet", 0, 1, 2)
    for number in range(20):
        asked(rhythms, f"once {number}", 3)
    rhythms.watch("quiet", 4, 5, "")
    assert rhythms.next_at() is None


def test_a_key_that_had_to_go_is_not_due() -> None:
    rhythms = Rhythms[str](limit=2)
    asked(rhythms, "a", 0, 1)
    rhythms.watch("a", 2, 5, "")
    for number in range(20):
        asked(rhythms, f"b{number}", 1, 1.5)
    assert len(rhythms) == 2
    assert keys_due(rhythms, 2) == []


def test_storing_a_key_over_and_over_takes_no_more_room() -> None:
    rhythms = Rhythms[str]()
    asked(rhythms, "a", 0, 1)
    for at in range(10_000):
        rhythms.watch("a", at, 5, "")
    assert len(rhythms._heap) < 50


def test_keys_that_had_to_go_leave_no_room_taken() -> None:
    rhythms = Rhythms[str](limit=10)
    for number in range(5_000):
        asked(rhythms, f"once {number}", number)
        rhythms.watch(f"once {number}", number, 5, "")
    assert len(rhythms._heap) < 50


class _Model:
    """The same rules without a bound, in the plainest way."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}
        self.watched: dict[str, tuple[float, int, float]] = {}

    def due(self, now: float, limit: int) -> list[str]:
        found: list[str] = []
        for key, (at, _, ttl) in sorted(self.watched.items(), key=lambda item: item[1]):
            if at > now or len(found) == limit:
                break
            del self.watched[key]
            times = self.times[key]
            gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
            if gaps:
                smoothed = gaps[0]
                for gap in gaps[1:]:
                    smoothed += (gap - smoothed) / 8
                if 1 - math.exp(-ttl / max(smoothed, now - times[-1], 1e-12)) >= 0.63:
                    found.append(key)
        return found


steps = st.lists(
    st.tuples(st.sampled_from(["seen", "seen", "watch", "due"]), st.sampled_from("abcde"), st.integers(0, 20)),
    max_size=60,
)


@given(steps)
def test_rhythms_do_what_their_rules_say(done: list[tuple[str, str, int]]) -> None:
    rhythms, model, now = Rhythms[str](), _Model(), 0.0
    for number, (action, key, amount) in enumerate(done):
        if action == "seen":
            now += amount
            rhythms.seen(key, now)
            model.times.setdefault(key, []).append(now)
        elif action == "watch":
            rhythms.watch(key, now + amount, 7, key)
            if key in model.times:
                model.watched[key] = (now + amount, number, 7)
        else:
            assert keys_due(rhythms, now, amount) == model.due(now, amount)


# ---- what functions raise ----


class GoneError(LookupError):
    pass


class GoneForGoodError(GoneError):
    pass


@pytest.mark.parametrize(
    ("error", "ttl"),
    [
        (LookupError("a"), 10),
        (KeyError("a"), 10),
        (IndexError("a"), 0),
        (GoneError("a"), 20),
        (GoneForGoodError("a"), 20),
        (ValueError("a"), 0),
        (KeyboardInterrupt(), 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_the_nearest_class_named_says_for_how_long_an_exception_is_stored(error: BaseException, ttl: float) -> None:
    assert failure_ttl(error, {LookupError: 10, IndexError: 0, GoneError: 20}) == ttl


@pytest.mark.parametrize("error", [ConfigError("ttl", "wrong"), CodecError("wrong")])
def test_what_the_cache_itself_raises_is_never_stored(error: Exception) -> None:
    assert failure_ttl(error, {Exception: 10, TypeError: 10, ValueError: 10}) == 0
