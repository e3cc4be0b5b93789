"""The one binary format of an entry in a lower tier.

What a tier returns may be anything: another version's bytes, half a write, an attacker's. So every length is checked
before what it measures is read, a checksum covers all that follows it, and each field's type is checked before an
`Entry` is made. What fails is a value, `Rejected`, since to its reader it is just a miss.

    magic "ATC" | version | checksum | compression, lengths | block | canonical | field lines | body

Numbers are big-endian. The block is a JSON array; the field lines are the lengths of all names and values, then
their bytes, so that any bytes may occur in them.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache

import orjson
from xxhash import xxh3_64_intdigest

from asgi_tiercache.errors import CodecError
from asgi_tiercache.types import Entry, Flag, Header, Stamp

MAX_BODY = 64 * 1024 * 1024
"""Bytes of the longest body that is written, and of the longest that is read unless the reader says otherwise."""
MAX_BLOCK = 64 * 1024
"""Bytes of the longest header block: stamp, times, tags and status as JSON."""
MAX_LINES = 256 * 1024
"""Bytes that the field lines may take, with eight bytes of lengths for each."""
MAX_TAGS = 128 + 384
"""Tags on one entry: 128 given ones and the implicit ones (key, path, route, user, beginnings of keys), its own and
those of the values that it was made from."""
MIN_DEFLATED = 1024
"""Bytes from which on deflating a body is worth the time."""

HEAD = 128
"""The first bytes of an entry, as many as `stamp_of` may need."""

_MAGIC = b"ATC"
_VERSION = 2
_PREFIX = struct.Struct(">3sBQBHIIIII")
_COVERED = 12  # the checksum stands before everything that it covers, the lengths included
_PLAIN, _DEFLATE = 0, 1
_ONLY_TEXTS = frozenset({str})
_BLOCK_BEGINS = re.compile(rb'\["([0-9A-Za-z_-]{0,64})",(\d{1,19}),')

# `Flag(n)` costs more than the rest of the block; a deflated body is told by the compression code alone.
_FLAGS = {n: Flag(n) for n in range(sum(Flag) + 1) if not n & Flag.COMPRESSED}


@dataclass(frozen=True, slots=True)
class Rejected:
    """Bytes that are not a usable entry: a miss, to be counted under `reason`."""

    reason: str
    """One of a few short texts, fit to be the name of a counter."""


class _BrokenError(Exception):
    """What was wrong; never leaves this module."""


_Block = tuple[Stamp, float, float, tuple[str, ...], int, tuple[str, ...], Flag, float, float, float]
"""Stamp, created, lifetime, tags, status, vary, flags, the three times past freshness: as in an `Entry`."""


def encode(entry: Entry, *, compress: bool = False) -> bytes:
    """The bytes that `decode` makes an equal entry of; fields that belong to this process are left out.

    Args:
        entry: With a plain body, as every entry in memory has.
        compress: Deflate the body if it has 1 KiB or more, carries no `Content-Encoding`, and gets smaller by it.

    Raises:
        CodecError: the entry breaks a bound, or holds what `decode` would reject.
    """
    try:
        return _encode(entry, compress)
    except _BrokenError as error:
        raise CodecError(f"an entry with status {entry.status} cannot be encoded: {error}") from error


def decode(data: bytes, *, max_body: int = MAX_BODY) -> Entry | Rejected:
    """The entry in `data`, or why there is none; raises for no bytes whatever.

    Args:
        data: Bytes of unknown origin.
        max_body: Bytes that the body may have once it is inflated.
    """
    try:
        return _decode(data, max_body)
    except _BrokenError as error:
        return Rejected(str(error))


def stamp_of(head: bytes) -> Stamp | None:
    """The stamp of the entry that begins with `head`; None if that is no entry of this version.

    The checksum is not looked at, so nothing may be served on the strength of it.
    """
    if not head.startswith(_MAGIC + bytes((_VERSION,))):
        return None
    found = _BLOCK_BEGINS.match(head, _PREFIX.size)
    return None if found is None else Stamp(found[1].decode(), int(found[2]))


def _encode(entry: Entry, compress: bool) -> bytes:
    block = _write_block(entry)
    fields = _write_lines(entry.headers)
    small = _deflated(entry) if compress else None
    compression, body = (_PLAIN, entry.body) if small is None else (_DEFLATE, small)
    _check_bounds(compression, len(block), len(fields), len(body), len(entry.body), MAX_BODY)
    if len(entry.canonical) > MAX_BODY:
        raise _BrokenError("canonical form too long")
    _read_block(block)  # the reader's own checks: what they refuse must never be written
    parts = (block, entry.canonical, fields, body)
    numbers = compression, len(entry.headers), *map(len, parts), len(entry.body)
    data = b"".join((_PREFIX.pack(_MAGIC, _VERSION, 0, *numbers)[_COVERED:], *parts))
    return _PREFIX.pack(_MAGIC, _VERSION, xxh3_64_intdigest(data), *numbers)[:_COVERED] + data


def _decode(data: bytes, max_body: int) -> Entry:
    # One call for each check would be felt: every hit of a lower tier comes through here.
    if len(data) < _PREFIX.size:
        raise _BrokenError("too short")
    magic, version, checksum, compression, lines, block, canonical, fields, body, plain = _PREFIX.unpack_from(data)
    if magic != _MAGIC:
        raise _BrokenError("not an entry")
    if version != _VERSION:
        raise _BrokenError("another version")
    _check_bounds(compression, block, fields, body, plain, max_body)
    canonical_at = _PREFIX.size + block
    fields_at = canonical_at + canonical
    body_at = fields_at + fields
    if len(data) != body_at + body:
        raise _BrokenError("wrong length")
    if checksum != xxh3_64_intdigest(memoryview(data)[_COVERED:]):
        raise _BrokenError("wrong checksum")
    stamp, created, lifetime, tags, status, vary, flags, *past = _read_block(data[_PREFIX.size : canonical_at])
    return Entry(
        stamp,
        created,
        lifetime,
        data[canonical_at:fields_at],
        tags,
        status,
        _read_lines(data[fields_at:body_at], lines),
        data[body_at:] if compression == _PLAIN else _inflated(data[body_at:], plain),
        vary,
        flags,
        *past,
    )


def _check_bounds(compression: int, block: int, fields: int, body: int, plain: int, max_body: int) -> None:
    """Check what the prefix says: a kind of compression, and lengths in bytes; `plain` is that of the inflated body."""
    if block > MAX_BLOCK:
        raise _BrokenError("header block too long")
    if fields > MAX_LINES:
        raise _BrokenError("field lines too long")
    if plain > max_body:
        raise _BrokenError("body too long")
    if compression == _PLAIN:
        consistent = body == plain
    elif compression == _DEFLATE:
        consistent = body < plain
    else:
        raise _BrokenError("unknown compression")
    if not consistent:
        raise _BrokenError("wrong length")


def _write_block(entry: Entry) -> bytes:
    epoch, position = entry.stamp
    times = float(entry.created), float(entry.lifetime)
    past = float(entry.stale_while_revalidate), float(entry.stale_if_error), float(entry.retention)
    try:
        return orjson.dumps((epoch, position, *times, entry.tags, entry.status, entry.vary, int(entry.flags), *past))
    except orjson.JSONEncodeError as error:  # lone surrogates, positions beyond 64 bits
        raise _BrokenError(str(error)) from error


def _read_block(block: bytes) -> _Block:
    try:
        epoch, position, created, lifetime, tags, status, vary, flags, revalidate, error, retention = orjson.loads(
            block
        )
    except (ValueError, TypeError):  # no JSON, not eleven of them, nothing to unpack
        raise _BrokenError("malformed header block") from None
    # Exact types: a bool is an int to isinstance, and JSON's numbers beyond 64 bits arrive as floats.
    if type(epoch) is not str or type(position) is not int or not 0 <= position < 2**63:
        raise _BrokenError("impossible stamp")
    if type(created) is not float or type(lifetime) is not float or lifetime < 0:
        raise _BrokenError("impossible times")
    if not all(type(seconds) is float and seconds >= 0 for seconds in (revalidate, error, retention)):
        raise _BrokenError("impossible times")
    if type(status) is not int or not (100 <= status <= 999 or status in (0, 1)):
        raise _BrokenError("impossible status")
    if type(flags) is not int or flags not in _FLAGS:
        raise _BrokenError("unknown flags")
    if type(tags) is not list or type(vary) is not list or not _ONLY_TEXTS.issuperset(map(type, tags + vary)):
        raise _BrokenError("malformed tags")
    if len(tags) > MAX_TAGS:
        raise _BrokenError("too many tags")
    told = _FLAGS[flags]
    return (
        Stamp(epoch, position),
        created,
        lifetime,
        tuple(tags),
        status,
        tuple(vary),
        told,
        revalidate,
        error,
        retention,
    )


def _write_lines(headers: tuple[Header, ...]) -> bytes:
    parts = [part for line in headers for part in line]
    return _two_lengths_each(len(headers)).pack(*map(len, parts)) + b"".join(parts)


def _read_lines(fields: bytes, lines: int) -> tuple[Header, ...]:
    at = lines * 8
    if at > len(fields):
        raise _BrokenError("malformed field lines")
    headers = []
    lengths = iter(_two_lengths_each(lines).unpack_from(fields))
    for name_length, value_length in zip(lengths, lengths, strict=True):
        value = at + name_length
        end = value + value_length
        headers.append((fields[at:value], fields[value:end]))
        at = end
    if at != len(fields):
        raise _BrokenError("malformed field lines")
    return tuple(headers)


@lru_cache(maxsize=64)
def _two_lengths_each(lines: int) -> struct.Struct:
    return struct.Struct(f">{2 * lines}I")


def _deflated(entry: Entry) -> bytes | None:
    """The body in fewer bytes; None where that is not to be had or not worth it."""
    if len(entry.body) < MIN_DEFLATED or any(name == b"content-encoding" for name, _ in entry.headers):
        return None
    small = zlib.compress(entry.body, 1)
    return small if len(small) < len(entry.body) else None


def _inflated(small: bytes, length: int) -> bytes:
    """`small` inflated to exactly `length` bytes, above 0; a stream that holds more does not reach its end."""
    inflater = zlib.decompressobj()
    try:
        body = inflater.decompress(small, length)
    except zlib.error:
        raise _BrokenError("malformed deflate stream") from None
    if len(body) != length or not inflater.eof or inflater.unused_data:
        raise _BrokenError("malformed deflate stream")
    return body
