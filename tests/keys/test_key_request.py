from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Scope

from asgi_tiercache.config import Policy
from asgi_tiercache.errors import ConfigError
from asgi_tiercache.keys.request import MEMO_BYTES, MEMO_ENTRIES, Pass, RequestKey, RequestKeys, user_hash
from tests.keys.scopes import http_scope

PLAIN = Policy(ttl=60)


def key_of(scope: Scope, policy: Policy = PLAIN, **options: Any) -> RequestKey:
    body_digest = options.pop("body_digest", b"")
    key = RequestKeys(policy, **options).of(scope, body_digest=body_digest)
    assert isinstance(key, RequestKey), key
    return key


def header_user(scope: Mapping[str, Any]) -> str | None:
    sent: dict[bytes, bytes] = dict(scope["headers"])
    return sent[b"x-user"].decode() if b"x-user" in sent else None


def test_a_key_reads_endpoint_then_hash() -> None:
    key = key_of(http_scope("/videos/42"), digest=lambda data: "h" * 32)
    assert key.text == "api:response:/videos/42:" + "h" * 32
    assert key.path == "/videos/42"


def test_a_namespace_begins_the_key_and_leaves_the_rest_alone() -> None:
    plain = key_of(http_scope())
    assert key_of(http_scope(), namespace="shop") == plain._replace(text="shop:" + plain.text)


def test_a_path_cannot_bring_structure_into_a_key() -> None:
    path = "/a:b/{c}/*?[d] e\n"
    key = key_of(http_scope(path, raw_path=path.encode()))
    assert key.text.count(":") == 3
    assert not set(key.text) & set("{}*?[] \n")


def test_the_endpoint_is_the_raw_path_and_the_path_what_the_application_sees() -> None:
    one = key_of(http_scope("/a~b", raw_path=b"/a%7Eb"))
    other = key_of(http_scope("/a~b", raw_path=b"/a~b"))
    assert one.text.startswith("api:response:/a%257Eb:")
    assert one.path == other.path == "/a~b"
    assert one.canonical != other.canonical


@pytest.mark.parametrize(
    "options",
    [
        {"stale_while_revalidate": 5},
        {"stale_if_error": 5, "soft_timeout": 1, "hard_timeout": 2},
        {"lock": False},
        {"lock_wait": 1},
        {"early_refresh": 1, "jitter": 0.1, "refresh_ahead": True},
        {"negative": {LookupError: 1}},
    ],
    ids=lambda options: next(iter(options)),
)
def test_how_responses_age_is_no_part_of_their_keys(options: dict[str, Any]) -> None:
    assert key_of(http_scope(), PLAIN.but(**options)) == key_of(http_scope())


@pytest.mark.parametrize(
    ("root", "path", "place"),
    [
        ("/app", "/app/x", "/app/x"),
        ("/app", "/x", "/app/x"),
        ("/app", "/apple", "/app/apple"),
        ("/app/", "/app", "/app"),
        ("", "/x", "/x"),
    ],
)
def test_the_root_path_is_part_of_the_path_once(root: str, path: str, place: str) -> None:
    key = key_of(http_scope(path, root_path=root))
    assert key.path == place
    assert key.text.startswith(f"api:response:{place}:")


def test_a_server_without_raw_path_is_understood() -> None:
    key = key_of(http_scope("/caf\u00e9", raw_path=...))
    assert key.text.startswith("api:response:/caf%25C3%25A9:")
    assert key.path == "/caf%C3%A9"


def test_a_hashed_path_is_in_no_part_of_the_key() -> None:
    key = key_of(http_scope("/reset/s3cr3t"), PLAIN.but(hash_path=True))
    assert "s3cr3t" not in key.text + key.path
    assert b"s3cr3t" not in key.canonical
    assert key.canonical != key_of(http_scope("/reset/other"), PLAIN.but(hash_path=True)).canonical


