"""What Redis sends, and what says where it is."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import hiredis
from redis.exceptions import InvalidResponse, RedisError

from asgi_tiercache.errors import ConfigError, TierError
from asgi_tiercache.invalidation.log import Answer, Purge, Record
from asgi_tiercache.invalidation.redislog import RedisLog
from asgi_tiercache.tiers.addresses import maker, without_secrets
from asgi_tiercache.tiers.connections import _Line
from tests.fuzz.target import Target

# ---- replies on a kept connection ----


class _Transport:
    def __init__(self) -> None:
        self.aborted = False

    def get_protocol(self) -> asyncio.BaseProtocol:
        return asyncio.Protocol()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass

    def write(self, data: bytes) -> None:
        pass

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


class _Connection:
    """The parts of redis-py's connection that a line takes over."""

    def __init__(self) -> None:
        self._parser = self
        self._reader = hiredis.Reader(protocolError=InvalidResponse, replyError=RedisError)
        self._writer = self
        self.transport = _Transport()


_HUGE = re.compile(rb"[*%~>|][0-9]{5}")  # whoever frees an array of as many elements as Redis may name takes seconds
_LOOP = asyncio.new_event_loop()


def _received(data: bytes) -> tuple[list[Any], bool]:
    """What two commands, one after the other, are answered; whether the connection would be used again."""
    return _LOOP.run_until_complete(_exchange(_chunks(data)))


def _chunks(data: bytes) -> list[bytes]:
    """The bytes as they arrive: cut where a 0xFF stands."""
    return [] if _HUGE.search(data.replace(b"\xff", b"")) else [each for each in data.split(b"\xff") if each]


async def _exchange(chunks: Sequence[bytes]) -> tuple[list[Any], bool]:
    connection = _Connection()
    line = _Line(connection)
    replies: list[Any] = []
    waiter = line.send((b"GET", b"a"))
    for chunk in chunks:
        if line.closed:
            break
        line.get_buffer(-1)[: len(chunk)] = chunk
        line.buffer_updated(len(chunk))
        if waiter.done():
            replies.append(waiter.exception() or waiter.result())
            if line.closed or len(replies) == 2:
                break
            waiter = line.send((b"GET", b"b"))
    assert line.closed == connection.transport.aborted
    return replies, not line.closed


class _IncompleteError(Exception):
    """More has to come."""


class _UnknownError(Exception):
    """The model does not know."""


def _model(data: bytes) -> tuple[Any, bytes]:
    """The first reply in RESP2, and what follows it."""
    if data[:1] not in (b"+", b":", b"$", b"*", b""):
        raise _UnknownError
    text, end, rest = data[1:].partition(b"\r\n")
    if not end:
        raise _IncompleteError
    if data.startswith(b"+"):
        if b"\r" in text or b"\n" in text:
            raise _UnknownError
        return text, rest
    if not re.fullmatch(rb"0|-?[1-9][0-9]{0,8}", text):
        raise _UnknownError
    return _MODELS[data[:1]](int(text), rest)


def _model_bulk(size: int, rest: bytes) -> tuple[bytes | None, bytes]:
    if size == -1:
        return None, rest
    if size >= 0 and len(rest) < size + 2:
        raise _IncompleteError
    if size < 0 or rest[size : size + 2] != b"\r\n":
        raise _UnknownError
    return rest[:size], rest[size + 2 :]


def _model_array(size: int, rest: bytes) -> tuple[list[Any] | None, bytes]:
    if size < -1:
        raise _UnknownError
    items = []
    for _ in range(size):
        item, rest = _model(rest)
        items.append(item)
    return (None if size == -1 else items), rest


_MODELS: dict[bytes, Callable[[int, bytes], tuple[Any, bytes]]] = {
    b":": lambda number, rest: (number, rest),
    b"$": _model_bulk,
    b"*": _model_array,
}


def _judge_received(data: bytes, outcome: tuple[list[Any], bool]) -> None:
    """A reply is that to the command, whole and nothing beside it; else the connection is given up."""
    replies, usable = outcome
    chunks = _chunks(data)
    known: list[Any] = []
    left = b""
    try:
        for chunk in chunks:
            left += chunk
            try:
                reply, rest = _model(left)
            except _IncompleteError:
                continue
            if rest:
                assert not usable
                assert isinstance(replies[len(known)], InvalidResponse)
                return
            known.append(reply)
            left = b""
            if len(known) == 2:
                break
    except _UnknownError:
        assert replies[: len(known)] == known
        return
    assert replies == known, (chunks, replies, known)
    assert usable


# ---- the log ----


