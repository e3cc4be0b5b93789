from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_tiercache.errors import ConfigError
from asgi_tiercache.signals import (
    Answered,
    BreakerChanged,
    EntryRejected,
    Evicted,
    Invalidated,
    Signal,
    Signals,
    TierFailed,
    TierRead,
    WriteDropped,
)
from asgi_tiercache.stats import BOUNDS, MAX_NAME, MAX_REASONS, MAX_ROUTES, OTHER, Histogram, RegionSize, Stats

GROWTH = 2**0.25
"""How much wider each bucket is than the one before."""


def tell(stats: Stats, *signals: Signal) -> None:
    emitted = Signals()
    stats.listen_to(emitted)
    for signal in signals:
        emitted.emit(signal)


def counted(*signals: Signal, routes: bool = False) -> dict[str, Any]:
    stats = Stats()
    tell(stats, *signals)
    return stats.snapshot(routes=routes)


def recorded(durations: Iterable[float]) -> Histogram:
    histogram = Histogram()
    for seconds in durations:
        histogram.record(seconds)
    return histogram


def hit(route: str = "/a", tier: str = "L1", seconds: float = 0.0) -> Answered:
    return Answered(route, "hit", tier, seconds)


def miss(route: str = "/a", why: str = "", seconds: float = 0.0) -> Answered:
    return Answered(route, "miss", why, seconds)


def passed(route: str = "/a", reason: str = "method") -> Answered:
    return Answered(route, "pass", reason, 0.0)


# The histogram


def test_a_histogram_without_durations_has_no_percentiles() -> None:
    empty = Histogram()
    assert empty.count == 0
    assert empty.percentile(0.5) is None
    assert empty.summary() == {"p50": None, "p90": None, "p99": None}


def test_a_bucket_includes_its_upper_bound_and_nothing_above() -> None:
    bound, following = BOUNDS[40], BOUNDS[41]
    assert recorded([bound]).percentile(1) == bound
    assert recorded([math.nextafter(bound, 1)]).percentile(1) == following


def test_the_buckets_reach_from_250_nanoseconds_to_over_a_minute_with_four_in_each_power_of_two() -> None:
    assert BOUNDS[0] == 250e-9
    assert 64 <= BOUNDS[-1] < 128
    assert all(BOUNDS[i + 4] == pytest.approx(2 * BOUNDS[i]) for i in range(len(BOUNDS) - 4))


@pytest.mark.parametrize(
    ("seconds", "shown"), [(-1.0, BOUNDS[0]), (0.0, BOUNDS[0]), (1e9, BOUNDS[-1]), (math.inf, BOUNDS[-1])]
)
def test_durations_outside_the_buckets_count_in_the_nearest(seconds: float, shown: float) -> None:
    histogram = recorded([seconds])
    assert histogram.count == 1
    assert histogram.percentile(0.5) == shown


def test_percentiles_of_a_hundred_known_durations() -> None:
    histogram = recorded([1e-6] * 50 + [1e-3] * 40 + [1.0] * 10)
    shown = histogram.summary()
    for name, exact in (("p50", 1e-6), ("p90", 1e-3), ("p99", 1.0)):
        value = shown[name]
        assert value is not None
        assert exact <= value <= exact * GROWTH


@given(
    st.lists(st.floats(min_value=250e-9, max_value=60), min_size=1, max_size=60),
    st.floats(min_value=0, max_value=1),
)
@settings(max_examples=100, deadline=None)
def test_a_percentile_is_the_exact_one_rounded_up_by_less_than_a_fifth(durations: list[float], q: float) -> None:
    exact = sorted(durations)[max(1, math.ceil(q * len(durations))) - 1]
    shown = recorded(durations).percentile(q)
    assert shown is not None
    assert exact <= shown <= exact * GROWTH * (1 + 1e-9)


