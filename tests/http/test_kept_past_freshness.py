"""How long a response is kept past its freshness, and what it may be used for (RFC 9111, section 4.2.4; RFC 5861)."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_tiercache.config import Policy
from asgi_tiercache.http.storing import Refuse, Store, judge_response

NOW = 1_700_000_000.0
EXPLICIT, HTTP, EXACT = Policy(ttl=30), Policy.http(), Policy.rfc9111()
HTTP_MODES = pytest.mark.parametrize("policy", [HTTP, EXACT], ids=lambda policy: policy.mode)
EVERY_MODE = pytest.mark.parametrize("policy", [EXPLICIT, HTTP, EXACT], ids=lambda policy: policy.mode)


class Kept(NamedTuple):
    must_revalidate: bool
    while_revalidate: float
    if_error: float
    retention: float


def _kept(
    policy: Policy, cache_control: str, *, status: int = 200, field: str = "cache-control", etag: str = ""
) -> Kept:
    headers = [(field.encode(), cache_control.encode())]
    if etag:
        headers.append((b"etag", etag.encode()))
    verdict = judge_response(policy, status, headers, credentialed=False, now=NOW)
    assert isinstance(verdict, Store), verdict
    return Kept(verdict.must_revalidate, verdict.stale_while_revalidate, verdict.stale_if_error, verdict.retention)


@HTTP_MODES
class TestHttpModes:
    def test_without_a_word_a_response_is_kept_for_an_hour_to_stand_in_for_an_error(self, policy: Policy) -> None:
        assert _kept(policy, "max-age=60") == Kept(False, 0, 3600, 3600)
        assert _kept(policy, "max-age=60", etag='"1"') == Kept(False, 0, 3600, 3600)

    def test_the_directives_of_rfc_5861_give_their_seconds(self, policy: Policy) -> None:
        given = "max-age=60, stale-while-revalidate=5, stale-if-error=7"
        assert _kept(policy, given) == Kept(False, 5, 7, 3600)
        assert _kept(policy, "max-age=60, stale-while-revalidate=5") == Kept(False, 5, 3600, 3600)
        assert _kept(policy, "max-age=60, stale-if-error=0") == Kept(False, 0, 0, 3600)

    def test_the_directives_extend_the_retention(self, policy: Policy) -> None:
        assert _kept(policy, "max-age=60, stale-if-error=9000") == Kept(False, 0, 9000, 9000)
        assert _kept(policy, "max-age=60, stale-while-revalidate=9000") == Kept(False, 9000, 9000, 9000)
        assert _kept(policy.but(retention=0), "max-age=60, stale-while-revalidate=9") == Kept(False, 9, 9, 9)

    def test_the_retention_of_the_policy_goes_before_the_hour(self, policy: Policy) -> None:
        assert _kept(policy.but(retention=10), "max-age=60") == Kept(False, 0, 10, 10)
        assert _kept(policy.but(retention=0), "max-age=60", etag='"1"') == Kept(False, 0, 0, 0)

    @pytest.mark.parametrize("directive", ["must-revalidate", "proxy-revalidate", "Must-Revalidate=1", "s-maxage=60"])
    def test_what_must_be_validated_is_not_used_stale(self, policy: Policy, directive: str) -> None:
        given = f"max-age=60, {directive}, stale-while-revalidate=5, stale-if-error=7"
        assert _kept(policy, given, etag='"1"') == Kept(True, 0, 0, 3600)

    @pytest.mark.parametrize("directive", ["must-revalidate", "proxy-revalidate", "s-maxage=60"])
    def test_what_must_and_cannot_be_validated_is_not_kept(self, policy: Policy, directive: str) -> None:
        for unusable in ("", "1", "'1'", 'w/"1"'):
            assert _kept(policy.but(retention=60), f"max-age=60, {directive}", etag=unusable) == Kept(True, 0, 0, 0)

    def test_a_malformed_s_maxage_demands_validation_all_the_same(self, policy: Policy) -> None:
        assert _kept(policy, "max-age=60, s-maxage=x", etag='"1"') == Kept(True, 0, 0, 3600)

    def test_an_s_maxage_that_does_not_give_the_lifetime_demands_nothing(self, policy: Policy) -> None:
        assert not _kept(policy.but(ttl=5), "s-maxage=60").must_revalidate
        assert _kept(policy.but(ttl=5), "s-maxage=60, must-revalidate").must_revalidate

    def test_a_targeted_field_decides_alone(self, policy: Policy) -> None:
        given = "max-age=60, stale-while-revalidate=600"
        assert _kept(policy, given, field="cdn-cache-control") == Kept(False, 600, 3600, 3600)
        headers = [(b"cdn-cache-control", given.encode()), (b"cache-control", b"must-revalidate, s-maxage=1")]
        verdict = judge_response(policy, 200, headers, credentialed=False, now=NOW)
        assert isinstance(verdict, Store)
        assert (verdict.must_revalidate, verdict.stale_while_revalidate) == (False, 600)

    def test_a_response_that_is_never_fresh_is_kept_as_well(self, policy: Policy) -> None:
        assert _kept(policy, "max-age=0", etag='"1"') == Kept(False, 0, 3600, 3600)
        assert _kept(policy, "max-age=0, must-revalidate", etag='"1"') == Kept(True, 0, 0, 3600)


@HTTP_MODES
def test_an_error_does_not_stand_in_for_another_unless_it_says_so(policy: Policy) -> None:
    for status in (500, 503):
        assert _kept(policy, "max-age=60", status=status) == Kept(False, 0, 0, 0)
        assert _kept(policy, "max-age=60", status=status, etag='"1"') == Kept(False, 0, 0, 3600)
        assert _kept(policy, "max-age=60, stale-if-error=7", status=status) == Kept(False, 0, 7, 7)
    for status in (404, 499):
        assert _kept(policy, "max-age=60", status=status) == Kept(False, 0, 3600, 3600)
    headers = [(b"cache-control", b"max-age=0")]
    assert judge_response(policy, 503, headers, credentialed=False, now=NOW) == Refuse("ttl")


def test_an_explicit_policy_keeps_what_is_fresh_and_nothing_else() -> None:
    assert _kept(EXPLICIT, "max-age=60", etag='"1"') == Kept(False, 0, 0, 0)


def test_under_an_explicit_policy_the_stale_directives_count() -> None:
    assert _kept(EXPLICIT, "stale-while-revalidate=5, stale-if-error=7") == Kept(False, 5, 7, 7)
    assert _kept(EXPLICIT.but(retention=60), "stale-while-revalidate=5") == Kept(False, 5, 0, 60)


@pytest.mark.parametrize("directive", ["must-revalidate", "proxy-revalidate"])
def test_under_an_explicit_policy_what_must_be_validated_is_not_used_stale(directive: str) -> None:
    given = f"{directive}, stale-while-revalidate=5, stale-if-error=7"
    assert _kept(EXPLICIT, given) == Kept(True, 0, 0, 0)
    assert _kept(EXPLICIT.but(retention=60), given) == Kept(True, 0, 0, 0)
    assert _kept(EXPLICIT.but(retention=60), given, etag='"1"') == Kept(True, 0, 0, 60)


def test_s_maxage_demands_nothing_of_an_explicit_policy() -> None:
    for policy in (EXPLICIT, Policy(status_ttl={404: 5})):
        assert _kept(policy, "s-maxage=60, stale-if-error=7") == Kept(False, 0, 7, 7)


@EVERY_MODE
@pytest.mark.parametrize("argument", ["", "=", "=-5", "=5.5", "=x", "='5'", "=5, {}=6", "=5;x", "=5 6"])
@pytest.mark.parametrize("name", ["stale-while-revalidate", "stale-if-error"])
def test_no_malformed_directive_allows_a_stale_use(policy: Policy, name: str, argument: str) -> None:
    kept = _kept(policy, f"max-age=60, {name}{argument.format(name)}")
    assert (kept.while_revalidate if name == "stale-while-revalidate" else kept.if_error) == 0


@EVERY_MODE
@pytest.mark.parametrize(("argument", "seconds"), [("5", 5), ('"5"', 5), ("005", 5), ("9" * 5000, 2**31)])
def test_seconds_are_read_as_those_of_max_age(policy: Policy, argument: str, seconds: int) -> None:
    kept = _kept(policy, f"max-age=60, stale-while-revalidate={argument}, STALE-IF-ERROR={argument}")
    assert (kept.while_revalidate, kept.if_error) == (seconds, seconds)


@given(
    st.sampled_from([EXPLICIT, HTTP, EXACT]),
    st.integers(0, 10**5),
    st.integers(0, 10**5),
    st.integers(0, 10**5),
    st.booleans(),
)
def test_more_stale_seconds_never_allow_less(
    policy: Policy, first: int, more: int, retention: int, more_of: bool
) -> None:
    name = "stale-if-error" if more_of else "stale-while-revalidate"
    low, high = (
        _kept(policy.but(retention=retention), f"max-age=60, {name}={seconds}") for seconds in (first, first + more)
    )
    assert all(lower <= higher for lower, higher in zip(low, high, strict=True))


@given(st.sampled_from([HTTP, EXACT]), st.integers(0, 10**4), st.integers(0, 10**4))
def test_more_retention_never_keeps_less(policy: Policy, first: int, more: int) -> None:
    low, high = (
        judge_response(
            policy.but(retention=retention),
            200,
            [(b"cache-control", b"max-age=60"), (b"age", b"100")],
            credentialed=False,
            now=NOW,
        )
        for retention in (first, first + more)
    )
    if isinstance(low, Refuse):
        assert first == 0
    else:
        assert isinstance(high, Store)
        assert low.retention <= high.retention


@EVERY_MODE
def test_the_policys_own_stale_seconds_count_where_the_response_says_nothing(policy: Policy) -> None:
    policy = policy.but(stale_while_revalidate=5, stale_if_error=7, retention=0)
    assert _kept(policy, "max-age=60") == Kept(False, 5, 7, 7)
    assert _kept(policy, "max-age=60, stale-while-revalidate=1, stale-if-error=0") == Kept(False, 1, 0, 1)
    assert _kept(policy, "max-age=60, must-revalidate") == Kept(True, 0, 0, 0)