class ScriptedLink:
    """Answers a command with the one reply, and a script with the other."""

    def __init__(self, reply: Any, of_scripts: Any = None) -> None:
        self._reply = reply
        self._of_scripts = of_scripts

    async def command(self, *command: Any, key: Any = None) -> Any:
        """The reply."""
        return self._reply

    async def evaluate(self, script: Any, keys: Any, arguments: Any) -> Any:
        """The reply of scripts."""
        return self._of_scripts


_NAMES = (b"epoch", b"previous", b"kind", b"by", b"tags", b"patterns", b"all", b"settle")


def _stream(data: bytes) -> list[tuple[bytes, Mapping[bytes, bytes]]]:
    """Entries of a stream, one for each line: the id, then names and values."""
    entries: list[tuple[bytes, Mapping[bytes, bytes]]] = []
    for line in data.split(b"\n"):
        id_, *parts = line.split(b"\xff")
        pairs = (part.partition(b"=") for part in parts)
        entries.append((id_, {name: value for name, _, value in pairs if name in _NAMES}))
    return entries


def _read(data: bytes) -> list[Record]:
    log: Any = RedisLog(ScriptedLink(_stream(data)))  # type: ignore[arg-type]
    records: list[Record] = _LOOP.run_until_complete(log.read(0))
    return records


def _judge_records(data: bytes, outcome: list[Record] | TierError) -> None:
    """A record is one that a worker can apply, and says what the entry said; what is malformed is passed over."""
    if isinstance(outcome, TierError):
        return
    entries = _stream(data)
    assert len(outcome) <= len(entries)
    for record in outcome:
        assert 0 <= record.id < 2**63
        assert 0 <= record.previous < 2**63
        assert record.counts_from >= record.id
        purge = record.purge
        assert all(type(each) is str for each in (record.epoch, *purge.tags, *purge.patterns)), record
        id_ = b"%d-%d" % (record.id >> 20, record.id & 0xFFFFF)
        assert any(_says(entry, record.purge) for at, entry in entries if _same_id(at, id_)), record


def _same_id(left: bytes, right: bytes) -> bool:
    def numbers(text: bytes) -> list[int]:
        ms, _, sequence = text.partition(b"-")
        return [int(ms) + (int(sequence or b"0") >> 20), int(sequence or b"0") & 0xFFFFF]

    try:
        return numbers(left) == numbers(right)
    except ValueError:
        return False


def _says(entry: Mapping[bytes, bytes], purge: Purge) -> bool:
    try:
        names = {
            name: tuple(json.loads(entry.get(name, b"[]").decode("utf-8", "surrogatepass")))
            for name in (b"tags", b"patterns")
        }
    except (ValueError, TypeError, RecursionError):
        return False  # another entry with the same id
    return (
        names == {b"tags": purge.tags, b"patterns": purge.patterns}
        and purge.everything == (b"all" in entry)
        and purge.soft == (entry.get(b"kind") == b"soft")
    )


def _asked(data: bytes) -> Answer:
    parts = data.split(b"\xff")
    found = [parts[index] if index < len(parts) and parts[index] != b"-" else None for index in range(9)]
    log: Any = RedisLog(ScriptedLink(found, [part or b"0-0" for part in found[5:]]))  # type: ignore[arg-type]
    answer: Answer = _LOOP.run_until_complete(log.ask(["a", "b"]))
    return answer


def _judge_answer(data: bytes, outcome: Answer | TierError) -> None:
    if isinstance(outcome, TierError):
        return
    positions = (outcome.clock, outcome.floor, outcome.soft_floor, *outcome.ids, *outcome.soft_ids)
    assert all(0 <= each < 2**63 for each in positions), outcome
    assert len(outcome.ids) == 2
    for glob, hard, soft in outcome.patterns:
        assert type(glob) is str
        assert 0 <= hard < 2**63
        assert 0 <= soft < 2**63


# ---- URLs ----

_SECRET = "hunter2"


def _addressed(data: bytes) -> str:
    url = data.decode("utf-8", "replace").replace("\xff", _SECRET).replace("\ufffd", _SECRET)
    maker(url, credential_provider=None, max_connections=4)
    return url


def _judge_addressed(data: bytes, outcome: str | ConfigError) -> None:
    """A password is in no message, and a URL that is taken is of a kind that is documented."""
    if isinstance(outcome, ConfigError):
        assert _SECRET not in str(outcome)
        assert outcome.__cause__ is None
        return
    parts = urlsplit(outcome)
    assert parts.scheme.lower() in {
        *("redis", "rediss", "unix", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel"),
    }
    told = without_secrets(outcome)
    assert not parts.password or f":{parts.password}@" not in told
    assert "?" not in told


TARGETS = {
    "reply": Target(_received, _judge_received),
    "log-records": Target(_read, _judge_records, raises=(TierError,)),
    "control-state": Target(_asked, _judge_answer, raises=(TierError,)),
    "redis-url": Target(_addressed, _judge_addressed, raises=(ConfigError,), linear=False),
}
