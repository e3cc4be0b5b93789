"""The log in Redis: a stream and one hash in one slot (rules I1, I3 and I4).

`{<namespace>}:log` is the stream, `{<namespace>}:control` the hash: the fields `epoch`, `clock` and `floor`, and
`t:<tag>` with the id of the tag's last invalidation. A worker asks with one `HMGET`; where that finds no hash, a script
makes one with a new epoch, so that an evicted or lost hash invalidates instead of reviving.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from asgi_tiercache.errors import TierError
from asgi_tiercache.invalidation.log import Answer, Appended
from asgi_tiercache.tiers.breaker import Breaker, describe
from asgi_tiercache.tiers.clients import Script
from asgi_tiercache.tiers.redis import RedisLink

T = TypeVar("T")

LOG_LENGTH = 100_000
"""About how many invalidations the stream keeps."""

_CONTROL = """
local control, log = KEYS[1], KEYS[2]
local epoch = redis.call('HGET', control, 'epoch')
if not epoch then
  epoch = ARGV[1]
  local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)
  redis.call('HSET', control, 'epoch', epoch, 'clock', last[1] and last[1][1] or '0-0', 'floor', '0-0')
end
local clock = redis.call('HGET', control, 'clock')
"""

_OPEN = Script(_CONTROL + "return {epoch, clock, redis.call('HGET', control, 'floor')}")

# The id follows Redis's own clock, but never falls behind the last one, even if that clock or the stream was set back.
_APPEND = Script(
    _CONTROL
    + """
local time = redis.call('TIME')
local ms, seq = string.match(clock, '(%d+)-(%d+)')
local id = '*'
if time[1] * 1000 + math.floor(time[2] / 1000) <= tonumber(ms) then
  id = ms .. '-' .. string.format('%d', seq + 1)
end
local tags = {}
for i = 4, #ARGV do tags[#tags + 1] = ARGV[i] end
id = redis.call('XADD', log, 'MAXLEN', '~', ARGV[3], id,
                'previous', clock, 'epoch', epoch, 'kind', ARGV[2], 'tags', cjson.encode(tags))
redis.call('HSET', control, 'clock', id)
if ARGV[2] == 'clear' then
  redis.call('HSET', control, 'floor', id)
end
for i = 4, #ARGV do redis.call('HSET', control, 't:' .. ARGV[i], id) end
return {epoch, id, clock}
"""
)


class RedisLog:
    """The invalidation log that all workers of a namespace share.

    Args:
        link: Where Redis is; the client of the running loop is taken from it.
        breaker: Deadline and circuit breaker, shared with the tier on the same server.
        namespace: The slot that holds the control state.
    """

    shared = True

    def __init__(self, link: RedisLink, breaker: Breaker | None = None, *, namespace: str = "") -> None:
        self._link = link
        self.breaker = breaker
        """None: calls have neither a deadline nor a breaker; a `TierCache` gives the log that of its tier."""
        slot = namespace or "tiercache"
        self._keys = [f"{{{slot}}}:control", f"{{{slot}}}:log"]

    def __repr__(self) -> str:
        return f"<RedisLog {self._link!r} {self._keys[1]}>"

    async def ask(self, tags: Sequence[str]) -> Answer:
        """One HMGET; a script besides where the control hash is missing."""
        fields = [b"epoch", b"clock", b"floor", *(b"t:" + _bytes(tag) for tag in tags)]
        found = await self._run("ask", lambda: self._hmget(fields))
        if found[0] is None:
            epoch, clock, floor = await self._run("open", lambda: self._eval(_OPEN, secrets.token_hex(8)))
            return Answer(_text(epoch), _position(clock), _position(floor), (0,) * len(tags))
        return Answer(_text(found[0]), _position(found[1]), _position(found[2]), tuple(map(_position, found[3:])))

    async def append(self, tags: Sequence[str]) -> Appended:
        """One script."""
        return await self._append("hard", tags)

    async def append_clear(self) -> Appended:
        """One script."""
        return await self._append("clear", ())

    async def _append(self, kind: str, tags: Sequence[str]) -> Appended:
        arguments: tuple[str | int | bytes, ...] = (secrets.token_hex(8), kind, LOG_LENGTH, *map(_bytes, tags))
        epoch, id_, previous = await self._run("append", lambda: self._eval(_APPEND, *arguments))
        return Appended(_text(epoch), _position(id_), _position(previous))

    async def _hmget(self, fields: list[bytes]) -> list[Any]:
        found: list[Any] = await self._link.command("HMGET", self._keys[0], *fields)
        return found

    async def _eval(self, script: Script, *arguments: str | int | bytes) -> list[Any]:
        answer: list[Any] = await self._link.evaluate(script, self._keys, arguments)
        return answer

    async def _run(self, operation: str, call: Callable[[], Awaitable[T]]) -> T:
        if self.breaker is not None:
            return await self.breaker.run(operation, call, probe=self._ping)
        try:
            return await call()
        except Exception as error:
            raise TierError(f"{self!r}: {describe(error)}") from error

    async def _ping(self) -> None:
        await self._link.ping()


def _bytes(tag: str) -> bytes:
    # Lone surrogates, as in a key made of a path that is not UTF-8, must not stand in the way of every invalidation.
    return tag.encode("utf-8", "surrogatepass")


def _text(value: bytes) -> str:
    return value.decode("ascii", "replace")


def _position(value: bytes | None) -> int:
    """A stream id as one integer: milliseconds and, in the low 20 bits, the sequence number.

    Raises:
        TierError: it is no id that our scripts could have written.
    """
    if value is None:
        return 0
    ms, _, sequence = value.partition(b"-")
    try:
        return (int(ms) << 20) + int(sequence or b"0")
    except ValueError:
        raise TierError(f"the control state holds {value[:40]!r} where an id belongs") from None
