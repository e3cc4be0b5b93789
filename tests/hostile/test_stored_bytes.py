"""Whatever stands in Redis under our keys: a miss and a count, never an error nor another answer."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import pickle
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import pytest
import redis
from starlette.types import Receive, Scope, Send
from xxhash import xxh64_digest

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.codec import decode, encode
from asgi_tiercache.codec.entries import MAX_FIELDS
from asgi_tiercache.types import Entry, Stamp
from tests.middleware.asgi import Reply, ask, run
from tests.servers import RedisServer

TEXT = b"the true answer"
LONG = 64 * 1024
Spoil = Callable[[bytes], bytes]


def change(**changes: Any) -> Spoil:
    """Bytes of the entry as it is but for some fields, rightly sealed, also where no writer would have written them."""

    def spoil(data: bytes) -> bytes:
        entry = decode(data)
        assert isinstance(entry, Entry)
        return forged(replace(entry, **changes))

    return spoil


def forged(entry: Entry, *, body: bytes | None = None, compression: int = 0, plain: int | None = None) -> bytes:
    """The format written by its description, without any of the writer's checks."""
    texts = "\0".join((entry.stamp.epoch, *entry.tags, *entry.vary)).encode("utf-8", "surrogatepass")
    fields = b"".join(b"%b\0%b\0" % line for line in entry.headers)
    content = entry.body if body is None else body
    times = entry.created, entry.lifetime, entry.stale_while_revalidate, entry.stale_if_error, entry.retention
    lengths = len(texts), len(entry.canonical), len(fields), len(content), len(content) if plain is None else plain
    numbers = entry.flags, entry.status, entry.stamp.position, *times, len(entry.tags), *lengths
    covered = struct.pack(">BBHQ5dH5I", compression, *numbers) + texts + entry.canonical + fields + content
    return b"ATC\x02" + xxh64_digest(covered) + covered


def resealed(data: bytes) -> bytes:
    """`data` with a checksum that is right."""
    return data[:4] + xxh64_digest(data[12:]) + data[12:]


def with_line(*line: tuple[bytes, bytes]) -> Spoil:
    def spoil(data: bytes) -> bytes:
        entry = decode(data)
        assert isinstance(entry, Entry)
        return forged(replace(entry, headers=(*entry.headers, *line)))

    return spoil


def bomb(size: int, declared: int) -> Spoil:
    """A body that inflates to `size` bytes and says that it has `declared`."""
    deflater = zlib.compressobj(9)
    small = b"".join(deflater.compress(bytes(1024 * 1024)) for _ in range(size >> 20)) + deflater.flush()

    def spoil(data: bytes) -> bytes:
        entry = decode(data)
        assert isinstance(entry, Entry)
        return forged(entry, body=small, compression=1, plain=declared)

    return spoil


