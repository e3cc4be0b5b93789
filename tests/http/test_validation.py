"""Validating stored responses: what is asked, which a 304 is about, what it changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_tiercache.http.fields import parse_http_date, values
from asgi_tiercache.http.validation import MAX_NOMINATED, conditions, freshened, head_agrees, own_headers, selected
from asgi_tiercache.types import Entry, Flag, Header, Stamp

DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"
SAME_DATE = b"Sunday, 06-Nov-94 08:49:37 GMT"
LATER = b"Mon, 07 Nov 1994 08:49:37 GMT"

NAMES = st.sampled_from(
    [b"etag", b"ETag", b"last-modified", b"content-length", b"content-type", b"Connection", b"age", b"x", b"date"]
)
HEADERS = st.lists(st.tuples(NAMES, st.binary(max_size=12) | st.sampled_from([b'"a"', b'W/"a"', DATE])), max_size=5)


def stored(
    *headers: Header, created: float = 0.0, status: int = 200, flags: Flag = Flag.NONE, body: bytes = b"body"
) -> Entry:
    entry = Entry(stamp=Stamp("", 0), created=created, lifetime=60, canonical=b"")
    entry.status, entry.headers, entry.flags, entry.body = status, headers, flags, body
    return entry


def tagged(tag: bytes, created: float = 0.0, *, status: int = 200, flags: Flag = Flag.NONE) -> Entry:
    return stored((b"etag", tag), created=created, status=status, flags=flags)


def dated(date: bytes, created: float = 0.0) -> Entry:
    return stored((b"last-modified", date), created=created)


# ---- the conditions (section 4.3.1) ----


def test_a_response_with_both_validators_is_asked_about_with_both() -> None:
    assert conditions([stored((b"etag", b'"a"'), (b"last-modified", DATE))]) == [
        (b"if-none-match", b'"a"'),
        (b"if-modified-since", DATE),
    ]


def test_a_date_is_repeated_as_it_was_sent() -> None:
    assert conditions([dated(SAME_DATE)]) == [(b"if-modified-since", SAME_DATE)]


def test_a_response_without_validators_is_not_asked_about() -> None:
    assert conditions([]) == conditions([stored((b"date", DATE), (b"x", b"y"))]) == []


def test_every_entity_tag_is_sent_once_and_in_order() -> None:
    entries = [tagged(b'"b"'), tagged(b'W/"a"'), stored(), tagged(b'"b"'), tagged(b'"c,"')]
    assert conditions(entries) == [(b"if-none-match", b'"b", W/"a", "c,"')]


def test_a_date_is_not_sent_for_one_of_several() -> None:
    both = stored((b"etag", b'"a"'), (b"last-modified", DATE))
    assert conditions([both, tagged(b'"b"')]) == [(b"if-none-match", b'"a", "b"')]
    assert conditions([both, dated(LATER)]) == [(b"if-none-match", b'"a"'), (b"if-modified-since", DATE)]


def test_of_several_that_have_only_dates_the_latest_response_is_asked_about() -> None:
    assert conditions([dated(DATE, created=1), dated(LATER, created=2)]) == [(b"if-modified-since", LATER)]
    assert conditions([dated(DATE, created=2), dated(LATER, created=1)]) == [(b"if-modified-since", DATE)]


def test_a_generated_entity_tag_is_never_sent() -> None:
    entry = stored((b"etag", b'"a"'), (b"last-modified", DATE), flags=Flag.GENERATED_ETAG)
    assert conditions([entry]) == [(b"if-modified-since", DATE)]
    assert conditions([tagged(b'"a"', flags=Flag.GENERATED_ETAG)]) == []
    assert own_headers(entry) == ((b"last-modified", DATE),)


@pytest.mark.parametrize("tag", [b"a", b'"a', b'a"', b'w/"a"', b'"a" \x00', b'"a b"', b'"a", "b"', b"*", b""])
def test_what_is_no_entity_tag_is_not_sent(tag: bytes) -> None:
    assert conditions([tagged(tag)]) == []


def test_two_validators_of_a_kind_are_none() -> None:
    assert conditions([stored((b"etag", b'"a"'), (b"etag", b'"a"'))]) == []
    assert conditions([stored((b"last-modified", DATE), (b"last-modified", DATE))]) == []
    assert conditions([dated(b"yesterday")]) == []


@pytest.mark.parametrize("status", [0, 1, 199, 206, 300, 301, 304, 404, 500])
def test_only_a_whole_success_is_asked_about(status: int) -> None:
    assert conditions([tagged(b'"a"', status=status)]) == []
    assert selected([tagged(b'"a"', status=status)], [(b"etag", b'"a"')]) == []


@pytest.mark.parametrize("status", [200, 204, 299])
def test_any_whole_success_is_asked_about(status: int) -> None:
    assert conditions([tagged(b'"a"', status=status)]) == [(b"if-none-match", b'"a"')]


def test_the_number_of_responses_asked_about_is_bounded() -> None:
    ((_, line),) = conditions([tagged(b'"%d"' % number) for number in range(10_000)])
    assert line.count(b",") == MAX_NOMINATED - 1


# ---- which ones a 304 is about (section 4.3.4) ----


def test_a_strong_validator_selects_all_that_have_it_the_latest_first() -> None:
    old, other, new = tagged(b'"a"', 1), tagged(b'"b"', 3), tagged(b'"a"', 2)
    assert selected([old, other, new], [(b"ETag", b'"a"')]) == [new, old]


@pytest.mark.parametrize("own", [b'"b"', b'W/"a"', b'"A"'])
def test_a_strong_validator_that_none_has_selects_none(own: bytes) -> None:
    entry = stored((b"etag", own), (b"last-modified", DATE))
    assert selected([entry], [(b"etag", b'"a"'), (b"last-modified", DATE)]) == []
    assert selected([dated(DATE)], [(b"etag", b'"a"'), (b"last-modified", DATE)]) == []


def test_beside_a_strong_validator_weak_ones_do_not_count() -> None:
    entry = stored((b"etag", b'W/"b"'), (b"last-modified", DATE))
    assert selected([entry], [(b"etag", b'"a"'), (b"etag", b'W/"b"'), (b"last-modified", DATE)]) == []


def test_a_weak_validator_selects_the_latest_that_matches() -> None:
    old, new, other = tagged(b'W/"a"', 1), tagged(b'W/"a"', 2), tagged(b'W/"b"', 3)
    assert selected([old, new, other], [(b"etag", b'W/"a"')]) == [new]
    assert selected([tagged(b'"a"')], [(b"etag", b'W/"b"')]) == []
    assert selected([stored()], [(b"etag", b'W/"b"')]) == []


def test_a_weak_entity_tag_matches_the_strong_one_of_the_same_text() -> None:
    entry = tagged(b'"a"')
    assert selected([entry], [(b"etag", b'W/"a"')]) == [entry]


def test_a_date_is_a_weak_validator() -> None:
    old, new, other = dated(DATE, 1), dated(SAME_DATE, 2), dated(LATER, 3)
    assert selected([old, new, other], [(b"last-modified", DATE)]) == [new]
    assert selected([other], [(b"last-modified", DATE)]) == []


def test_where_both_have_an_entity_tag_the_date_does_not_count() -> None:
    entry = stored((b"etag", b'W/"b"'), (b"last-modified", DATE))
    assert selected([entry], [(b"etag", b'W/"a"'), (b"last-modified", DATE)]) == []
    assert selected([entry], [(b"last-modified", DATE)]) == [entry]
    without = dated(DATE)
    assert selected([without], [(b"etag", b'W/"a"'), (b"last-modified", DATE)]) == [without]


def test_without_a_validator_the_only_one_asked_about_is_meant() -> None:
    entry = tagged(b'"a"')
    assert selected([entry], [(b"cache-control", b"max-age=5")]) == [entry]
    assert selected([stored(), entry], []) == [entry]
    assert selected([dated(DATE)], [(b"etag", b"malformed")])[0].headers == ((b"last-modified", DATE),)


def test_without_a_validator_none_of_several_is_meant() -> None:
    assert selected([tagged(b'"a"'), tagged(b'"b"')], []) == []
    assert selected([], []) == selected([stored()], []) == []


def test_a_generated_entity_tag_selects_nothing() -> None:
    assert selected([tagged(b'"a"', flags=Flag.GENERATED_ETAG)], [(b"etag", b'"a"')]) == []


# ---- what it changes (section 3.2) ----


def test_fields_are_replaced_and_others_stay() -> None:
    old = [(b"cache-control", b"max-age=1"), (b"x", b"stays"), (b"date", DATE)]
    update = [(b"Cache-Control", b"max-age=5"), (b"Date", LATER), (b"Y", b"new")]
    assert freshened(old, update) == (
        (b"x", b"stays"),
        (b"cache-control", b"max-age=5"),
        (b"date", LATER),
        (b"y", b"new"),
    )


def test_all_lines_of_a_name_are_replaced_together() -> None:
    old = [(b"link", b"</a>"), (b"x", b"y"), (b"link", b"</b>"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=1")]
    update = [(b"link", b"</c>"), (b"Link", b"</d>"), (b"set-cookie", b"a=2")]
    assert freshened(old, update) == ((b"x", b"y"), (b"link", b"</c>"), (b"link", b"</d>"), (b"set-cookie", b"a=2"))


def test_an_update_without_a_date_leaves_none_behind() -> None:
    assert freshened([(b"date", DATE), (b"x", b"y")], [(b"etag", b'"a"')]) == ((b"x", b"y"), (b"etag", b'"a"'))


@pytest.mark.parametrize("name", [b"content-type", b"content-location", b"content-language", b"content-foo", b"etag"])
def test_a_name_that_begins_with_content_is_no_exception(name: bytes) -> None:
    assert freshened([(name, b"old")], [(name, b"new")]) == ((name, b"new"),)


@pytest.mark.parametrize("name", [b"content-length", b"content-encoding", b"content-range"])
def test_what_says_how_the_stored_bytes_are_to_be_read_stays(name: bytes) -> None:
    assert freshened([(name, b"old")], [(name.title(), b"new")]) == ((name, b"old"),)
    assert freshened([], [(name, b"new")]) == ()


@pytest.mark.parametrize(
    "name",
    [
        *(b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"proxy-connection"),
        *(b"proxy-authenticate", b"proxy-authentication-info", b"proxy-authorization", b"age"),
    ],
)
def test_what_is_not_stored_does_not_update(name: bytes) -> None:
    assert freshened([(b"x", b"y")], [(name, b"new")]) == ((b"x", b"y"),)


@pytest.mark.parametrize(
    ("old", "update", "new"),
    [
        ([b"Accept-Encoding"], [], [b"Accept-Encoding"]),
        ([b"Origin, Accept-Encoding"], [b"origin"], [b"Origin, Accept-Encoding"]),
        ([b"Origin", b"Accept-Encoding"], [b"Origin"], [b"Origin", b"Accept-Encoding"]),
        ([b"Origin"], [b"Accept, origin"], [b"Accept, origin"]),
        ([b"Origin"], [b"Accept"], [b"Accept", b"Origin"]),
        ([b"Origin"], [b"*"], [b"*", b"Origin"]),
        ([], [b"Origin"], [b"Origin"]),
    ],
)
def test_what_the_stored_bytes_depend_on_stays(old: list[bytes], update: list[bytes], new: list[bytes]) -> None:
    """Middleware that compresses says `Vary` where it has something to compress, and a 304 is nothing."""
    before, told = ([(b"vary", value) for value in lines] for lines in (old, update))
    once = freshened(before, told)
    assert values(once, b"vary") == new
    assert values(freshened(once, told), b"vary") == new


def test_fields_that_connection_names_do_not_update() -> None:
    update = [(b"Connection", b"a, X"), (b"a", b"new"), (b"x", b"new"), (b"b", b"new")]
    assert freshened([(b"x", b"old")], update) == ((b"x", b"old"), (b"b", b"new"))


@given(HEADERS, HEADERS)
def test_no_headers_at_all_make_an_update_break_its_exceptions(old: list[Header], update: list[Header]) -> None:
    old = [(name.lower(), value) for name, value in old if name not in (b"age", b"Connection")]
    new = freshened(old, update)
    assert values(new, b"content-length") == values(old, b"content-length")
    assert not values(new, b"age")
    assert not values(new, b"connection")
    assert {name for name, _ in old} - {b"date"} <= {name for name, _ in new}
    assert {name for name, _ in new} <= {name.lower() for name, _ in (*old, *update)}


@given(st.lists(HEADERS, max_size=3), HEADERS)
def test_any_headers_at_all_can_be_validated(responses: list[list[Header]], update: list[Header]) -> None:
    entries = [stored(*((name.lower(), value) for name, value in headers)) for headers in responses]
    for name, value in conditions(entries):
        assert name == b"if-none-match" or parse_http_date(value, now=0.0) is not None
    about = selected(entries, update)
    assert all(entry in entries for entry in about)
    assert all(head_agrees(entry, update) in (True, False) for entry in entries)


@given(st.binary(max_size=6), st.binary(max_size=6))
def test_a_304_that_repeats_a_strong_entity_tag_is_about_its_response(tag: bytes, other: bytes) -> None:
    entries = [tagged(b'"%b"' % text) for text in (tag, other)]
    if conditions(entries[:1]):
        assert entries[0] in selected(entries, entries[0].headers)


# ---- HEAD (section 4.3.5) ----

HEAD_OF = stored((b"etag", b'"a"'), (b"last-modified", DATE), (b"content-length", b"4"))


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"x", b"y")],
        [(b"ETag", b'"a"')],
        [(b"Last-Modified", DATE)],
        [(b"Content-Length", b"4")],
        [(b"content-length", b"4"), (b"content-length", b"4")],
        list(HEAD_OF.headers),
    ],
)
def test_a_head_that_differs_in_nothing_updates(headers: list[Header]) -> None:
    assert head_agrees(HEAD_OF, headers)


@pytest.mark.parametrize(
    "line",
    [
        (b"etag", b'"b"'),
        (b"etag", b'W/"a"'),
        (b"last-modified", LATER),
        (b"content-length", b"5"),
        (b"content-length", b"x"),
        (b"content-length", b""),
    ],
)
def test_a_head_that_differs_in_one_field_makes_stale(line: Header) -> None:
    others = [other for other in HEAD_OF.headers if other[0] != line[0]]
    assert not head_agrees(HEAD_OF, [*others, line])


def test_a_head_with_a_validator_that_the_stored_response_has_not_makes_stale() -> None:
    assert not head_agrees(stored(), [(b"etag", b'"a"')])
    assert not head_agrees(stored(), [(b"last-modified", DATE)])
    assert not head_agrees(tagged(b'"a"', flags=Flag.GENERATED_ETAG), [(b"etag", b'"a"')])


def test_the_stored_bytes_count_where_no_length_is_stored() -> None:
    assert head_agrees(stored(body=b"12345"), [(b"content-length", b"5")])
    assert not head_agrees(stored(body=b"12345"), [(b"content-length", b"4")])