KEYED = PLAIN.but(vary_on=["authorization", "x-tenant"], cookies=["session"], user=header_user, body=True)
DIFFERENCES: dict[str, Scope] = {
    "none": http_scope(),
    "method": http_scope(method="POST"),
    "scheme": http_scope(scheme="https"),
    "host": http_scope(host=b"example.com"),
    "port": http_scope(host=b"example.org:8080"),
    "trailing dot": http_scope(host=b"example.org."),
    "no host": http_scope(host=None),
    "empty host": http_scope(host=b""),
    "server": http_scope(host=None, server=("example.org", 80)),
    "no server": http_scope(host=None, server=None),
    "root path": http_scope(root_path="/videos"),
    "path": http_scope(path="/videos/43"),
    "path alone": http_scope(path="/videos/43", raw_path=b"/videos/42"),
    "raw path alone": http_scope(raw_path=b"/videos/43"),
    "no raw path": http_scope(raw_path=...),
    "query": http_scope(query=b"a=1"),
    "header": http_scope(headers=[(b"x-tenant", b"a")]),
    "empty header": http_scope(headers=[(b"x-tenant", b"")]),
    "header twice": http_scope(headers=[(b"x-tenant", b"a"), (b"x-tenant", b"b")]),
    "header in other order": http_scope(headers=[(b"x-tenant", b"b"), (b"x-tenant", b"a")]),
    "header joined": http_scope(headers=[(b"x-tenant", b"a, b")]),
    "other header": http_scope(headers=[(b"authorization", b"a")]),
    "cookie": http_scope(headers=[(b"cookie", b"session=a")]),
    "empty cookie": http_scope(headers=[(b"cookie", b"session=")]),
    "cookie twice": http_scope(headers=[(b"cookie", b"session=a; session=b")]),
    "cookie in other order": http_scope(headers=[(b"cookie", b"session=b; session=a")]),
    "user": http_scope(headers=[(b"x-user", b"bob")]),
    "content type": http_scope(headers=[(b"content-type", b"text/plain")]),
    "content encoding": http_scope(headers=[(b"content-encoding", b"gzip")]),
}


def test_no_two_requests_that_differ_in_what_is_keyed_share_a_canonical_form() -> None:
    policy = KEYED.but(user=lambda scope: header_user(scope) or "ann")
    keys = {label: key_of(scope, policy) for label, scope in DIFFERENCES.items()}
    keys["body"] = key_of(http_scope(), policy, body_digest=b"d")
    assert len({key.canonical for key in keys.values()}) == len(keys)
    assert len({key.text for key in keys.values()}) == len(keys)


@pytest.mark.parametrize("policy", [Policy.http(), Policy.rfc9111(), PLAIN], ids=["http", "rfc9111", "explicit"])
def test_the_target_counts_in_every_mode(policy: Policy) -> None:
    labels = ["none", "scheme", "host", "root path", "path alone", "raw path alone", "query"]
    assert len({key_of(DIFFERENCES[label], policy).canonical for label in labels}) == len(labels)


@pytest.mark.parametrize(
    "scope",
    [
        http_scope(host=b"EXAMPLE.org"),
        http_scope(host=b"example.org:80"),
        http_scope(method="HEAD"),
        http_scope(headers=[(b"x-forwarded-host", b"evil.example")]),
        http_scope(headers=[(b"content-length", b"0")]),
        http_scope(client=("198.51.100.7", 1)),
        http_scope(http_version="2"),
        http_scope(headers=[(b"if-match", b'"a"')]),
    ],
)
def test_what_is_not_keyed_does_not_make_another_key(scope: Scope) -> None:
    assert key_of(scope) == key_of(http_scope())


def test_https_has_a_default_port_of_its_own() -> None:
    plain = key_of(http_scope(scheme="https"))
    assert key_of(http_scope(scheme="https", host=b"example.org:443")) == plain
    assert key_of(http_scope(scheme="https", host=b"example.org:80")) != plain


def test_unkeyed_cookies_do_not_make_another_key() -> None:
    policy = PLAIN.but(cookies=["lang"])
    one = key_of(http_scope(headers=[(b"cookie", b"_ga=1; lang=en")]), policy)
    other = key_of(http_scope(headers=[(b"cookie", b"lang=en"), (b"cookie", b"_ga=2")]), policy)
    assert one == other


