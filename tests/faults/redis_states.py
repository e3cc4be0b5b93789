"""The rows of the table that are states of one Redis: of its keys, its memory, its rights, its clock."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redis import Redis

from tests.engine.doubles import written
from tests.faults.scene import workers
from tests.faults.table import Act, Case, Row, Stage
from tests.servers import RedisServer

CONTROL, LOG = "{tiercache}:control", "{tiercache}:log"
TEST = "faults.test_redis_states::test_a_state_of_redis"
MISSES = "misses, answered by the app; what is in memory is served"
NOTHING = "nothing but misses"
NEW_EPOCH = "whoever asks next begins a new epoch; entries from before are misses"
PROBED = "the next probe that is answered closes the breaker"
SENT = "what was held is sent again"
TRIED = "what was held is sent again, and a write is tried now and then"
FIELDS = ("epoch", "clock", "floor", "soft", "run_id", "patterns", "due", "mark", "marked", "counted", "sweep")
TOP = 2**64 - 1
"""The largest number in an id of a stream."""


def does(*commands: tuple[Any, ...]) -> Act:
    """Sends them to Redis, past the proxy."""

    def act(stage: Stage) -> None:
        for command in commands:
            stage.admin(*command)

    return act


def nothing(_: Stage) -> None:
    pass


class Repeated:
    """Sends commands twenty times a second, from a thread."""

    def __init__(self, *commands: tuple[Any, ...]) -> None:
        self._commands = commands
        self._ending = threading.Event()

    def begin(self, stage: Stage) -> None:
        self._ending.clear()
        self._thread = threading.Thread(target=self._go_on, args=(stage.redis.port,))
        self._thread.start()

    def end(self, _: Stage) -> None:
        self._ending.set()
        self._thread.join()

    def _go_on(self, port: int) -> None:
        with Redis(port=port) as client:
            while not self._ending.wait(0.05):
                for command in self._commands:
                    client.execute_command(*command)


def set_back(stage: Stage) -> None:
    """As where the server's clock was an hour ahead until now."""
    ahead = f"{round((time.time() + 3600) * 1000)}-5"
    stage.admin("HSET", CONTROL, "clock", ahead)
    stage.admin("XADD", LOG, ahead, "a", "b")


