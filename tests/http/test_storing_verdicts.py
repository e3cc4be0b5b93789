"""Which responses are stored, under each kind of policy, and how fresh they are."""

from __future__ import annotations

import time
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
VALIDATOR = {"etag": '"1"'}
HTTP_MODES = pytest.mark.parametrize("policy", [HTTP, EXACT], ids=lambda policy: policy.mode)
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
@pytest.mark.parametrize("directive", ["No-Store", "no-store=1", "no-store x", "PRIVATE", "private x", "private=', '"])
def test_a_directive_that_forbids_is_obeyed_in_any_case_and_malformed(policy: Policy, directive: str) -> None:
    fields = {"cache-control": f"max-age=60, {directive}", **VALIDATOR}
    assert _refusal(policy, fields) == directive.lower()[:8].rstrip(" =")


@pytest.mark.parametrize("name", ["private", "no-cache"])
def test_a_directive_that_is_limited_to_fields_forbids_under_explicit_policies(name: str) -> None:
    assert _refusal(EXPLICIT, {"cache-control": f'max-age=60, {name}="x-user"', **VALIDATOR}) == name


@HTTP_MODES
@pytest.mark.parametrize("name", ["private", "no-cache"])
class TestDirectivesWithFieldNames:  # RFC 9111, sections 3.1, 5.2.2.4, 5.2.2.7
    def test_the_response_is_stored_without_the_fields(self, policy: Policy, name: str) -> None:
        verdict = _stored(policy, {"cache-control": f'max-age=60, {name}="X-User, set-cookie"'})
        assert verdict.without == {b"x-user", b"set-cookie"}
        assert (verdict.lifetime, verdict.must_revalidate) == (60, False)

    def test_a_name_without_quotes_counts_as_well(self, policy: Policy, name: str) -> None:
        assert _stored(policy, {"cache-control": f"max-age=60, {name}=x-user"}).without == {b"x-user"}

    def test_a_targeted_string_counts_as_well(self, policy: Policy, name: str) -> None:
        assert _stored(policy, {"cdn-cache-control": f'max-age=60, {name}="x-user"'}).without == {b"x-user"}
        assert _refusal(policy, {"cdn-cache-control": f"max-age=60, {name}=x-user"}) == name

    @pytest.mark.parametrize("argument", ['""', '","', '"x user"', '"x-a, (b)"', "'x-user'", '"x', "", '"x-a"b'])
    def test_names_that_are_malformed_leave_the_directive_unlimited(
        self, policy: Policy, name: str, argument: str
    ) -> None:
        assert _refusal(policy, {"cache-control": f"max-age=60, {name}={argument}"}) == name

    def test_one_occurrence_without_names_is_enough(self, policy: Policy, name: str) -> None:
        assert _refusal(policy, {"cache-control": f'{name}="x-user", max-age=60, {name}'}) == name

    def test_a_validator_that_is_not_stored_is_none(self, policy: Policy, name: str) -> None:
        fields = {"cache-control": f'max-age=60, must-revalidate, {name}="etag"', **VALIDATOR}
        assert _stored(policy, fields).retention == 0


