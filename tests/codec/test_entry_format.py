"""The binary format of entries: round trips, bounds, and bytes that are no entry."""

from __future__ import annotations

import math
import struct
import tracemalloc
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh64_intdigest

from asgi_tiercache.codec import MAX_BODY, Rejected, decode, encode
from asgi_tiercache.codec.entries import HEAD, MAX_FIELDS, MAX_LINES, MAX_TAGS, MAX_TEXTS, stamp_of
from asgi_tiercache.errors import CodecError
from asgi_tiercache.types import Entry, Flag, Stamp

ENTRY = Entry(
    stamp=Stamp("e1", 7),
    created=1_700_000_000.5,
    lifetime=300.0,
    canonical=b"GET /videos/42",
    tags=("video:42", "path:/videos/42"),
    status=200,
    headers=((b"content-type", b"text/plain"), (b"vary", b"")),
    body=b"hello",
    vary=("accept",),
    flags=Flag.SHARED,
)
FLAGS, STATUS, POSITION, CREATED, LIFETIME, REVALIDATE, ERROR, RETENTION = range(8)
NUMBERS = (0, 200, 7, 1.5, 300.0, 10.0, 20.0, 30.0)
PAST_FRESHNESS = ("stale_while_revalidate", "stale_if_error", "retention")
TRAVELLING = (
    *("stamp", "created", "lifetime", "canonical", "tags", "status", "headers", "body", "vary", "flags"),
    *PAST_FRESHNESS,
)

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_!", min_size=1, max_size=20).map(str.encode)
octets = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"])).map(lambda text: text.encode("latin-1"))
finite = st.floats(allow_nan=False, allow_infinity=False)
entries = st.builds(
    Entry,
    stamp=st.builds(Stamp, texts, st.integers(0, 2**63 - 1)),
    created=finite,
    lifetime=finite.map(abs),
    canonical=st.binary(max_size=50),
    tags=st.lists(texts, max_size=5).map(tuple),
    status=st.sampled_from([0, 2]) | st.integers(200, 599).filter(lambda status: status not in (204, 304)),
    headers=st.lists(st.tuples(names, octets), max_size=5).map(tuple),
    body=st.binary(max_size=50) | st.builds(lambda part: part * 300, st.binary(max_size=20)),
    vary=st.lists(names.map(bytes.decode), max_size=3).map(tuple),
    flags=st.sampled_from([Flag.NONE, Flag.SHARED, Flag.SHARED | Flag.MUST_REVALIDATE, Flag.GENERATED_ETAG]),
    stale_while_revalidate=finite.map(abs),
    stale_if_error=finite.map(abs),
    retention=finite.map(abs),
)


def travelling(entry: Entry | Rejected) -> tuple[Any, ...]:
    assert isinstance(entry, Entry), entry
    return tuple(getattr(entry, name) for name in TRAVELLING)


def sealed(
    numbers: Sequence[float] = NUMBERS,
    texts: bytes = b"e1\0video:42",
    *,
    tags: int = 1,
    version: int = 2,
    compression: int = 0,
    fields: bytes = b"",
    body: bytes = b"",
    plain: int | None = None,
) -> bytes:
    """Bytes with a right checksum, written from the format's description rather than by the code under test."""
    lengths = (len(texts), 0, len(fields), len(body), len(body) if plain is None else plain)
    covered = struct.pack(">BBHQ5dHIIIII", compression, *numbers, tags, *lengths) + texts + fields + body
    return struct.pack(">3sBQ", b"ATC", version, xxh64_intdigest(covered)) + covered


def resealed(data: bytes) -> bytes:
    return data[:4] + struct.pack(">Q", xxh64_intdigest(data[12:])) + data[12:]


@given(entries, st.booleans())
def test_an_entry_comes_back_equal(entry: Entry, compress: bool) -> None:
    assert travelling(decode(encode(entry, compress=compress))) == travelling(entry)


def test_the_fields_of_the_process_stay_behind() -> None:
    entry = replace(ENTRY)
    entry.born, entry.expires, entry.at, entry.checked, entry.rendered_at = 1.0, 2.0, 3, 4, 5
    entry.rendered.append((b"age", b"5"))
    decoded = decode(encode(entry))
    assert isinstance(decoded, Entry)
    assert (decoded.born, decoded.expires, decoded.at, decoded.checked, decoded.rendered_at) == (0.0, 0.0, 0, -1, -1)
    assert decoded.rendered == []


