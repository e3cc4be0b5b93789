from __future__ import annotations

from urllib.parse import quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from asgi_tiercache.config import Policy
from asgi_tiercache.keys.query import QueryForm

QUERIES = st.one_of(
    st.lists(st.sampled_from(["a=1", "a=2", "b", "b=", "%61=3", "c=%7e", "c=+", "%", "=", "", "é", "%ff=1"]))
    .map("&".join)
    .map(lambda text: text.encode("latin-1")),
    st.text(alphabet="ab=&%+ 2c~.;é").map(lambda text: text.encode("latin-1")),
    st.binary(max_size=30),
)
ANY = QueryForm(Policy(ttl=1))


def form(**options: object) -> QueryForm:
    return QueryForm(Policy(ttl=1).but(**options))


@given(QUERIES)
def test_a_canonical_query_is_its_own_canonical_form(query: bytes) -> None:
    once = ANY.canonical(query)
    assert ANY.canonical(once) == once


@given(QUERIES)
@example(b"a=%2%35&%e9=1&\xe9=2&b+c=%20")
def test_a_canonical_query_is_read_like_the_one_sent(query: bytes) -> None:
    # QueryParams compare without regard to the order of different names, and with regard to that of equal ones.
    assert QueryParams(ANY.canonical(query)) == QueryParams(query)


@given(QUERIES, st.sets(st.sampled_from(["a", "b", "c", "é", " "]), min_size=1))
def test_a_handler_reads_exactly_the_allowed_parameters(query: bytes, names: set[str]) -> None:
    allowed = [(name, value) for name, value in QueryParams(query).multi_items() if name in names]
    assert QueryParams(form(query=sorted(names)).canonical(query)) == QueryParams(allowed)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.text(max_size=3)), max_size=6))
def test_the_order_of_different_names_does_not_count(parameters: list[tuple[str, str]]) -> None:
    def sent(pairs: list[tuple[str, str]]) -> bytes:
        return "&".join(f"{name}={quote_plus(value)}" for name, value in pairs).encode()

    grouped = [pair for name in "cab" for pair in parameters if pair[0] == name]
    assert ANY.canonical(sent(grouped)) == ANY.canonical(sent(parameters))


def test_repeated_names_keep_their_order() -> None:
    assert ANY.canonical(b"b=1&a=2&b=0&a=1") == b"a=2&a=1&b=1&b=0"
    assert ANY.canonical(b"a=1&a=2") != ANY.canonical(b"a=2&a=1")


@pytest.mark.parametrize(
    ("sent", "canonical"),
    [
        (b"a=%7E", b"a=~"),
        (b"a=x+y", b"a=x%20y"),
        (b"a=%2f", b"a=%2F"),
        (b"a=/", b"a=%2F"),
        (b"%61=1", b"a=1"),
        (b"a=1&&b=2&", b"a=1&b=2"),
        (b"a=b=c", b"a=b%3Dc"),
        (b"a=%zz", b"a=%25zz"),
        (b"a=%2%35", b"a=%2525"),
    ],
)
def test_one_parameter_has_one_spelling(sent: bytes, canonical: bytes) -> None:
    assert ANY.canonical(sent) == canonical


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"a=1%262", b"a=1&2"),
        (b"a%3D=1", b"a==1"),
        (b"a=%2B", b"a=+"),
        (b"a=%E9", b"a=\xe9"),
        (b"a", b"a="),
        (b"a=%00", b"a=0"),
    ],
)
def test_different_parameters_stay_different(one: bytes, other: bytes) -> None:
    assert ANY.canonical(one) != ANY.canonical(other)


def test_dropped_names_and_beginnings_are_gone() -> None:
    query = form(drop_query=["utm_*", "ref"])
    assert query.canonical(b"utm_source=x&q=1&ref=y&%75tm_medium=z&referrer=1&utm=2") == b"q=1&referrer=1&utm=2"


def test_names_are_recognised_however_they_are_encoded() -> None:
    assert form(query=["b c", "\u00e9"]).canonical(b"b+c=1&b%20c=2&%C3%A9=3&bc=4") == b"b%20c=1&b%20c=2&%C3%A9=3"


def test_an_asterisk_counts_as_a_pattern_only_at_the_end() -> None:
    assert form(drop_query=["a*b"]).canonical(b"axb=1&a%2Ab=2") == b"axb=1"


def test_dropping_reduces_what_an_allow_list_leaves() -> None:
    assert form(query=["q", "utm_id"], drop_query=["utm_*"]).canonical(b"q=1&utm_id=2&x=3") == b"q=1"


def test_an_empty_allow_list_leaves_nothing() -> None:
    assert form(query=[]).canonical(b"a=1") == b""


@pytest.mark.parametrize("policy", [Policy.http(), Policy.rfc9111()])
def test_in_http_mode_a_query_counts_as_sent(policy: Policy) -> None:
    assert QueryForm(policy).canonical(b"b=%7e&a=1&&") == b"b=%7e&a=1&&"
