"""The one binary format of an entry in a lower tier.

What a tier returns may be anything: another version's bytes, half a write, an attacker's. So every length is checked
before what it measures is read, a checksum covers all that follows it, and each number is checked before an `Entry` is
made. What fails is a value, `Rejected`, since to its reader it is just a miss.

    magic "ATC" | version | checksum | numbers | texts | canonical | field lines | body

Numbers are big-endian and stand in a head of fixed length. The texts are the epoch, the tags and the names of `vary`,
in UTF-8, with a NUL between them; the field lines are each name and each value with a NUL after it. Neither holds one
(RFC 9110, section 5.5): an entry in which one does is not written.

Whoever reads an entry has just waited for it, so little of this code is still in the processor's caches: few steps
count for more than fast ones. The checksum is XXH64, since XXH3 works with vector instructions, which after such a
pause cost it ten times as much.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from xxhash import xxh64_digest

from asgi_tiercache.errors import CodecError
from asgi_tiercache.http.fields import well_formed
from asgi_tiercache.http.vary import MAX_NAMES
from asgi_tiercache.types import EVERY_KIND, MARKER, Entry, Flag, Header, Stamp

MAX_BODY = 64 * 1024 * 1024
"""Bytes of the longest body that is written, and of the longest that is read unless the reader says otherwise."""
MAX_TEXTS = 64 * 1024
"""Bytes that epoch, tags and the names of `vary` may take, with one between them."""
MAX_LINES = 256 * 1024
"""Bytes that the field lines may take, with one after each name and each value."""
MAX_FIELDS = 1_000
"""Field lines; each costs far more in memory than its bytes."""
MAX_TAGS = 128 + 384
"""Tags on one entry: 128 given ones and the implicit ones (key, path, route, user, beginnings of keys), its own and
those of the values that it was made from."""
MIN_DEFLATED = 1024
"""Bytes from which on deflating a body is worth the time."""

HEAD = 160
"""The first bytes of an entry, as many as `stamp_of` may need."""

_MAGIC = b"ATC"
_VERSION = 2
# Magic, version, checksum; compression, flags, status, position; created, lifetime and the three times past freshness;
# the number of tags; the bytes of texts, canonical form, field lines, body, and of the inflated body.
_HEAD = struct.Struct(">3sB8s BBHQ 5d H 5I")
_COVERED = 12  # the checksum stands before everything that it covers
_PLAIN, _DEFLATE = 0, 1
_EPOCH = re.compile(rb"[0-9A-Za-z_-]{0,64}")

# `Flag(n)` costs more than all the other numbers; a deflated body is told by the compression code alone.
_FLAGS = {n: Flag(n) for n in range(sum(Flag) + 1) if not n & Flag.COMPRESSED}


_NO_CONTENT = 204


@dataclass(frozen=True, slots=True)
class Rejected:
    """Bytes that are not a usable entry: a miss, to be counted under `reason`."""

    reason: str
    """One of a few short texts, fit to be the name of a counter."""


class _BrokenError(Exception):
    """What was wrong; never leaves this module."""


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
    if len(head) < _HEAD.size or not head.startswith(_MAGIC + bytes((_VERSION,))):
        return None
    _, _, _, _, _, _, position, *_, length, _, _, _, _ = _HEAD.unpack_from(head)
    texts = head[_HEAD.size : _HEAD.size + length]
    epoch, end, _ = texts.partition(b"\0")
    if not (end or len(texts) == length) or not _EPOCH.fullmatch(epoch) or position >= 2**63:
        return None
    return Stamp(epoch.decode(), position)


def _encode(entry: Entry, compress: bool) -> bytes:
    texts = _write_texts(entry)
    fields = _write_lines(entry.headers)
    lines = [name for name, _ in entry.headers], [value for _, value in entry.headers]
    _check_lines(entry.status, *lines, len(entry.body))
    _check_vary(entry.vary)
    small = _deflated(entry) if compress else None
    compression, body = (_PLAIN, entry.body) if small is None else (_DEFLATE, small)
    times = entry.created, entry.lifetime, entry.stale_while_revalidate, entry.stale_if_error, entry.retention
    numbers = entry.flags, entry.status, entry.stamp.position, *times, len(entry.tags)
    # The reader's own checks: what they refuse must never be written.
    _check_numbers(*numbers)
    _check_bounds(compression, len(texts), len(fields), len(body), len(entry.body), MAX_BODY)
    if len(entry.canonical) > MAX_BODY:
        raise _BrokenError("canonical form too long")
    parts = (texts, entry.canonical, fields, body)
    head = _HEAD.pack(_MAGIC, _VERSION, b"", compression, *numbers, *map(len, parts), len(entry.body))
    covered = b"".join((head[_COVERED:], *parts))
    return b"".join((_MAGIC, bytes((_VERSION,)), xxh64_digest(covered), covered))


def _decode(data: bytes, max_body: int) -> Entry:
    if len(data) < _HEAD.size:
        raise _BrokenError("too short")
    magic, version, checksum, compression, *numbers, texts, canonical, fields, body, plain = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise _BrokenError("not an entry")
    if version != _VERSION:
        raise _BrokenError("another version")
    _check_bounds(compression, texts, fields, body, plain, max_body)
    canonical_at = _HEAD.size + texts
    fields_at = canonical_at + canonical
    body_at = fields_at + fields
    if len(data) != body_at + body:
        raise _BrokenError("wrong length")
    if checksum != xxh64_digest(memoryview(data)[_COVERED:]):
        raise _BrokenError("wrong checksum")
    _check_numbers(*numbers)
    flags, status, position, created, lifetime, *past, tags = numbers
    epoch, *names = _read_texts(data[_HEAD.size : canonical_at])
    if len(names) < tags:
        raise _BrokenError("malformed texts")
    vary = tuple(names[tags:])
    _check_vary(vary)
    lines, values = _read_lines(data[fields_at:body_at])
    _check_lines(status, lines, values, plain)
    return Entry(
        Stamp(epoch, position),
        created,
        lifetime,
        data[canonical_at:fields_at],
        tuple(names[:tags]),
        status,
        tuple(zip(lines, values, strict=True)),
        data[body_at:] if compression == _PLAIN else _inflated(data[body_at:], plain),
        vary,
        _FLAGS[flags],
        *past,
    )


def _check_numbers(
    flags: int,
    status: int,
    position: int,
    created: float,
    lifetime: float,
    revalidate: float,
    error: float,
    retention: float,
    tags: int,
) -> None:
    """Check what an entry says of itself; `tags` is their number."""
    if flags not in _FLAGS:
        raise _BrokenError("unknown flags")
    if status not in EVERY_KIND:
        raise _BrokenError("impossible status")
    if not 0 <= position < 2**63:
        raise _BrokenError("impossible stamp")
    possible = 0 <= lifetime < inf and 0 <= revalidate < inf and 0 <= error < inf and 0 <= retention < inf
    if not (possible and -inf < created < inf):  # not a number is not less than anything, either
        raise _BrokenError("impossible times")
    if tags > MAX_TAGS:
        raise _BrokenError("too many tags")


def _check_bounds(compression: int, texts: int, fields: int, body: int, plain: int, max_body: int) -> None:
    """Check what the head says: a kind of compression, and lengths in bytes; `plain` is that of the inflated body."""
    if texts > MAX_TEXTS:
        raise _BrokenError("texts too long")
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


def _check_lines(status: int, names: Sequence[bytes], values: Sequence[bytes], length: int) -> None:
    """Check that an answer with these field lines and a body of `length` bytes is one answer, whoever writes it.

    What says another length would leave the rest of the body, or of the next answer, to be misread.
    """
    if length and status == _NO_CONTENT:
        raise _BrokenError("wrong content length")
    if not names:
        return
    if len(names) > MAX_FIELDS:
        raise _BrokenError("too many field lines")
    if not well_formed(names, values) or b"transfer-encoding" in names:
        raise _BrokenError("malformed field lines")
    if b"content-length" in names:
        digits = b"%d" % length
        if values[names.index(b"content-length")] != digits or names.count(b"content-length") > 1:
            _check_lengths(
                [value for name, value in zip(names, values, strict=True) if name == b"content-length"], digits
            )
    if status == MARKER and not all(map(bytes.isascii, values)):  # they become parts of keys
        raise _BrokenError("malformed marker")


def _check_lengths(values: Sequence[bytes], digits: bytes) -> None:
    for value in values:
        given = value.strip(b" \t")
        if not given.isdigit() or given.lstrip(b"0") != digits.lstrip(b"0"):
            raise _BrokenError("wrong content length")


def _check_vary(vary: tuple[str, ...]) -> None:
    if vary and (len(vary) > MAX_NAMES or not all(map(str.isascii, vary))):
        raise _BrokenError("malformed vary")


def _write_texts(entry: Entry) -> bytes:
    names = (entry.stamp.epoch, *entry.tags, *entry.vary)
    try:
        texts = "\0".join(names).encode()
    except UnicodeEncodeError as error:  # lone surrogates
        raise _BrokenError(str(error)) from error
    if texts.count(0) >= len(names):
        raise _BrokenError("a NUL in a text")
    return texts


def _read_texts(texts: bytes) -> list[str]:
    try:
        return texts.decode().split("\0")
    except UnicodeDecodeError:
        raise _BrokenError("malformed texts") from None


def _write_lines(headers: tuple[Header, ...]) -> bytes:
    fields = b"".join([b"%b\0%b\0" % line for line in headers])
    if fields.count(0) != 2 * len(headers):
        raise _BrokenError("a NUL in a field line")
    return fields


def _read_lines(fields: bytes) -> tuple[list[bytes], list[bytes]]:
    """The names and the values of field lines."""
    parts = fields.split(b"\0")
    if parts.pop() or len(parts) % 2:  # nothing follows the last NUL
        raise _BrokenError("malformed field lines")
    return parts[::2], parts[1::2]


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