@HTTP_MODES
class TestNoCache:  # RFC 9111, section 5.2.2.4
    @pytest.mark.parametrize("validator", [{"etag": '"1"'}, {"etag": 'W/"1"'}, {"last-modified": "DATE"}])
    def test_what_can_be_validated_is_stored_to_be_validated(self, policy: Policy, validator: Fields) -> None:
        validator = {name: value.replace("DATE", _date(-1000)) for name, value in validator.items()}
        for freshness in ("", ", max-age=60", ", s-maxage=60, public", ", stale-if-error=60"):
            verdict = _stored(policy, {"cache-control": f"no-cache{freshness}", **validator})
            assert (verdict.lifetime, verdict.must_revalidate, verdict.retention) == (0, True, 3600)
            assert (verdict.stale_if_error, verdict.stale_while_revalidate) == (0, 0)

    @pytest.mark.parametrize("validator", [{}, {"etag": "1"}, {"etag": "'1'"}, {"etag": ""}, {"last-modified": "0"}])
    def test_what_cannot_be_validated_is_refused(self, policy: Policy, validator: Fields) -> None:
        assert _refusal(policy, {"cache-control": "no-cache, max-age=60", **validator}) == "no-cache"

    @pytest.mark.parametrize(("name", "values"), [("etag", ['"1"', '"2"']), ("last-modified", [_date(-1), _date(-2)])])
    def test_two_of_a_kind_are_none(self, policy: Policy, name: str, values: list[str]) -> None:
        headers = [(b"cache-control", b"no-cache"), *((name.encode(), value.encode()) for value in values)]
        assert judge_response(policy, 200, headers, credentialed=False, now=NOW) == Refuse("no-cache")
        assert isinstance(judge_response(policy, 200, headers[:2], credentialed=False, now=NOW), Store)

    def test_a_validator_that_connection_names_is_none(self, policy: Policy) -> None:
        assert _refusal(policy, {"cache-control": "no-cache", "connection": "ETag", **VALIDATOR}) == "no-cache"

    def test_lifetimes_of_ours_do_not_override_it(self, policy: Policy) -> None:
        fields = {"cache-control": "no-cache", **VALIDATOR}
        for verdict in (_stored(policy.but(ttl=60), fields), _stored(policy, fields, set_ttl=60)):
            assert (verdict.lifetime, verdict.must_revalidate) == (0, True)

    def test_alone_it_makes_no_status_cacheable(self, policy: Policy) -> None:  # section 3, the last item
        fields = {"cache-control": "no-cache", **VALIDATOR}
        assert _stored(policy, fields, 404).lifetime == 0
        assert _refusal(policy, fields, 500) == "no-freshness"
        assert _stored(policy, {**fields, "cache-control": "no-cache, public"}, 500).lifetime == 0
        assert _stored(policy, {**fields, "expires": "0"}, 500).lifetime == 0
        assert _refusal(policy, {**VALIDATOR, "cdn-cache-control": "no-cache", "expires": "0"}, 500) == "no-freshness"

    def test_it_counts_in_a_targeted_field(self, policy: Policy) -> None:  # RFC 9213, section 2.2
        fields = {"cdn-cache-control": "no-cache, max-age=60", "cache-control": "max-age=60", **VALIDATOR}
        assert (_stored(policy, fields).lifetime, _stored(policy, fields).must_revalidate) == (0, True)
        fields = {"cdn-cache-control": "max-age=60", "cache-control": "no-cache, no-store, private"}
        assert (_stored(policy, fields).lifetime, _stored(policy, fields).must_revalidate) == (60, False)

    def test_pragma_in_a_response_means_nothing(self, policy: Policy) -> None:  # section 5.4
        verdict = _stored(policy, {"cache-control": "max-age=60", "pragma": "no-cache", **VALIDATOR})
        assert (verdict.lifetime, verdict.must_revalidate) == (60, False)


def test_under_explicit_policies_no_cache_forbids_what_can_be_validated() -> None:
    assert _refusal(EXPLICIT, {"cache-control": "no-cache", **VALIDATOR}) == "no-cache"


@EVERY_MODE
def test_a_request_with_no_store_keeps_its_response_out(policy: Policy) -> None:
    assert _refusal(policy, {"cache-control": "max-age=60"}, request_no_store=True) == "no-store"


@EVERY_MODE
@pytest.mark.parametrize("value", ["*", "accept, *", "accept encoding"])
def test_a_vary_that_no_request_matches_is_refused(policy: Policy, value: str) -> None:
    assert _refusal(policy, {"cache-control": "max-age=60", "Vary": value}) == "vary"


@EVERY_MODE
def test_partial_content_without_its_range_is_refused(policy: Policy) -> None:
    assert _refusal(policy, {"cache-control": "max-age=60"}, 206) == "partial"


def test_an_explicit_policy_stores_no_partial_content() -> None:
    assert _refusal(EXPLICIT, {"content-range": "bytes 0-1/2"}, 206) == "partial"


