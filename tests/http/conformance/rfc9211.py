"""RFC 9211, Cache-Status: every sentence with a keyword."""

from __future__ import annotations

from tests.http.conformance.rows import shown, table

ROWS = table(
    "9211",
    shown(
        "2",
        "SHOULD NOT",
        "add a member to a response that was made here, unless out of a stored one",
        "http.wire.test_cache_status::test_an_answer_of_our_own_has_none",
        "http.wire.test_cache_status::test_what_is_made_of_a_stored_response_is_a_hit",
    ),
    shown(
        "2",
        "SHOULD",
        "leave the members of other caches where they are",
        "http.wire.test_cache_status::test_what_caches_before_us_said_stays_before_what_we_say",
    ),
    shown(
        "2",
        "MUST",
        "name the cache by a String or a Token",
        "http.wire.test_cache_status::test_each_answer_has_one_member_of_ours",
        "http.test_cache_status_field::test_any_detail_makes_a_valid_structured_field",
    ),
    shown(
        "2",
        "OPTIONAL",
        "say more in parameters",
        "http.wire.test_cache_status::test_a_hit_says_how_long_it_will_be_fresh",
        "http.wire.test_cache_status::test_a_miss_says_why_and_what_became_of_it",
        "http.wire.test_cache_status::test_who_waited_for_anothers_response_is_told_so",
    ),
    shown(
        "2.2",
        "SHOULD",
        "give the most specific reason for sending a request on",
        "http.wire.test_cache_status::test_a_miss_says_why_and_what_became_of_it",
        "http.wire.test_cache_status::test_a_request_that_does_not_want_what_is_fresh_is_told_so",
        "http.wire.test_cache_status::test_what_is_stale_says_so_and_what_the_origin_answered",
    ),
)
