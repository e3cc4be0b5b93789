"""Apps that send anything in any order, clients that come and go: the cache is not to be noticed, but for its hits."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from asgi_tiercache.testing import TickingClock
from tests.fuzz.asgi import RAISED, Client, ScriptedApp, Step, complete, malformed
from tests.middleware.asgi import ask, turns, until

PATIENCE = 10.0
"""Seconds after which a test that hangs fails."""
EXAMPLES = 2 * int(os.environ.get("HYPOTHESIS_MAX_EXAMPLES", "100"))

LINES = st.lists(
    st.sampled_from(
        [
            (b"content-type", b"text/plain"),
            (b"Content-Length", b"4"),
            (b"content-length", b"8"),
            (b"content-length", b"+4"),
            (b"cache-control", b"max-age=60"),
            (b"cache-control", b"no-store"),
            (b"cache-control", b"private, max-age=60"),
            (b"vary", b"accept"),
            (b"vary", b"*"),
            (b"set-cookie", b"a=1"),
            (b"connection", b"x-hop"),
            (b"x-hop", b"1"),
            (b"etag", b'"a"'),
            (b"transfer-encoding", b"chunked"),
            (b"cache-status", b"inner; hit"),
            (b"age", b"7"),
        ]
    ),
    max_size=4,
)
STARTS = st.builds(
    lambda status, headers, more: {"type": "http.response.start", "status": status, "headers": headers, **more},
    st.sampled_from([200, 200, 200, 103, 204, 206, 301, 304, 404, 500, 503]),
    LINES,
    st.sampled_from([{}, {}, {}, {"trailers": True}, {"trailers": False}]),
)
BODIES = st.builds(
    lambda body, more: {"type": "http.response.body", **body, **more},
    st.sampled_from([{}, *({"body": body} for body in (b"", b"te", b"text", b"x" * 40, bytearray(b"te")))]),
    st.sampled_from([{}, {"more_body": True}, {"more_body": True}, {"more_body": False}]),
)
FILE: Message = {"type": "http.response.pathsend", "path": str(Path(__file__).parent / "table.py")}
OTHERS: st.SearchStrategy[Message] = st.sampled_from(
    [
        {"type": "http.response.debug", "info": {}},
        {"type": "http.response.push", "path": "/x", "headers": []},
        {"type": "http.response.early_hint", "links": []},
        {"type": "http.response.trailers", "headers": [], "more_trailers": False},
        {"type": "http.response.zerocopysend", "file": 9},
        {"type": "http.response.pathsend", "path": "/no/such/file"},
        {"type": "http.response.pathsend", "path": str(Path(__file__).parent)},
        FILE,
        {"type": "http.response.unknown"},
        {"type": "websocket.accept"},
    ]
)
MALFORMED: st.SearchStrategy[Message] = st.sampled_from(
    [
        {},
        {"type": None},
        {"type": "http.response.start"},
        {"type": "http.response.start", "status": "200", "headers": []},
        {"type": "http.response.start", "status": None, "headers": []},
        {"type": "http.response.start", "status": 200, "headers": [("content-type", "text/plain")]},
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", "4")]},
        {"type": "http.response.start", "status": 200, "headers": [(b"a", None)]},
        {"type": "http.response.start", "status": 200, "headers": [(b"a",)]},
        {"type": "http.response.start", "status": 200, "headers": None},
        {"type": "http.response.start", "status": 200, "headers": 5},
        {"type": "http.response.body", "body": "text"},
        {"type": "http.response.body", "body": None},
        {"type": "http.response.body", "body": 4},
        {"type": "http.response.body", "body": [b"te"], "more_body": True},
        {"type": "http.response.pathsend"},
        {"type": "http.response.pathsend", "path": None},
    ]
)
OTHER_STEPS = st.one_of(
    st.just(Step("receive")),
    st.builds(Step, st.just("wait"), st.integers(1, 3)),
    st.builds(Step, st.just("raise"), st.sampled_from(sorted(RAISED))),
    st.just(Step("return")),
)


def _steps(*messages: st.SearchStrategy[Message]) -> st.SearchStrategy[list[Step]]:
    """A response most often, with anything in between."""
    sent = st.builds(Step, st.just("send"), st.one_of(*messages))
    start = st.builds(Step, st.just("send"), STARTS)
    rest = st.lists(st.one_of(sent, sent, OTHER_STEPS), max_size=7)
    last = st.builds(Step, st.just("send"), st.just({"type": "http.response.body", "body": b"text"}))
    return st.one_of(
        st.builds(lambda first, then: [first, *then], start, rest),
        st.builds(lambda first, then, end: [first, *then, end], start, rest, last),
        rest,
    )


BEGIN = Step("send", {"type": "http.response.start", "status": 200, "headers": []})
PART: Message = {"type": "http.response.body", "body": b"part", "more_body": True}
STEPS = _steps(BODIES, BODIES, BODIES, STARTS, OTHERS)
ANY_STEPS = _steps(BODIES, BODIES, STARTS, OTHERS, MALFORMED, MALFORMED)
WITH_FILES = Policy(ttl=60, status_ttl={404: 5, 500: 5}, files=100_000)
POLICIES = st.sampled_from(
    [
        Policy(ttl=60),
        Policy(ttl=60, max_body=30),
        Policy(ttl=60, finish=False),
        WITH_FILES,
        Policy(ttl=60, stale_if_error=60, soft_timeout=1.0),
        Policy.http(),
        Policy.http(ttl=60),
        Policy.rfc9111(),
        None,
    ]
)
RECEIVES = st.sampled_from(
    [
        [{"type": "http.request", "body": b"", "more_body": False}],
        [{"type": "http.request"}],
        [{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.request", "body": b"b"}],
        [{"type": "http.disconnect"}],
        [{"type": "http.disconnect"}, {"type": "http.request", "body": b""}],
        [{"type": "unknown"}],
        [{"type": "http.request", "more_body": True}, {"type": "http.disconnect"}],
    ]
)
CLIENTS = st.builds(
    Client,
    receives=RECEIVES,
    refuse=st.sampled_from([None, None, None, None, 0, 1, 2]),
    leaves=st.sampled_from([None, None, None, 0, 1, 2, 5, 9]),
    how=st.sampled_from(["cancel", "disconnect"]),
)


class Cached:
    """An app with a cache before it, on a loop of its own."""

    def __init__(self, app: ASGIApp, policy: Policy | None) -> None:
        self.cache = TierCache(clock=TickingClock())
        self.app = app
        self.ours = TierCacheMiddleware(self._call, cache=self.cache, routes={"/": policy})

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)

    async def check_afterwards(self) -> None:
        """Nothing is left behind, and the next requests are answered, for the same key and for another."""
        await turns(60)
        assert self.cache.engine.fills.tasks() == []
        self.app = _fine
        for path in ("/", "/other"):
            assert (await ask(self.ours, path)).status < 600
        assert [(await ask(self.ours, "/other")).body for _ in range(2)] == [b"fine", b"fine"]
        await self.cache.aclose()
        await turns(10)
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def _fine(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    lines = [(b"content-length", b"4"), (b"cache-control", b"max-age=60")]
    await send({"type": "http.response.start", "status": 200, "headers": lines})
    await send({"type": "http.response.body", "body": b"fine"})


def run(work: Any) -> None:
    """Run a test's coroutine; fails where it hangs."""

    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE):
            await work

    asyncio.run(bounded())


