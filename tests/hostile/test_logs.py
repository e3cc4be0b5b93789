"""What is logged, counted and shown of what others chose: one line each, bounded, and no secrets."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.logs import LONGEST_LINE, MOST_LINES, FailureLog
from asgi_tiercache.signals import BreakerChanged, TierFailed
from asgi_tiercache.testing import ScriptedTier, TickingClock
from tests.middleware.asgi import ask, run, until

FORGED = "2026-11-29 00:00:00 CRITICAL asgi_tiercache: all is lost"
HOSTILE = [
    f"x\n{FORGED}",
    f"x\r\n{FORGED}",
    f"x\r{FORGED}",
    f"x\x0b{FORGED}",
    f"x\x85{FORGED}",
    f"x\u2028{FORGED}",
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m",
    "\u202eesrever",
    "\x00",
    "\ud800",
    "x" * 1_000_000,
    "\n" * 100_000,
]
hostile = pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:12]))


@contextmanager
def log() -> Iterator[io.StringIO]:
    """What a handler with a common format writes meanwhile."""
    stream, logger = io.StringIO(), logging.getLogger("asgi_tiercache")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    try:
        yield stream
    finally:
        logger.removeHandler(handler)


def assert_clean(stream: io.StringIO, *, records: int = 1) -> str:
    """The log says something, in lines of printable characters that begin as its own format begins, or are indented."""
    text = stream.getvalue()
    lines = text.split("\n")
    assert lines.pop() == ""
    own = [line for line in lines if not line.startswith("  ")]
    assert len(own) == records
    assert len(lines) <= records * (MOST_LINES + 3)
    for line in lines:
        assert line.isprintable()
        assert len(line) < LONGEST_LINE * 11
        assert not line.startswith(FORGED)
    return text


@hostile
def test_what_redis_says_is_one_line(text: str) -> None:
    TierCache()
    with log() as stream:
        failures = FailureLog()
        failures(TierFailed("L2", "get", text))
        failures(BreakerChanged("L2", "open"))
        assert "\n" not in repr(failures)
    assert "out of reach" in assert_clean(stream)


@hostile
def test_what_a_tier_raises_is_one_line(text: str) -> None:
    class Hostile(ScriptedTier):
        async def get_many(self, keys: Any) -> Any:
            raise RuntimeError(text)

    async def test() -> None:
        async with TierCache(l2=Hostile()) as cache:
            for _ in range(20):
                await cache.get("k")
            shown = str(cache.stats())
            assert FORGED not in shown
            assert len(shown) < 20_000

    with log() as stream:
        run(test())
    assert "out of reach" in assert_clean(stream)


class HandlerError(Exception):
    """What the handler raises: the text is the client's."""


@hostile
def test_what_a_handler_raises_begins_no_line_where_a_stale_response_stands_in(text: str) -> None:
    clock, failing = TickingClock(), list[int]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if failing:
            raise HandlerError(text)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"text"})

    async def test() -> None:
        ours = TierCacheMiddleware(app, cache=TierCache(clock=clock), routes={"/*": Policy(ttl=10, stale_if_error=60)})
        await ask(ours)
        clock.tick(20)
        failing.append(1)
        assert (await ask(ours)).body == b"text"

    with log() as stream:
        run(test())
    text = assert_clean(stream)
    assert "Traceback" in text
    assert "HandlerError" in text


@hostile
@pytest.mark.parametrize("soft", [False, True])
def test_what_a_function_raises_begins_no_line(text: str, soft: bool) -> None:
    clock, failing = TickingClock(), list[int]()

    async def test() -> None:
        async with TierCache(clock=clock) as cache:
            ageing: dict[str, Any] = {"stale_while_revalidate": 60} if soft else {"stale_if_error": 60}

            @cache.cached("value:{name}", ttl=10, **ageing)
            async def value(name: str) -> str:
                if failing:
                    raise HandlerError(text)
                return name

            assert await value(text) == text if "\ud800" not in text else True
            if "\ud800" in text:
                return
            clock.tick(20)
            failing.append(1)
            assert await value(text) == text
            await until(lambda: bool(stream.getvalue()))

    with log() as stream:
        run(test())
    if "\ud800" not in text:
        assert_clean(stream)


@hostile
def test_a_callbacks_failure_begins_no_line(text: str) -> None:
    async def test() -> None:
        async with TierCache() as cache:

            @cache.on_invalidate
            async def told(_: object) -> None:
                raise HandlerError(text)

            await cache.invalidate("t")

    with log() as stream:
        run(test())
    assert_clean(stream)


@pytest.mark.parametrize("path", ["/a\n" + FORGED, "/\x1b[2J", "/\x00", "/" + "x" * 100_000, "/\u2028", "/\x85"])
def test_a_path_is_escaped_where_a_stale_response_could_not_be_made_anew(path: str) -> None:
    clock, calls = TickingClock(), list[int]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append(1)
        if len(calls) > 1:
            raise HandlerError("no")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"text"})

    async def test() -> None:
        async with TierCache(clock=clock) as cache:
            policy = Policy(ttl=10, stale_while_revalidate=600)
            ours = TierCacheMiddleware(app, cache=cache, routes={"/*": policy})
            await ask(ours, path, query=b"q=%0a\n\x1b")
            clock.tick(20)
            assert (await ask(ours, path, query=b"q=%0a\n\x1b")).body == b"text"
            await until(lambda: "could not be made anew" in stream.getvalue())

    with log() as stream:
        run(test())
    assert_clean(stream, records=2)


def test_a_message_that_cannot_be_formatted_fails_nobody() -> None:
    class Mute:
        def __repr__(self) -> str:
            raise RuntimeError("no words")

    TierCache()
    with log() as stream:
        logging.getLogger("asgi_tiercache").warning("said of %r", Mute())
    assert "said of %r (RuntimeError)" in assert_clean(stream)


def test_an_ordinary_record_is_left_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    TierCache()
    logging.getLogger("asgi_tiercache").warning("%s is back", "L2")
    (record,) = caplog.records
    assert (record.msg, record.args) == ("%s is back", ("L2",))


# ---- statistics and what is shown ----


@hostile
def test_statistics_count_hostile_names_within_their_bounds_and_show_them_escaped(text: str) -> None:
    cache = TierCache()
    app = Starlette()
    app.mount("/cache", cache.stats_app(token="secret"))

    async def test() -> None:
        for number in range(200):
            cache.engine.signals.emit(TierFailed("L2", f"{text}{number}", text))

    asyncio.run(test())
    with TestClient(app) as client:
        for headers in ({}, {"authorization": "Bearer secret"}):
            answer = client.get("/cache/stats", headers=headers)
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "application/json"
            assert len(answer.content) < 64 * 1024
            assert not {"\n", "\r", "\x1b", "\x00"} & set(answer.text)


@pytest.mark.parametrize("url", ["redis://ada:hunter2@127.0.0.1:1/0", "redis://:hunter2@127.0.0.1:1/0?client_name=x"])
def test_a_password_is_nowhere_in_what_is_logged_or_shown(url: str) -> None:
    shown = list[str]()

    async def test() -> None:
        async with TierCache.from_url(url) as cache:
            cache.engine.signals.subscribe(lambda signal: shown.append(repr(signal)))
            for number in range(10):
                await cache.get(f"k{number}")
            await cache.invalidate("t")
            shown.extend((repr(cache), repr(cache.engine), str(cache.stats())))

    with log() as stream:
        run(test())
    assert "out of reach" in stream.getvalue()
    assert "hunter2" not in stream.getvalue() + "".join(shown)
