"""RFC 9213, targeted cache control: every sentence with a keyword."""

from __future__ import annotations

from tests.http.conformance.rows import other, shown, table

ROWS = table(
    "9213",
    other(
        "2.1",
        "MUST NOT",
        "write values of another type than a directive has",
        "origin: no targeted field is written here",
    ),
    other(
        "2.1",
        "MUST",
        "write a text as a String that does not begin like a Token",
        "origin: no targeted field is written here",
    ),
    shown(
        "2.1",
        "SHOULD NOT",
        "use values of another type than a directive has",
        "http.wire.test_targeted_fields::test_a_lifetime_of_another_type_is_not_taken_for_a_number",
    ),
    shown(
        "2.1",
        "MUST",
        "ignore a field that is empty or does not parse",
        "http.wire.test_targeted_fields::test_one_that_is_empty_or_does_not_parse_is_ignored",
        "http.wire.test_targeted_fields::test_one_that_does_not_parse_permits_nothing",
    ),
    shown(
        "2.2",
        "MUST",
        "go by the first field of the target list that is there, valid and not empty",
        "http.wire.test_targeted_fields::test_it_counts_in_place_of_all_other_fields",
        "http.wire.test_targeted_fields::test_its_lines_are_one_dictionary",
    ),
    shown(
        "2.2",
        "MUST",
        "ignore Cache-Control and Expires beside it",
        "http.wire.test_targeted_fields::test_it_counts_in_place_of_all_other_fields",
        "http.wire.test_targeted_fields::test_where_it_gives_no_lifetime_the_others_do_not_either",
    ),
    shown(
        "2.2",
        "MUST NOT",
        "go by a field that is not on the target list",
        "http.wire.test_targeted_fields::test_fields_that_are_aimed_at_others_change_nothing_and_pass",
    ),
    shown(
        "2.2",
        "MUST",
        "pass such a field on",
        "http.wire.test_targeted_fields::test_fields_that_are_aimed_at_others_change_nothing_and_pass",
    ),
    shown(
        "2.2",
        "MUST",
        "know max-age, must-revalidate, no-store, no-cache and private in it",
        "http.wire.test_targeted_fields::test_it_counts_in_place_of_all_other_fields",
        "http.wire.test_targeted_fields::test_what_forbids_in_it_is_obeyed",
        "http.wire.test_targeted_fields::test_it_may_forbid_stale_responses",
    ),
    shown(
        "2.2",
        "SHOULD",
        "know the other directives in it that are known in Cache-Control",
        "http.wire.test_targeted_fields::test_directives_of_extensions_count_in_it_too",
        "http.wire.test_targeted_fields::test_s_maxage_in_it_is_a_lifetime",
        "http.wire.test_stored_fields::test_fields_can_be_kept_back_by_a_targeted_field",
    ),
    shown(
        "2.4",
        "MUST NOT",
        "tell targeted fields by the end of their name",
        "http.wire.test_targeted_fields::test_fields_that_are_aimed_at_others_change_nothing_and_pass",
    ),
    other(
        "3",
        "MAY",
        "remove CDN-Cache-Control from what is sent on",
        "choice: caches like this one may stand between the client and us",
    ),
)