@settings(max_examples=EXAMPLES)
@given(steps=STEPS, policy=POLICIES, swallows=st.booleans())
def test_the_first_client_sees_what_the_app_alone_would_have_shown(
    steps: list[Step], policy: Policy | None, swallows: bool
) -> None:
    async def body() -> None:
        alone, ours = Client(), Client()
        await alone.ask(ScriptedApp(steps, swallows))
        app = ScriptedApp(steps, swallows)
        cached = Cached(app, policy)
        await ours.ask(cached.ours)
        assert ours.plain == alone.plain
        assert repr(ours.error) == repr(alone.error)
        assert app.running == 0
        await cached.check_afterwards()

    run(body())


@settings(max_examples=EXAMPLES)
@example(steps=[BEGIN, Step("send", FILE)], policy=WITH_FILES, swallows=False)
@example(steps=[BEGIN, Step("send", PART), Step("send", FILE)], policy=WITH_FILES, swallows=False)
@given(steps=ANY_STEPS, policy=POLICIES, swallows=st.booleans())
def test_what_no_server_can_send_is_not_stored_and_breaks_nothing(
    steps: list[Step], policy: Policy | None, swallows: bool
) -> None:
    """Who raises first, the server or the cache, is all that may differ."""

    async def body() -> None:
        alone, ours, later = Client(), Client(), Client()
        await alone.ask(ScriptedApp(steps, swallows))
        app = ScriptedApp(steps, swallows)
        cached = Cached(app, policy)
        await ours.ask(cached.ours)
        # What was refused is no part of the response, unless it is the end of it.
        sent = [step for step in steps if step.name != "send" or not malformed(step.value)] if swallows else steps
        if complete(sent):  # what comes behind its end, and is refused, is nobody's
            assert (ours.starts[:1], ours.content) == (alone.starts[:1], alone.content)
        else:
            assert ours.plain == alone.plain
        if not (alone.refused and isinstance(ours.error, Exception)):
            assert repr(ours.error) == repr(alone.error)
        await later.ask(cached.ours)
        if app.runs == 1:  # stored
            assert complete(sent)
            assert (later.starts, later.content) == (ours.starts[:1], ours.content)
        assert app.running == 0
        await cached.check_afterwards()

    run(body())


