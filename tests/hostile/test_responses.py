"""Responses that nobody should store, or not for long: what is not stored goes to the client as the app sent it."""

from __future__ import annotations

import asyncio
import contextlib
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.codec.entries import MAX_FIELDS, MAX_LINES
from asgi_tiercache.middleware.tee import STREAM_SECONDS
from asgi_tiercache.testing import TickingClock
from tests.middleware.asgi import OURS, Exchange, Reply, ask, http_scope, run, turns, until

MEGABYTE = 1024 * 1024
FRESH = (b"cache-control", b"max-age=60")
MODES = [Policy(ttl=60), Policy.http(), Policy.rfc9111()]
modes = pytest.mark.parametrize("policy", MODES, ids=lambda policy: policy.mode)

Lines = list[tuple[bytes, bytes]]


def start(*headers: tuple[bytes, bytes], **more: Any) -> Message:
    return {"type": "http.response.start", "status": 200, "headers": list(headers), **more}


def body(content: bytes = b"text", *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more}


def sending(*messages: Message, error: Exception | None = None) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(dict(message))
        if error is not None:
            raise error

    return app


def behind(app: ASGIApp, policy: Policy, cache: TierCache | None = None) -> TierCacheMiddleware:
    return TierCacheMiddleware(app, cache=cache or TierCache(), routes={"/": policy})


def without_ours(messages: list[Message]) -> list[Message]:
    """What a client received, but for the field lines that we add."""
    return [
        {**message, "headers": [line for line in message["headers"] if line[0] not in OURS]}
        if isinstance(message.get("headers"), list)
        else message
        for message in messages
    ]


async def twice(ours: ASGIApp) -> list[Reply]:
    """Two answers, one after the other; raises nothing that the app raises."""
    replies = []
    for _ in range(2):
        exchange = Exchange(ours)
        with contextlib.suppress(RuntimeError):
            await exchange.reply()
        replies.append(Reply(exchange.messages))
    return replies


def assert_never_stored(messages: list[Message], policy: Policy, *, error: Exception | None = None) -> list[Reply]:
    async def test() -> None:
        for reply in await twice(behind(sending(*messages, error=error), policy)):
            assert not reply.hit
            assert without_ours(reply.messages) == [
                {**message, "headers": [tuple(line) for line in message["headers"]]}
                if "headers" in message
                else message
                for message in messages
            ]
            replies.append(reply)

    replies: list[Reply] = []
    run(test())
    return replies


@modes
def test_an_ordinary_response_is_stored(policy: Policy) -> None:
    async def test() -> None:
        first, second = await twice(behind(sending(start(FRESH), body()), policy))
        assert not first.hit
        assert second.hit
        assert second.body == b"text"

    run(test())


# ---- what says that it is not for others ----


@pytest.mark.parametrize("policy", MODES[:2], ids=lambda policy: policy.mode)
@pytest.mark.parametrize("name", [b"set-cookie", b"Set-Cookie", b"SET-COOKIE"])
def test_a_cookie_of_one_client_is_no_other_ones(policy: Policy, name: bytes) -> None:
    async def test() -> None:
        for reply in await twice(behind(sending(start(FRESH, (name, b"session=1")), body()), policy)):
            assert not reply.hit
            assert "detail=set-cookie" in reply.cache_status

    run(test())


@modes
@pytest.mark.parametrize(
    "lines",
    [
        [b"*"],
        [b" * "],
        [b"\t*"],
        [b"*, Accept"],
        [b"Accept,*"],
        [b"accept, ,\t* ,"],
        [b"accept", b"*"],
        [b'"*"'],
        [b"accept encoding"],
        [b", ".join(b"x-%d" % number for number in range(129))],
    ],
)
def test_a_vary_that_nobody_can_match_is_obeyed_in_any_spelling(policy: Policy, lines: list[bytes]) -> None:
    for reply in assert_never_stored([start(FRESH, *((b"vary", line) for line in lines)), body()], policy):
        assert "detail=vary" in reply.cache_status