def test_names_of_cookies_do_not_run_into_each_other() -> None:
    policy = PLAIN.but(cookies=["a", "b"])
    one = key_of(http_scope(headers=[(b"cookie", b"a=1")]), policy)
    other = key_of(http_scope(headers=[(b"cookie", b"b=1")]), policy)
    assert one.canonical != other.canonical


def test_a_dropped_query_parameter_makes_no_other_key_and_the_key_tells_what_is_left() -> None:
    keys = RequestKeys(PLAIN.but(query=["q"]))
    one, other = keys.of(http_scope(query=b"utm_id=7&q=a%7Eb")), keys.of(http_scope(query=b"q=a~b"))
    assert isinstance(one, RequestKey)
    assert one == other
    assert one.query == b"q=a~b"


def test_in_http_mode_the_query_counts_as_sent() -> None:
    one, other = http_scope(query=b"b=1&a=%7e"), http_scope(query=b"a=~&b=1")
    assert key_of(one, Policy.http()).canonical != key_of(other, Policy.http()).canonical
    assert key_of(one, Policy.http()).query == b"b=1&a=%7e"
    assert key_of(one).canonical == key_of(other).canonical


@pytest.mark.parametrize(
    "changed",
    [
        PLAIN.but(version="2"),
        PLAIN.but(tags=["video:{video_id}"]),
        PLAIN.but(query=["q"]),
        PLAIN.but(drop_query=["q"]),
        PLAIN.but(vary_on=["x-tenant"]),
        PLAIN.but(cookies=["a"]),
        PLAIN.but(ignore=["cookie"]),
        PLAIN.but(strict=False),
        PLAIN.but(body=True),
        PLAIN.but(hash_path=True),
        PLAIN.but(key=lambda scope: "k"),
        PLAIN.but(user=lambda scope: "u"),
        Policy.http(),
        Policy.rfc9111(),
    ],
)
def test_a_deployment_that_changes_key_options_starts_afresh(changed: Policy) -> None:
    assert key_of(http_scope(), changed).canonical != key_of(http_scope()).canonical


def one_source(scope: Mapping[str, Any]) -> str:
    return "same"


def other_source(scope: Mapping[str, Any]) -> str:
    return "same"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (PLAIN, Policy.http(strict=True)),
        (Policy.http(), Policy.rfc9111()),
        (PLAIN.but(vary_on=["x-a"]), PLAIN.but(vary_on=["x-b"])),
        (PLAIN.but(cookies=["a"]), PLAIN.but(cookies=["b"])),
        (PLAIN.but(user=one_source), PLAIN.but(user=other_source)),
        (PLAIN.but(key=one_source), PLAIN.but(key=other_source)),
        (PLAIN.but(key=one_source), PLAIN.but(user=one_source)),
    ],
)
def test_options_count_even_where_the_request_has_nothing_for_them(one: Policy, other: Policy) -> None:
    assert key_of(http_scope(), one).canonical != key_of(http_scope(), other).canonical


def test_options_that_do_not_shape_a_response_keep_what_is_stored() -> None:
    assert key_of(http_scope(), PLAIN.but(ttl=5, compress=True)) == key_of(http_scope())


def test_a_callable_counts_by_its_name_and_not_by_its_address() -> None:
    def made() -> Policy:
        return PLAIN.but(key=lambda scope: "same")

    assert key_of(http_scope(), made()) == key_of(http_scope(), made())


def test_the_key_callable_adds_to_the_key() -> None:
    def policy(value: object) -> Policy:
        return PLAIN.but(key=lambda scope: value)

    values = ["", "1", 1, b"1", 2, "\ud800"]
    assert len({key_of(http_scope(), policy(value)).canonical for value in values}) == len(values)
    assert key_of(http_scope("/a"), policy("x")).canonical != key_of(http_scope("/b"), policy("x")).canonical


def test_a_callable_that_answers_differently_makes_another_key_each_time() -> None:
    answers = iter(["a", "b", "a"])
    keys = RequestKeys(PLAIN.but(user=lambda scope: next(answers)))
    first, second, third = (keys.of(http_scope()) for _ in range(3))
    assert first != second
    assert first == third


