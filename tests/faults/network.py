"""The rows of the table that are faults of the network, or of the process at its other end."""

from __future__ import annotations

from tests.faults.proxy import Fault
from tests.faults.table import Row, Stage, network

MISSES = "misses, answered by the app; what is in memory is served"
AT_ONCE = f"{MISSES}; nobody waits"
ONE_DEADLINE = f"{MISSES}; those in flight wait one deadline"


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


def _nothing(_: Stage) -> None:
    pass


ROWS = (
    Row(name="connections refused", begin=_refuse, end=_accept, clients=AT_ONCE),
    Row(name="Redis killed, and started again empty", begin=_kill, end=_start, clients=AT_ONCE),
    Row(name="Redis hangs (SIGSTOP)", begin=_pause, end=_resume, clients=ONE_DEADLINE, receipts="either"),
    Row(name="every connection reset once", begin=_reset, end=_nothing, clients=AT_ONCE, receipts="either", opens=None),
    Row(name="black hole, open connections", **network(Fault(silent=True, on="open")), clients=ONE_DEADLINE, receipts="either"),
    Row(name="black hole, new connections", **network(Fault(silent=True, on="new")), clients=ONE_DEADLINE, receipts="either", opens=None),
    Row(name="black hole", **network(Fault(silent=True)), clients=ONE_DEADLINE),
    Row(name="500 ms slow", **network(Fault(delay=0.5)), clients=ONE_DEADLINE),
    Row(name="250 ms slow", **network(Fault(delay=0.25)), clients="x", receipts="either", opens=None),
    Row(name="2 KB/s", **network(Fault(rate=2000)), clients="x", receipts="either", opens=None),
    Row(name="reset before a reply", **network(Fault(reset_after=0)), clients=AT_ONCE),
    Row(name="reset within a reply", **network(Fault(reset_after=3)), clients=AT_ONCE),
    Row(name="reply cut short and closed", **network(Fault(closed_after=3)), clients=AT_ONCE),
    Row(name="half a reply, then silence", **network(Fault(silent_after=3)), clients=ONE_DEADLINE),
    Row(name="random bytes", **network(Fault(garbage=b"\xff\x00*\x13")), clients=AT_ONCE),
    Row(name="an integer", **network(Fault(garbage=b":5\r\n")), clients=AT_ONCE),
    Row(name="an error of the server", **network(Fault(garbage=b"-ERR no\r\n")), clients=AT_ONCE),
    Row(name="an empty list", **network(Fault(garbage=b"*0\r\n")), clients=AT_ONCE),
    Row(name="nil", **network(Fault(garbage=b"$-1\r\n")), clients=AT_ONCE, opens=None),
    Row(name="OK", **network(Fault(garbage=b"+OK\r\n")), clients=AT_ONCE, opens=None),
    Row(name="a string", **network(Fault(garbage=b"$5\r\nwrong\r\n")), clients=AT_ONCE, opens=None),
    Row(name="a list of lists", **network(Fault(garbage=b"*4\r\n*1\r\n:1\r\n:1\r\n$1\r\nx\r\n*0\r\n")), clients=AT_ONCE, opens=None),
    Row(name="a map", **network(Fault(garbage=b"%1\r\n+a\r\n:1\r\n")), clients=AT_ONCE, opens=None),
    Row(name="a string of 1 TB", **network(Fault(garbage=b"$999999999999\r\n")), clients=ONE_DEADLINE),
    Row(name="a list of 4 billion", **network(Fault(garbage=b"*4294967295\r\n")), clients=ONE_DEADLINE),
    Row(name="lists nested 100,000 deep", **network(Fault(garbage=b"*1\r\n" * 100_000)), clients=ONE_DEADLINE),
    Row(name="a reply too many, before", **network(Fault(before=b"$5\r\nwrong\r\n")), clients=AT_ONCE, opens=None),
    Row(name="every reply twice, at once", **network(Fault(again_after=0.0)), clients=AT_ONCE, receipts="either", opens=None),
    Row(name="every reply twice, later", **network(Fault(again_after=0.001)), clients=AT_ONCE, receipts="either", opens=None),
    Row(name="push messages", **network(Fault(before=b">2\r\n+message\r\n+x\r\n")), clients=AT_ONCE, receipts="either", opens=None),
)
