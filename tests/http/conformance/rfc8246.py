"""RFC 8246, immutable responses: every sentence with a keyword."""

from __future__ import annotations

from tests.http.conformance.rows import other, shown, table

ROWS = table(
    "8246",
    shown(
        "2",
        "SHOULD NOT",
        "send a conditional request while an immutable response is fresh, unless the user insists",
        "http.wire.test_cache_control::test_what_is_immutable_is_validated_where_the_client_asks_for_it",
    ),
    shown(
        "2",
        "SHOULD",
        "validate what is stale, immutable or not",
        "http.wire.test_cache_control::test_immutable_ends_with_the_freshness",
    ),
    shown(
        "2",
        "MUST",
        "ignore arguments of immutable",
        "http.wire.test_cache_control::test_immutable_takes_no_argument_and_counts_once",
    ),
    shown(
        "2.1",
        "SHOULD",
        "as a proxy, not validate what is fresh and immutable, unless the client asks for it",
        "http.wire.test_cache_control::test_what_is_immutable_is_validated_where_the_client_asks_for_it",
    ),
    other(
        "3",
        "SHOULD",
        "ignore immutable where the origin is not authenticated",
        "client: between the app and the middleware there is no network",
    ),
    other(
        "3",
        "SHOULD",
        "ignore immutable on a forced reload",
        "client: what the browser sends then, no-cache, is obeyed: see 9111-5.2.1-1",
    ),
    other(
        "3",
        "SHOULD",
        "ignore immutable where nothing tells that the response is complete",
        "client: what is not complete is not stored: see 9111-3.3-5",
    ),
)
