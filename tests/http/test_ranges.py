"""Parts of a response that is at hand (RFC 9110, section 14; RFC 9111, section 3.3)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_tiercache.http.ranges import (
    MAX_RANGES,
    Answer,
    ContentRange,
    Range,
    Selection,
    Span,
    completed,
    parse_content_range,
    parse_range,
    render_parts,
    select,
    select_stored_part,
)
from asgi_tiercache.types import Header

NOW = 784_111_777.0
DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"
EARLIER = b"Sat, 05 Nov 1994 08:49:37 GMT"
TEN_THOUSAND = b"".join(b"%04d" % number for number in range(2500))


def ranges(value: bytes) -> list[Header]:
    return [(b"range", value)]


def spans(value: bytes, size: int, *response: Header) -> list[tuple[int, int]] | None:
    selection = select(ranges(value), response, size, received=NOW)
    return None if selection is None else [(span.first, span.last) for span in selection.spans]


def cut(value: bytes, body: bytes, *headers: Header, extra: tuple[Header, ...] = ()) -> Answer | None:
    selection = select([*ranges(value), *extra], headers, len(body), received=NOW)
    return None if selection is None else render_parts(selection, headers, body)


def field(answer: Answer, name: bytes) -> bytes | None:
    found = [value for key, value in answer.headers if key == name]
    assert len(found) < 2
    return found[0] if found else None


def parts(answer: Answer) -> list[tuple[dict[str, str], bytes]]:
    """The parts of a `multipart/byteranges` body: field lines and content."""
    kind = field(answer, b"content-type") or b""
    match = re.fullmatch(rb"multipart/byteranges; boundary=([0-9a-f]+)", kind)
    assert match, kind
    delimiter = b"\r\n--" + match[1]
    before, *pieces, after = (b"\r\n" + answer.body).split(delimiter)
    assert (before, after) == (b"", b"--\r\n")
    found = []
    for piece in pieces:
        head, separator, content = piece.partition(b"\r\n\r\n")
        assert separator
        assert head.startswith(b"\r\n")
        lines = [line.split(": ", 1) for line in head[2:].decode("latin-1").split("\r\n")]
        found.append(({line[0]: line[1] for line in lines}, content))
    return found


# ---- Range ----


@pytest.mark.parametrize(
    ("value", "found"),
    [  # the RFC's own examples, section 14.1.2, of 10,000 bytes
        (b"bytes=0-499", [(0, 499)]),
        (b"bytes=500-999", [(500, 999)]),
        (b"bytes=-500", [(9500, 9999)]),
        (b"bytes=9500-", [(9500, 9999)]),
        (b"bytes=0-0,-1", [(0, 0), (9999, 9999)]),
        (b"bytes= 0-999, 4500-5499, -1000", [(0, 999), (4500, 5499), (9000, 9999)]),
        (b"bytes=500-600,601-999", [(500, 999)]),
        (b"bytes=500-700,601-999", [(500, 999)]),
    ],
)
def test_the_examples(value: bytes, found: list[tuple[int, int]]) -> None:
    assert spans(value, 10_000) == found


@pytest.mark.parametrize(
    ("value", "asked"),
    [
        (b"bytes=0-0", Range(0, 0)),
        (b"BYTES=1-2", Range(1, 2)),
        (b"bytes=007-08", Range(7, 8)),
        (b"bytes=5-", Range(5, None)),
        (b"bytes=-5", Range(None, 5)),
        (b"bytes=-0", Range(None, 0)),
        (b"bytes=,, 1-2 ,\t,", Range(1, 2)),
    ],
)
def test_what_is_a_range(value: bytes, asked: Range) -> None:
    assert parse_range(ranges(value)) == (asked,)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"bytes",
        b"bytes=",
        b"bytes=,",
        b"bytes=-",
        b"bytes=a",
        b"bytes=0x1-2",
        b"bytes=1.0-2",
        b"bytes=+1-2",
        b"bytes=--1",
        b"bytes=1 - 2",
        b"bytes=1-2-3",
        b"bytes =1-2",
        b"bytes:1-2",
        b"bytes=2-1",
        b"bytes=0-0,2-1",  # one invalid member, and the set is
        b"bytes=0-0;1-1",
        b"bytes=0-0,x",
        b"bytes=\xb2-\xb3",
        b"bytes=0-1\n",
        b"items=0-1",
        b"none=0-1",
    ],
)
def test_what_is_to_be_ignored(value: bytes) -> None:
    assert parse_range(ranges(value)) is None


def test_an_absent_or_repeated_field_asks_for_nothing() -> None:
    assert parse_range([(b"accept", b"bytes=0-1")]) is None
    assert parse_range(ranges(b"bytes=0-1") * 2) is None


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"bytes=0-" + b"9" * 10_000, [(0, 9)]),
        (b"bytes=-" + b"9" * 10_000, [(0, 9)]),
        (b"bytes=" + b"9" * 10_000 + b"-", []),
        (b"bytes=" + b"0" * 10_000 + b"1-2", [(1, 2)]),
        (b"bytes=" + b"9" * 30 + b"-1" + b"0" * 30, []),
        (b"bytes=1" + b"0" * 30 + b"-" + b"9" * 30, None),  # ends before it begins
        (b"bytes=1" + b"0" * 9_999 + b"-" + b"9" * 9_999, None),
        (b"bytes=" + b"9" * 9_999 + b"-1" + b"0" * 9_999, []),
    ],
)
def test_numbers_of_any_length_keep_their_meaning(value: bytes, found: list[tuple[int, int]] | None) -> None:
    assert spans(value, 10) == found


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"bytes=0-9", [(0, 9)]),
        (b"bytes=0-99", [(0, 9)]),
        (b"bytes=9-", [(9, 9)]),
        (b"bytes=-99", [(0, 9)]),
        (b"bytes=10-", []),
        (b"bytes=10-11", []),
        (b"bytes=-0", []),
        (b"bytes=10-,-0", []),
        (b"bytes=10-,3-4,-0", [(3, 4)]),
    ],
)
def test_what_does_not_exist_is_left_out(value: bytes, found: list[tuple[int, int]]) -> None:
    assert spans(value, 10) == found


@pytest.mark.parametrize(
    ("value", "found"),
    [(b"bytes=0-", []), (b"bytes=0-5", []), (b"bytes=-0", []), (b"bytes=-1", None), (b"bytes=0-,-1", None)],
)
def test_of_nothing_only_the_end_is_nothing(value: bytes, found: list[tuple[int, int]] | None) -> None:
    assert spans(value, 0) == found


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"bytes=8-9,0-1", [(8, 9), (0, 1)]),  # in the order that is asked for
        (b"bytes=8-9,0-1,2-3", [(8, 9), (0, 3)]),
        (b"bytes=4-5,8-9,0-4", [(0, 5), (8, 9)]),
        (b"bytes=0-4,8-9,4-5", [(0, 5), (8, 9)]),
        (b"bytes=0-0,4-5,5-6", [(0, 0), (4, 6)]),
        (b"bytes=0-1,0-1", [(0, 1)]),
        (b"bytes=0-9,3-4", [(0, 9)]),
        (b"bytes=0-1,2-3,4-5,6-7", [(0, 7)]),  # touching is not overlapping
        (b"bytes=0-1,0-1,0-1", None),
        (b"bytes=0-9,1-2,5-6", None),
        (b"bytes=0-1,1-2,4-5,5-6", None),
        (b"bytes=0-,0-,0-,0-", None),
    ],
)
def test_what_overlaps_or_touches_is_joined_unless_it_overlaps_too_often(
    value: bytes, found: list[tuple[int, int]] | None
) -> None:
    assert spans(value, 10) == found


def test_too_many_ranges_are_ignored() -> None:
    members = [b"%d-%d" % (2 * number, 2 * number) for number in range(MAX_RANGES + 1)]
    assert len(spans(b"bytes=" + b",".join(members[:-1]), 1000) or []) == MAX_RANGES
    assert spans(b"bytes=" + b",".join(members), 1000) is None
    assert spans(b"bytes=" + b"0-0," * 10_000, 1000) is None


# ---- answers ----


def test_a_single_range_is_answered_with_it() -> None:
    body = bytes(47_022)
    answer = cut(b"bytes=21010-47021", body, (b"content-type", b"image/gif"), (b"content-length", b"47022"))
    assert answer == (  # as in section 15.3.7.1
        206,
        [
            (b"content-type", b"image/gif"),
            (b"content-range", b"bytes 21010-47021/47022"),
            (b"content-length", b"26012"),
        ],
        bytes(26_012),
    )


def test_several_ranges_are_answered_with_a_part_for_each() -> None:
    answer = cut(b"bytes=500-999,7000-7999", TEN_THOUSAND, (b"content-type", b"application/pdf"))
    assert answer is not None
    assert answer.status == 206
    assert field(answer, b"content-range") is None
    assert field(answer, b"content-length") == b"%d" % len(answer.body)
    assert parts(answer) == [
        ({"Content-Type": "application/pdf", "Content-Range": "bytes 500-999/10000"}, TEN_THOUSAND[500:1000]),
        ({"Content-Type": "application/pdf", "Content-Range": "bytes 7000-7999/10000"}, TEN_THOUSAND[7000:8000]),
    ]


def test_parts_of_what_has_no_type_have_none() -> None:
    answer = cut(b"bytes=0-0,9-9", TEN_THOUSAND)
    assert answer is not None
    assert [list(fields) for fields, _ in parts(answer)] == [["Content-Range"], ["Content-Range"]]


def test_the_boundary_is_the_same_for_the_same_parts_and_in_none_of_them() -> None:
    one, again = (cut(b"bytes=0-99,200-299", TEN_THOUSAND) for _ in range(2))
    other = cut(b"bytes=0-99,204-303", TEN_THOUSAND)
    assert one == again
    assert one is not None
    assert other is not None
    assert field(one, b"content-type") != field(other, b"content-type")
    taken = (field(one, b"content-type") or b"").partition(b"boundary=")[2]
    answer = cut(b"bytes=0-99,200-299", (b"\r\n--" + taken) * 300)
    assert answer is not None
    assert len(parts(answer)) == 2


def test_several_parts_of_an_encoded_response_are_not_sent() -> None:
    encoded = (b"content-encoding", b"gzip")
    assert spans(b"bytes=0-1,4-5", 10, encoded) is None
    assert spans(b"bytes=0-1,2-5", 10, encoded) == [(0, 5)]
    assert spans(b"bytes=0-1", 10, encoded) == [(0, 1)]


def test_what_does_not_exist_is_refused_with_the_length() -> None:
    headers: list[Header] = [
        (b"content-type", b"text/plain"),
        (b"content-length", b"10"),
        (b"etag", b'"a"'),
        (b"last-modified", DATE),
        (b"cache-control", b"max-age=60"),
        (b"cdn-cache-control", b"max-age=60"),
        (b"expires", DATE),
        (b"pragma", b"no-cache"),
        (b"date", DATE),
        (b"vary", b"origin"),
        (b"access-control-allow-origin", b"*"),
        (b"age", b"1"),
        (b"cache-status", b"tiercache; hit"),
    ]
    answer = cut(b"bytes=10-", b"0123456789", *headers)
    assert answer is not None
    assert (answer.status, answer.body) == (416, b"")
    assert answer.headers == [
        (b"date", DATE),
        (b"vary", b"origin"),
        (b"access-control-allow-origin", b"*"),
        (b"age", b"1"),
        (b"cache-status", b"tiercache; hit"),
        (b"content-range", b"bytes */10"),
        (b"content-length", b"0"),
    ]


KEPT = [b"date", b"cache-control", b"etag", b"expires", b"content-location", b"vary", b"age", b"cache-status"]
"""What a 206 has to have of its 200 (section 15.3.7), and what is ours."""
DESCRIPTION = [b"content-type", b"content-language", b"last-modified"]


@pytest.mark.parametrize("value", [b"bytes=0-1", b"bytes=0-1,4-5"])
def test_a_206_has_what_the_200_would_have(value: bytes) -> None:
    headers = [(name, b"x") for name in [*KEPT, *DESCRIPTION, b"x-own"]]
    answer = cut(value, b"0123456789", *headers, (b"content-digest", b"sha-256=:AA==:"), (b"content-md5", b"AA=="))
    assert answer is not None
    names = [name for name, _ in answer.headers]
    assert {*KEPT, *DESCRIPTION, b"x-own"} <= set(names)
    assert len(names) == len(set(names))
    assert not {b"content-digest", b"content-md5"} & set(names)


def test_a_client_that_resumes_is_not_told_again_what_it_has() -> None:
    headers = [(name, b'"x"') for name in [*KEPT, *DESCRIPTION, b"content-encoding"]]
    answer = cut(b"bytes=0-1", b"0123456789", *headers, extra=((b"if-range", b'"x"'),))
    assert answer is not None
    assert [name for name, _ in answer.headers] == [*KEPT, b"content-range", b"content-length"]


def test_a_client_that_resumes_by_date_is_told_the_date() -> None:
    headers = ((b"last-modified", EARLIER), (b"date", DATE), (b"content-type", b"text/plain"))
    answer = cut(b"bytes=0-1", b"0123456789", *headers, extra=((b"if-range", EARLIER),))
    assert answer is not None
    assert [name for name, _ in answer.headers] == [b"last-modified", b"date", b"content-range", b"content-length"]


@pytest.mark.parametrize("condition", [b'"b"', b'W/"a"', DATE, b"", b"nonsense"])
def test_another_representation_is_sent_in_full(condition: bytes) -> None:
    assert cut(b"bytes=0-1", b"0123456789", (b"etag", b'"a"'), extra=((b"if-range", condition),)) is None
    assert cut(b"bytes=99-", b"0123456789", (b"etag", b'"a"'), extra=((b"if-range", condition),)) is None


# ---- stored parts ----


@pytest.mark.parametrize(
    ("value", "held"),
    [
        (b"bytes 0-4/10", ContentRange(Span(0, 4), 10)),
        (b"Bytes 5-9/10", ContentRange(Span(5, 9), 10)),
        (b"bytes 5-9/*", ContentRange(Span(5, 9), None)),
        (b"bytes 00000000000000000000000-04/010", ContentRange(Span(0, 4), 10)),
        (b"bytes */10", None),
        (b"bytes 5-9/9", None),  # ends after the end
        (b"bytes 4-0/10", None),
        (b"bytes 0-3/10", None),  # not what the content has
        (b"bytes 0-5/10", None),
        (b"bytes=0-4/10", None),
        (b"bytes 0-4", None),
        (b"bytes 0-4/", None),
        (b"bytes -4/10", None),
        (b"items 0-4/10", None),
        (b"", None),
        (b"bytes 9" + b"9" * 5000 + b"-9" + b"9" * 5000 + b"/*", None),
    ],
)
def test_what_a_stored_part_says_that_it_holds(value: bytes, held: ContentRange | None) -> None:
    assert parse_content_range([(b"content-range", value)], 5) == held


def test_a_part_without_content_range_or_with_two_holds_nothing() -> None:
    assert parse_content_range([], 5) is None
    assert parse_content_range([(b"content-range", b"bytes 0-4/10")] * 2, 5) is None
    assert parse_content_range([(b"content-range", b"bytes 5-4/10")], 0) is None


def test_a_length_beyond_what_can_be_repeated_exactly_is_of_no_use() -> None:
    assert parse_content_range([(b"content-range", b"bytes 0-4/999999999999999999")], 5) is not None
    assert parse_content_range([(b"content-range", b"bytes 0-4/1000000000000000001")], 5) is None


def test_a_part_may_be_a_single_byte() -> None:
    assert parse_content_range([(b"content-range", b"bytes 4-4/10")], 1) == ContentRange(Span(4, 4), 10)


def stored_part(value: bytes, held: bytes, *extra: Header) -> Answer | None:
    """The answer from bytes 3 to 7 of `0123456789`."""
    headers = [(b"content-range", held), (b"content-length", b"5"), (b"etag", b'"a"'), (b"content-type", b"text/plain")]
    selection = select_stored_part([*ranges(value), *extra], headers, 5, received=NOW)
    return None if selection is None else render_parts(selection, headers, b"34567")


@pytest.mark.parametrize(
    ("value", "content", "described"),
    [
        (b"bytes=3-7", b"34567", b"bytes 3-7/10"),
        (b"bytes=4-5", b"45", b"bytes 4-5/10"),
        (b"bytes=5-7", b"567", b"bytes 5-7/10"),
        (b"bytes=6-6,3-5", b"3456", b"bytes 3-6/10"),
    ],
)
def test_a_stored_part_answers_what_it_covers(value: bytes, content: bytes, described: bytes) -> None:
    answer = stored_part(value, b"bytes 3-7/10")
    assert answer is not None
    assert (answer.status, answer.body) == (206, content)
    assert field(answer, b"content-range") == described
    assert field(answer, b"content-length") == b"%d" % len(content)


@pytest.mark.parametrize(
    "value",
    [
        b"bytes=2-4",
        b"bytes=3-8",
        b"bytes=0-",
        b"bytes=3-",
        b"bytes=-3",
        b"bytes=10-",
        b"bytes=-0",
        b"bytes=4-5,8-9",
        b"x",
    ],
)
def test_what_it_does_not_cover_is_asked_of_the_handler(value: bytes) -> None:
    assert stored_part(value, b"bytes 3-7/10") is None


@pytest.mark.parametrize(
    ("value", "content"),
    [
        (b"bytes=3-", b"34567"),
        (b"bytes=5-", b"567"),
        (b"bytes=5-99", b"567"),
        (b"bytes=-2", b"67"),
        (b"bytes=-5", b"34567"),
        (b"bytes=-6", None),
        (b"bytes=8-", None),
    ],
)
def test_the_end_is_covered_where_the_part_reaches_it(value: bytes, content: bytes | None) -> None:
    answer = stored_part(value, b"bytes 3-7/8")
    assert (answer and answer.body) == content


@pytest.mark.parametrize(
    ("value", "described"),
    [(b"bytes=4-5", b"bytes 4-5/*"), (b"bytes=3-", None), (b"bytes=-1", None), (b"bytes=5-99", None)],
)
def test_where_the_length_is_unknown_so_is_the_end(value: bytes, described: bytes | None) -> None:
    answer = stored_part(value, b"bytes 3-7/*")
    assert (answer and field(answer, b"content-range")) == described


def test_several_ranges_may_come_from_one_part() -> None:
    answer = stored_part(b"bytes=7-7,3-4", b"bytes 3-7/10")
    assert answer is not None
    assert [(fields["Content-Range"], content) for fields, content in parts(answer)] == [
        ("bytes 7-7/10", b"7"),
        ("bytes 3-4/10", b"34"),
    ]


def test_several_parts_do_not_come_from_an_encoded_one() -> None:
    response = [(b"content-range", b"bytes 3-7/10"), (b"content-encoding", b"gzip")]
    assert select_stored_part(ranges(b"bytes=7-7,3-4"), response, 5, received=NOW) is None
    assert select_stored_part(ranges(b"bytes=5-7,3-4"), response, 5, received=NOW) is not None


def test_a_part_of_another_representation_covers_nothing() -> None:
    assert stored_part(b"bytes=4-5", b"bytes 3-7/10", (b"if-range", b'"b"')) is None
    assert stored_part(b"bytes=4-5", b"bytes 3-6/10") is None  # not what the content has
    resumed = stored_part(b"bytes=4-5", b"bytes 3-7/10", (b"if-range", b'"a"'))
    assert resumed is not None
    assert [name for name, _ in resumed.headers] == [b"etag", b"content-range", b"content-length"]


def test_a_part_that_is_the_whole_is_a_200() -> None:
    headers = [(b"content-range", b"bytes 0-4/5"), (b"content-length", b"5"), (b"etag", b'"a"')]
    assert completed(headers, 5) == [(b"etag", b'"a"'), (b"content-length", b"5")]
    for part in (b"bytes 0-4/6", b"bytes 0-4/*", b"bytes 1-5/6", b"bytes */5", b"x"):
        assert completed([(b"content-range", part)], 5) is None


# ---- anything ----


@given(st.binary(), st.one_of(st.none(), st.integers(0, 30)), st.one_of(st.none(), st.integers(0, 30)))
def test_a_range_is_what_slicing_makes_of_it(body: bytes, first: int | None, last: int | None) -> None:
    if first is None and last is None:
        return
    value = b"bytes=%b-%b" % tuple(b"" if number is None else b"%d" % number for number in (first, last))
    start = first if first is not None else max(0, len(body) - (last or 0))
    expected = body[start : None if first is None or last is None else last + 1]
    answer = cut(value, body)
    if first is not None and last is not None and last < first:
        assert answer is None
    elif expected:
        assert answer is not None
        assert (answer.status, answer.body) == (206, expected)
    else:
        assert answer is None if first is None and last and not body else answer is not None and answer.status == 416


@given(
    st.binary(min_size=40, max_size=300),
    st.lists(st.tuples(st.integers(0, 39), st.integers(0, 9)), min_size=2, max_size=6),
)
def test_the_parts_are_what_slicing_makes_of_them(body: bytes, asked: list[tuple[int, int]]) -> None:
    value = b"bytes=" + b",".join(b"%d-%d" % (first, first + more) for first, more in asked)
    answer = cut(value, body, (b"content-type", b"text/plain"))
    if answer is None:
        return
    wanted = {index for first, more in asked for index in range(first, min(first + more + 1, len(body)))}
    found = (
        [(fields["Content-Range"], content) for fields, content in parts(answer)]
        if b"multipart" in (field(answer, b"content-type") or b"")
        else [((field(answer, b"content-range") or b"").decode(), answer.body)]
    )
    sent: list[int] = []
    for described, content in found:
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", described)
        assert match
        first, last, length = map(int, match.groups())
        assert content == body[first : last + 1]
        assert length == len(body)
        sent += range(first, last + 1)
    assert sorted(sent) == sorted(wanted)


@given(st.binary(), st.binary(), st.binary(), st.binary(max_size=20), st.binary())
def test_any_bytes_at_all_give_an_answer(asked: bytes, condition: bytes, held: bytes, body: bytes, tag: bytes) -> None:
    for value in (asked, b"bytes=" + asked):
        request = [(b"range", value), (b"if-range", condition)]
        response = [(b"content-range", held), (b"etag", tag), (b"last-modified", condition)]
        for lines in (request, request[:1]):
            for choose in (select, select_stored_part):
                selection = choose(lines, response, len(body), received=NOW)
                assert selection is None or render_parts(selection, response, body).status in (206, 416)
        assert completed(response, len(body)) is None or body


@given(st.text("0123456789-, =bytes*/"), st.integers(0, 20))
def test_what_is_selected_exists(asked: str, size: int) -> None:
    selection = select(ranges(b"bytes=" + asked.encode()), [], size, received=NOW)
    assert selection is None or isinstance(selection, Selection)
    for span in () if selection is None else selection.spans:
        assert 0 <= span.first <= span.last < size