@HTTP_MODES
class TestPartialContent:  # RFC 9111, section 3.3; RFC 9110, section 14.4
    @pytest.mark.parametrize("value", ["bytes 0-9/10", "bytes 5-5/*", "BYTES 0-0/1", "bytes 007-8/9", "bytes 10-19/20"])
    def test_one_range_of_bytes_is_stored_as_such(self, policy: Policy, value: str) -> None:
        verdict = _stored(policy, {"cache-control": "max-age=60", "content-range": value}, 206)
        assert (verdict.lifetime, verdict.partial) == (60, True)

    @pytest.mark.parametrize(
        "value",
        [
            "",
            "bytes",
            "bytes 0-9",
            "bytes */10",
            "bytes 0-9/9",
            "bytes 9-0/10",
            "bytes -9/10",
            "bytes 0-/10",
            "bytes=0-9/10",
            "bytes  0-9/10",
            "bytes 0 -9/10",
            "bytes 0-9/10, bytes 20-29/40",
            "bytes 0-9/x",
            "bytes 0-9.5/10",
            "bytes \xb2-9/10",
            "bytes 0-" + "9" * 5000 + "/*",
            "lines 0-9/10",
        ],
    )
    def test_any_other_range_is_refused(self, policy: Policy, value: str) -> None:
        assert _refusal(policy, {"cache-control": "max-age=60", "content-range": value}, 206) == "partial"

    def test_several_ranges_are_refused(self, policy: Policy) -> None:
        fields = {"cache-control": "max-age=60", "content-type": "Multipart/byteranges; boundary=x"}
        assert _refusal(policy, fields, 206) == "partial"
        assert _refusal(policy, {**fields, "content-range": "bytes 0-9/10"}, 206) == "partial"

    def test_two_lines_are_no_single_range(self, policy: Policy) -> None:
        line = (b"content-range", b"bytes 0-9/10")
        headers = [(b"cache-control", b"max-age=60"), line, line]
        assert judge_response(policy, 206, headers, credentialed=False, now=NOW) == Refuse("partial")

    def test_the_other_rules_hold_as_well(self, policy: Policy) -> None:
        fields = {"content-range": "bytes 0-9/10"}
        assert _refusal(policy, {**fields, "cache-control": "no-store"}, 206) == "no-store"
        assert _refusal(policy, {**fields, "cache-control": "public", "vary": "*"}, 206) == "vary"
        assert _refusal(policy, fields, 206) == "no-freshness"

    def test_other_statuses_are_not_partial_whatever_their_range(self, policy: Policy) -> None:
        fields = {"cache-control": "max-age=60", "content-range": "bytes 0-9/10"}
        assert not _stored(policy, fields, 200).partial
        assert not _stored(policy, fields, 404).partial


@EVERY_MODE
@pytest.mark.parametrize("status", [100, 101, 103, 199, 304, 600, 999])
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
        ({"cache-control": "max-age=60, public"}, True),
        ({"cache-control": "s-maxage=60"}, True),
        ({"cdn-cache-control": "max-age=60"}, True),
        ({"cdn-cache-control": "max-age=60,", "cache-control": "max-age=60"}, False),
    ],
)
def test_whether_the_response_is_meant_for_a_shared_cache(policy: Policy, fields: Fields, shared: bool) -> None:
    assert _stored(policy, fields).shared is shared


def test_must_revalidate_lets_requests_with_authorization_in_where_the_rfc_counts_alone() -> None:
    fields = {"cache-control": "max-age=60, must-revalidate"}
    assert [_stored(policy, fields).shared for policy in (EXPLICIT, HTTP, EXACT)] == [False, False, True]


# Explicit policies


def test_an_explicit_policy_gives_its_own_lifetime_and_no_age() -> None:
    fields = {"cache-control": "s-maxage=60, max-age=90", "age": "1000", "date": _date(-1000)}
    assert _stored(EXPLICIT, fields, response_delay=5) == Store(lifetime=30, age=0, shared=True, vary=())
    assert _stored(EXPLICIT, {}) == Store(lifetime=30, age=0, shared=False, vary=())


def test_set_ttl_comes_before_the_status_ttl_and_that_before_the_ttl() -> None:
    policy = Policy(ttl=30, status_ttl={404: 5, 200: 7})
    assert _stored(policy, {}, 404).lifetime == 5
    assert _stored(policy, {}, 200).lifetime == 7
    assert _stored(policy, {}, 203).lifetime == 30
    assert _stored(policy, {}, 404, set_ttl=1.5).lifetime == 1.5
    assert _stored(policy, {}, 404, set_ttl=0.5).lifetime == 0.5