@given(st.lists(st.floats(0, 100), max_size=40), st.lists(st.floats(0, 100), max_size=40))
@settings(max_examples=50, deadline=None)
def test_merging_is_the_same_as_having_recorded_both(mine: list[float], theirs: list[float]) -> None:
    merged, other = recorded(mine), recorded(theirs)
    merged.merge(other)
    both = recorded(mine + theirs)
    assert merged.count == both.count == len(mine) + len(theirs)
    assert [merged.percentile(i / 20) for i in range(21)] == [both.percentile(i / 20) for i in range(21)]
    assert other.count == len(theirs)


@pytest.mark.parametrize("q", [-0.01, 1.01, 99, math.nan])
def test_a_percentile_is_asked_for_as_a_share(q: float) -> None:
    with pytest.raises(ConfigError) as caught:
        Histogram().percentile(q)
    assert caught.value.option == "q"


# Answers


def test_nothing_asked_is_no_hit_rate_and_no_division_by_zero() -> None:
    snapshot = Stats().snapshot(routes=True)
    assert snapshot["answers"] == {"hits": 0, "misses": 0, "passes": 0, "hit_rate": None}
    assert snapshot["tiers"]["L1"]["hit_rate"] is None
    assert snapshot["routes"] == {}


def test_only_passes_are_no_hit_rate_either() -> None:
    assert counted(passed(), passed())["answers"] == {"hits": 0, "misses": 0, "passes": 2, "hit_rate": None}


def test_answers_are_counted_by_outcome() -> None:
    snapshot = counted(hit(), hit(), hit(tier="L2"), miss(), passed())
    assert snapshot["answers"] == {"hits": 3, "misses": 1, "passes": 1, "hit_rate": 0.75}


def test_passes_and_what_was_not_stored_are_counted_by_reason() -> None:
    snapshot = counted(
        passed(reason="method"), passed(reason="method"), passed(reason="cookie"), miss(why="set-cookie")
    )
    assert snapshot["passes"] == {"method": 2, "cookie": 1}
    assert snapshot["not_stored"] == {"set-cookie": 1}


def test_a_miss_that_was_stored_has_no_reason() -> None:
    snapshot = counted(miss())
    assert snapshot["answers"]["misses"] == 1
    assert snapshot["not_stored"] == {}


def test_routes_are_told_only_where_asked_for() -> None:
    signals = hit("/a"), miss("/a", why="private"), passed("/b", "cookie")
    assert "routes" not in counted(*signals)
    assert counted(*signals, routes=True)["routes"] == {
        "/a": {
            "answers": {"hits": 1, "misses": 1, "passes": 0, "hit_rate": 0.5},
            "passes": {},
            "not_stored": {"private": 1},
        },
        "/b": {
            "answers": {"hits": 0, "misses": 0, "passes": 1, "hit_rate": None},
            "passes": {"cookie": 1},
            "not_stored": {},
        },
    }


def test_at_most_a_thousand_routes_have_a_row_and_no_answer_is_lost() -> None:
    names = [f"/{i}" for i in range(MAX_ROUTES + 20)]
    snapshot = counted(*map(hit, names), *map(hit, names), routes=True)
    assert len(snapshot["routes"]) == MAX_ROUTES + 1
    assert snapshot["routes"]["/0"]["answers"]["hits"] == 2
    assert snapshot["routes"][OTHER]["answers"]["hits"] == 40
    assert snapshot["answers"]["hits"] == 2 * len(names)


def test_the_reasons_of_one_route_are_bounded() -> None:
    snapshot = counted(*(passed(reason=f"r{i}") for i in range(MAX_REASONS + 9)), routes=True)
    for passes in (snapshot["passes"], snapshot["routes"]["/a"]["passes"]):
        assert len(passes) == MAX_REASONS + 1
        assert passes[OTHER] == 9
    assert snapshot["answers"]["passes"] == MAX_REASONS + 9


def test_the_reasons_of_all_routes_together_are_bounded() -> None:
    snapshot = counted(*(miss(f"/{i}", why=f"r{i}") for i in range(MAX_REASONS + 9)))
    assert len(snapshot["not_stored"]) == MAX_REASONS + 1
    assert sum(snapshot["not_stored"].values()) == MAX_REASONS + 9