@modes
@pytest.mark.parametrize(
    "lines",
    [
        [b"PRIVATE"],
        [b"max-age=60, pRiVaTe"],
        [b"no-store"],
        [b"No-Store=0"],
        [b'private="'],
        [b"public, no-store, max-age=60"],
        [b"max-age=60", b"NO-STORE"],
        [b"max-age=60,,\t,no-store ,"],
        [b'x="a, no-store, max-age=60'],
        [b"\xff\xfe=\xfd, no-store"],
        [b"no-store;max-age=60"],
        [b"max-age=60, no-cache"],
    ],
)
def test_what_forbids_is_obeyed_whatever_stands_beside_it(policy: Policy, lines: list[bytes]) -> None:
    assert_never_stored([start(*((b"cache-control", line) for line in lines)), body()], policy)


@modes
def test_a_directive_inside_a_quoted_value_is_none(policy: Policy) -> None:
    async def test() -> None:
        line = (b"cache-control", b'x="private, no-store", max-age=60')
        _, second = await twice(behind(sending(start(line), body()), policy))
        assert second.hit

    run(test())


@pytest.mark.parametrize("policy", MODES[1:], ids=lambda policy: policy.mode)
@pytest.mark.parametrize("value", [b"max-age=60, max-age=0", b"max-age=-1", b"max-age=1e9", b'max-age="60" x', b"=60"])
def test_lifetimes_that_conflict_or_are_none_make_nothing_fresh(policy: Policy, value: bytes) -> None:
    assert_never_stored([start((b"cache-control", value)), body()], policy)


# ---- what does not come to its end ----


@modes
def test_a_200_with_an_error_in_its_midst_is_not_stored(policy: Policy) -> None:
    assert_never_stored([start(FRESH), body(b"te", more=True)], policy, error=RuntimeError("boom"))


@modes
@pytest.mark.parametrize(
    "lengths",
    [[b"3"], [b"5"], [b"4", b"5"], [b"4, 4"], [b"+4"], [b""], [b"4" * 5_000]],
    ids=lambda lengths: str(lengths)[:12],
)
def test_a_body_that_is_not_as_long_as_announced_is_not_stored(policy: Policy, lengths: list[bytes]) -> None:
    assert_never_stored([start(FRESH, *((b"content-length", length) for length in lengths)), body()], policy)


@modes
def test_a_response_with_trailers_is_passed_on_and_not_stored(policy: Policy) -> None:
    trailers = {"type": "http.response.trailers", "headers": [(b"x-checksum", b"1")], "more_trailers": False}
    assert_never_stored([start(FRESH, trailers=True), body(), trailers], policy)


@modes
def test_a_204_with_a_body_is_not_stored(policy: Policy) -> None:
    assert_never_stored([{**start(FRESH), "status": 204}, body()], policy)


# ---- header blocks ----


@modes
@pytest.mark.parametrize(
    "line",
    [
        (b"x-a", b"b\r\nset-cookie: session=1"),
        (b"x-a", b"b\nc: d"),
        (b"x-a", b"b\rc"),
        (b"x-a", b"b\0"),
        (b"x-a", b"\x1b[31m"),
        (b"x-a\r\nx-b", b"c"),
        (b"x a", b"b"),
        (b"x:a", b"b"),
        (b"", b"b"),
        (b"vary", b"accept\r\n *"),
    ],
)
def test_a_field_line_that_would_begin_another_goes_to_who_asked_and_to_nobody_else(
    policy: Policy, line: tuple[bytes, bytes]
) -> None:
    for reply in assert_never_stored([start(FRESH, line), body()], policy):
        assert "detail=malformed" in reply.cache_status


@modes
@pytest.mark.parametrize(
    "lines",
    [
        [(b"x-%d" % number, b"") for number in range(100_000)],
        [(b"cache-control", b'x="\\"",' * 1_000)] * 1_000,
        [(b"x-a", b"b" * MAX_LINES)],
        [(b"a", b"")] * MAX_FIELDS,
    ],
    ids=["100,000 lines", "8 MB of directives", "one giant", "one too many"],
)
def test_a_header_block_without_end_is_passed_on_and_nothing_of_it_is_kept(policy: Policy, lines: Lines) -> None:
    cache = TierCache()

    async def test() -> None:
        for reply in await twice(behind(sending(start(FRESH, *lines), body()), policy, cache)):
            assert "detail=headers-too-large" in reply.cache_status
            assert without_ours(reply.messages)[0]["headers"] == [FRESH, *lines]
        assert cache.stats()["tiers"]["L1"]["bytes"] == 0

    run(test())


# ---- messages that are none of ASGI ----


