"""RFC 9875, cache groups: every sentence with a keyword."""

from __future__ import annotations

from tests.http.conformance.rows import other, shown, table

ROWS = table(
    "9875",
    shown(
        "2",
        "MUST",
        "support 32 groups of 32 characters in Cache-Groups",
        "http.wire.test_cache_groups::test_32_groups_of_32_characters_are_supported",
    ),
    other(
        "2.2.1",
        "MAY",
        "let what is invalidated take along what shares a group with it",
        "choice: an unsafe request says itself which groups it invalidates",
    ),
    shown(
        "3",
        "MUST",
        "ignore Cache-Group-Invalidation in the answer to a safe request",
        "http.wire.test_cache_groups::test_a_safe_request_invalidates_no_group",
    ),
    shown(
        "3",
        "MAY",
        "invalidate what is in the groups that the answer to an unsafe request lists",
        "http.wire.test_cache_groups::test_an_unsafe_request_may_invalidate_groups",
        "http.wire.test_cache_groups::test_what_is_in_no_such_group_stays",
        "http.wire.test_cache_groups::test_the_groups_of_one_app_are_those_of_all_its_hosts",
    ),
    shown(
        "3",
        "MUST",
        "support 32 groups of 32 characters in Cache-Group-Invalidation",
        "http.wire.test_cache_groups::test_32_groups_can_be_invalidated_at_once",
    ),
)
