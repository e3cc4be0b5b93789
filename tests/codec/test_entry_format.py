"""The binary format of entries: round trips, bounds, and bytes that are no entry."""

from __future__ import annotations

import math
import struct
import tracemalloc
import zlib
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from asgi_tiercache.codec import MAX_BODY, Rejected, decode, encode
from asgi_tiercache.codec.entries import HEAD, MAX_BLOCK, MAX_LINES, MAX_TAGS, stamp_of
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
BLOCK = ["e1", 7, 1.5, 300.0, ["video:42"], 200, [], 0, 10.0, 20.0, 30.0]
PAST_FRESHNESS = ("stale_while_revalidate", "stale_if_error", "retention")
TRAVELLING = (
    *("stamp", "created", "lifetime", "canonical", "tags", "status", "headers", "body", "vary", "flags"),
    *PAST_FRESHNESS,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
finite = st.floats(allow_nan=False, allow_infinity=False)
entries = st.builds(
    Entry,
    stamp=st.builds(Stamp, texts, st.integers(0, 2**63 - 1)),
    created=finite,
    lifetime=finite.map(abs),
    canonical=st.binary(max_size=50),
    tags=st.lists(texts, max_size=5).map(tuple),
    status=st.sampled_from([0, 1]) | st.integers(100, 999),
    headers=st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=5).map(tuple),
    body=st.binary(max_size=50) | st.builds(lambda part: part * 300, st.binary(max_size=20)),
    vary=st.lists(texts, max_size=3).map(tuple),
    flags=st.sampled_from([Flag.NONE, Flag.SHARED, Flag.SHARED | Flag.MUST_REVALIDATE, Flag.GENERATED_ETAG]),
    stale_while_revalidate=finite.map(abs),
    stale_if_error=finite.map(abs),
    retention=finite.map(abs),
)


def travelling(entry: Entry | Rejected) -> tuple[Any, ...]:
    assert isinstance(entry, Entry), entry
    return tuple(getattr(entry, name) for name in TRAVELLING)


def sealed(
    block: Any = BLOCK,
    *,
    version: int = 2,
    compression: int = 0,
    headers: bytes = b"",
    lines: int = 0,
    body: bytes = b"",
    plain: int | None = None,
) -> bytes:
    """Bytes with a right checksum, written from the format's description rather than by the code under test."""
    packed = block if isinstance(block, bytes) else orjson.dumps(block)
    lengths = (len(packed), 0, len(headers), len(body), len(body) if plain is None else plain)
    covered = struct.pack(">BHIIIII", compression, lines, *lengths) + packed + headers + body
    return struct.pack(">3sBQ", b"ATC", version, xxh3_64_intdigest(covered)) + covered


def resealed(data: bytes) -> bytes:
    return data[:4] + struct.pack(">Q", xxh3_64_intdigest(data[12:])) + data[12:]


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
    decoded = decode(sealed(headers=struct.pack(">II", 1, 2) + b"abb", lines=1, body=b"body"))
    assert isinstance(decoded, Entry)
    assert (decoded.headers, decoded.body, decoded.tags) == (((b"a", b"bb"),), b"body", ("video:42",))


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
    noise = b"".join(struct.pack(">Q", xxh3_64_intdigest(bytes([n]))) for n in range(200))
    entry = replace(ENTRY, body=noise)
    assert len(zlib.compress(noise, 1)) > len(noise) > 1024
    assert encode(entry, compress=True) == encode(entry)


@given(st.binary(max_size=200))
def test_random_bytes_are_rejected(data: bytes) -> None:
    assert isinstance(decode(data), Rejected)


@given(st.binary(max_size=200))
def test_random_bytes_after_a_right_beginning_are_rejected(data: bytes) -> None:
    assert isinstance(decode(b"ATC\x01" + data), Rejected)


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


@given(st.recursive(st.none() | st.booleans() | finite | texts | st.integers(-5, 2**64 - 1), st.lists))
def test_any_json_in_the_header_block_is_judged(block: Any) -> None:
    assert isinstance(decode(sealed(block)), Rejected)