def test_a_known_reason_still_counts_by_itself_once_the_bound_is_reached() -> None:
    many = [passed(reason=f"r{i}") for i in range(MAX_REASONS + 1)]
    assert counted(*many, passed(reason="r0"))["passes"]["r0"] == 2


def test_free_text_is_not_taken_for_a_reason() -> None:
    snapshot = counted(passed(reason="x" * MAX_NAME), passed(reason="x" * (MAX_NAME + 1)))
    assert snapshot["passes"] == {"x" * MAX_NAME: 1, OTHER: 1}


def test_hits_and_misses_have_their_own_latency() -> None:
    latency = counted(hit(seconds=1e-6), hit(tier="L2", seconds=1e-6), miss(seconds=1.0))["latency"]
    assert 1e-6 <= latency["hits"]["p99"] <= 1e-6 * GROWTH
    assert 1.0 <= latency["misses"]["p50"] <= GROWTH


def test_an_answer_that_was_not_measured_counts_and_has_no_latency() -> None:
    snapshot = counted(hit(), miss())
    assert snapshot["answers"]["hits"] == snapshot["answers"]["misses"] == 1
    assert snapshot["latency"]["hits"]["p50"] is None
    assert snapshot["latency"]["misses"]["p50"] is None
    assert snapshot["tiers"]["L1"]["latency"]["p50"] is None


# Tiers


def test_memory_missed_what_came_from_elsewhere_and_was_not_asked_for_what_passed_by() -> None:
    snapshot = counted(*[hit()] * 5, hit(tier="L2"), hit(tier="L3"), hit(tier="flight"), miss(), miss(), passed())
    memory = snapshot["tiers"]["L1"]
    assert (memory["hits"], memory["misses"], memory["hit_rate"]) == (5, 5, 0.5)


def test_each_tier_has_the_latency_of_its_own_answers() -> None:
    tiers = counted(hit(seconds=1e-6), hit(tier="L2", seconds=1e-3), hit(tier="L3", seconds=1e-1))["tiers"]
    for name, exact in (("L1", 1e-6), ("L2", 1e-3), ("L3", 1e-1)):
        assert exact <= tiers[name]["latency"]["p50"] <= exact * GROWTH


def test_a_lower_tier_counts_the_entries_it_was_asked_for() -> None:
    snapshot = counted(TierRead("L2", 3, 1, 0.001), TierRead("L2", 0, 4, 0.001), hit(tier="L2", seconds=0.002))
    row = snapshot["tiers"]["L2"]
    assert (row["hits"], row["misses"], row["hit_rate"]) == (3, 5, 0.375)
    assert (row["reads"], row["answers"]) == (2, 1)
    assert 0.001 <= row["read_latency"]["p99"] <= 0.001 * GROWTH
    assert 0.002 <= row["latency"]["p99"] <= 0.002 * GROWTH


def test_a_lower_tier_appears_once_it_was_read_or_answered() -> None:
    assert list(counted()["tiers"]) == ["L1"]
    assert list(counted(TierRead("L3", 0, 1, 0.1), hit(tier="L2"))["tiers"]) == ["L1", "L2", "L3"]


def test_followers_of_a_flight_are_hits_of_no_tier() -> None:
    snapshot = counted(hit(tier="flight", seconds=0.5))
    assert snapshot["answers"]["hits"] == snapshot["flight"]["hits"] == 1
    assert 0.5 <= snapshot["flight"]["latency"]["p50"] <= 0.5 * GROWTH
    assert "flight" not in snapshot["tiers"]


