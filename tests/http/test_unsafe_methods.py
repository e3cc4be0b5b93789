"""What an unsafe method makes out of date, as values (RFC 9111, section 4.4), and what a POST may answer."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_tiercache.http.unsafe import (
    MAX_REFERENCE,
    Reference,
    TargetURI,
    is_safe,
    is_success,
    referred,
    represents_target,
    resolve,
)
from asgi_tiercache.types import Header

TARGET = TargetURI("http", "example.org", "/videos/42", "q=1")


def test_methods_that_nobody_knows_are_not_safe() -> None:
    assert all(map(is_safe, ("GET", "HEAD", "OPTIONS", "TRACE", "QUERY")))
    assert not any(map(is_safe, ("POST", "PUT", "PATCH", "DELETE", "CONNECT", "PURGE", "get", "")))


def test_only_what_is_no_error_has_taken_place() -> None:
    assert all(map(is_success, (200, 201, 204, 299, 301, 303, 304, 399)))
    assert not any(map(is_success, (100, 199, 400, 404, 412, 500, 599)))


# ---- references ----


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        ("/videos/7", "/videos/7"),
        ("7", "/videos/7"),
        ("./7?x=1#part", "/videos/7"),
        ("../users/", "/users/"),
        ("../../../x", "/x"),
        ("", "/videos/42"),
        ("?page=2", "/videos/42"),
        ("#part", "/videos/42"),
        ("/a%2Fb%20c", "/a%2Fb%20c"),
        ("/a;v=1,2", "/a;v=1,2"),
        ("http://example.org/x", "/x"),
        ("HTTP://EXAMPLE.ORG:80/x", "/x"),
        ("http://example.org", "/"),
        ("//example.org/x", "/x"),
        ("http://example.org:/x", "/x"),
        ("/ü", "/ü"),
    ],
)
def test_a_reference_is_resolved_against_the_target(reference: str, path: str) -> None:
    found = resolve(reference.encode(), TARGET)
    assert found is not None
    assert found.path == path


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        ("http://example.org/a/../b", "/b"),
        ("//example.org/a/./b/..", "/a/"),
        ("http://example.org/../..", "/"),
        ("http://example.org//a/../b/.", "//b/"),
    ],
)
def test_an_absolute_reference_loses_its_dot_segments_too(reference: str, path: str) -> None:
    assert resolve(reference.encode(), TARGET) == Reference(path, "")


@pytest.mark.parametrize(("reference", "query"), [("", "q=1"), ("#part", "q=1"), ("?", ""), ("42", ""), ("?x", "x")])
def test_only_a_reference_without_a_path_keeps_the_query(reference: str, query: str) -> None:
    assert resolve(reference.encode(), TARGET) == ("/videos/42", query)


@pytest.mark.parametrize(
    "reference",
    [
        "https://example.org/x",
        "https://example.org:80/x",
        "http://example.org:8080/x",
        "http://example.com/x",
        "http://sub.example.org/x",
        "//example.com/x",
        "http://example.org.evil.com/x",
        "http://example.org@evil.com/x",
        "ftp://example.org/x",
        "mailto:someone@example.org",
        "urn:example:1",
    ],
)
def test_another_origin_is_never_invalidated(reference: str) -> None:
    assert resolve(reference.encode(), TARGET) is None


@pytest.mark.parametrize(
    "reference",
    [
        "http://example.org:port/x",
        "http://example.org:99999/x",
        "http://[::1/x",
        "http://[x]/x",
        "http:///x",
        "http:x",
        "/a b",
        "/a\tb",
        "\x00",
        "/" + MAX_REFERENCE * "a",
    ],
)
def test_what_is_malformed_is_ignored(reference: str) -> None:
    assert resolve(reference.encode(), TARGET) is None


@pytest.mark.parametrize(
    ("scheme", "authority", "reference"),
    [
        ("http", "example.org:80", "http://example.org/x"),
        ("https", "example.org", "https://example.org:443/x"),
        ("http", "EXAMPLE.org", "http://example.ORG/x"),
        ("http", "a-b_c.example", "http://a-b_c.example/x"),
        ("http", "localhost:8000", "http://localhost:8000/x"),
        ("http", "[::1]:8000", "http://[::1]:8000/x"),
    ],
)
def test_origins_are_compared_by_scheme_host_and_port(scheme: str, authority: str, reference: str) -> None:
    assert resolve(reference.encode(), TargetURI(scheme, authority, "/")) == ("/x", "")
    assert resolve(reference.encode(), TargetURI(scheme, "other.example", "/")) is None


@pytest.mark.parametrize("authority", ["", "a/b", "user@example.org", "exa mple", "[::1", "x:y"])
def test_of_a_request_with_no_usable_host_nothing_absolute_is_of_its_origin(authority: str) -> None:
    target = TargetURI("http", authority, "/videos/42")
    assert resolve(b"http://example.org/x", target) is None
    assert resolve(b"//unknown.invalid/x", target) is None
    assert resolve(b"7", target) in (None, Reference("/videos/7", ""))


def test_a_relative_reference_needs_no_host() -> None:
    assert resolve(b"7", TargetURI("http", "", "/videos/42")) == ("/videos/7", "")


@pytest.mark.parametrize("target", [TargetURI("ws", "a", "/"), TargetURI("", "", "*"), TargetURI("http", "a", "*")])
def test_what_has_no_origin_refers_to_nothing(target: TargetURI) -> None:
    assert resolve(b"/x", target) is None
    assert resolve(b"mailto:x", target) is None


def test_location_and_content_location_count_each_line_once() -> None:
    lines = [
        (b"Location", b"/a"),
        (b"content-location", b" /b "),
        (b"location", b"http://example.com/c"),
        (b"location", b"/d"),
        (b"content-location", b"/a?x"),
        (b"link", b"/e"),
    ]
    assert referred(lines, TARGET) == ("/a", "/d", "/b")


@given(
    st.binary(max_size=40) | st.text("htp:/?#[]@.%x1\\ e;é", max_size=20).map(str.encode),
    st.sampled_from(["http", "https", "ws", ""]),
    st.text(max_size=12) | st.just("example.org"),
    st.text("/ab.%?#;[é", max_size=12) | st.just("/a"),
    st.text(max_size=6),
)
@example(b"//[", "http", "example.org", "/", "")
@example(b"http://\xe2\x84\x80/", "http", "example.org", "/", "")
@example(b"x", "http", "example.org", "//[", "")
def test_nothing_makes_resolving_raise(reference: bytes, scheme: str, authority: str, path: str, query: str) -> None:
    found = resolve(reference, TargetURI(scheme, authority, path, query))
    assert found is None or found.path.startswith("/")


@given(st.sampled_from(["http://", "https://", "//", ""]), st.from_regex(r"[a-z.]{1,8}", fullmatch=True))
def test_only_the_own_host_is_ever_named(scheme: str, host: str) -> None:
    found = resolve(f"{scheme}{host}/x".encode(), TARGET)
    named = found is not None and scheme.endswith("//")
    assert named is (scheme in ("http://", "//") and host == "example.org")


# ---- a POST whose answer is that to a later GET ----

FRESH = (b"cache-control", b"max-age=60")
HERE = (b"content-location", b"/videos/42?q=1")


def _represents(*headers: Header, status: int = 200, request: tuple[Header, ...] = ()) -> bool:
    return represents_target(status, headers, TARGET, request=request, now=0.0)


@pytest.mark.parametrize(
    "freshness", [FRESH, (b"expires", b"Thu, 01 Jan 1970 00:01:00 GMT"), (b"cdn-cache-control", b"max-age=1")]
)
def test_a_fresh_answer_that_names_the_target_represents_it(freshness: Header) -> None:
    assert _represents(freshness, HERE)
    assert _represents(freshness, (b"Content-Location", b"http://example.org/videos/42?q=1"))
    assert _represents(freshness, (b"content-location", b"?q=1"))


def test_without_explicit_freshness_it_does_not() -> None:
    assert not _represents(HERE)
    assert not _represents(HERE, (b"last-modified", b"Thu, 01 Jan 1970 00:00:00 GMT"))


@pytest.mark.parametrize(
    "elsewhere",
    [b"/videos/42", b"/videos/42?q=2", b"/videos/43?q=1", b"https://example.org/videos/42?q=1", b"?q=1#x", b"http://["],
)
def test_what_names_another_uri_does_not(elsewhere: bytes) -> None:
    assert not _represents(FRESH, (b"content-location", elsewhere))


def test_what_names_none_or_two_does_not() -> None:
    assert not _represents(FRESH)
    assert not _represents(FRESH, HERE, HERE)


@pytest.mark.parametrize("status", [201, 202, 204, 206, 301, 303, 404, 500])
def test_only_a_200_can_be_told_to_a_get(status: int) -> None:
    assert not _represents(FRESH, HERE, status=status)


def test_a_part_is_not_taken_for_the_whole() -> None:
    assert not _represents(FRESH, HERE, request=((b"range", b"bytes=0-1"),))