@EVERY_MODE
def test_set_ttl_of_zero_keeps_the_response_out(policy: Policy) -> None:
    assert _refusal(policy, {"cache-control": "max-age=60", **VALIDATOR}, set_ttl=0) == "ttl"


def test_an_explicit_policy_does_not_store_what_is_stale() -> None:
    policy = Policy(status_ttl={404: 5}, retention=60)
    for fields in ({"cache-control": "max-age=0"}, {"cache-control": "max-age=60", "age": "60"}, {"expires": "0"}):
        assert _refusal(policy, {**fields, **VALIDATOR}) == "ttl"


def test_an_explicit_policy_is_not_moved_by_must_understand() -> None:
    assert _refusal(EXPLICIT, {"cache-control": "no-store, must-understand, max-age=60"}) == "no-store"
    assert _stored(EXPLICIT.but(statuses=(299,)), {"cache-control": "must-understand"}, 299).lifetime == 30


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
    assert _stored(policy, {"cache-control": "max-age=60", "age": "10"}, response_delay=5).age == 15
    assert _stored(policy, {"cache-control": "max-age=60"}, response_delay=5).age == 0
    assert _refusal(policy, {"last-modified": _date(-1000)}) == "no-freshness"


@pytest.mark.parametrize("policy", [EXPLICIT, HTTP], ids=lambda policy: policy.mode)
def test_a_response_that_sets_a_cookie_is_refused(policy: Policy) -> None:
    assert _refusal(policy, {"cache-control": "public, max-age=60", "Set-Cookie": "a=b"}) == "set-cookie"


@pytest.mark.parametrize("name", ["private", "no-cache"])
def test_a_cookie_that_is_not_stored_is_no_obstacle(name: str) -> None:
    fields = {"set-cookie": "a=b", "cache-control": f'max-age=60, {name}="set-cookie"'}
    assert _stored(HTTP, fields).without == {b"set-cookie"}
    assert _refusal(HTTP, {**fields, "cache-control": f'max-age=60, {name}="set-cookie2"'}) == "set-cookie"
    assert _refusal(EXPLICIT, fields) == name


def test_credentials_do_not_matter_where_the_policy_keys_them() -> None:
    assert _stored(EXPLICIT, {}, credentialed=True).lifetime == 30


# HTTP mode


def test_http_mode_stores_what_says_how_long_it_is_fresh() -> None:
    assert (_stored(HTTP, {"cache-control": "max-age=60"})) == Store(
        lifetime=60, age=0, shared=False, vary=(), stale_if_error=3600, retention=3600
    )
    assert _refusal(HTTP, {}) == "no-freshness"
    assert _refusal(HTTP, {"cache-control": "public"}) == "no-freshness"


def test_http_mode_knows_no_heuristics() -> None:
    assert _refusal(HTTP, {"cache-control": "public", "last-modified": _date(-10_000)}) == "no-freshness"
    assert _refusal(HTTP, {"cache-control": "public", **VALIDATOR}) == "no-freshness"
    assert _refusal(HTTP, {"cdn-cache-control": "none", "last-modified": _date(-10_000)}) == "no-freshness"