TWICE: Message = {"type": "http.response.start", "status": 200, "headers": [(b"etag", b'"a"')]}


@settings(max_examples=EXAMPLES)
@example(
    steps=[Step("send", {**TWICE, "headers": []}), Step("send", TWICE), Step("send", {"type": "http.response.body"})],
    policy=Policy(ttl=60),
    swallows=False,
    clients=[Client(), Client()],
    later=[Client()],
)
@given(
    steps=STEPS,
    policy=POLICIES,
    swallows=st.booleans(),
    clients=st.lists(CLIENTS, min_size=1, max_size=4),
    later=st.lists(CLIENTS, max_size=2),
)
def test_clients_that_come_and_go_see_one_run_or_what_was_stored_of_one(
    steps: list[Step], policy: Policy | None, swallows: bool, clients: list[Client], later: list[Client]
) -> None:
    async def body() -> None:
        app = ScriptedApp(steps, swallows)
        cached = Cached(app, policy)
        asked = [Client(each.receives, each.refuse, each.leaves, each.how) for each in [*clients, *later]]
        await asyncio.gather(*(client.ask(cached.ours) for client in asked[: len(clients)]))
        for client in asked[len(clients) :]:
            await client.ask(cached.ours)
        await turns(60)
        await until(lambda: app.running == 0)  # a file is read on another thread
        for client in asked:
            if not client.left:
                await _check(client, steps, swallows, runs=app.runs)
        await cached.check_afterwards()

    run(body())


async def _check(client: Client, steps: Sequence[Step], swallows: bool, *, runs: int) -> None:
    """Whoever stays to the end sees one run as it is; or a whole response, without what the app did after it; or, of
    one that it followed, the beginning and then an error of the connection; or of one that it waited for, the error.
    """
    alone = Client()
    await alone.ask(ScriptedApp(steps, swallows, runs=max(0, client.run - 1)))
    assert client.run <= runs
    if repr(client.error) == repr(alone.error) and client.plain in (alone.plain, []):
        return
    assert client.starts[:1] == alone.starts[:1]
    if client.error is None:
        assert complete(steps)
        assert client.content == alone.content
    else:
        assert isinstance(client.error, OSError), client.error
        assert alone.content.startswith(client.content)