class Payload:
    """What runs a command where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/asgi-tiercache-was-unpickled",)


SPOILT: dict[str, Spoil] = {
    "empty": lambda data: b"",
    "random": lambda data: os.urandom(500),
    "random after the magic": lambda data: b"ATC\x02" + os.urandom(500),
    "pickle": lambda data: pickle.dumps(Payload()),
    "truncated": lambda data: data[:-1],
    "longer": lambda data: data + b"x",
    "one bit": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "another version": lambda data: data[:3] + b"\x01" + data[4:],
    "huge declared lengths": lambda data: resealed(data[:66] + b"\xff" * 20 + data[86:]),
    "longer than declared": lambda data: resealed(data + b"x"),
    "deflate bomb": bomb(64 << 20, 128 << 10),
    "declared deflate bomb": bomb(64 << 20, 64 << 20 | 1),
    "negative lifetime": change(lifetime=-1.0),
    "endless lifetime": change(lifetime=math.inf),
    "lifetime that is no number": change(lifetime=math.nan),
    "date that is no number": change(created=math.nan),
    "date far ahead": change(created=1e300),
    "date two hours ahead": change(created=4e9),
    "retention that is no number": change(retention=math.nan),
    "status 0": change(status=0),
    "status 1": change(status=1, vary=("\xe9",)),
    "status 2": change(status=2),
    "status 100": change(status=100),
    "status 199": change(status=199),
    "status 206": change(status=206),
    "status 304": change(status=304),
    "status 600": change(status=600),
    "status 65535": change(status=65535),
    "204 with a body": change(status=204),
    "line end in a value": with_line((b"x-a", b"b\r\nset-cookie: session=evil")),
    "response in a value": with_line((b"x-a", b"b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")),
    "line end in a name": with_line((b"x-a\r\nx-b", b"c")),
    "colon in a name": with_line((b"x-a:", b"c")),
    "blank in a name": with_line((b"x a", b"c")),
    "upper case in a name": with_line((b"Content-Length", b"1")),
    "no name": with_line((b"", b"c")),
    "second length": with_line((b"content-length", b"3")),
    "length that is none": with_line((b"content-length", b"")),
    "chunked": with_line((b"transfer-encoding", b"chunked")),
    "very many lines": with_line(*[(b"x", b"")] * (MAX_FIELDS + 1)),
    "another canonical request": change(canonical=b"another"),
    "names of vary that are none": change(vary=("\xe9",)),
    "very many names of vary": change(vary=tuple(map(str, range(5000)))),
}


@pytest.fixture
def server(redis_server: RedisServer) -> Iterator[Any]:
    """A client of the server, to write what we never would."""
    client: Any = redis.Redis.from_url(redis_server.url)
    try:
        yield client
    finally:
        client.close()


@dataclass
class Site:
    """An app behind a cache in Redis; each `worker` is another process as far as the cache can tell."""

    url: str
    client: Any
    policy: Policy
    namespace: str

    @property
    def keys(self) -> list[bytes]:
        return sorted(self.client.scan_iter(f"{self.namespace}:*"))

    async def worker(self, *wanted: str, between: Callable[[], object] = lambda: None, **scope: Any) -> Worker:
        """A worker's answers to requests; what it has stored is in Redis when this returns."""
        async with TierCache.from_url(self.url, namespace=self.namespace) as cache:
            ours = TierCacheMiddleware(answering, cache=cache, routes={"/*": self.policy})
            replies = []
            for path in wanted:
                replies.append(await ask(ours, path, **scope))
                between()
            return Worker(replies, cache.stats())


@dataclass
class Worker:
    """What a worker answered, and what it counted."""

    replies: list[Reply]
    stats: Any

    @property
    def rejected(self) -> int:
        return sum(self.stats["rejected"].get("L2", {}).values())


async def answering(scope: Scope, receive: Receive, send: Send) -> None:
    lines = [
        (b"content-type", b"text/plain"),
        (b"content-length", b"%d" % len(TEXT)),
        (b"cache-control", b"max-age=60"),
    ]
    if scope["path"].startswith("/varies"):
        lines.append((b"vary", b"accept-language"))
    await send({"type": "http.response.start", "status": 200, "headers": lines})
    await send({"type": "http.response.body", "body": TEXT})


@pytest.fixture
def site(redis_server: RedisServer, server: Any) -> Site:
    return Site(redis_server.url, server, Policy(ttl=60), f"hostile-{uuid4().hex}")


