"""The log in Redis: a stream and one hash in one slot (rules I1, I3, I4, I5 and I8).

`{<namespace>}:log` is the stream, `{<namespace>}:control` the hash; `scripts` says what is in it. A worker asks about
an entry with one `HMGET`, and confirms its lease with a script.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import orjson
from redis.exceptions import OutOfMemoryError, ResponseError

from asgi_tiercache.config import LONGEST_LIFETIME
from asgi_tiercache.errors import TierError
from asgi_tiercache.invalidation.log import MAX_PATTERNS, Answer, Appended, Purge, Record
from asgi_tiercache.invalidation.scripts import APPEND, CONFIRM, MAX_FIELDS
from asgi_tiercache.tiers.breaker import Breaker, describe
from asgi_tiercache.tiers.clients import Script
from asgi_tiercache.tiers.redis import RedisLink

T = TypeVar("T")

LOG_LENGTH = 100_000
"""About how many invalidations the stream keeps."""
PAGE = 1_000
"""Invalidations that are read at once."""
BLOCK_MS = 5_000
"""How long a question that waits for the next invalidation waits."""
REPLICA_MS = 100
"""How long an invalidation waits for a replica to confirm it."""
PATIENCE = 2.0
"""Seconds beyond that after which a server that has not answered is taken to hang."""
_END = 2**63
"""What every position is below; see `Stamp`."""
_MOST_DIGITS = 20
_HEAD = (b"epoch", b"clock", b"floor", b"soft", b"patterns")


class RedisLog:
    """The invalidation log that all workers of a namespace share.

    Args:
        link: Where Redis is; the client of the running loop is taken from it.
        breaker: Deadline and circuit breaker, shared with the tier on the same server.
        namespace: The slot that holds the control state.
        trust_restart: Go on in the old epoch after Redis was restarted or failed over; for servers that never lose a
            write that they acknowledged.
        max_fields: Tags that the control hash remembers at the most.
    """

    shared = True

    def __init__(
        self,
        link: RedisLink,
        breaker: Breaker | None = None,
        *,
        namespace: str = "",
        trust_restart: bool = False,
        max_fields: int = MAX_FIELDS,
    ) -> None:
        self._link = link
        self.breaker = breaker
        """None: calls have neither a deadline nor a breaker; a `TierCache` gives the log that of its tier."""
        slot = namespace or "tiercache"
        self._keys = [f"{{{slot}}}:control", f"{{{slot}}}:log"]
        self._token = secrets.token_hex(4)
        self._trusting = int(trust_restart)
        self._max_fields = max_fields

    def __repr__(self) -> str:
        return f"<RedisLog {self._link!r} {self._keys[1]}>"

    async def confirm(self) -> Answer:
        """One script."""
        arguments = (secrets.token_hex(8), LOG_LENGTH, self._trusting)
        epoch, clock, floor, soft = await self._run("confirm", lambda: self._eval(CONFIRM, *arguments))
        return Answer(_text(epoch), _position(clock), _position(floor), (), _position(soft))

    async def ask(self, tags: Sequence[str]) -> Answer:
        """One HMGET; a script besides where the control hash is missing."""
        names = [_bytes(tag) for tag in tags]
        fields = [*_HEAD, *(b"t:" + name for name in names), *(b"s:" + name for name in names)]
        found = await self._run("ask", lambda: self._hmget(fields))
        if found[0] is None:
            return (await self.confirm())._replace(ids=(0,) * len(tags))
        ids = tuple(map(_position, found[len(_HEAD) :]))
        return Answer(
            _text(found[0]),
            _position(found[1]),
            _position(found[2]),
            ids[: len(tags)],
            _position(found[3]),
            ids[len(tags) :],
            _patterns(found[4]),
        )

    async def append(self, purge: Purge, *, replicate: bool = False) -> Appended:
        """One script; a `WAIT` besides for a replica."""
        arguments = (
            secrets.token_hex(8),
            LOG_LENGTH,
            "soft" if purge.soft else "hard",
            self._who(),
            round(purge.settle * 1000),
            int(purge.everything),
            LONGEST_LIFETIME * 1000,
            self._max_fields,
            MAX_PATTERNS,
            len(purge.tags),
            *map(_bytes, (*purge.tags, *purge.patterns)),
        )
        (epoch, id_, previous, everything), replicas = await self._run(
            "append", lambda: self._append(arguments, replicate=replicate)
        )
        replicated = not replicate or replicas > 0
        return Appended(_text(epoch), _position(id_), _position(previous), replicated, bool(everything))

    async def read(self, after: int) -> list[Record]:
        """One XRANGE."""
        entries = await self._run("read", lambda: self._xrange(b"(" + _id(after)))
        return self._records(entries)

    async def follow(self, after: int) -> list[Record]:
        """One XREAD that waits, on a connection of its own and without the deadline of other calls."""
        try:
            async with asyncio.timeout(BLOCK_MS / 1000 + PATIENCE):
                streams = await self._link.blocking(
                    "XREAD", "COUNT", PAGE, "BLOCK", BLOCK_MS, "STREAMS", self._keys[1], _id(after), key=self._keys[1]
                )
        except Exception as error:
            raise TierError(f"{self!r}: {describe(error)}") from error
        return self._records(_of_one_stream(streams))

    # ---- commands ----

    async def _hmget(self, fields: list[bytes]) -> list[Any]:
        found: list[Any] = await self._link.command("HMGET", self._keys[0], *fields)
        return found

    async def _xrange(self, first: bytes) -> list[Any]:
        found: Any = await self._link.command("XRANGE", self._keys[1], first, "+", "COUNT", PAGE)
        return list(found)

    async def _append(self, arguments: tuple[str | int | bytes, ...], *, replicate: bool) -> tuple[list[Any], int]:
        try:
            return await self._eval_and_wait(arguments) if replicate else (await self._eval(APPEND, *arguments), 0)
        except ResponseError as error:
            if "OOM" not in str(error) and not isinstance(error, OutOfMemoryError):
                raise
        # What cannot be recorded can still be forgotten: without control state nothing is valid (I9), and the memory
        # that it took may be what was missing.
        await self._link.command("UNLINK", self._keys[0])
        return await self._eval(APPEND, *arguments), 0

    async def _eval(self, script: Script, *arguments: str | int | bytes) -> list[Any]:
        answer: list[Any] = await self._link.evaluate(script, self._keys, arguments)
        return answer

    async def _eval_and_wait(self, arguments: tuple[str | int | bytes, ...]) -> tuple[list[Any], int]:
        """Both on one connection, since WAIT is about what that connection has written."""
        answer, replicas = await self._link.pipelined(
            ("EVAL", APPEND.text, len(self._keys), *self._keys, *arguments),
            ("WAIT", 1, REPLICA_MS),
            key=self._keys[0],
        )
        return answer, replicas

    async def _run(self, operation: str, call: Callable[[], Awaitable[T]]) -> T:
        if self.breaker is not None:
            return await self.breaker.run(operation, call, probe=self._ping)
        try:
            return await call()
        except Exception as error:
            raise TierError(f"{self!r}: {describe(error)}") from error

    async def _ping(self) -> None:
        await self._link.ping()

    def _who(self) -> str:
        return f"{self._token}-{os.getpid()}"  # a server may have forked its workers since

    # ---- what Redis says ----

    def _records(self, entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> list[Record]:
        """Those entries of the stream that are ours; others are passed over."""
        records = []
        for id_, fields in entries:
            try:
                purge = Purge(
                    tags=_texts(fields.get(b"tags", b"[]")),
                    patterns=_texts(fields.get(b"patterns", b"[]")),
                    everything=b"all" in fields,
                    soft=fields[b"kind"] == b"soft",
                    settle=_number(fields.get(b"settle", b"0")) / 1000,
                )
                own = fields.get(b"by") == self._who().encode()
                records.append(
                    Record(_text(fields[b"epoch"]), _position(id_), _position(fields[b"previous"]), purge, own)
                )
            except (KeyError, ValueError, TypeError, TierError):
                continue
        return records


def _of_one_stream(streams: Any) -> list[Any]:
    """The entries in the reply to an XREAD of one stream: a list of pairs, or a map under RESP3."""
    if not streams:
        return []
    if isinstance(streams, Mapping):
        (pages,) = streams.values()
        return [entry for page in pages for entry in page] if pages and isinstance(pages[0], list) else list(pages)
    return list(streams[0][1])


def _bytes(tag: str) -> bytes:
    # Lone surrogates, as in a key made of a path that is not UTF-8, must not stand in the way of every invalidation.
    return tag.encode("utf-8", "surrogatepass")


def _text(value: bytes) -> str:
    return value.decode("ascii", "replace")


def _parsed(value: bytes) -> Any:
    """JSON as the scripts write it: what was no UTF-8 in a tag is none here.

    Raises:
        ValueError: it is no JSON, or nested deeper than anything that our scripts write.
    """
    try:
        return orjson.loads(value)
    except ValueError:
        try:
            return json.loads(value.decode("utf-8", "surrogatepass"))
        except RecursionError:
            raise ValueError("nested too deeply") from None


def _texts(value: bytes) -> tuple[str, ...]:
    """A JSON list of texts.

    Raises:
        ValueError: it is none.
    """
    found = _parsed(value)
    if type(found) is not list or not all(type(each) is str for each in found):
        raise ValueError("no list of texts")
    return tuple(found)


def _patterns(value: bytes | None) -> tuple[tuple[str, int, int], ...]:
    if value is None:
        return ()
    try:
        found = _parsed(value)
        return tuple((glob, _position(hard.encode()), _position(soft.encode())) for glob, (hard, soft) in found.items())
    except (ValueError, TypeError, AttributeError):
        raise TierError("the control state holds malformed patterns") from None


def _id(position: int) -> bytes:
    return b"%d-%d" % (position >> 20, position & 0xFFFFF)


def _position(value: bytes | None) -> int:
    """A stream id as one integer: milliseconds and, in the low 20 bits, the sequence number.

    Raises:
        TierError: it is no id that our scripts could have written.
    """
    if value is None:
        return 0
    ms, _, sequence = value.partition(b"-")
    try:
        position = (_number(ms) << 20) + _number(sequence or b"0")
    except ValueError:
        position = _END
    if position >= _END:
        raise TierError(f"the control state holds {value[:40]!r} where an id belongs")
    return position


def _number(digits: bytes) -> int:
    """`digits` and nothing else: `int` would take signs, blanks and underscores, too.

    Raises:
        ValueError: they are none, or more than a stream's id may have.
    """
    if not digits.isdigit() or len(digits) > _MOST_DIGITS:
        raise ValueError("no number")
    return int(digits)