@modes
@pytest.mark.parametrize(
    "message",
    [
        {**start(), "headers": [("cache-control", "max-age=60")]},
        {**start(), "headers": [[b"cache-control", "max-age=60"]]},
        {**start(), "headers": [(b"cache-control",)]},
        {**start(), "headers": None},
        {**start(FRESH), "status": "200"},
        {"type": "http.response.start", "headers": [FRESH]},
    ],
    ids=["texts", "a text", "no pair", "none", "status", "no status"],
)
def test_a_start_that_servers_may_take_reaches_the_server_as_it_is(policy: Policy, message: Message) -> None:
    async def test() -> None:
        for _ in range(2):
            exchange = Exchange(behind(sending(message, body()), policy))
            await exchange.reply()
            assert exchange.messages == [message, body()]

    run(test())


@modes
@pytest.mark.parametrize("content", ["text", None, 5, [b"text"]], ids=str)
def test_a_body_that_is_no_byte_string_reaches_the_server_as_it_is(policy: Policy, content: object) -> None:
    assert_never_stored([start(FRESH), {**body(), "body": content}], policy)


@modes
@pytest.mark.parametrize(
    "messages",
    [
        [start(FRESH), body(b"te", more=True), start(FRESH), body(b"xt")],
        [body(b"te", more=True), start(FRESH), body(b"xt")],
        [start(FRESH), start(FRESH), body()],
    ],
    ids=["a second start", "a body before", "two starts"],
)
def test_messages_out_of_turn_make_no_response_for_others(policy: Policy, messages: list[Message]) -> None:
    async def test() -> None:
        ours = behind(sending(*messages), policy)
        for _ in range(2):
            exchange = Exchange(ours)
            await exchange.reply()
            assert [message.get("body") for message in exchange.messages] == [
                message.get("body") for message in messages
            ]

    run(test())


@modes
def test_a_buffer_and_a_message_that_the_app_uses_again_do_no_harm(policy: Policy) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(FRESH))
        buffer, message = bytearray(2), {"type": "http.response.body", "more_body": True}
        for part in (b"ab", b"cd", b"ef"):
            buffer[:] = part
            message["body"] = memoryview(buffer)
            await send(message)
        await send(body(b""))

    async def test() -> None:
        ours = behind(app, policy)
        together = [Exchange(ours) for _ in range(3)]
        for exchange in together:
            assert (await exchange.reply()).body == b"abcdef"
        reply = await ask(ours)
        assert reply.hit
        assert reply.body == b"abcdef"

    run(test())


# ---- bodies without end ----


class Sink:
    """A client that counts what it receives, keeps nothing, and leaves when it has had enough."""

    def __init__(self, app: ASGIApp, *, enough: int | None = None) -> None:
        self.bytes = self.messages = 0
        self.peak = 0
        self.slow = asyncio.Event()
        self.slow.set()
        self._app = app
        self._enough = enough
        self._asked = False

    async def run(self) -> None:
        with contextlib.suppress(OSError):
            await self._app(http_scope(), self._receive, self._send)

    async def _receive(self) -> Message:
        if self._asked:
            await asyncio.Event().wait()
        self._asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _send(self, message: Message) -> None:
        await self.slow.wait()
        self.messages += 1
        self.bytes += len(message.get("body", b""))
        if self._enough is not None and self.bytes >= self._enough:
            raise OSError("the client is gone")