def assert_unhurt(worker: Worker, caplog: pytest.LogCaptureFixture, *, rejected: int | None = 1) -> None:
    """Each answer is the app's own, what was found is counted, and the log says nothing of it."""
    for reply in worker.replies:
        assert reply.status == 200
        assert reply.body == TEXT
        assert all(b"\n" not in name + value for name, value in reply.messages[0]["headers"])
        names = [name for name, _ in reply.messages[0]["headers"]]
        assert names.count(b"content-length") == 1
        assert b"set-cookie" not in names
    if rejected is not None:  # who finds nothing looks a second time, with the lease in hand
        assert rejected <= worker.rejected <= 2 * rejected, worker.stats["rejected"]
    assert worker.stats["breakers"] == {}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_what_a_worker_has_stored_another_one_finds(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        await site.worker("/a")
        assert len(site.keys) == 1
        other = await site.worker("/a")
        assert_unhurt(other, caplog, rejected=0)
        assert "detail=L2" in other.replies[0].cache_status

    run(test())


@pytest.mark.parametrize("how", SPOILT)
def test_bytes_that_are_no_entry_of_this_request_are_a_miss(
    site: Site, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        await site.worker("/a")
        (key,) = site.keys
        good = site.client.get(key)
        site.client.set(key, SPOILT[how](good))
        spoilt = await site.worker("/a", "/a")
        assert_unhurt(spoilt, caplog)
        assert not spoilt.replies[0].hit
        assert spoilt.replies[1].hit
        healed = await site.worker("/a")
        assert_unhurt(healed, caplog, rejected=0)
        assert "detail=L2" in healed.replies[0].cache_status

    run(test())
    assert not os.path.exists("/tmp/asgi-tiercache-was-unpickled")


def test_an_entry_truncated_at_any_byte_is_a_miss(site: Site) -> None:
    async def test() -> None:
        await site.worker("/a")

    run(test())
    data = site.client.get(site.keys[0])
    for length in range(len(data)):
        assert not isinstance(decode(data[:length]), Entry)


def test_any_declared_length_is_checked_before_memory_is_taken_for_it() -> None:
    entry = Entry(Stamp("e", 1), 1.0, 60.0, b"c", ("t",), 200, ((b"a", b"b"),), b"body")
    data = encode(entry)
    tracemalloc.start()
    try:
        for place in range(5):
            at = 66 + 4 * place
            huge = data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :]
            assert not isinstance(decode(resealed(huge)), Entry)
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("declared", [2 << 20, 256 << 20], ids=["a lie", "the truth"])
def test_what_inflates_to_hundreds_of_megabytes_takes_no_more_than_it_may(declared: int) -> None:
    entry = Entry(Stamp("e", 1), 1.0, 60.0, b"c", body=b"x" * 2000)
    whole = bomb(256 << 20, declared)(encode(entry))
    tracemalloc.start()
    try:
        assert not isinstance(decode(whole), Entry)
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    finally:
        tracemalloc.stop()


# ---- entries of others ----


def test_another_paths_entry_copied_over_is_not_served(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        await site.worker("/a", "/b")
        one, other = site.keys
        site.client.set(one, site.client.get(other))
        worker = await site.worker("/a", "/b")
        assert_unhurt(worker, caplog)
        assert [reply.hit for reply in worker.replies].count(True) == 1

    run(test())


def test_another_users_entry_copied_over_is_not_served(redis_server: RedisServer, server: Any) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        (who,) = [value for name, value in scope["headers"] if name == b"authorization"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": who})

    namespace = f"hostile-{uuid4().hex}"

    async def asked(*users: bytes) -> list[bytes]:
        async with TierCache.from_url(redis_server.url, namespace=namespace) as cache:
            ours = TierCacheMiddleware(app, cache=cache, routes={"/*": Policy(ttl=60, vary_on=["authorization"])})
            replies = [await ask(ours, headers=[(b"authorization", user)]) for user in users]
            rejected.append(sum(cache.stats()["rejected"].get("L2", {}).values()))
            return [reply.body for reply in replies]

    rejected: list[int] = []

    async def test() -> None:
        await asked(b"ada", b"bob")
        one, other = server.scan_iter(f"{namespace}:*")
        first, second = server.get(one), server.get(other)
        server.set(one, second)
        server.set(other, first)
        assert await asked(b"ada", b"bob") == [b"ada", b"bob"]
        assert rejected[0] == 0
        assert rejected[1] >= 2

    run(test())


@pytest.mark.parametrize("ahead", [1, 1 << 20, 2**62], ids=["one", "a millisecond", "ages"])
def test_a_stamp_beyond_the_clock_of_the_log_is_not_believed(site: Site, ahead: int) -> None:
    """It would outlive each invalidation to come."""

    async def test() -> None:
        await site.worker("/a")
        (key,) = site.keys
        entry = decode(site.client.get(key))
        assert isinstance(entry, Entry)
        site.client.set(key, forged(replace(entry, stamp=entry.stamp._replace(position=entry.stamp.position + ahead))))
        worker = await site.worker("/a")
        assert not worker.replies[0].hit
        assert worker.replies[0].body == TEXT

    run(test())


@pytest.mark.parametrize(
    "epoch", ["another", "", "\x00", "x" * 10_000, "\n"], ids=["other", "none", "NUL", "long", "line"]
)
def test_an_entry_of_another_epoch_is_not_served(site: Site, epoch: str) -> None:
    async def test() -> None:
        await site.worker("/a")
        (key,) = site.keys
        entry = decode(site.client.get(key))
        assert isinstance(entry, Entry)
        site.client.set(key, forged(replace(entry, stamp=entry.stamp._replace(epoch=epoch))))
        worker = await site.worker("/a")
        assert not worker.replies[0].hit

    run(test())


# ---- markers ----


def test_markers_that_point_to_markers_are_a_miss(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        await site.worker("/varies")
        marker_key, variant_key = sorted(site.keys, key=len)
        marker, variant = decode(site.client.get(marker_key)), decode(site.client.get(variant_key))
        assert isinstance(marker, Entry)
        assert isinstance(variant, Entry)
        loop = replace(marker, canonical=variant.canonical)
        site.client.set(variant_key, forged(loop))
        worker = await site.worker("/varies", "/varies")
        assert_unhurt(worker, caplog)

    run(test())


@pytest.mark.parametrize(
    "changes",
    [
        {"vary": ()},
        {"vary": ("",)},
        {"vary": ("*",)},
        {"vary": tuple(map(str, range(128)))},
        {"headers": ((b"variant", b"../../x"),)},
        {"headers": ((b"variant", b"x" * 10_000),)},
        {"headers": ((b"variant", b"\xff"),)},
        {"headers": ((b"variant", b"x"),) * 900},
        {"body": b"x" * 1000},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_marker_with_odd_contents_hurts_nobody(
    site: Site, caplog: pytest.LogCaptureFixture, changes: dict[str, Any]
) -> None:
    async def test() -> None:
        await site.worker("/varies")
        marker_key = min(site.keys, key=len)
        site.client.set(marker_key, change(**changes)(site.client.get(marker_key)))
        worker = await site.worker("/varies", "/varies", headers=[(b"accept-language", b"en")])
        assert_unhurt(worker, caplog, rejected=None)

    run(test())


# ---- other types of Redis ----


@pytest.mark.parametrize("kind", ["list", "hash", "set", "stream", "zset"])
def test_a_key_of_another_type_is_a_miss_and_no_outage(site: Site, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    put: dict[str, Callable[[bytes], object]] = {
        "list": lambda key: site.client.rpush(key, "a"),
        "hash": lambda key: site.client.hset(key, "a", "b"),
        "set": lambda key: site.client.sadd(key, "a"),
        "stream": lambda key: site.client.xadd(key, {"a": "b"}),
        "zset": lambda key: site.client.zadd(key, {"a": 1}),
    }
    paths = [f"/{number}" for number in range(6)]

    async def test() -> None:
        await site.worker(*paths)
        for key in site.keys:
            site.client.delete(key)
            put[kind](key)
        assert_unhurt(await site.worker(*paths), caplog, rejected=len(paths))
        healed = await site.worker(*paths)
        assert all(reply.hit for reply in healed.replies)

    run(test())


# ---- leases, the log and the control hash ----


def test_garbage_where_a_lease_belongs_keeps_nobody_for_long(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        await site.worker("/a")
        (key,) = site.keys
        site.client.delete(key)
        site.client.rpush(key + b"{}lease", "garbage")
        site.client.pexpire(key + b"{}lease", 200)
        assert_unhurt(await site.worker("/a"), caplog, rejected=0)

    run(test())


@pytest.mark.parametrize("said", [b"", b"stored", b"\xff" * 1000, b"garbage\r\n"], ids=["none", "lie", "bytes", "text"])
def test_garbage_on_the_channel_of_a_lease_hurts_nobody(
    site: Site, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        await site.worker("/a")
        (key,) = site.keys
        site.client.delete(key)
        site.client.set(key + b"{}lease", os.urandom(100), px=1_000)

        async def shout() -> None:
            for _ in range(20):
                await asyncio.sleep(0.02)
                site.client.publish(key + b"{}lease", said)

        shouting = asyncio.create_task(shout())
        assert_unhurt(await site.worker("/a"), caplog, rejected=0)
        await shouting

    run(test())


RECORDS: dict[str, dict[bytes, bytes]] = {
    "nothing known": {b"a": b"b"},
    "no tags": {b"tags": b"garbage"},
    "tags that are no array": {b"tags": b'{"a": 1}'},
    "tags that are no texts": {b"tags": b'[{}, 1, ["x"]]'},
    "patterns that are no texts": {b"patterns": b"[1, null]"},
    "deep nesting": {b"tags": b"[" * 200_000},
    "deep nesting closed": {b"tags": b"[" * 100_000 + b"]" * 100_000},
    "settle beyond any float": {b"settle": b"9" * 400},
    "settle that is none": {b"settle": b"soon"},
    "another kind": {b"kind": b"\xff"},
    "an epoch that is none": {b"epoch": b"\xff\n"},
    "an id that is none": {b"previous": b"-5-x"},
    "a huge id": {b"previous": b"9" * 5_000},
}


@pytest.mark.parametrize("record", RECORDS)
def test_garbage_in_the_log_hurts_nobody(site: Site, record: str, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        control, log = f"{{{site.namespace}}}:control", f"{{{site.namespace}}}:log"
        await site.worker("/a")
        epoch = site.client.hget(control, "epoch")

        def spoil() -> None:
            fields = {b"epoch": epoch, b"kind": b"hard", b"previous": b"0-0", b"by": b"x", b"tags": b'["t"]'}
            id_ = site.client.xadd(log, {**fields, **RECORDS[record]})
            site.client.hset(control, "clock", id_)

        async with TierCache.from_url(site.url, namespace=site.namespace, max_lag=0.05) as cache:
            ours = TierCacheMiddleware(answering, cache=cache, routes={"/*": site.policy})
            await ask(ours, "/a")
            spoil()
            await asyncio.sleep(0.2)  # real time: so does the worker ask anew where the log stands
            for _ in range(3):
                reply = await ask(ours, "/a")
                assert reply.body == TEXT
            assert (await cache.invalidate("t")).durable
            assert (await ask(ours, "/a")).body == TEXT
        assert not [each for each in caplog.records if each.levelno >= logging.WARNING]

    run(test())


CONTROLS: dict[str, dict[str, bytes]] = {
    "clock": {"clock": b"garbage"},
    "clock without end": {"clock": b"9" * 400 + b"-1"},
    "floor": {"floor": b"-1"},
    "soft": {"soft": b"\xff\xfe"},
    "patterns": {"patterns": b"[" * 200_000},
    "patterns of another form": {"patterns": b'{"*": 5}'},
    "epoch": {"epoch": b"\xff\r\n"},
    "no epoch": {"epoch": b""},
    "due": {"due": b"garbage"},
}


@pytest.mark.parametrize("field", CONTROLS)
def test_garbage_in_the_control_hash_is_never_an_error_to_a_client(site: Site, field: str) -> None:
    async def test() -> None:
        await site.worker("/a")
        site.client.hset(f"{{{site.namespace}}}:control", mapping=CONTROLS[field])
        for _ in range(2):
            worker = await site.worker("/a", "/a")
            assert [reply.body for reply in worker.replies] == [TEXT, TEXT]

    run(test())


def test_control_state_of_another_type_is_begun_anew_and_never_an_error_to_a_client(site: Site) -> None:
    async def test() -> None:
        await site.worker("/a")
        for name in ("control", "log"):
            site.client.delete(f"{{{site.namespace}}}:{name}")
            site.client.rpush(f"{{{site.namespace}}}:{name}", "garbage")
        worker = await site.worker("/a", "/a", "/a", "/a")
        assert [reply.body for reply in worker.replies] == [TEXT] * 4
        assert site.client.type(f"{{{site.namespace}}}:control") == b"hash"

    run(test())


# ---- values of functions ----


@dataclass
class Point:
    x: int
    y: int


class AppError(Exception):
    """What the function may raise, and have stored."""


BODIES: dict[str, bytes] = {
    "empty": b"",
    "random": os.urandom(100),
    "pickle": pickle.dumps(Payload()),
    "no record": b"[1, 2]",
    "another type": b'{"x": "1", "y": 2}',
    "one field": b'{"x": 1}',
    "more fields": b'{"x": 1, "y": 2, "__class__": 3}',
    "deep nesting": b"[" * 900 + b"]" * 900,
    "deeper nesting": b"[" * 200_000,
    "deep objects": b'{"x":' * 900 + b"1" + b"}" * 900,
    "not a number": b'{"x": NaN, "y": 2}',
    "marked": b'{"x": {"$": ["os.system", "true"]}, "y": 1}',
    "marked number": b'{"x": {"$": ["int", "zz"]}, "y": 1}',
    "mark alone": b'{"$": null}',
}


def point_of(site: Site, spoil: Spoil) -> tuple[Point, int]:
    """What a worker returns for a function of whose stored value `spoil` has made something; and what it rejected."""

    async def worker() -> tuple[Point, int]:
        async with TierCache.from_url(site.url, namespace=site.namespace) as cache:

            @cache.cached("point", ttl=60, negative={AppError: 60})
            async def point() -> Point:
                return Point(1, 2)

            value = await point()
            return value, sum(cache.stats()["rejected"].get("L2", {}).values())

    async def test() -> tuple[Point, int]:
        await worker()
        (key,) = site.keys
        site.client.set(key, spoil(site.client.get(key)))
        return await worker()

    return asyncio.run(test())


@pytest.mark.parametrize("body", BODIES)
def test_a_value_of_another_type_is_computed_anew(site: Site, body: str) -> None:
    value, rejected = point_of(site, change(body=BODIES[body]))
    assert value == Point(1, 2)
    assert rejected > 0
    assert not os.path.exists("/tmp/asgi-tiercache-was-unpickled")


@pytest.mark.parametrize("status", [1, 200, 404], ids=["marker", "response", "error"])
def test_a_response_in_the_place_of_a_value_is_none(site: Site, status: int) -> None:
    value, rejected = point_of(site, change(status=status))
    assert value == Point(1, 2)
    assert rejected > 0


FAILURES: dict[str, bytes] = {
    "SystemExit": b'{"$": ["tuple", ["SystemExit", {"$": ["tuple", []]}, {}, {}]]}',
    "KeyboardInterrupt": b'{"$": ["tuple", ["KeyboardInterrupt", {"$": ["tuple", []]}, {}, {}]]}',
    "another exception": b'{"$": ["tuple", ["ValueError", {"$": ["tuple", []]}, {}, {}]]}',
    "a function": b'{"$": ["tuple", ["os.system", {"$": ["tuple", ["true"]]}, {}, {}]]}',
    "a class to be imported": b'{"$": ["tuple", ["antigravity.Error", {"$": ["tuple", []]}, {}, {}]]}',
    "no name": b'{"$": ["tuple", [[], {}, {}, {}]]}',
    "nothing": b"null",
    "empty": b"",
    "deep nesting": b"[" * 200_000,
}


@pytest.mark.parametrize("body", FAILURES)
def test_no_exception_is_made_but_those_that_the_policy_names(site: Site, body: str) -> None:
    value, rejected = point_of(site, change(status=2, body=FAILURES[body]))
    assert value == Point(1, 2)
    assert rejected > 0