def test_the_types_of_what_comes_back_are_those_of_the_record() -> None:
    decoded = decode(encode(replace(ENTRY, created=5, lifetime=60)))
    assert isinstance(decoded, Entry)
    assert type(decoded.stamp) is Stamp
    assert type(decoded.created) is type(decoded.lifetime) is float
    assert type(decoded.flags) is Flag


def test_the_format_is_the_documented_one() -> None:
    decoded = decode(sealed(texts=b"e1\0video:42\0\xc3\xa9\0accept", tags=2, fields=b"a\0bb\0c\0\0", body=b"body"))
    assert isinstance(decoded, Entry)
    assert (decoded.stamp, decoded.tags, decoded.vary) == (("e1", 7), ("video:42", "\xe9"), ("accept",))
    assert (decoded.headers, decoded.body) == (((b"a", b"bb"), (b"c", b"")), b"body")
    assert (decoded.flags, decoded.status, decoded.created, decoded.lifetime) == (0, 200, 1.5, 300.0)
    assert (decoded.stale_while_revalidate, decoded.stale_if_error, decoded.retention) == (10.0, 20.0, 30.0)


def test_compression_makes_the_bytes_fewer_and_leaves_no_trace_in_the_entry() -> None:
    entry = replace(ENTRY, body=b"abc" * 1000)
    data = encode(entry, compress=True)
    assert len(data) < 1000 < len(encode(entry))
    assert travelling(decode(data)) == travelling(entry)


@pytest.mark.parametrize(
    "entry",
    [
        replace(ENTRY, body=b"a" * 1023),
        replace(ENTRY, body=b"a" * 5000, headers=((b"content-encoding", b"br"),)),
    ],
    ids=["short", "encoded"],
)
def test_a_body_is_deflated_only_where_that_is_worth_it(entry: Entry) -> None:
    assert encode(entry, compress=True) == encode(entry)


def test_a_body_that_deflating_makes_longer_stays_plain() -> None:
    noise = b"".join(struct.pack(">Q", xxh64_intdigest(bytes([n]))) for n in range(200))
    entry = replace(ENTRY, body=noise)
    assert len(zlib.compress(noise, 1)) > len(noise) > 1024
    assert encode(entry, compress=True) == encode(entry)


@given(st.binary(max_size=200))
def test_random_bytes_are_rejected(data: bytes) -> None:
    assert isinstance(decode(data), Rejected)


@given(st.binary(max_size=200))
def test_random_bytes_after_a_right_beginning_are_rejected(data: bytes) -> None:
    assert isinstance(decode(b"ATC\x02" + data), Rejected)


@given(entries, st.booleans(), st.data())
def test_a_changed_byte_is_found(entry: Entry, compress: bool, data: st.DataObject) -> None:
    whole = encode(entry, compress=compress)
    at = data.draw(st.integers(0, len(whole) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[at]))
    assert isinstance(decode(whole[:at] + bytes([other]) + whole[at + 1 :]), Rejected)


@given(entries, st.booleans(), st.data())
def test_what_an_attacker_changes_and_seals_never_raises(entry: Entry, compress: bool, data: st.DataObject) -> None:
    whole = bytearray(encode(entry, compress=compress))
    for at, byte in data.draw(st.lists(st.tuples(st.integers(12, len(whole) - 1), st.integers(0, 255)), max_size=4)):
        whole[at] = byte
    result = decode(resealed(bytes(whole)))
    assert isinstance(result, Entry | Rejected)
    if isinstance(result, Entry):
        encode(result)  # whatever is accepted is within the bounds of what may be written


@given(st.binary(max_size=80), st.integers(0, 2**16 - 1), st.binary(max_size=80))
def test_any_texts_and_field_lines_are_judged(texts: bytes, tags: int, fields: bytes) -> None:
    result = decode(sealed(texts=texts, tags=tags, fields=fields))
    assert isinstance(result, Rejected) or encode(result) == sealed(texts=texts, tags=tags, fields=fields)


@pytest.mark.parametrize("length", [0, 1, 85, 86, 100, -1])
def test_a_truncated_entry_is_rejected(length: int) -> None:
    assert isinstance(decode(encode(ENTRY)[:length]), Rejected)


