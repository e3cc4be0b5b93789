"""What an attacker may send, what keeps it harmless, and the tests that fail when that is taken out."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple


class Attack(NamedTuple):
    """One row of the table in `docs/security.md`.

    Attributes:
        what: What is sent, stored or said.
        defence: What keeps it harmless.
        shown_by: Tests: `"hostile.test_keys_hosts::test_on_the_wire_too"`, below `tests`.
    """

    what: str
    defence: str
    shown_by: tuple[str, ...]


def _attack(module: str, what: str, defence: str, *tests: str) -> Attack:
    """A row; `tests` name those of `module` by what follows `test_`, and others whole."""
    return Attack(what, defence, tuple(name if "::" in name else f"hostile.{module}::test_{name}" for name in tests))


_headers = partial(_attack, "test_keys_unkeyed_headers")
_hosts = partial(_attack, "test_keys_hosts")
_paths = partial(_attack, "test_keys_paths")
_queries = partial(_attack, "test_keys_queries")
_collisions = partial(_attack, "test_keys_collisions")
_identity = partial(_attack, "test_identity")
_responses = partial(_attack, "test_responses")
_stored = partial(_attack, "test_stored_bytes")
_cardinality = partial(_attack, "test_cardinality")
_logs = partial(_attack, "test_logs")

KEYS = (
    _headers(
        "headers that are not in the key and that the app reflects, explicit policy",
        "withheld from the handler",
        "under_a_strict_policy_no_such_header_reaches_the_handler",
    ),
    _headers(
        "`X-Forwarded-Host`, `-Proto`, `-Scheme`, `-Port`, `-Prefix`, `Forwarded`, `X-Host` and their like, elsewhere",
        "part of the key wherever they reach the handler",
        "what_proxies_say_of_the_uri_is_part_of_it_wherever_it_reaches_the_handler",
        "of_forwarded_all_counts_but_the_addresses",
        "behind_a_proxy_that_says_the_same_of_every_request_all_share_an_answer",
    ),
    _headers(
        "`X-Original-URL`, `X-Rewrite-URL`, `X-HTTP-Method-Override` and their like",
        "the request passes by where they reach the handler",
        "a_request_that_asks_to_be_taken_for_another_passes_by",
        "unless_the_policy_keys_or_withholds_what_asks_for_it",
        "where_dependencies_see_the_real_request_it_passes_by_too",
    ),
    _headers(
        "any other header, in the HTTP modes and with `strict=False`",
        "the response's `Vary`: the application's to name",
        "in_the_http_modes_any_other_header_is_the_responses_to_name",
        "without_strict_any_other_header_is_the_responses_to_name_too",
        "where_dependencies_see_the_real_request_what_a_response_varies_by_counts",
    ),
    _hosts(
        "`Host` in other case, with port, trailing dot, as an address, malformed",
        "part of the key, spelt one way; the handler sees that spelling",
        "each_host_is_answered_for_itself_and_two_spellings_of_one_share",
        "schemes_and_their_default_ports_stay_apart",
        "no_spelling_leads_past_a_host_route_of_the_app",
    ),
    _hosts(
        "`Host` absent, or twice",
        "the server's address counts; two pass by",
        "without_a_host_the_address_of_the_server_counts",
        "a_second_host_passes_by_and_leaves_nothing",
        "on_the_wire_too",
    ),
    _paths(
        "`;`, `%2f`, `%00`, `//`, dot segments, encoded ones",
        "the raw path and the path that the app is given are both part of the key; the app's router decides",
        "each_path_is_answered_as_the_app_alone_would",
        "on_the_wire_too",
        "a_path_that_middleware_has_rewritten_and_the_one_it_was_stay_apart",
        "root_path_and_path_do_not_run_into_each_other",
        "files_are_those_that_the_app_serves",
        "what_a_path_is_purged_by_is_what_the_app_was_given",
    ),
    _paths(
        "`/account/x.css` (cache deception)",
        "no name makes a response storable; credentials pass by",
        "no_name_makes_a_page_of_one_user_one_for_all",
    ),
    _queries(
        "query parameters repeated, empty, reordered, not UTF-8",
        "a canonical form that no two different queries share, and that the handler is given",
        "no_two_queries_share_an_answer_that_can_be_read_apart",
        "under_an_explicit_policy_one_question_has_one_spelling",
        "in_the_http_modes_each_spelling_is_another",
        "whatever_the_query_the_answer_is_that_of_the_app_alone",
    ),
    _queries(
        "ten thousand parameters, values of 64 KB",
        "linear in what was sent, keyed whole",
        "ten_thousand_parameters_are_a_question_like_any_other",
        "values_of_64_kilobytes_are_keyed_whole",
        "the_cost_of_a_key_is_in_proportion_to_what_was_sent",
    ),
    _queries(
        "separators inside values: headers, cookies, users, paths, tags, arguments",
        "length-prefixed fields; values in keys and tags are escaped",
        "separators_in_keyed_headers_and_cookies_move_nothing_from_one_to_the_next",
        "cookies_in_several_lines_are_one_list",
        "separators_in_path_and_query_move_no_tag",
        "separators_in_users_and_extra_keys_move_nothing",
    ),
    _queries(
        "GET with a body, contradictory framing",
        "passes by, whatever is stored",
        "a_get_that_says_it_has_a_body_passes_by_whatever_is_stored",
        "on_the_wire_no_framing_smuggles_a_second_request",
    ),
    _collisions(
        "requests whose hashes collide (real collisions of xxHash)",
        "the canonical request is compared on every hit",
        "in_memory_a_collision_is_a_miss",
        "in_a_lower_tier_a_collision_is_a_miss",
        "those_who_read_a_lower_tier_at_a_time_judge_it_each",
        "variants_whose_values_collide_are_told_apart",
        "the_list_of_variants_of_one_request_says_nothing_of_another",
        "calls_that_share_a_key_share_no_value",
    ),
    _collisions(
        "likewise, while the other one is still being answered",
        "flights and leases compare it, too",
        "whoever_waits_for_a_flight_is_not_given_what_it_brings_another",
        "whoever_waits_for_the_lease_of_a_collision_answers_for_itself",
        "whoever_shares_a_key_with_a_flight_shares_neither_its_time_nor_its_failure",
        "calls_that_share_a_key_share_neither_time_nor_failure",
    ),
    _identity(
        "`Authorization`, cookies, sessions, users, API keys, proxies' identity headers, TLS certificates",
        "pass by, are withheld, or keep users apart, whichever the policy says",
        "whoever_says_who_asks_gets_and_gives_only_their_own",
        "nor_while_others_wait",
        "nor_by_way_of_another_worker",
        "under_a_strict_policy_it_passes_by_or_is_withheld",
        "what_is_ignored_reaches_nobody",
        "what_is_keyed_keeps_them_apart_and_each_has_hits",
    ),
    _identity(
        "credentials in odd spellings, empty, repeated, in the query",
        "looked for in every spelling; dropped ones are withheld or refused at start",
        "no_spelling_of_a_credential_is_overlooked",
        "a_header_name_that_no_server_should_pass_on_reaches_no_strict_handler",
        "credentials_in_the_query_are_part_of_the_key",
        "credentials_in_the_query_that_are_dropped_are_withheld_and_declared_ones_are_refused_at_start",
    ),
)

RESPONSES = (
    _responses(
        "`Set-Cookie`",
        "not stored (`rfc9111()` obeys the RFC, which stores it)",
        "a_cookie_of_one_client_is_no_other_ones",
    ),
    _responses(
        "`Vary: *` in any spelling, or without end",
        "not stored",
        "a_vary_that_nobody_can_match_is_obeyed_in_any_spelling",
    ),
    _responses(
        "`PRIVATE`, directives in mixed case, twice, over several lines, among garbage",
        "what forbids is obeyed, whatever stands beside it",
        "what_forbids_is_obeyed_whatever_stands_beside_it",
        "a_directive_inside_a_quoted_value_is_none",
        "lifetimes_that_conflict_or_are_none_make_nothing_fresh",
    ),
    _responses(
        "a 200 with an error in its midst",
        "only what came to its end is stored",
        "a_200_with_an_error_in_its_midst_is_not_stored",
    ),
    _responses(
        "shorter or longer than its `Content-Length`, two of them, a 204 with a body",
        "the length is checked",
        "a_body_that_is_not_as_long_as_announced_is_not_stored",
        "a_204_with_a_body_is_not_stored",
        "hostile.test_responses_on_the_wire::test_a_wrong_length_is_to_the_client_what_it_is_without_us",
    ),
    _responses(
        "trailers",
        "passed on, not stored",
        "a_response_with_trailers_is_passed_on_and_not_stored",
    ),
    _responses(
        "100,000 header lines, one line without end",
        "not stored beyond 1,000 lines or 256 KiB",
        "a_header_block_without_end_is_passed_on_and_nothing_of_it_is_kept",
    ),
    _responses(
        "CR, LF or NUL in a header (response splitting)",
        "not stored, so nobody else is given it",
        "a_field_line_that_would_begin_another_goes_to_who_asked_and_to_nobody_else",
        "hostile.test_responses_on_the_wire::test_a_split_response_is_the_apps_own_and_no_hit",
    ),
    _responses(
        "messages of wrong types or out of turn, buffers that are used again",
        "passed on as they are, not stored; bytes are taken when they are sent",
        "a_start_that_servers_may_take_reaches_the_server_as_it_is",
        "a_body_that_is_no_byte_string_reaches_the_server_as_it_is",
        "messages_out_of_turn_make_no_response_for_others",
        "a_buffer_and_a_message_that_the_app_uses_again_do_no_harm",
    ),
    _responses(
        "bodies of 1 GB, without end, in a million pieces, that drip",
        "passed on live, kept up to `max_body` and for 30 seconds",
        "a_body_of_a_gigabyte_passes_in_a_few_megabytes",
        "a_body_without_end_passes_live_and_ends_with_its_client",
        "a_body_in_very_many_pieces_takes_the_memory_of_its_bytes",
        "pieces_that_a_slow_leader_has_not_taken_take_the_memory_of_their_bytes",
        "a_drip_that_never_ends_is_followed_for_a_while_and_then_kept_nowhere",
    ),
)

STORED = (
    _stored(
        "empty, random, a pickle, another version, wrong numbers, times, fields, lengths, checksums",
        "checked before anything is believed; nothing is unpickled",
        "bytes_that_are_no_entry_of_this_request_are_a_miss",
    ),
    _stored("truncated at any byte", "lengths and a checksum", "an_entry_truncated_at_any_byte_is_a_miss"),
    _stored(
        "a huge declared length",
        "compared with what is there before memory is taken",
        "any_declared_length_is_checked_before_memory_is_taken_for_it",
    ),
    _stored(
        "decompression bombs",
        "inflated up to the declared length, and no further",
        "what_inflates_to_hundreds_of_megabytes_takes_no_more_than_it_may",
    ),
    _stored(
        "another key's entry, another user's",
        "the canonical request is compared",
        "another_paths_entry_copied_over_is_not_served",
        "another_users_entry_copied_over_is_not_served",
    ),
    _stored(
        "a stamp in the future, another epoch",
        "judged by the log's clock and epoch",
        "a_stamp_beyond_the_clock_of_the_log_is_not_believed",
        "an_entry_of_another_epoch_is_not_served",
    ),
    _stored(
        "deep nesting, values of another type, exceptions to be made",
        "only what the annotation and the policy name is made",
        "a_value_of_another_type_is_computed_anew",
        "a_response_in_the_place_of_a_value_is_none",
        "no_exception_is_made_but_those_that_the_policy_names",
    ),
    _stored(
        "lists of variants that point at each other",
        "an entry is of the kind that its place asks for",
        "markers_that_point_to_markers_are_a_miss",
        "a_marker_with_odd_contents_hurts_nobody",
    ),
    _stored(
        "keys of another type of Redis",
        "a miss, and no outage",
        "a_key_of_another_type_is_a_miss_and_no_outage",
        "control_state_of_another_type_is_begun_anew_and_never_an_error_to_a_client",
    ),
    _stored(
        "garbage in the log, the control hash, leases and their messages",
        "passed over, begun anew, or waited out",
        "garbage_in_the_log_hurts_nobody",
        "garbage_in_the_control_hash_is_never_an_error_to_a_client",
        "garbage_where_a_lease_belongs_keeps_nobody_for_long",
        "garbage_on_the_channel_of_a_lease_hurts_nobody",
    ),
)

CARDINALITY = (
    _cardinality(
        "keys that are asked for once sweep through memory",
        "new entries are on probation: what nobody asks for again pushes out its like",
        "what_is_hot_stays_in_memory_while_keys_sweep_through_that_are_asked_for_once",
        "what_is_hot_stays_where_those_that_sweep_through_are_large",
        "what_is_hot_stays_while_others_come_up_from_below",
        "one_route_under_attack_leaves_another_its_own_keys",
    ),
    _cardinality(
        "random queries fill Redis",
        "past its share a route stores what was asked for before, up to `max_keys`",
        "random_queries_fill_redis_up_to_a_bound",
        "each_variant_counts_as_a_key",
        "values_of_functions_are_bounded_likewise_and_those_that_code_names_are_not",
    ),
    _cardinality(
        "the bound is used against the service",
        "what is not stored is still answered, and made once for all who wait",
        "those_who_ask_at_the_same_time_share_what_is_not_stored",
        "what_is_stored_is_made_anew_however_many_keys_there_are",
        "other_workers_are_not_kept_waiting_for_what_is_not_stored",
    ),
    _cardinality(
        "different requests without end",
        "whatever is remembered by key, path, header or tag is bounded",
        "hostile.test_cardinality_of_everything::test_nothing_grows_with_the_number_of_different_requests",
    ),
)

LOGS = (
    _logs(
        "line ends, control characters, escape sequences in paths, keys, exceptions, replies of Redis",
        "a record is one printable line, a traceback is indented",
        "what_redis_says_is_one_line",
        "what_a_tier_raises_is_one_line",
        "what_a_handler_raises_begins_no_line_where_a_stale_response_stands_in",
        "what_a_function_raises_begins_no_line",
        "a_callbacks_failure_begins_no_line",
        "a_path_is_escaped_where_a_stale_response_could_not_be_made_anew",
    ),
    _logs(
        "long texts, texts that cannot be formatted",
        "cut at 2,000 characters; fail nobody",
        "what_redis_says_is_one_line",
        "a_message_that_cannot_be_formatted_fails_nobody",
    ),
    _logs(
        "names in statistics",
        "escaped, and bounded in number",
        "statistics_count_hostile_names_within_their_bounds_and_show_them_escaped",
    ),
    _logs(
        "passwords in URLs",
        "shown nowhere",
        "a_password_is_nowhere_in_what_is_logged_or_shown",
    ),
)

TABLES = {
    "Keys and identity": KEYS,
    "Responses": RESPONSES,
    "Bytes in Redis": STORED,
    "Very many keys": CARDINALITY,
    "Logs and statistics": LOGS,
}
