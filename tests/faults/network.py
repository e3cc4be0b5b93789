"""The rows of the table that are faults of the network, or of the server at its other end."""

from __future__ import annotations

from typing import Any

from tests.faults.proxy import Fault
from tests.faults.table import Row, Stage, network

AT_ONCE = "misses, answered by the app at once"
AT_MOST = "misses, answered by the app; where half a reply was waited for, after one deadline"
ONE_DEADLINE = "misses, answered by the app; those in flight wait one deadline first"


def _pause(stage: Stage) -> None:
    stage.redis.pause()


def _resume(stage: Stage) -> None:
    stage.redis.resume()


def _kill(stage: Stage) -> None:
    stage.redis.kill()


def _start(stage: Stage) -> None:
    stage.redis.start()


def _refuse(stage: Stage) -> None:
    stage.proxy.refuse()


def _accept(stage: Stage) -> None:
    stage.proxy.accept()


def _reset(stage: Stage) -> None:
    stage.proxy.reset()


def _answer_another(stage: Stage) -> None:
    """Every reply is an entry of Redis's, but not the one that was asked for."""
    data = stage.admin("GET", next(key for key in stage.admin("KEYS", "*mine*") if b"p1" in key))
    stage.proxy.begin(Fault(garbage=b"$%d\r\n%s\r\n" % (len(data), data)))


def _end(stage: Stage) -> None:
    stage.proxy.end()


def _nothing(_: Stage) -> None:
    pass


def _garbled(name: str, reply: bytes, **said: Any) -> Row:
    return Row(name=f"in place of each reply: {name}", **network(Fault(garbage=reply)), **{"clients": AT_MOST, **said})


SERVER = (
    Row(name="connections refused", begin=_refuse, end=_accept, clients=AT_ONCE),
    Row(
        name="Redis killed (SIGKILL) and started again, empty",
        begin=_kill,
        end=_start,
        clients=AT_ONCE,
        recovery="a probe; the epoch is another one, and all is filled anew",
    ),
    Row(
        name="Redis hangs for 2 s (SIGSTOP)",
        begin=_pause,
        end=_resume,
        clients=ONE_DEADLINE,
        receipts="either",
        seconds=2.0,
    ),
    Row(
        name="every connection reset once",
        begin=_reset,
        end=_nothing,
        clients=AT_ONCE,
        receipts="either",
        opens=None,
        recovery="new connections",
    ),
)
SILENCE = (
    Row(name="black hole", **network(Fault(silent=True)), clients=ONE_DEADLINE),
    Row(
        name="black hole, open connections only",
        **network(Fault(silent=True, on="open")),
        clients=ONE_DEADLINE,
        receipts="either",
        recovery="a probe, on a new connection",
    ),
    Row(
        name="black hole, new connections only",
        **network(Fault(silent=True, on="new")),
        clients="those that need a new connection wait one deadline, then all are misses",
        receipts="either",
        opens=None,
    ),
    Row(name="half a reply, then silence", **network(Fault(silent_after=3)), clients=ONE_DEADLINE),
)
SLOW = (
    Row(name="500 ms slow", **network(Fault(delay=0.5)), clients=ONE_DEADLINE),
    Row(
        name="250 ms slow",
        rare=True,
        **network(Fault(delay=0.25)),
        clients="slow hits, until what takes two round trips reaches the deadline",
        receipts="either",
        opens=None,
    ),
    Row(
        name="2 KB/s, bodies of 20 KB",
        padding=20_000,
        **network(Fault(rate=2000)),
        clients="slow hits, until one reaches the deadline",
        receipts="either",
        opens=None,
    ),
)
BROKEN = (
    Row(name="reset before a reply", **network(Fault(reset_after=0)), clients=AT_ONCE),
    Row(name="reset within a reply", **network(Fault(reset_after=3)), clients=AT_ONCE),
    Row(name="reply cut short, connection ended", **network(Fault(closed_after=3)), clients=AT_ONCE, rare=True),
    _garbled("random bytes", b"\xff\x00*\x13"),
    _garbled("an integer", b":5\r\n"),
    _garbled("an error", b"-ERR no\r\n", opens=None, recovery="the next write that is taken", rare=True),
    _garbled("an empty list", b"*0\r\n", rare=True),
    _garbled("nil", b"$-1\r\n", opens=None, rare=True),
    _garbled("OK", b"+OK\r\n", opens=None, rare=True),
    _garbled("a string", b"$5\r\nwrong\r\n", rare=True),
    _garbled("a list of lists", b"*4\r\n*1\r\n:1\r\n:1\r\n$1\r\nx\r\n*0\r\n", rare=True),
    _garbled("a map", b"%1\r\n+a\r\n:1\r\n", rare=True),
    Row(
        name="in place of each reply: an entry that answers another request",
        begin=_answer_another,
        end=_end,
        clients=AT_MOST,
        opens=None,
    ),
    _garbled("a string of 1 TB", b"$999999999999\r\n", clients=ONE_DEADLINE, rare=True),
    _garbled("a list of 4 billion", b"*4294967295\r\n", clients=ONE_DEADLINE, rare=True),
    _garbled("lists nested 100,000 deep", b"*1\r\n" * 100_000, clients=ONE_DEADLINE, rare=True),
    Row(name="a reply too many, before each", **network(Fault(before=b"$5\r\nwrong\r\n")), clients=AT_ONCE),
    Row(
        name="each reply twice, at once",
        rare=True,
        **network(Fault(again_after=0.0)),
        clients=AT_ONCE,
        receipts="either",
        opens=None,
        recovery="new connections, or a probe",
    ),
    Row(
        name="each reply twice, the second time as the answer to another command",
        **network(Fault(again_after=0.001)),
        clients=AT_ONCE,
        receipts="either",
        opens=None,
        recovery="new connections, or a probe",
    ),
    Row(
        name="push messages before each reply",
        **network(Fault(before=b">2\r\n+message\r\n+x\r\n")),
        clients="hits as before; at worst as above",
        recovery="nothing, or new connections",
        receipts="either",
        opens=None,
    ),
)
ROWS = (*SERVER, *SILENCE, *SLOW, *BROKEN)