@HTTP_MODES
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
        assert _stored(policy, {"expires": expires, "last-modified": _date(-10_000)}).lifetime == 0
        assert _refusal(policy.but(retention=0), {"expires": expires, "last-modified": _date(-10_000)}) == "ttl"

    def test_several_different_expires_mean_stale(self, policy: Policy) -> None:
        once, twice = ((b"expires", _date(60).encode()), (b"expires", _date(70).encode()))
        tag = (b"etag", b'"a"')
        for headers, lifetime in (([once, once, tag], 60), ([once, twice, tag], 0)):
            verdict = judge_response(policy, 200, headers, credentialed=False, now=NOW)
            assert isinstance(verdict, Store)
            assert verdict.lifetime == lifetime

    @pytest.mark.parametrize("argument", ["=0", "", "=x", "=1.5", "=60, max-age=70"])
    def test_max_age_that_is_zero_or_invalid_means_stale(self, policy: Policy, argument: str) -> None:
        fields = {"cache-control": f"max-age{argument}", "expires": _date(60), "last-modified": _date(-10_000)}
        assert _stored(policy, fields).lifetime == 0
        assert _refusal(policy.but(retention=0), fields) == "ttl"

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

    def test_the_delay_of_the_response_counts_towards_its_age(self, policy: Policy) -> None:
        fields = {"cache-control": "max-age=60", "age": "20"}
        assert _stored(policy, fields, response_delay=7.5).age == 27.5
        assert _stored(policy, {**fields, "date": _date(-30)}, response_delay=7.5).age == 30
        assert _stored(policy, fields, response_delay=-3).age == 20

    def test_what_arrives_stale_is_kept_as_long_as_what_has_just_become_so(self, policy: Policy) -> None:
        fields = {"cache-control": "max-age=60", **VALIDATOR}
        for age, retention in (("59", 3600), ("60", 3600), ("70", 3610), ("9" * 5000, 2**31 - 60 + 3600)):
            verdict = _stored(policy, {**fields, "age": age})
            assert (verdict.lifetime, verdict.retention) == (60, retention)
        assert _refusal(policy.but(retention=0), {**fields, "age": "60"}) == "ttl"

    def test_what_arrives_stale_and_cannot_be_validated_is_not_kept_for_errors_alone(self, policy: Policy) -> None:
        for fields in ({"cache-control": "max-age=0"}, {"cache-control": "max-age=60", "age": "60"}):
            assert _refusal(policy, fields) == "ttl"
        assert _stored(policy, {"cache-control": "max-age=0, stale-if-error=9"}).retention == 9
        assert _stored(policy.but(retention=9), {"cache-control": "max-age=0"}).stale_if_error == 9

    def test_what_arrives_stale_and_has_no_use_is_refused(self, policy: Policy) -> None:
        fields = {"cache-control": "max-age=60, must-revalidate", "age": "60"}
        assert _refusal(policy, fields) == "ttl"
        assert _stored(policy, {**fields, **VALIDATOR}).must_revalidate

    def test_what_arrives_past_its_stale_use_is_refused(self, policy: Policy) -> None:
        policy, fields = policy.but(retention=0), {"cache-control": "max-age=60, stale-if-error=10"}
        assert _stored(policy, {**fields, "age": "69"}).age == 69
        assert _refusal(policy, {**fields, "age": "70"}) == "ttl"

    def test_a_targeted_field_takes_the_place_of_cache_control_and_expires(self, policy: Policy) -> None:
        fields = {"cache-control": "no-store", "cdn-cache-control": "max-age=600"}
        assert _stored(policy, fields).lifetime == 600
        assert _refusal(policy, {"cache-control": "max-age=60", "cdn-cache-control": "no-store"}) == "no-store"
        assert _refusal(policy, {"expires": _date(60), "cdn-cache-control": "none"}) == "no-freshness"
        assert _stored(policy, {"cdn-cache-control": "max-age=600, s-maxage=300"}).lifetime == 300
        assert _stored(policy, {"cdn-cache-control": "max-age=600, max-age=300;x=1"}).lifetime == 300

    def test_a_targeted_field_with_nothing_but_unknown_members_takes_its_place_too(self, policy: Policy) -> None:
        for value in ("none", "x-new=5", "no-store=?0", "max-stale"):
            fields = {"cdn-cache-control": value, "cache-control": "max-age=60", "expires": _date(60)}
            assert _refusal(policy, fields) == "no-freshness"

    def test_a_targeted_field_that_does_not_parse_is_ignored(self, policy: Policy) -> None:
        for value in ("max-age = 600", "max-age=600,", "", " ", "no-store, &", "Max-Age=600", "max-age=600; x=ü"):
            assert _stored(policy, {"cache-control": "max-age=60", "cdn-cache-control": value}).lifetime == 60

    def test_targeted_seconds_of_the_wrong_type_mean_stale(self, policy: Policy) -> None:
        assert _stored(policy, {"cdn-cache-control": 'max-age="600"', "last-modified": _date(-10_000)}).lifetime == 0

    def test_fields_that_are_aimed_at_others_change_nothing(self, policy: Policy) -> None:  # RFC 9213, section 2.2
        others = {"surrogate-control": "no-store", "example-cache-control": "no-store", "cdn-cache-control2": "private"}
        assert _stored(policy, {"cache-control": "max-age=60", **others}).lifetime == 60

    @pytest.mark.parametrize("immutable", ["immutable", "immutable=1", "immutable, immutable", "Immutable"])
    def test_immutable_changes_nothing(self, policy: Policy, immutable: str) -> None:  # RFC 8246, section 2
        fields = {"cache-control": "max-age=60", "last-modified": _date(-10_000)}
        assert _stored(policy, {**fields, "cache-control": f"max-age=60, {immutable}"}) == _stored(policy, fields)
        assert isinstance(_judge(policy, {"cache-control": immutable}), Refuse)

    @pytest.mark.parametrize("extension", ['community="UCI, no-store"', "x", "max-age2=1", "no-transform", "nostore"])
    def test_what_is_not_known_is_ignored(self, policy: Policy, extension: str) -> None:  # section 5.2.3
        fields = {"cache-control": f"{extension}, max-age=60"}
        assert _stored(policy, fields) == _stored(policy, {"cache-control": "max-age=60"})

    def test_a_ttl_of_the_route_comes_before_what_the_response_states(self, policy: Policy) -> None:
        fields = {"cache-control": "s-maxage=60", "age": "10"}
        for verdict, lifetime in (
            (_stored(policy.but(ttl=5), fields, response_delay=3), 5),
            (_stored(policy, fields, set_ttl=9), 9),
        ):
            assert (verdict.lifetime, verdict.age, verdict.shared) == (lifetime, 0, True)
            assert not verdict.must_revalidate  # the s-maxage that demands it does not apply
        assert _stored(policy.but(status_ttl={404: 7}), {}, 404).lifetime == 7

    def test_lifetimes_of_ours_go_to_the_statuses_of_the_policy_only(self, policy: Policy) -> None:
        assert _refusal(policy.but(ttl=5), {}, 500) == "no-freshness"
        assert _refusal(policy, {}, 500, set_ttl=5) == "no-freshness"
        assert _stored(policy.but(ttl=5), {"cache-control": "max-age=60"}, 500).lifetime == 60

    @pytest.mark.parametrize("status", [201, 299, 302, 404, 418, 424, 451, 499, 500, 599])
    def test_any_final_status_with_freshness_of_its_own_is_stored(self, policy: Policy, status: int) -> None:
        assert _stored(policy, {"cache-control": "max-age=60"}, status).lifetime == 60

    def test_must_understand_keeps_out_what_is_not_understood(self, policy: Policy) -> None:
        fields = {"cache-control": "max-age=60, must-understand"}
        stored = [status for status in range(200, 600) if isinstance(_judge(policy, fields, status), Store)]
        success, redirection = [200, 201, 202, 203, 204, 205], [300, 301, 302, 303, 305, 307, 308]
        of_one_request = {400, 406, 408, 411, 412, 413, 415, 416, 417, 421, 422, 426} if policy.mode == "http" else {}
        client_error = [status for status in (*range(400, 418), 421, 422, 426) if status not in of_one_request]
        assert stored == success + redirection + client_error + [500, 501, 502, 503, 504, 505]
        assert _stored(policy, {**fields, "content-range": "bytes 0-9/10"}, 206).partial

    def test_must_understand_lifts_no_store_where_the_status_is_understood(self, policy: Policy) -> None:
        fields = {"cache-control": "no-store, max-age=60, must-understand"}
        assert _stored(policy, fields).lifetime == 60
        assert _refusal(policy, fields, 299) == "no-store"
        assert _refusal(policy, fields, request_no_store=True) == "no-store"
        assert _refusal(policy, {"cache-control": "no-store, max-age=60, must-understand=1"}) == "no-store"
        assert _refusal(policy, {"cache-control": "no-store, must-understand, private"}) == "private"
        assert _refusal(policy, {"cache-control": "max-age=60, must-understand=1"}, 299) == "status"

    @pytest.mark.parametrize("status", [428, 429, 431, 511])
    def test_what_rfc_6585_keeps_out_of_caches_is_refused(self, policy: Policy, status: int) -> None:
        assert _refusal(policy, {"cache-control": "max-age=60"}, status) == "status"
        assert _stored(policy.but(status_ttl={status: 5}), {}, status).lifetime == 5


