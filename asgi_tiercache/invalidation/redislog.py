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
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ResponseError

from asgi_tiercache.config import LONGEST_LIFETIME
from asgi_tiercache.errors import TierError
from asgi_tiercache.invalidation.log import MAX_PATTERNS, Answer, Appended, Purge, Record
from asgi_tiercache.invalidation.scripts import APPEND, CONFIRM, MAX_FIELDS
from asgi_tiercache.tiers.breaker import Breaker, describe
from asgi_tiercache.tiers.clients import Script
from asgi_tiercache.tiers.redis import RedisLink, is_wrong_type

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
_ENDED = (RedisConnectionError, RuntimeError)
"""What is raised on a connection that has ended; the latter by uvloop."""
_HEAD = (b"epoch", b"clock", b"floor", b"soft", b"patterns")
_COUNTED = 20
"""Bits of a position that count within a millisecond."""
_MOST_DIGITS = 20
"""Of a number in the log: ids have 64 bits."""


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
        self._probe = f"{{{slot}}}:probe".encode()
        self._token = secrets.token_hex(4)
        self._trusting = int(trust_restart)
        self._max_fields = max_fields

    def __repr__(self) -> str:
        return f"<RedisLog {self._link!r} {self._keys[1]}>"

    @property
    def out_of_reach(self) -> bool:
        """Whether the breaker is open; looking at it may start the probe, as asking would."""
        breaker = self.breaker
        if breaker is None or not breaker.is_open:
            return False
        breaker.refuse(self._ping)
        return True

    async def confirm(self) -> Answer:
        """One script."""
        return await self._run("confirm", self._confirm)

    async def ask(self, tags: Sequence[str]) -> Answer:
        """One HMGET; a script besides where there is no control state, or none that can be read."""
        names = [_bytes(tag) for tag in tags]
        fields = [*_HEAD, *(b"t:" + name for name in names), *(b"s:" + name for name in names)]
        found = await self._run("ask", lambda: self._hmget(fields))
        try:
            return _answer(found, len(tags))
        except TierError as error:
            anew = await self.confirm()
            if found[0] is not None and anew.epoch == _text(found[0]):
                self._note("ask", error)
                raise  # it was not made anew, and nothing is known of the tags
            return anew._replace(ids=(0,) * len(tags))

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
        return await self._run("append", lambda: self._append(arguments, replicate=replicate))

    async def read(self, after: int) -> list[Record]:
        """One XRANGE."""
        return await self._run("read", lambda: self._xrange(b"(" + _id(after)))

    async def follow(self, after: int) -> list[Record]:
        """One XREAD that waits, on a connection of its own and without the deadline of other calls."""
        try:
            async with asyncio.timeout(BLOCK_MS / 1000 + PATIENCE):
                streams = await self._link.blocking(
                    "XREAD", "COUNT", PAGE, "BLOCK", BLOCK_MS, "STREAMS", self._keys[1], _id(after), key=self._keys[1]
                )
            return self._records(_of_one_stream(streams))
        except Exception as error:
            raise TierError(f"{self!r}: {describe(error)}") from error

    # ---- commands: what comes back may be anything, and what it cannot be raises within `_run`, too ----

    async def _confirm(self) -> Answer:
        arguments = secrets.token_hex(8), LOG_LENGTH, self._trusting
        try:
            answer = await self._eval(CONFIRM, *arguments)
        except _ENDED:  # perhaps long ago, unnoticed: that says little of now
            answer = await self._eval(CONFIRM, *arguments)
        epoch, clock, floor, soft = answer
        return Answer(_text(epoch), _position(clock), _position(floor), (), _position(soft))

    async def _hmget(self, fields: list[bytes]) -> list[bytes | None]:
        try:
            found = _list(await self._link.command("HMGET", self._keys[0], *fields), len(fields))
        except ResponseError as error:
            if not is_wrong_type(error):
                raise
            return [None] * len(fields)
        if not all(value is None or type(value) is bytes for value in found):
            raise TierError("a reply that answers another question")
        return found

    async def _xrange(self, first: bytes) -> list[Record]:
        try:
            found = _list(await self._link.command("XRANGE", self._keys[1], first, "+", "COUNT", PAGE))
        except ResponseError as error:
            if not is_wrong_type(error):
                raise
            return []  # a gap: the next invalidation makes another stream
        return self._records(found)

    async def _append(self, arguments: tuple[str | int | bytes, ...], *, replicate: bool) -> Appended:
        (epoch, id_, previous, everything), replicas = await self._recorded(arguments, replicate=replicate)
        replicated = not replicate or replicas > 0
        return Appended(_text(epoch), _position(id_), _position(previous), replicated, bool(everything))

    async def _recorded(self, arguments: tuple[str | int | bytes, ...], *, replicate: bool) -> tuple[list[Any], int]:
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

    def _note(self, operation: str, error: TierError) -> None:
        """Control state that our scripts could not have written is reported; the server itself is well."""
        if self.breaker is not None:
            self.breaker.note(operation, error)

    async def _ping(self) -> None:
        await self._link.ping(self._probe)

    def _who(self) -> str:
        return f"{self._token}-{os.getpid()}"  # a server may have forked its workers since

    # ---- what Redis says ----

    def _records(self, entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> list[Record]:
        """Those entries of the stream that are ours; others are passed over."""
        records = []
        for id_, fields in entries:
            try:
                purge = Purge(
                    tags=_names(fields.get(b"tags", b"[]")),
                    patterns=_names(fields.get(b"patterns", b"[]")),
                    everything=b"all" in fields,
                    soft=fields[b"kind"] == b"soft",
                    settle=_number(fields.get(b"settle", b"0")) / 1000,
                )
                own = fields.get(b"by") == self._who().encode()
                records.append(
                    Record(_text(fields[b"epoch"]), _position(id_), _position(fields[b"previous"]), purge, own)
                )
            except (KeyError, ValueError, TypeError, OverflowError, TierError):
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


def _list(reply: Any, length: int | None = None) -> list[Any]:
    """`reply`, if it is a list, of `length` where that is known: it may be the answer to another question."""
    if not isinstance(reply, list) or (length is not None and len(reply) != length):
        raise TierError(f"a reply that answers another question: {str(reply)[:40]!r}")
    return reply


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
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


def _names(value: bytes) -> tuple[str, ...]:
    names = _parsed(value)
    if type(names) is not list or not all(type(name) is str for name in names):
        raise ValueError("an array of texts was expected here")
    return tuple(names)


def _answer(found: Sequence[bytes | None], tags: int) -> Answer:
    """What the fields of the control hash say, `_HEAD` and the hard and soft ids of `tags` tags.

    Raises:
        TierError: that is no control state.
    """
    epoch, clock, floor, soft, patterns, *ids = found
    if epoch is None or clock is None or floor is None or soft is None:
        raise TierError("the control state is missing, or incomplete")
    hard_ids, soft_ids = tuple(map(_position, ids[:tags])), tuple(map(_position, ids[tags:]))
    return Answer(
        _text(epoch), _position(clock), _position(floor), hard_ids, _position(soft), soft_ids, _patterns(patterns)
    )


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
    ms, dash, sequence = value[:40].partition(b"-")
    if not (dash and ms.isdigit() and sequence.isdigit() and int(ms) < 1 << 43 and int(sequence) < 1 << _COUNTED):
        raise TierError(f"the control state holds {value[:40]!r} where an id belongs")
    return (int(ms) << _COUNTED) + int(sequence)


def _number(digits: bytes) -> int:
    """`digits` and nothing else: `int` would take signs, blanks and underscores, too.

    Raises:
        ValueError: they are none, or more than a stream's id may have.
    """
    if not digits.isdigit() or len(digits) > _MOST_DIGITS:
        raise ValueError("no number")
    return int(digits)