@pytest.mark.parametrize("answer", [None, True, 1.5, ["u"], object()])
def test_a_callable_without_a_usable_answer_lets_the_request_pass(answer: Any) -> None:
    assert RequestKeys(PLAIN.but(user=lambda scope: answer)).of(http_scope()) == Pass("user-callable")
    assert RequestKeys(PLAIN.but(key=lambda scope: answer)).of(http_scope()) == Pass("key-callable")


def test_a_callable_that_raises_lets_the_request_pass() -> None:
    def user(scope: Mapping[str, Any]) -> str:
        return str(scope["user"].name)

    assert RequestKeys(PLAIN.but(user=user)).of(http_scope()) == Pass("user-callable")
    assert RequestKeys(Policy.http(key=user)).of(http_scope()) == Pass("key-callable")


def test_an_asynchronous_callable_is_a_configuration_error() -> None:
    async def user(scope: Mapping[str, Any]) -> str:
        return "u"

    with pytest.raises(ConfigError, match=r"^user: .*user"):
        RequestKeys(PLAIN.but(user=user))


@pytest.mark.parametrize("user", ["ann", b"ann"])
def test_the_key_carries_the_hash_of_its_user(user: str | bytes) -> None:
    key = key_of(http_scope(), PLAIN.but(user=lambda scope: user))
    assert key.user == user_hash(user) == hashlib.sha256(b"ann").hexdigest()
    assert key_of(http_scope()).user is None


def test_a_number_and_its_text_are_one_user_to_whoever_invalidates() -> None:
    number, text = (key_of(http_scope(), PLAIN.but(user=lambda scope, u=u: u)) for u in (7, "7"))
    assert number.user == text.user == user_hash(7) == user_hash("7")
    assert number.canonical != text.canonical


def test_credentials_are_in_no_part_of_a_key() -> None:
    headers = [(b"authorization", b"Bearer s3cr3t"), (b"cookie", b"session=s3cr3t"), (b"x-user", b"s3cr3t")]
    key = key_of(http_scope(headers=headers), KEYED.but(key=lambda scope: "s3cr3t"))
    assert b"s3cr3t" not in key.canonical
    assert "s3cr3t" not in key.text + key.path + str(key.user)


def test_a_keyed_body_counts_and_an_unkeyed_one_passes_by() -> None:
    scope = http_scope(headers=[(b"content-length", b"3")])
    assert RequestKeys(PLAIN).of(scope) == Pass("body")
    policy = PLAIN.but(body=True)
    one, other = (key_of(scope, policy, body_digest=digest) for digest in (b"a", b"b"))
    assert one.canonical != other.canonical
    assert key_of(http_scope(), body_digest=b"a") == key_of(http_scope())


@pytest.mark.parametrize("policy", [PLAIN, Policy.http(), Policy.rfc9111()], ids=["explicit", "http", "rfc9111"])
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ((b"content-length", b"1"), "body"),
        ((b"content-length", b"one"), "body"),
        ((b"transfer-encoding", b"chunked"), "body"),
        ((b"host", b"evil.example"), "host"),
        ((b"host", b"example.org"), "host"),
    ],
)
def test_a_request_passes_by_in_every_mode(policy: Policy, line: tuple[bytes, bytes], reason: str) -> None:
    assert RequestKeys(policy).of(http_scope(headers=[line])) == Pass(reason)


def test_a_request_for_less_than_all_has_the_key_of_the_whole_and_says_so() -> None:
    whole, part, other, condition = (
        key_of(http_scope(headers=lines))
        for lines in (
            [],
            [(b"range", b"bytes=0-1")],
            [(b"range", b"bytes=5-"), (b"range", b"x")],
            [(b"if-none-match", b'"a"')],
        )
    )
    assert (whole.selective, whole.partial) == (False, False)
    assert (part.selective, part.partial) == (other.selective, other.partial) == (True, True)
    assert (condition.selective, condition.partial) == (True, False)
    assert all(each[:5] == whole[:5] for each in (part, other, condition))


