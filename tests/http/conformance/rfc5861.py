"""RFC 5861, stale-while-revalidate and stale-if-error: every sentence with a keyword."""

from __future__ import annotations

from tests.http.conformance.rows import shown, table

ROWS = table(
    "5861",
    shown(
        "3",
        "MAY",
        "use a response for so many seconds after it became stale, while it is validated",
        "http.wire.test_stale::test_stale_while_revalidate_says_for_how_long",
    ),
    shown(
        "3",
        "SHOULD",
        "try to validate it meanwhile, without making anybody wait",
        "http.wire.test_stale::test_it_is_validated_meanwhile",
        "http.wire.test_stale::test_a_new_one_takes_its_place",
    ),
    shown(
        "3",
        "SHOULD NOT",
        "use it for longer than that",
        "http.wire.test_stale::test_stale_while_revalidate_says_for_how_long",
    ),
    shown(
        "4",
        "MAY",
        "use a stale response in place of an error",
        "http.wire.test_stale::test_stale_if_error_says_for_how_long",
        "http.wire.test_stale::test_stale_if_error_needs_no_validator",
        "http.wire.test_stale::test_other_errors_are_answers",
    ),
    shown(
        "4",
        "SHOULD NOT",
        "use one that has been stale for longer than the directive says, of a response or of a request",
        "http.wire.test_stale::test_stale_if_error_says_for_how_long",
        "http.wire.test_stale::test_a_request_may_allow_more_than_the_response",
    ),
    shown(
        "4",
        "SHOULD",
        "let it be seen that the response is stale: by its Age",
        "http.wire.test_stale::test_where_the_origin_fails_a_stale_response_stands_in",
        "http.wire.test_stale::test_what_is_used_while_it_is_validated_is_visibly_stale",
        "http.wire.test_stale::test_stale_if_error_without_an_error_is_no_freshness",
    ),
)