def test_bytes_after_the_end_are_rejected() -> None:
    assert decode(encode(ENTRY) + b"x") == Rejected("wrong length")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "too short"),
        (b"GIF89a" * 20, "not an entry"),
        (sealed(version=1), "another version"),
        (sealed(compression=2), "unknown compression"),
        (sealed(plain=1), "wrong length"),
        (sealed(compression=1, body=b"abc", plain=3), "wrong length"),
        (sealed(compression=1, body=b"", plain=0), "wrong length"),
        (sealed(compression=1, body=b"abc", plain=2000), "malformed deflate stream"),
        (sealed(texts=b"e1\0\xff\xfe"), "malformed texts"),
        (sealed(texts=b"e1"), "malformed texts"),
        (sealed(texts=b""), "malformed texts"),
        (sealed(fields=b"x"), "malformed field lines"),
        (sealed(fields=b"x\0"), "malformed field lines"),
        (sealed(fields=b"x\0y"), "malformed field lines"),
        (sealed(fields=b"x\0y\0z"), "malformed field lines"),
    ],
)
def test_foreign_bytes_are_rejected_with_their_reason(data: bytes, reason: str) -> None:
    assert decode(data) == Rejected(reason)


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (FLAGS, 2, "unknown flags"),
        (FLAGS, 16, "unknown flags"),
        (FLAGS, 255, "unknown flags"),
        (STATUS, 3, "impossible status"),
        (STATUS, 101, "impossible status"),
        (STATUS, 199, "impossible status"),
        (STATUS, 304, "impossible status"),
        (STATUS, 600, "impossible status"),
        (POSITION, 2**63, "impossible stamp"),
        (POSITION, 2**64 - 1, "impossible stamp"),
        *((time, math.nan, "impossible times") for time in range(CREATED, RETENTION + 1)),
        *((time, math.inf, "impossible times") for time in range(CREATED, RETENTION + 1)),
        *((time, -math.inf, "impossible times") for time in range(CREATED, RETENTION + 1)),
        *((time, -0.5, "impossible times") for time in range(LIFETIME, RETENTION + 1)),
    ],
)
def test_each_number_is_checked(place: int, value: float, reason: str) -> None:
    assert isinstance(decode(sealed()), Entry)
    numbers = list[float](NUMBERS)
    numbers[place] = value
    assert decode(sealed(numbers)) == Rejected(reason)


def deflated(content: bytes, plain: int, tail: bytes = b"") -> bytes:
    return sealed(compression=1, body=zlib.compress(content, 1) + tail, plain=plain)


def test_a_deflated_body_is_exactly_as_long_as_declared() -> None:
    content = b"x" * 5000
    assert isinstance(decode(deflated(content, 5000)), Entry)
    for plain in (4999, 5001):
        assert decode(deflated(content, plain)) == Rejected("malformed deflate stream")


def test_a_deflate_stream_ends_with_its_checksum_and_nothing_else() -> None:
    content = b"x" * 5000
    assert decode(deflated(content, 5000, tail=b"more")) == Rejected("malformed deflate stream")
    cut = zlib.compress(content, 1)[:-1]
    assert decode(sealed(compression=1, body=cut, plain=5000)) == Rejected("malformed deflate stream")


def test_a_decompression_bomb_is_cut_off() -> None:
    bomb = zlib.compress(bytes(32 * 1024 * 1024), 9)
    data = sealed(compression=1, body=bomb, plain=50_000)
    tracemalloc.start()
    try:
        assert decode(data) == Rejected("malformed deflate stream")
        assert tracemalloc.get_traced_memory()[1] < 1024 * 1024
    finally:
        tracemalloc.stop()
    assert decode(sealed(compression=1, body=bomb, plain=MAX_BODY + 1)) == Rejected("body too long")


@pytest.mark.parametrize("compress", [False, True])
def test_the_reader_may_bound_the_body(compress: bool) -> None:
    data = encode(replace(ENTRY, body=b"x" * 2000), compress=compress)
    assert isinstance(decode(data, max_body=2000), Entry)
    assert decode(data, max_body=1999) == Rejected("body too long")


def test_a_body_at_the_bound_is_written_and_a_longer_one_is_not() -> None:
    data = encode(replace(ENTRY, body=bytes(MAX_BODY)), compress=True)
    assert isinstance(decode(data), Entry)
    with pytest.raises(CodecError, match="body too long"):
        encode(replace(ENTRY, body=bytes(MAX_BODY + 1)))
    with pytest.raises(CodecError, match="canonical form too long"):
        encode(replace(ENTRY, canonical=bytes(MAX_BODY + 1)))