@pytest.mark.parametrize("name", [b"if-match", b"if-unmodified-since"])
def test_what_no_cache_evaluates_goes_to_the_handler_where_requests_are_heeded(name: bytes) -> None:
    scope = http_scope(headers=[(name, b"*")])
    for policy in (Policy.http(), Policy.rfc9111()):
        assert RequestKeys(policy).of(scope) == Pass(name.decode())
    assert key_of(scope, PLAIN) == key_of(http_scope(), PLAIN)


def test_a_collision_of_hashes_gives_one_text_and_two_canonical_forms() -> None:
    keys = RequestKeys(PLAIN, digest=lambda data: "0")
    one, other = keys.of(http_scope(query=b"a=1")), keys.of(http_scope(query=b"a=2"))
    assert isinstance(one, RequestKey)
    assert isinstance(other, RequestKey)
    assert one.text == other.text
    assert one.canonical != other.canonical


def test_a_repeated_request_costs_no_second_hash() -> None:
    hashed: list[bytes] = []

    def digest(data: bytes) -> str:
        hashed.append(data)
        return "h"

    keys = RequestKeys(PLAIN, digest=digest)
    first = keys.of(http_scope())
    assert keys.of(http_scope()) is first
    assert len(hashed) == 1


@pytest.mark.parametrize("query", [b"%d", b"%d&" + b"x" * (MEMO_BYTES // 64)], ids=["many", "large"])
def test_what_is_remembered_is_bounded(query: bytes) -> None:
    hashed = 0

    def digest(data: bytes) -> str:
        nonlocal hashed
        hashed += 1
        return "h"

    keys = RequestKeys(PLAIN, digest=digest)
    count = MEMO_ENTRIES + 1 if len(query) < 100 else 65
    for number in [*range(count), 0]:
        keys.of(http_scope(query=query % number))
    assert hashed == count + 1
    assert repr(keys) == "<RequestKeys, 2 remembered>" if count > MEMO_ENTRIES else "remembered" in repr(keys)


def test_a_request_larger_than_the_memory_is_not_remembered() -> None:
    keys = RequestKeys(PLAIN)
    assert keys.of(http_scope(query=b"a" * MEMO_BYTES)) == keys.of(http_scope(query=b"a" * MEMO_BYTES))
    assert repr(keys) == "<RequestKeys, 0 remembered>"


def test_lines_without_a_value_count_towards_what_is_remembered() -> None:
    keys = RequestKeys(PLAIN)
    for number in range(100):
        keys.of(http_scope(query=b"%d" % number, headers=[(b"if-none-match", b"")] * 1_000))
    assert repr(keys) != "<RequestKeys, 100 remembered>"


def test_a_server_address_in_a_list_is_understood() -> None:
    one, other = (http_scope(host=None, server=kind(["testserver", 80])) for kind in (list, tuple))
    assert key_of(one) == key_of(other)


VALUES = st.sampled_from([b"", b"a", b"b", b"a,b", b"1:a"])
REQUESTS = st.fixed_dictionaries(
    {
        "path": st.sampled_from(["/", "/a", "/a/b"]),
        "query": st.sampled_from([b"", b"a=1", b"a=1&a=2", b"a=2&a=1"]),
        "host": st.sampled_from([None, b"", b"a", b"b:81"]),
        "root_path": st.sampled_from(["", "/a"]),
        "raw_path": st.sampled_from([..., b"/", b"/a", b"/a/b"]),
        "headers": st.lists(st.tuples(st.sampled_from([b"x-a", b"x-b"]), VALUES), max_size=3).map(sorted),
    }
)


@settings(max_examples=300)
@given(REQUESTS, REQUESTS)
def test_two_requests_share_a_canonical_form_only_if_they_are_alike(one: dict[str, Any], other: dict[str, Any]) -> None:
    policy = PLAIN.but(vary_on=["x-a", "x-b"])
    same = key_of(http_scope(**one), policy).canonical == key_of(http_scope(**other), policy).canonical
    assert same == (one == other)
