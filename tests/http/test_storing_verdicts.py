"""Which responses are stored, under each kind of policy, and how fresh they are."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_tiercache.config import Policy
from asgi_tiercache.http.storing import Refuse, Store, judge_response

NOW = 1_700_000_000.0
EXPLICIT, HTTP, EXACT = Policy(ttl=30), Policy.http(), Policy.rfc9111()
EVERY_MODE = pytest.mark.parametrize("policy", [EXPLICIT, HTTP, EXACT], ids=lambda policy: policy.mode)
Fields = Mapping[str, str]


def _date(seconds: float) -> str:
    return formatdate(NOW + seconds, usegmt=True)


def _judge(
    policy: Policy, fields: Fields, status: int = 200, *, credentialed: bool = False, **more: Any
) -> Store | Refuse:
    headers = [(name.encode(), value.encode("latin-1")) for name, value in fields.items()]
    return judge_response(policy, status, headers, credentialed=credentialed, now=NOW, **more)


def _stored(policy: Policy, fields: Fields, status: int = 200, **more: Any) -> Store:
    verdict = _judge(policy, fields, status, **more)
    assert isinstance(verdict, Store), verdict
    return verdict


def _refusal(policy: Policy, fields: Fields, status: int = 200, **more: Any) -> str:
    verdict = _judge(policy, fields, status, **more)
    assert isinstance(verdict, Refuse), verdict
    return verdict.reason


# What forbids, whatever the policy


@EVERY_MODE
@pytest.mark.parametrize("directive", ["no-store", "private", "no-cache"])
def test_a_directive_that_forbids_is_obeyed_beside_any_freshness(policy: Policy, directive: str) -> None:
    fields = {"Cache-Control": f"public, s-maxage=60, {directive}"}
    assert _refusal(policy, fields) == directive
    assert _refusal(policy, fields, set_ttl=60) == directive


@EVERY_MODE
@pytest.mark.parametrize("name", ["private", "no-cache"])
def test_a_directive_that_is_limited_to_fields_forbids_as_well(policy: Policy, name: str) -> None:
    assert _refusal(policy, {"cache-control": f'max-age=60, {name}="x-user"'}) == name


@EVERY_MODE
def test_a_request_with_no_store_keeps_its_response_out(policy: Policy) -> None:
    assert _refusal(policy, {"cache-control": "max-age=60"}, request_no_store=True) == "no-store"


@EVERY_MODE
@pytest.mark.parametrize("value", ["*", "accept, *", "accept encoding"])
def test_a_vary_that_no_request_matches_is_refused(policy: Policy, value: str) -> None:
    assert _refusal(policy, {"cache-control": "max-age=60", "Vary": value}) == "vary"


@EVERY_MODE
def test_partial_content_is_refused(policy: Policy) -> None:
    assert _refusal(policy, {"cache-control": "max-age=60"}, 206) == "partial"


@EVERY_MODE
@pytest.mark.parametrize("status", [103, 304, 600])
def test_what_is_no_complete_final_response_is_refused(policy: Policy, status: int) -> None:
    assert _refusal(policy, {"cache-control": "max-age=60"}, status) == "status"


@EVERY_MODE
def test_the_fields_that_choose_the_variant_are_reported(policy: Policy) -> None:
    fields = {"cache-control": "max-age=60", "vary": "Origin, accept,origin"}
    assert _stored(policy, fields).vary == ("accept", "origin")
    assert _stored(policy, {"cache-control": "max-age=60"}).vary == ()


@EVERY_MODE
@pytest.mark.parametrize(
    ("fields", "shared"),
    [
        ({"cache-control": "max-age=60"}, False),
        ({"cache-control": "max-age=60, must-revalidate"}, False),
        ({"cache-control": "max-age=60, public"}, True),
        ({"cache-control": "s-maxage=60"}, True),
        ({"cdn-cache-control": "max-age=60"}, True),
        ({"cdn-cache-control": "max-age=60,", "cache-control": "max-age=60"}, False),
    ],
)
def test_whether_the_response_is_meant_for_a_shared_cache(policy: Policy, fields: Fields, shared: bool) -> None:
    assert _stored(policy, fields).shared is shared


# Explicit policies


def test_an_explicit_policy_gives_its_own_lifetime_and_no_age() -> None:
    fields = {"cache-control": "s-maxage=60, max-age=90", "age": "1000", "date": _date(-1000)}
    assert _stored(EXPLICIT, fields) == Store(lifetime=30, age=0, shared=True, vary=())
    assert _stored(EXPLICIT, {}) == Store(lifetime=30, age=0, shared=False, vary=())


def test_set_ttl_comes_before_the_status_ttl_and_that_before_the_ttl() -> None:
    policy = Policy(ttl=30, status_ttl={404: 5, 200: 7})
    assert _stored(policy, {}, 404).lifetime == 5
    assert _stored(policy, {}, 200).lifetime == 7
    assert _stored(policy, {}, 203).lifetime == 30
    assert _stored(policy, {}, 404, set_ttl=1.5).lifetime == 1.5


def test_set_ttl_of_zero_keeps_the_response_out() -> None:
    assert _refusal(EXPLICIT, {"cache-control": "max-age=60"}, set_ttl=0) == "ttl"


@pytest.mark.parametrize("status", [302, 404, 500])
def test_an_explicit_policy_stores_only_its_own_statuses(status: int) -> None:
    assert _refusal(EXPLICIT, {"cache-control": "max-age=60"}, status) == "status"
    assert _refusal(EXPLICIT, {"cache-control": "max-age=60"}, status, set_ttl=60) == "status"
    assert _stored(EXPLICIT.but(statuses=(status,)), {}, status).lifetime == 30


def test_a_status_ttl_of_zero_is_never_stored() -> None:
    for policy in (Policy(ttl=30, status_ttl={200: 0}), Policy.http(status_ttl={200: 0})):
        assert _refusal(policy, {"cache-control": "max-age=60"}) == "status"


def test_an_explicit_policy_without_ttl_asks_the_response() -> None:
    policy = Policy(status_ttl={404: 5})
    assert _stored(policy, {"cache-control": "max-age=60", "age": "10"}) == Store(60, 10, False, ())
    assert _refusal(policy, {"last-modified": _date(-1000)}) == "no-freshness"


@pytest.mark.parametrize("policy", [EXPLICIT, HTTP], ids=lambda policy: policy.mode)
def test_a_response_that_sets_a_cookie_is_refused(policy: Policy) -> None:
    assert _refusal(policy, {"cache-control": "public, max-age=60", "Set-Cookie": "a=b"}) == "set-cookie"


def test_credentials_do_not_matter_where_the_policy_keys_them() -> None:
    assert _stored(EXPLICIT, {}, credentialed=True).lifetime == 30


# HTTP mode


def test_http_mode_stores_what_says_how_long_it_is_fresh() -> None:
    assert _stored(HTTP, {"cache-control": "max-age=60"}) == Store(60, 0, False, ())
    assert _refusal(HTTP, {}) == "no-freshness"
    assert _refusal(HTTP, {"cache-control": "public"}) == "no-freshness"


def test_http_mode_knows_no_heuristics() -> None:
    assert _refusal(HTTP, {"cache-control": "public", "last-modified": _date(-10_000)}) == "no-freshness"


@pytest.mark.parametrize("policy", [HTTP, EXACT], ids=lambda policy: policy.mode)
class TestStatedFreshness:
    def test_s_maxage_comes_before_max_age_and_that_before_expires(self, policy: Policy) -> None:
        fields = {"expires": _date(90), "cache-control": "max-age=60, s-maxage=30"}
        assert _stored(policy, fields).lifetime == 30
        assert _stored(policy, {**fields, "cache-control": "max-age=60"}).lifetime == 60
        assert _stored(policy, {**fields, "cache-control": "public"}).lifetime == 90

    def test_expires_counts_from_date(self, policy: Policy) -> None:
        verdict = _stored(policy, {"date": _date(-20), "expires": _date(40)})
        assert (verdict.lifetime, verdict.age) == (60, 20)

    def test_dates_count_in_any_case(self, policy: Policy) -> None:
        assert _stored(policy, {"date": _date(-20).lower(), "expires": _date(40).upper()}).lifetime == 60

    @pytest.mark.parametrize(
        "expires", ["0", "-1", "", "tomorrow", _date(60).replace("GMT", "UTC"), _date(0), _date(-5)]
    )
    def test_expires_that_is_past_or_no_date_means_stale(self, policy: Policy, expires: str) -> None:
        assert _refusal(policy, {"expires": expires, "last-modified": _date(-10_000)}) == "ttl"

    def test_several_different_expires_mean_stale(self, policy: Policy) -> None:
        once, twice = ((b"expires", _date(60).encode()), (b"expires", _date(70).encode()))
        same = judge_response(policy, 200, [once, once], credentialed=False, now=NOW)
        assert isinstance(same, Store)
        assert judge_response(policy, 200, [once, twice], credentialed=False, now=NOW) == Refuse("ttl")

    @pytest.mark.parametrize("argument", ["=0", "", "=x", "=1.5", "=60, max-age=70"])
    def test_max_age_that_is_zero_or_invalid_means_stale(self, policy: Policy, argument: str) -> None:
        fields = {"cache-control": f"max-age{argument}", "expires": _date(60), "last-modified": _date(-10_000)}
        assert _refusal(policy, fields) == "ttl"

    def test_the_higher_of_age_and_apparent_age_counts(self, policy: Policy) -> None:
        fields = {"cache-control": "max-age=60", "age": "20", "date": _date(-30)}
        assert _stored(policy, fields).age == 30
        assert _stored(policy, {**fields, "age": "40"}).age == 40
        assert _stored(policy, {**fields, "date": _date(30)}).age == 20

    @pytest.mark.parametrize(("age", "seconds"), [("7, 50", 7), ("-7", 0), ("7x", 0), ("", 0), ("7.5", 0), ("007", 7)])
    def test_of_age_the_first_number_counts(self, policy: Policy, age: str, seconds: int) -> None:
        assert _stored(policy, {"cache-control": "max-age=60", "age": age}).age == seconds

    def test_a_date_that_is_none_says_nothing(self, policy: Policy) -> None:
        assert _stored(policy, {"cache-control": "max-age=60", "date": "yesterday"}).age == 0
        assert _stored(policy, {"expires": _date(60), "date": "yesterday"}).lifetime == 60

    def test_what_arrives_too_old_is_refused(self, policy: Policy) -> None:
        fields = {"cache-control": "max-age=60"}
        assert _stored(policy, {**fields, "age": "59"}).lifetime == 60
        assert _refusal(policy, {**fields, "age": "60"}) == "ttl"
        assert _refusal(policy, {**fields, "age": "9" * 5000}) == "ttl"

    def test_a_targeted_field_takes_the_place_of_cache_control_and_expires(self, policy: Policy) -> None:
        fields = {"cache-control": "no-store", "cdn-cache-control": "max-age=600"}
        assert _stored(policy, fields).lifetime == 600
        assert _refusal(policy, {"cache-control": "max-age=60", "cdn-cache-control": "no-store"}) == "no-store"
        assert _refusal(policy, {"expires": _date(60), "cdn-cache-control": "none"}) == "no-freshness"
        assert _stored(policy, {"cdn-cache-control": "max-age=600, s-maxage=300"}).lifetime == 300

    def test_a_targeted_field_that_does_not_parse_is_ignored(self, policy: Policy) -> None:
        assert _stored(policy, {"cache-control": "max-age=60", "cdn-cache-control": "max-age = 600"}).lifetime == 60

    def test_targeted_seconds_of_the_wrong_type_mean_stale(self, policy: Policy) -> None:
        assert _refusal(policy, {"cdn-cache-control": 'max-age="600"', "last-modified": _date(-10_000)}) == "ttl"

    def test_a_ttl_of_the_route_comes_before_what_the_response_states(self, policy: Policy) -> None:
        fields = {"cache-control": "s-maxage=60", "age": "10"}
        assert _stored(policy.but(ttl=5), fields) == Store(5, 0, True, ())
        assert _stored(policy.but(status_ttl={404: 7}), {}, 404).lifetime == 7
        assert _stored(policy, fields, set_ttl=9) == Store(9, 0, True, ())

    def test_lifetimes_of_ours_go_to_the_statuses_of_the_policy_only(self, policy: Policy) -> None:
        assert _refusal(policy.but(ttl=5), {}, 500) == "no-freshness"
        assert _refusal(policy, {}, 500, set_ttl=5) == "no-freshness"
        assert _stored(policy.but(ttl=5), {"cache-control": "max-age=60"}, 500).lifetime == 60

    @pytest.mark.parametrize("status", [201, 299, 302, 404, 451, 500, 599])
    def test_any_final_status_with_freshness_of_its_own_is_stored(self, policy: Policy, status: int) -> None:
        assert _stored(policy, {"cache-control": "max-age=60"}, status).lifetime == 60

    def test_must_understand_keeps_out_what_is_not_understood(self, policy: Policy) -> None:
        fields = {"cache-control": "max-age=60, must-understand"}
        stored = [status for status in range(200, 600) if isinstance(_judge(policy, fields, status), Store)]
        success, redirection = [200, 201, 202, 203, 204, 205], [300, 301, 302, 303, 305, 307, 308]
        client_error = [*range(400, 418), 421, 422, 426]
        assert stored == success + redirection + client_error + [500, 501, 502, 503, 504, 505]


@pytest.mark.parametrize(
    ("fields", "stored"),
    [
        ({"cache-control": "max-age=60"}, False),
        ({"cache-control": "max-age=60, must-revalidate"}, False),
        ({"cache-control": "max-age=60, public"}, True),
        ({"cache-control": "max-age=60, public=1"}, False),
        ({"cache-control": "s-maxage=60"}, True),
        ({"cdn-cache-control": "max-age=60"}, True),
    ],
)
def test_http_mode_wants_responses_to_credentials_declared_shared(fields: Fields, stored: bool) -> None:
    assert isinstance(_judge(HTTP, fields), Store)
    verdict = _judge(HTTP, fields, credentialed=True)
    assert isinstance(verdict, Store) if stored else verdict == Refuse("credential")


def test_no_ttl_of_ours_makes_a_response_to_credentials_shared() -> None:
    assert _refusal(HTTP.but(ttl=5), {}, credentialed=True) == "credential"
    assert _refusal(HTTP, {}, credentialed=True, set_ttl=5) == "credential"


# The exact shared cache


@pytest.mark.parametrize("directive", ["public", "s-maxage=60", "must-revalidate"])
def test_the_exact_mode_stores_responses_to_authorization_that_allow_it(directive: str) -> None:
    assert _stored(EXACT, {"cache-control": f"max-age=60, {directive}"}, credentialed=True).lifetime == 60
    assert _refusal(EXACT, {"cache-control": "max-age=60"}, credentialed=True) == "credential"
    assert _refusal(EXACT, {"cdn-cache-control": "max-age=60"}, credentialed=True) == "credential"


def test_cookies_are_no_obstacle_to_the_exact_mode() -> None:
    assert _stored(EXACT, {"cache-control": "max-age=60", "set-cookie": "a=b"}).lifetime == 60


def test_the_heuristic_is_a_tenth_of_the_time_since_the_modification() -> None:
    verdict = _stored(EXACT, {"date": _date(-20), "last-modified": _date(-1020)})
    assert (verdict.lifetime, verdict.age) == (100, 20)
    assert _stored(EXACT, {"last-modified": _date(-1000)}).lifetime == 100


@pytest.mark.parametrize("modified", [{}, {"last-modified": "once"}])
def test_without_a_modification_date_there_is_no_heuristic(modified: Fields) -> None:
    assert _refusal(EXACT, modified) == "no-freshness"


def test_a_modification_in_the_future_gives_no_freshness() -> None:
    assert _refusal(EXACT, {"last-modified": _date(1000)}) == "ttl"


@pytest.mark.parametrize("status", [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501])
def test_heuristics_apply_to_the_statuses_of_rfc_9110_section_15_1(status: int) -> None:
    assert _stored(EXACT, {"last-modified": _date(-1000)}, status).lifetime == 100


@pytest.mark.parametrize("status", [201, 299, 302, 307, 400, 403, 500, 503])
def test_heuristics_apply_to_other_statuses_only_where_public(status: int) -> None:
    assert _refusal(EXACT, {"last-modified": _date(-1000)}, status) == "no-freshness"
    assert _stored(EXACT, {"last-modified": _date(-1000), "cache-control": "public"}, status).lifetime == 100


@given(
    st.sampled_from([EXPLICIT, HTTP, EXACT]),
    st.integers(100, 999),
    st.lists(
        st.tuples(
            st.sampled_from(
                [b"cache-control", b"CDN-Cache-Control", b"expires", b"date", b"Age", b"vary", b"last-modified"]
            ),
            st.binary(max_size=20) | st.sampled_from([b"public, max-age=60", b"*", b"60", _date(60).encode()]),
        ),
        max_size=5,
    ),
    st.booleans(),
)
def test_every_response_gets_a_verdict(
    policy: Policy, status: int, headers: list[tuple[bytes, bytes]], credentialed: bool
) -> None:
    verdict = judge_response(policy, status, headers, credentialed=credentialed, now=NOW)
    assert isinstance(verdict, Refuse) or 0 <= verdict.age < verdict.lifetime