def test_the_number_of_tags_is_bounded() -> None:
    tags = tuple(map(str, range(MAX_TAGS + 1)))
    assert travelling(decode(encode(replace(ENTRY, tags=tags[1:]))))[4] == tags[1:]
    with pytest.raises(CodecError, match="too many tags"):
        encode(replace(ENTRY, tags=tags))
    assert decode(sealed(texts="\0".join(("e1", *tags)).encode(), tags=len(tags))) == Rejected("too many tags")


def test_the_texts_are_bounded() -> None:
    fits, longer = (b"e1\0" + b"x" * (MAX_TEXTS - 3 + more) for more in (0, 1))
    assert isinstance(decode(sealed(texts=fits)), Entry)
    assert decode(sealed(texts=longer)) == Rejected("texts too long")
    with pytest.raises(CodecError, match="texts too long"):
        encode(replace(ENTRY, vary=("x" * MAX_TEXTS,)))


def test_the_field_lines_are_bounded() -> None:
    fits, longer = (((b"a", b"x" * (MAX_LINES - 3 + more)),) for more in (0, 1))
    assert travelling(decode(encode(replace(ENTRY, headers=fits))))[6] == fits
    with pytest.raises(CodecError, match="field lines too long"):
        encode(replace(ENTRY, headers=longer))
    assert decode(sealed(fields=b"a\0" + longer[0][1] + b"\0")) == Rejected("field lines too long")


def test_the_number_of_field_lines_is_bounded() -> None:
    fits = ((b"a", b""),) * MAX_FIELDS
    assert travelling(decode(encode(replace(ENTRY, headers=fits))))[6] == fits
    with pytest.raises(CodecError, match="too many field lines"):
        encode(replace(ENTRY, headers=(*fits, (b"a", b""))))
    assert decode(sealed(fields=b"a\0\0" * (MAX_FIELDS + 1))) == Rejected("too many field lines")


@pytest.mark.parametrize(
    "changes",
    [
        {"lifetime": -1.0},
        {"lifetime": math.inf},
        {"created": math.nan},
        {"stamp": Stamp("e", -1)},
        {"stamp": Stamp("e", 2**63)},
        {"stamp": Stamp("e", 2**64)},
        {"stamp": Stamp("\ud800", 1)},
        {"stamp": Stamp("e\0", 1)},
        {"tags": ("\ud800",)},
        {"tags": ("a\0b",)},
        {"vary": ("\0",)},
        {"headers": ((b"a", b"b\0"),)},
        {"headers": ((b"\0", b"b"),)},
        {"status": 99},
        {"status": 204},
        {"headers": ((b"a", b"b\r\nc: d"),)},
        {"headers": ((b"a b", b"c"),)},
        {"headers": ((b"", b"c"),)},
        {"headers": ((b"content-length", b"6"),)},
        {"headers": ((b"transfer-encoding", b"chunked"),)},
        {"vary": ("\xe9",)},
        {"status": 1, "headers": ((b"variant", b"\xe9"),)},
        {"flags": Flag.COMPRESSED},
    ],
)
def test_what_would_be_rejected_is_never_written(changes: dict[str, Any]) -> None:
    with pytest.raises(CodecError, match="cannot be encoded"):
        encode(replace(ENTRY, **changes))


# ---- its beginning alone ----


@given(st.text("0123456789abcdef", min_size=16, max_size=64), st.integers(0, 2**63 - 1))
def test_the_first_bytes_tell_the_stamp(epoch: str, position: int) -> None:
    stamp = Stamp(epoch, position)
    assert stamp_of(encode(replace(ENTRY, stamp=stamp))[:HEAD]) == stamp


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"ATC",
        b"ATC\x02",
        encode(ENTRY)[:40],
        encode(ENTRY)[:87],
        b"x" + encode(ENTRY)[:HEAD],
        b"ATC\x01" + encode(ENTRY)[4:HEAD],
    ],
)
def test_the_first_bytes_of_anything_else_tell_none(head: bytes) -> None:
    assert stamp_of(head) is None


@given(st.binary(max_size=HEAD))
def test_any_first_bytes_are_judged(rest: bytes) -> None:
    assert stamp_of(b"ATC\x02" + rest) is None or len(rest) >= 82