def fill_up(stage: Stage) -> None:
    """No byte more may be stored."""
    info = stage.admin("INFO", "memory")
    stage.admin("CONFIG", "SET", "maxmemory", info["used_memory"] // 2)


def evict(policy: str) -> Act:
    """Redis has to give up nearly everything, and goes on doing so."""

    def act(stage: Stage) -> None:
        stage.admin("CONFIG", "SET", "maxmemory-policy", policy)
        fill_up(stage)

    return act


def in_the_background(*command: str) -> Act:
    """Sends a command that does not return soon."""
    words = "".join(f"${len(word)}\r\n{word}\r\n" for word in command)

    def act(stage: Stage) -> None:
        with socket.create_connection(("127.0.0.1", stage.redis.port)) as connection:
            connection.sendall(f"*{len(command)}\r\n{words}".encode())

    return act


def fail_to_save(stage: Stage) -> None:
    """As on a full disk: Redis takes no writes that it could not save."""
    Path(stage.redis.directory, "dump.rdb", "in the way").mkdir(parents=True)
    stage.admin("CONFIG", "SET", "save", "900 1")
    stage.admin("BGSAVE")
    while stage.admin("INFO", "persistence")["rdb_last_bgsave_status"] != "err":
        time.sleep(0.005)


def _without_end(stage: Stage) -> None:
    stage.admin("CONFIG", "SET", "busy-reply-threshold", 100)
    in_the_background("EVAL", "while true do end", "0")(stage)


class AsAdmin:
    """What only another user than the workers' can undo."""

    def __init__(self, begin: Sequence[tuple[Any, ...]], end: Sequence[tuple[Any, ...]]) -> None:
        self._begin = begin
        self._end = end
        self._admin: Redis | None = None

    def begin(self, stage: Stage) -> None:
        stage.admin("ACL", "SETUSER", "admin", "on", ">admin", "~*", "&*", "+@all")
        self._admin = Redis(port=stage.redis.port, username="admin", password="admin", single_connection_client=True)
        self._send(self._begin)

    def end(self, _: Stage) -> None:
        self._send(self._end)
        assert self._admin is not None
        self._admin.close()

    def _send(self, commands: Sequence[tuple[Any, ...]]) -> None:
        assert self._admin is not None
        for command in commands:
            self._admin.execute_command(*command)  # type: ignore[no-untyped-call]


class Loading:
    """A restart that takes seconds, since there is much to load."""

    def __init__(self) -> None:
        self._starting: threading.Thread | None = None

    def begin(self, stage: Stage) -> None:
        stage.admin("EVAL", "for i = 1, 15000 do redis.call('SET', i, i) end", 0)
        stage.admin("SAVE")
        stage.redis.kill()
        stage.redis.options |= {"key-load-delay": "100", "loading-process-events-interval-bytes": "1024"}
        self._starting = threading.Thread(target=stage.redis.start)
        self._starting.start()

    def end(self, _: Stage) -> None:
        assert self._starting is not None
        self._starting.join()


def _row(name: str, begin: Act, end: Act = nothing, **said: Any) -> Row:
    given = {
        "clients": NOTHING,
        "receipts": "either",
        "recovery": NEW_EPOCH,
        "opens": None,
        "test": TEST,
        "seconds": 0.3,
    }
    return Row(name=name, begin=begin, end=end, **{**given, **said})


_FREED = does(("CONFIG", "SET", "maxmemory", 0), ("CONFIG", "SET", "maxmemory-policy", "noeviction"))
_FLUSHES, _KILLS = Repeated(("FLUSHALL",)), Repeated(("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
_STRANGE = """for _, key in ipairs(redis.call('KEYS', '*api:response*')) do
  redis.call('DEL', key)
  redis.call('LPUSH', key, 1)
end"""
_OTHER_VERSION = """for _, key in ipairs(redis.call('KEYS', '*api:response*')) do
  redis.call('SETRANGE', key, 3, string.char(99))
end"""
_KEYS = (
    _row("the server's clock set back by an hour", set_back, clients="nothing", recovery="ids go on from the last one"),
    _row(
        "every entry is of another version of the format",
        does(("EVAL", _OTHER_VERSION, 0)),
        recovery="entries are written over them",
    ),
    _row("FLUSHALL, twenty times a second", _FLUSHES.begin, _FLUSHES.end, seconds=1.0),
    _row(
        "`CLIENT KILL`, twenty times a second",
        _KILLS.begin,
        _KILLS.end,
        seconds=1.0,
        clients=MISSES,
        recovery="connections are made anew",
    ),
    _row(
        "every entry is a list of somebody else's",
        does(("EVAL", _STRANGE, 0)),
        recovery="entries are written over them",
    ),
    _row("FLUSHALL", does(("FLUSHALL",)), rare=True),
    _row("SCRIPT FLUSH", does(("SCRIPT", "FLUSH")), clients="nothing", recovery="scripts are sent whole"),
    _row("the control hash evicted", does(("DEL", CONTROL))),
    _row("the log evicted", does(("DEL", LOG)), clients="nothing", recovery="the next invalidation begins it again"),
    _row("control hash and log evicted", does(("DEL", CONTROL, LOG)), rare=True),
    _row("the control hash is a string", does(("DEL", CONTROL), ("SET", CONTROL, "x"))),
    _row(
        "the log is a list", does(("DEL", LOG), ("LPUSH", LOG, "x")), recovery="the next invalidation begins it again"
    ),
    _row(
        "the log trimmed to nothing",
        does(("XTRIM", LOG, "MAXLEN", 0)),
        clients="nothing",
        recovery="none is needed",
        rare=True,
    ),
    *(
        _row(
            f"an id in the log at {name}",
            does(("XADD", LOG, id_, "a", "b")),
            recovery="the next invalidation begins it again",
            rare=name != "its end",
        )
        for name, id_ in (
            ("the year 2096", "4000000000000-5"),
            ("2^63", "9000000000000-5"),
            ("its end", f"{TOP}-{TOP}"),
        )
    ),
    _row("a field of the control hash is garbage", does(("HSET", CONTROL, "clock", "garbage"))),
    _row("a field of the control hash deleted", does(("HDEL", CONTROL, "floor")), rare=True),
    _row(
        "the clock in the control hash in the year 2096", does(("HSET", CONTROL, "clock", "4000000000000-5")), rare=True
    ),
)
OTHER_FIELDS = (
    *(_row(f"field `{field}` is garbage", does(("HSET", CONTROL, field, "garb age"))) for field in FIELDS),
    *(_row(f"field `{field}` deleted", does(("HDEL", CONTROL, field))) for field in FIELDS),
)
"""What the table says of any field, of each."""
_SERVER = (
    _row(
        "out of memory, `noeviction`",
        fill_up,
        _FREED,
        clients="misses for what is new",
        seconds=0.8,
        recovery="each write is tried",
    ),
    _row("out of memory, `allkeys-lru`", evict("allkeys-lru"), _FREED, seconds=0.8),
    _row("out of memory, `volatile-lru`", evict("volatile-lru"), _FREED, seconds=0.8, rare=True),
    _row(
        "every connection closed by `CLIENT KILL`",
        does(("CLIENT", "KILL", "TYPE", "normal")),
        clients=MISSES,
        rare=True,
        recovery="connections are made anew",
    ),
    _row(
        "`CLIENT PAUSE` of writes, 2 s",
        does(("CLIENT", "PAUSE", 2000, "WRITE")),
        clients=MISSES,
        receipts="held",
        opens=True,
        recovery=PROBED,
        seconds=2.0,
    ),
    _row(
        "`CLIENT PAUSE` of everything, 2 s",
        does(("CLIENT", "PAUSE", 2000, "ALL")),
        clients=MISSES,
        rare=True,
        receipts="held",
        opens=True,
        recovery=PROBED,
        seconds=2.0,
    ),
    _row(
        "a script that does not end (BUSY)",
        _without_end,
        does(("SCRIPT", "KILL")),
        clients=MISSES,
        receipts="held",
        opens=True,
        recovery=PROBED,
    ),
    _row(
        "READONLY: made a replica",
        does(("REPLICAOF", "127.0.0.1", 1)),
        does(("REPLICAOF", "NO", "ONE")),
        clients=MISSES,
        receipts="held",
        opens=False,
        recovery=SENT,
    ),
)
_KILL = ("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
_PASSWORD = AsAdmin([("CONFIG", "SET", "requirepass", "secret"), _KILL], [("CONFIG", "SET", "requirepass", "")])
_RIGHTS = AsAdmin([("ACL", "SETUSER", "default", "-@all", "+ping")], [("ACL", "SETUSER", "default", "+@all")])
_WRITES = AsAdmin([("ACL", "SETUSER", "default", "-@write")], [("ACL", "SETUSER", "default", "+@all")])
_CLIENTS = AsAdmin([("CONFIG", "SET", "maxclients", 1), _KILL], [("CONFIG", "SET", "maxclients", 10_000)])
_LOADING = Loading()
_REFUSED: dict[str, Any] = {"clients": MISSES, "receipts": "held", "seconds": 0.8}
_RIGHTS_ROWS = (
    _row(
        "MISCONF: the last save failed", fail_to_save, does(("CONFIG", "SET", "save", "")), **_REFUSED, recovery=TRIED
    ),
    _row("NOAUTH: a password was set", _PASSWORD.begin, _PASSWORD.end, **_REFUSED, recovery=PROBED, opens=True),
    _row("NOPERM: all rights taken", _RIGHTS.begin, _RIGHTS.end, **_REFUSED, recovery=TRIED, rare=True),
    _row("NOPERM: the right to write taken", _WRITES.begin, _WRITES.end, **_REFUSED, recovery=TRIED),
    _row("`maxclients` reached", _CLIENTS.begin, _CLIENTS.end, **_REFUSED, recovery=PROBED, opens=True),
    _row(
        "LOADING: restarted with much to load",
        _LOADING.begin,
        _LOADING.end,
        clients=MISSES,
        receipts="held",
        recovery=PROBED,
        opens=True,
        seconds=1.0,
    ),
)
ROWS = (*_KEYS, *_SERVER, *_RIGHTS_ROWS)


# ---- leases ----

LEASE = b"{}lease"
LOCK_WAIT = 3.0
"""Seconds for which a request waits at the most for what another worker makes: the default of `lock_wait=`."""


def list_for_a_lease(redis: RedisServer) -> str:
    """Lists stand where leases are taken: who fills waits as for another worker, fills, and they are gone."""

    async def body(admin: Redis) -> str:
        async with workers(redis.url) as (one, two):
            for item in ("1", "2"):
                await one.ask(f"/item/{item}")
            await written(one.cache)
            entries = [key for key in map(bytes, admin.scan_iter("*api:response*")) if not key.endswith(LEASE)]
            for key in entries:
                admin.delete(key, key + LEASE)
                admin.lpush(key + LEASE, "x")
            one.cache.engine.memory.clear()
            asked = [worker.ask(f"/item/{item}") for item in ("1", "2") for worker in (one, two)]
            asked += [one.ask("/item/3")]
            *held, free = await asyncio.gather(*asked)
            slowest = max(answer.seconds for answer in held)
            assert free.seconds < LOCK_WAIT / 2, "others do not wait"
            assert slowest < 2 * LOCK_WAIT
            assert [(await worker.change("1")).durable for worker in (one, two)] == [True, True]
            assert one.uses_redis
            assert two.uses_redis
            async with asyncio.timeout(2 * LOCK_WAIT):
                while any(admin.exists(key + LEASE) for key in entries):  # noqa: ASYNC110 - it has no event
                    await asyncio.sleep(0.05)
            return f"once {slowest:.2f} s, {len(held)} requests; then no list is left"

    with Redis(port=redis.port) as admin:
        return asyncio.run(body(admin))


CASES = (
    Case(
        name="lists in the place of leases",
        play=list_for_a_lease,
        clients="whoever fills waits once, as for another worker that fills (`lock_wait=`), and is answered by the app",
        receipts="durable",
        recovery="they are given an expiry",
        test="faults.test_redis_states::test_a_list_in_the_place_of_a_lease_holds_a_fill_up_once",
    ),
)