def test_entries_and_bytes_of_memory_are_asked_for_with_each_snapshot() -> None:
    sizes = [RegionSize("static", 2, 100, 500, 1_000, 7), RegionSize("default", 1, 50, 10_000, 2_000, 0)]
    stats = Stats(lambda: iter(sizes))
    memory = stats.snapshot(routes=False)["tiers"]["L1"]
    assert (memory["entries"], memory["bytes"]) == (3, 150)
    assert memory["regions"]["static"] == {
        "entries": 2,
        "bytes": 100,
        "max_entries": 500,
        "max_bytes": 1_000,
        "evictions": 7,
    }
    sizes.pop()
    assert list(stats.snapshot(routes=False)["tiers"]["L1"]["regions"]) == ["static"]


def test_failures_are_counted_by_tier_and_operation_and_their_text_is_kept_out() -> None:
    secret = "redis://user:password@host"
    snapshot = counted(
        TierFailed("L2", "get_many", secret), TierFailed("L2", "get_many", ""), TierFailed("L3", "ping", "")
    )
    assert snapshot["failures"] == {"L2": {"get_many": 2}, "L3": {"ping": 1}}
    assert b"password" not in orjson.dumps(snapshot)


def test_a_breaker_shows_its_last_state_and_its_changes() -> None:
    changes = [BreakerChanged("L2", state) for state in ("open", "half_open", "open", "half_open", "closed", "open")]
    assert counted()["breakers"] == {}
    assert counted(*changes)["breakers"] == {"L2": {"state": "open", "changes": 3}}


def test_rejected_entries_and_dropped_writes_are_counted_by_tier_and_reason() -> None:
    rejected = EntryRejected("L2", "version"), EntryRejected("L2", "version"), EntryRejected("L3", "length")
    snapshot = counted(*rejected, WriteDropped("L2", "full"))
    assert snapshot["rejected"] == {"L2": {"version": 2}, "L3": {"length": 1}}
    assert snapshot["writes"] == {"dropped": {"L2": {"full": 1}}}


def test_evictions_are_counted_in_entries_by_region() -> None:
    assert counted(Evicted("static", 3), Evicted("static", 1), Evicted("a", 2))["evictions"] == {"static": 4, "a": 2}


def test_invalidations_are_counted_by_kind_and_by_whether_they_are_durable() -> None:
    signals = Invalidated("tag", 3, True), Invalidated("tag", 1, False), Invalidated("all", 1, True)
    assert counted(*signals)["invalidations"] == {"durable": {"tag": 3, "all": 1}, "not_durable": {"tag": 1}, "held": 0}


def test_any_number_of_tier_names_is_bounded() -> None:
    snapshot = counted(*(TierRead(f"t{i}", 1, 0, 0.1) for i in range(MAX_REASONS + 5)))
    assert len(snapshot["tiers"]) == 1 + MAX_REASONS + 1
    assert snapshot["tiers"][OTHER]["hits"] == 5


# Being a listener


def test_a_signal_that_nobody_counts_is_ignored() -> None:
    class Renewed(NamedTuple):
        key: str

    stats = Stats()
    before = stats.snapshot(routes=True)
    tell(stats, Renewed("k"))  # type: ignore[arg-type]
    assert stats.snapshot(routes=True) == before


def test_a_snapshot_does_not_change_with_what_is_counted_later() -> None:
    stats = Stats()
    story: list[Signal] = [
        hit(),
        miss(why="private"),
        passed(),
        TierRead("L2", 1, 0, 0.1),
        TierFailed("L2", "ping", ""),
        BreakerChanged("L2", "open"),
        EntryRejected("L2", "length"),
        WriteDropped("L2", "full"),
        Evicted("a", 1),
        Invalidated("tag", 1, True),
    ]
    tell(stats, *story)
    taken = stats.snapshot(routes=True)
    written = orjson.dumps(taken)
    tell(stats, *story)
    assert orjson.dumps(taken) == written
    assert orjson.dumps(stats.snapshot(routes=True)) != written


def test_its_repr_tells_an_operator_how_it_goes() -> None:
    stats = Stats()
    tell(stats, hit(), hit(), miss(), passed())
    assert repr(stats) == "<Stats hits=2 misses=1 passes=1>"
