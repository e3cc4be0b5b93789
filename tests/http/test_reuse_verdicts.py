"""How a stored response may be used: fresh, stale, while it is validated, in place of an error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_tiercache.http.reuse import ERRORS, NO_DIRECTIVES, RequestDirectives, Use, judge, may_stand_in

SECONDS = st.floats(0, 1_000)
DIRECTIVES = ("no-cache", "max-age=5", "max-age=500", "min-fresh=5", "max-stale", "max-stale=5", "stale-if-error=5")
LINES = st.lists(st.sampled_from(DIRECTIVES), max_size=3)


def _asking(line: str) -> RequestDirectives:
    return RequestDirectives.parse([(b"cache-control", line.encode())]) if line else NO_DIRECTIVES


def test_a_response_is_fresh_until_its_age_reaches_its_lifetime() -> None:
    assert judge(NO_DIRECTIVES, age=59.9, lifetime=60) is Use.FRESH
    assert judge(NO_DIRECTIVES, age=60, lifetime=60) is Use.VALIDATE


def test_a_response_without_a_lifetime_is_validated_at_each_use() -> None:
    assert judge(NO_DIRECTIVES, age=0, lifetime=0) is Use.VALIDATE
    assert judge(_asking("max-stale"), age=0, lifetime=0, must_revalidate=True) is Use.VALIDATE


@pytest.mark.parametrize("line", ["no-cache", "max-age=9", "min-fresh=51", "max-age=9, max-stale", "min-fresh=99, x"])
def test_what_the_request_rules_out_is_validated_although_it_is_fresh(line: str) -> None:
    assert judge(_asking(line), age=10, lifetime=60) is Use.VALIDATE


@pytest.mark.parametrize("line", ["max-age=10", "min-fresh=50", "max-stale=0", "no-store", "only-if-cached", "x"])
def test_what_the_request_takes_is_used_while_it_is_fresh(line: str) -> None:
    assert judge(_asking(line), age=10, lifetime=60) is Use.FRESH


def test_must_revalidate_says_nothing_of_a_fresh_response() -> None:
    assert judge(NO_DIRECTIVES, age=10, lifetime=60, must_revalidate=True) is Use.FRESH


@pytest.mark.parametrize(
    ("line", "use"),
    [
        ("max-stale", Use.STALE),
        ("max-stale=10", Use.STALE),
        ("max-stale=9", Use.VALIDATE),
        ("max-stale=x", Use.VALIDATE),
        ("max-age=70, max-stale", Use.STALE),
        ("max-age=70, max-stale=10", Use.STALE),
        ("max-age=69, max-stale", Use.VALIDATE),  # both bound it
        ("max-age=70, max-stale=9", Use.VALIDATE),
        ("max-age=70", Use.VALIDATE),  # without max-stale it wants nothing stale
        ("min-fresh=0, max-stale", Use.VALIDATE),
        ("no-cache, max-stale", Use.VALIDATE),
        ("only-if-cached, max-stale", Use.STALE),
        ("only-if-cached", Use.VALIDATE),
        ("stale-if-error=60", Use.VALIDATE),  # there is no error
    ],
)
def test_a_stale_response_is_used_where_the_client_permits_it(line: str, use: Use) -> None:
    assert judge(_asking(line), age=70, lifetime=60) is use


@pytest.mark.parametrize(
    ("line", "use"),
    [
        ("", Use.WHILE_REVALIDATED),
        ("x", Use.WHILE_REVALIDATED),
        ("max-stale", Use.WHILE_REVALIDATED),  # being permitted twice, it is at least validated
        ("max-stale=10", Use.WHILE_REVALIDATED),
        ("max-stale=9", Use.VALIDATE),
        ("max-age=70, max-stale=10", Use.WHILE_REVALIDATED),
        ("max-age=70", Use.VALIDATE),
        ("max-age=0", Use.VALIDATE),
        ("min-fresh=0", Use.VALIDATE),
        ("no-cache", Use.VALIDATE),
        ("only-if-cached", Use.WHILE_REVALIDATED),
    ],
)
def test_a_stale_response_is_used_while_it_is_validated_unless_the_client_wants_none(line: str, use: Use) -> None:
    assert judge(_asking(line), age=70, lifetime=60, stale_while_revalidate=10) is use


def test_stale_while_revalidate_ends() -> None:
    assert judge(NO_DIRECTIVES, age=70, lifetime=60, stale_while_revalidate=9.9) is Use.VALIDATE
    assert judge(_asking("max-stale"), age=70, lifetime=60, stale_while_revalidate=9.9) is Use.STALE
    assert judge(NO_DIRECTIVES, age=61, lifetime=60, stale_while_revalidate=1) is Use.WHILE_REVALIDATED


def test_without_stale_while_revalidate_not_even_a_response_of_that_very_moment_is_used() -> None:
    assert judge(NO_DIRECTIVES, age=0, lifetime=0, stale_while_revalidate=0) is Use.VALIDATE


@given(LINES, SECONDS, SECONDS, SECONDS)
def test_must_revalidate_forbids_every_stale_use(line: list[str], age: float, lifetime: float, more: float) -> None:
    asking = _asking(", ".join(line))
    use = judge(asking, age=age, lifetime=lifetime, stale_while_revalidate=more, must_revalidate=True)
    assert use in (Use.FRESH, Use.VALIDATE)
    assert (age < lifetime) or use is Use.VALIDATE
    stands_in = may_stand_in(asking, age=age, lifetime=lifetime, stale_if_error=more, must_revalidate=True)
    assert age < lifetime or not stands_in


@given(LINES, SECONDS, SECONDS, SECONDS)
def test_only_if_cached_changes_no_verdict(line: list[str], age: float, lifetime: float, more: float) -> None:
    uses = {
        judge(_asking(", ".join(lines)), age=age, lifetime=lifetime, stale_while_revalidate=more)
        for lines in ([*line, "x"], [*line, "x", "only-if-cached"])
    }
    assert len(uses) == 1


@pytest.mark.parametrize("status", [None, 500, 502, 503, 504])
def test_a_stale_response_stands_in_for_an_error_as_long_as_it_may(status: int | None) -> None:
    assert may_stand_in(NO_DIRECTIVES, age=1_800, lifetime=600, stale_if_error=1_200, status=status)
    assert not may_stand_in(NO_DIRECTIVES, age=1_801, lifetime=600, stale_if_error=1_200, status=status)
    assert status is None or status in ERRORS


@pytest.mark.parametrize("status", [200, 304, 404, 429, 501, 505, 599])
def test_nothing_stands_in_for_what_is_no_such_error(status: int) -> None:
    assert not may_stand_in(NO_DIRECTIVES, age=1, lifetime=600, stale_if_error=600, status=status)
    assert not may_stand_in(_asking("stale-if-error=600"), age=601, lifetime=600, stale_if_error=600, status=status)


def test_nothing_stale_stands_in_where_nobody_permits_it() -> None:
    assert not may_stand_in(NO_DIRECTIVES, age=600, lifetime=600)
    assert not may_stand_in(_asking("max-stale"), age=600, lifetime=600)


def test_a_fresh_response_that_a_request_wanted_validated_stands_in() -> None:
    for line in ("max-age=0", "min-fresh=999", "no-cache, stale-if-error=1"):
        assert may_stand_in(_asking(line), age=1, lifetime=600, must_revalidate=True)


def test_what_else_is_said_of_freshness_does_not_count() -> None:
    for line in ("max-age=0", "min-fresh=999", "max-stale=0"):
        assert may_stand_in(_asking(line), age=610, lifetime=600, stale_if_error=10)


def test_a_request_that_wants_validation_takes_no_unvalidated_answer_for_an_error() -> None:
    assert not may_stand_in(_asking("no-cache"), age=1, lifetime=600, stale_if_error=600)
    assert not may_stand_in(_asking("no-cache"), age=601, lifetime=600, stale_if_error=600)


def test_a_request_says_for_itself_how_stale_its_answer_may_be() -> None:
    assert may_stand_in(_asking("stale-if-error=100"), age=700, lifetime=600)
    assert may_stand_in(_asking("stale-if-error=100"), age=700, lifetime=600, stale_if_error=10)
    assert not may_stand_in(_asking("stale-if-error=10"), age=700, lifetime=600, stale_if_error=100)
    assert not may_stand_in(_asking("stale-if-error=0"), age=601, lifetime=600, stale_if_error=100)
    assert may_stand_in(_asking("stale-if-error=x"), age=700, lifetime=600, stale_if_error=100)
    assert not may_stand_in(_asking("stale-if-error=99"), age=700, lifetime=600, stale_if_error=10)
    assert not may_stand_in(_asking("stale-if-error=100"), age=700, lifetime=600, must_revalidate=True)


def test_beside_no_cache_only_the_requests_own_permission_counts() -> None:
    asking = _asking("no-cache, stale-if-error=10")
    assert may_stand_in(asking, age=610, lifetime=600, stale_if_error=600)
    assert not may_stand_in(asking, age=611, lifetime=600, stale_if_error=600)