def peak_of(test: Callable[[], Any]) -> int:
    """Bytes that `test` has allocated at the most, over those at its beginning."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        asyncio.run(test())
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@modes
@pytest.mark.parametrize("followers", [0, 2])
def test_a_body_of_a_gigabyte_passes_in_a_few_megabytes(policy: Policy, followers: int) -> None:
    piece = bytes(512 * 1024)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(FRESH))
        for _ in range(2 * 1024):
            await send(body(piece, more=True))
        await send(body(b""))

    async def test() -> None:
        ours = behind(app, policy)
        clients = [Sink(ours) for _ in range(1 + followers)]
        await asyncio.gather(*(client.run() for client in clients))
        assert {client.bytes for client in clients} == {1024 * MEGABYTE}

    peak = peak_of(test)
    print(f"peak {peak / MEGABYTE:.1f} MB")  # noqa: T201
    assert peak < 8 * MEGABYTE


@modes
def test_a_body_without_end_passes_live_and_ends_with_its_client(policy: Policy) -> None:
    ended: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        piece = bytes(4096)
        try:
            await send(start(FRESH))
            while True:
                await send(body(piece, more=True))
        finally:
            ended.append(1)

    async def test() -> None:
        ours = behind(app, policy)
        await Sink(ours, enough=16 * MEGABYTE).run()
        await until(lambda: bool(ended))

    assert peak_of(test) < 8 * MEGABYTE


@pytest.mark.parametrize("size", [0, 2, 100])
def test_a_body_in_very_many_pieces_takes_the_memory_of_its_bytes(size: int) -> None:
    policy, number = Policy(ttl=60), 40_000
    parts = [bytes([n % 251]) * size for n in range(251)]
    whole = b"".join(parts[n % 251] for n in range(number))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(FRESH))
        await send(body(parts[0], more=True))
        await asyncio.sleep(0.01)  # others come
        for n in range(1, number):
            await send(body(parts[n % 251], more=True))
        await send(body(b""))

    cache = TierCache()
    ours = behind(app, policy.but(max_body=16 * MEGABYTE), cache)

    async def test() -> None:
        leader, follower = Sink(ours), Sink(ours)
        slow = Sink(ours)
        slow.slow.clear()
        running = [asyncio.create_task(each.run()) for each in (leader, follower, slow)]
        await asyncio.wait(running[:2])
        slow.slow.set()
        await asyncio.wait(running)
        assert {each.bytes for each in (leader, follower, slow)} == {len(whole)}

    peak = peak_of(test)
    print(f"peak {peak / MEGABYTE:.1f} MB for {len(whole) / MEGABYTE:.1f} MB")  # noqa: T201
    assert peak < 3 * MEGABYTE + 4 * len(whole)  # an object for each piece would be 15 MB

    async def again() -> None:
        reply = await ask(ours)
        assert reply.hit
        assert reply.body == whole

    run(again())


def test_pieces_that_a_slow_leader_has_not_taken_take_the_memory_of_their_bytes() -> None:
    leader: Sink

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        for _ in range(40_000):
            await send(body(b"xy", more=True))
        await send(body(b""))
        leader.slow.set()

    async def test() -> None:
        leader.slow.clear()
        await leader.run()
        assert leader.bytes == 80_000

    leader = Sink(behind(app, Policy(ttl=60)))
    assert peak_of(test) < 3 * MEGABYTE  # an object for each piece would be 15 MB


def test_pieces_that_became_one_are_the_same_bytes_for_whoever_comes_when() -> None:
    go_on = asyncio.Event()
    parts = [b"%d," % number for number in range(2_000)]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        for number, part in enumerate(parts):
            await send(body(part, more=True))
            if number % 100 == 0:
                go_on.clear()
                await go_on.wait()
        await send(body(b""))

    async def test() -> None:
        ours = behind(app, Policy(ttl=60))
        exchanges = []
        for _ in range(20):
            exchanges.append(Exchange(ours))
            await turns()
            go_on.set()
            await turns()
        go_on.set()
        for exchange in exchanges:
            assert (await exchange.reply()).body == b"".join(parts)

    run(test())


def test_an_app_that_never_waits_still_lets_its_client_have_what_it_sends() -> None:
    seen: list[int] = []
    ours: TierCacheMiddleware

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        for _ in range(1_000):
            await send(body(b"x", more=True))
            seen.append(sink.messages)
        await send(body(b""))

    async def test() -> None:
        await sink.run()
        assert seen[500] > 300

    ours = behind(app, Policy(ttl=60))
    sink = Sink(ours)
    run(test())


@modes
def test_a_drip_that_never_ends_is_followed_for_a_while_and_then_kept_nowhere(policy: Policy) -> None:
    clock, drop = TickingClock(), asyncio.Semaphore(0)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(FRESH))
        while True:
            await send(body(b"drop", more=True))
            await drop.acquire()

    async def test() -> None:
        ours = behind(app, policy, TierCache(clock=clock))
        leader = Exchange(ours)
        await leader.until(2)
        followers = [Exchange(ours) for _ in range(2)]
        for number in range(3, 60):
            clock.tick(1.0)
            drop.release()
            for exchange in (leader, *followers):
                await exchange.until(number)
        late = Exchange(ours)  # nobody waits for what has taken so long
        await late.until(2)
        assert STREAM_SECONDS < 60
        assert not Reply(late.messages).hit
        for exchange in (leader, *followers, late):
            await exchange.cancel()

    run(test())