@pytest.mark.parametrize(
    ("fields", "stored"),
    [
        ({"cache-control": "max-age=60"}, False),
        ({"cache-control": "max-age=60, public"}, True),
        ({"cache-control": "max-age=60, public=1"}, False),
        ({"cache-control": "s-maxage=60"}, True),
        ({"cache-control": "s-maxage=60x, max-age=60", **VALIDATOR}, False),
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
    targeted = {"cdn-cache-control": f"max-age=60, {directive}", "cache-control": "max-age=60"}
    assert _stored(EXACT, targeted, credentialed=True).lifetime == 60
    assert _refusal(EXACT, {**targeted, "cdn-cache-control": "max-age=60"}, credentialed=True) == "credential"


@pytest.mark.parametrize(
    "directive", ["public=1", "s-maxage=x", "s-maxage", "s-maxage=60, s-maxage=x", "must-revalidate=1", "no-cache"]
)
def test_no_malformed_directive_allows_a_response_to_authorization(directive: str) -> None:
    fields = {"cache-control": f"max-age=60, {directive}", **VALIDATOR}
    assert _refusal(EXACT, fields, credentialed=True) == "credential"


@pytest.mark.parametrize("directive", ["proxy-revalidate", "immutable", "must-understand", 'no-cache="x"', "x=public"])
def test_no_other_directive_allows_a_response_to_authorization(directive: str) -> None:
    fields = {"cache-control": f"max-age=60, {directive}"}
    assert _refusal(EXACT, fields, credentialed=True) == "credential"


def test_cookies_are_no_obstacle_to_the_exact_mode() -> None:
    assert _stored(EXACT, {"cache-control": "max-age=60", "set-cookie": "a=b"}).lifetime == 60


def test_the_heuristic_is_a_tenth_of_the_time_since_the_modification() -> None:
    verdict = _stored(EXACT, {"date": _date(-20), "last-modified": _date(-1020)})
    assert (verdict.lifetime, verdict.age) == (100, 20)
    assert _stored(EXACT, {"last-modified": _date(-1000)}).lifetime == 100


@pytest.mark.parametrize("modified", [{}, {"last-modified": "once"}])
def test_without_a_modification_date_there_is_no_heuristic(modified: Fields) -> None:
    assert _refusal(EXACT, modified) == "no-freshness"
    assert _refusal(EXACT, {"cdn-cache-control": "none", **modified}) == "no-freshness"


def test_what_can_only_be_validated_is_stored_stale_where_a_heuristic_would_be_allowed() -> None:
    for status, fields in ((200, {}), (404, {}), (302, {"cache-control": "public"})):
        verdict = _stored(EXACT, {**fields, **VALIDATOR}, status)
        assert (verdict.lifetime, verdict.must_revalidate, verdict.stale_if_error) == (0, False, 3600)
    assert _refusal(EXACT, VALIDATOR, 500) == "no-freshness"  # section 3 does not let it be stored
    assert _refusal(EXACT, {"etag": "malformed"}) == "no-freshness"


def test_a_modification_in_the_future_gives_no_freshness() -> None:
    assert _stored(EXACT, {"last-modified": _date(1000)}).lifetime == 0
    assert _stored(EXACT, {"last-modified": _date(500), "date": _date(1000)}).lifetime == 0


@pytest.mark.parametrize("stated", [{"expires": "0"}, {"cache-control": "max-age=x"}, {"cache-control": "s-maxage"}])
def test_heuristics_are_not_used_where_freshness_is_stated_in_vain(stated: Fields) -> None:
    assert _stored(EXACT, {"last-modified": _date(-1000), **stated}).lifetime == 0


def test_heuristics_are_used_beside_a_targeted_field_without_freshness() -> None:
    fields = {"last-modified": _date(-1000), "cdn-cache-control": "none"}
    others = {"cache-control": "no-store, max-age=5", "expires": "0"}
    assert _stored(EXACT, {**fields, **others}).lifetime == 100


@pytest.mark.parametrize("status", [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 451, 501])
def test_heuristics_apply_to_the_statuses_that_are_heuristically_cacheable(status: int) -> None:
    assert _stored(EXACT, {"last-modified": _date(-1000)}, status).lifetime == 100


def test_heuristics_apply_to_partial_content() -> None:
    fields = {"last-modified": _date(-1000), "content-range": "bytes 0-9/10"}
    assert _stored(EXACT, fields, 206).lifetime == 100


@pytest.mark.parametrize("status", [201, 299, 302, 307, 400, 403, 500, 503])
def test_heuristics_apply_to_other_statuses_only_where_public(status: int) -> None:
    assert _refusal(EXACT, {"last-modified": _date(-1000)}, status) == "no-freshness"
    assert _stored(EXACT, {"last-modified": _date(-1000), "cache-control": "public"}, status).lifetime == 100
    assert _refusal(EXACT, {"last-modified": _date(-1000), "cache-control": "public=1"}, status) == "no-freshness"


def test_the_delay_of_the_response_always_counts_in_the_exact_mode() -> None:
    fields = {"cache-control": "max-age=60"}
    assert _stored(EXACT, fields, response_delay=7.5).age == 7.5
    assert _stored(HTTP, fields, response_delay=7.5).age == 0
    assert _stored(HTTP, {**fields, "age": "x"}, response_delay=7.5).age == 0


# Any response


FIELD_NAMES = [
    b"cache-control",
    b"CDN-Cache-Control",
    b"expires",
    b"date",
    b"Age",
    b"vary",
    b"last-modified",
    b"etag",
    b"content-range",
    b"connection",
]
VALUES = [
    b"public, max-age=60",
    b"no-cache",
    b's-maxage=5, private="etag"',
    b"stale-if-error=9, stale-while-revalidate=x",
    b"must-revalidate",
    b"*",
    b"60",
    b'"1"',
    b"bytes 0-9/10",
    _date(60).encode(),
    _date(-60).encode(),
]


@given(
    st.sampled_from([EXPLICIT, HTTP, EXACT]),
    st.sampled_from([200, 206, 404, 500]) | st.integers(0, 1200),
    st.lists(st.tuples(st.sampled_from(FIELD_NAMES), st.binary(max_size=20) | st.sampled_from(VALUES)), max_size=6),
    st.booleans(),
    st.floats(-10, 100),
)
def test_every_response_gets_a_verdict_that_makes_sense(
    policy: Policy, status: int, headers: list[tuple[bytes, bytes]], credentialed: bool, delay: float
) -> None:
    verdict = judge_response(policy, status, headers, credentialed=credentialed, response_delay=delay, now=NOW)
    if isinstance(verdict, Refuse):
        return
    assert 200 <= status <= 599
    assert 0 <= verdict.age <= 2**31
    assert verdict.lifetime >= 0
    assert 0 <= verdict.stale_while_revalidate <= verdict.retention
    assert 0 <= verdict.stale_if_error <= verdict.retention
    assert verdict.age < verdict.lifetime + (0 if policy.mode == "explicit" else verdict.retention)
    assert verdict.partial is (status == 206)
    if verdict.must_revalidate:
        assert verdict.stale_while_revalidate == verdict.stale_if_error == 0


def test_a_response_with_ten_thousand_directives_takes_linear_time() -> None:
    line = (b"cache-control", b'max-age=60, private="x-a, x-b", no-cache="x-c", stale-if-error=5, x, "')
    headers = [line, (b"connection", b"x-d, " * 10), (b"etag", b'"1"'), (b"age", b"1, 2")] * 10_000
    before = time.process_time()
    assert isinstance(judge_response(EXACT, 200, headers, credentialed=True, now=NOW), Refuse)
    verdict = judge_response(EXACT, 200, headers, credentialed=False, now=NOW)
    assert isinstance(verdict, Store)
    assert verdict.without == {b"x-a", b"x-b", b"x-c"}
    assert time.process_time() - before < 10


@given(st.sampled_from([HTTP, EXACT]), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_higher_max_age_is_never_a_shorter_lifetime(policy: Policy, one: int, other: int, age: int) -> None:
    low, high = (
        _stored(policy, {"cache-control": f"max-age={seconds}", "age": str(age), **VALIDATOR})
        for seconds in sorted((one, other))
    )
    assert low.lifetime <= high.lifetime
    assert low.age == high.age
    assert low.lifetime + low.retention <= high.lifetime + high.retention