@pytest.mark.parametrize("length", [0, 1, 34, 35, 60, -1])
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
        (sealed(b"[" * 30_000 + b"]" * 30_000), "malformed header block"),
        (sealed(b'["\xff\xfe"]'), "malformed header block"),
        (sealed(b""), "malformed header block"),
        (sealed({}), "malformed header block"),
        (sealed(None), "malformed header block"),
        (sealed([*BLOCK, 0]), "malformed header block"),
        (sealed(lines=1), "malformed field lines"),
        (sealed(headers=b"x"), "malformed field lines"),
        (sealed(headers=struct.pack(">II", 1, 0), lines=1), "malformed field lines"),
        (sealed(headers=struct.pack(">II", 2**32 - 1, 2**32 - 1), lines=1), "malformed field lines"),
    ],
)
def test_foreign_bytes_are_rejected_with_their_reason(data: bytes, reason: str) -> None:
    assert decode(data) == Rejected(reason)


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (0, 1, "impossible stamp"),
        (0, None, "impossible stamp"),
        (1, -1, "impossible stamp"),
        (1, 2**63, "impossible stamp"),
        (1, True, "impossible stamp"),
        (1, 7.0, "impossible stamp"),
        (2, None, "impossible times"),
        (2, 1, "impossible times"),
        (3, -0.5, "impossible times"),
        (3, math.inf, "impossible times"),
        (3, "300", "impossible times"),
        (4, None, "malformed tags"),
        (4, {}, "malformed tags"),
        (4, "video", "malformed tags"),
        (4, [1], "malformed tags"),
        (5, 2, "impossible status"),
        (5, 99, "impossible status"),
        (5, 1000, "impossible status"),
        (5, True, "impossible status"),
        (6, [None], "malformed tags"),
        (6, "accept", "malformed tags"),
        (7, 2, "unknown flags"),
        (7, 16, "unknown flags"),
        (7, False, "unknown flags"),
        (7, [], "unknown flags"),
        (8, -1.0, "impossible times"),
        (9, 1, "impossible times"),
        (10, None, "impossible times"),
        (10, math.inf, "impossible times"),
    ],
)
def test_each_field_of_the_header_block_is_checked(place: int, value: Any, reason: str) -> None:
    assert isinstance(decode(sealed(BLOCK)), Entry)
    block = list[Any](BLOCK)
    block[place] = value
    assert decode(sealed(block)) == Rejected(reason)


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
    assert decode(sealed([*BLOCK[:4], tags, *BLOCK[5:]])) == Rejected("too many tags")


def test_the_header_block_is_bounded() -> None:
    spare = MAX_BLOCK - len(orjson.dumps([*BLOCK[:4], [""], *BLOCK[5:]]))
    fits, longer = ([*BLOCK[:4], ["x" * n], *BLOCK[5:]] for n in (spare, spare + 1))
    assert isinstance(decode(sealed(fits)), Entry)
    assert decode(sealed(longer)) == Rejected("header block too long")
    with pytest.raises(CodecError, match="header block too long"):
        encode(replace(ENTRY, vary=("x" * MAX_BLOCK,)))


def test_the_field_lines_are_bounded() -> None:
    fits, longer = (((b"a", b"x" * (MAX_LINES - 9 + more)),) for more in (0, 1))
    assert travelling(decode(encode(replace(ENTRY, headers=fits))))[6] == fits
    with pytest.raises(CodecError, match="field lines too long"):
        encode(replace(ENTRY, headers=longer))
    packed = struct.pack(">II", 1, len(longer[0][1])) + b"".join(longer[0])
    assert decode(sealed(headers=packed, lines=1)) == Rejected("field lines too long")


def test_empty_field_lines_count_too() -> None:
    fits = ((b"", b""),) * (MAX_LINES // 8)
    assert travelling(decode(encode(replace(ENTRY, headers=fits))))[6] == fits
    with pytest.raises(CodecError, match="field lines too long"):
        encode(replace(ENTRY, headers=(*fits, (b"", b"")) * 3))


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
        {"tags": ("\ud800",)},
        {"status": 99},
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
    [b"", b"ATC", b"ATC\x02", encode(ENTRY)[:40], b"x" + encode(ENTRY)[:HEAD], b"ATC\x01" + encode(ENTRY)[4:HEAD]],
)
def test_the_first_bytes_of_anything_else_tell_none(head: bytes) -> None:
    assert stamp_of(head) is None


@given(st.binary(max_size=HEAD))
def test_any_first_bytes_are_judged(rest: bytes) -> None:
    assert stamp_of(b"ATC\x01" + rest) is None or len(rest) > 30
