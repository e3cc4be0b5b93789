"""Any app, with the middleware and without: to a first request the messages are the same."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from tests.middleware.asgi import OURS, PATIENCE, Exchange, http_scope

Step = Message | str

_lines = st.lists(
    st.sampled_from(
        [
            (b"content-type", b"text/plain"),
            (b"content-length", b"4"),
            (b"content-length", b"x"),
            (b"cache-control", b"max-age=60"),
            (b"cache-control", b"no-store"),
            (b"vary", b"accept"),
            (b"vary", b"*"),
            (b"set-cookie", b"a=1"),
            (b"age", b"7"),
            (b"connection", b"x-hop"),
            (b"x-hop", b"1"),
            (b"etag", b'"a"'),
            (b"cache-status", b"inner; hit"),
            (b"date", b"Sat, 01 Jan 2022 00:00:00 GMT"),
        ]
    ),
    max_size=4,
)
_start = st.builds(
    lambda status, headers, trailers: {
        "type": "http.response.start",
        "status": status,
        "headers": headers,
        **({"trailers": True} if trailers else {}),
    },
    st.sampled_from([200, 204, 206, 301, 304, 404, 500]),
    _lines,
    st.booleans(),
)
_body = st.builds(
    lambda body, more: {"type": "http.response.body", "body": body, **more},
    st.sampled_from([b"", b"te", b"text", b"x" * 40]),
    st.sampled_from([{}, {"more_body": True}, {"more_body": False}]),
)
_other = st.sampled_from(
    [
        {"type": "http.response.debug", "info": {}},
        {"type": "http.response.early_hint", "links": []},
        {"type": "http.response.trailers", "headers": []},
        {"type": "http.response.unknown"},
    ]
)
_steps: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(_body, _body, _body, _other, st.sampled_from(["receive", "raise", "yield"])), max_size=6
).flatmap(lambda rest: st.builds(lambda start: [start, *rest], _start) | st.just(rest))
_policies = st.sampled_from([Policy(ttl=60, max_body=30), Policy.http(), Policy.http(ttl=60), Policy.rfc9111(), None])


def _app(steps: Sequence[Step]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for step in steps:
            if isinstance(step, dict):
                await send({name: list(value) if name == "headers" else value for name, value in step.items()})
            elif step == "raise":
                raise LookupError("as it is")
            elif step == "receive":
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(receive(), 0)
            else:
                await asyncio.sleep(0)

    return app


async def _seen(app: ASGIApp) -> tuple[list[Message], str]:
    exchange = Exchange(app, http_scope())
    await asyncio.wait([exchange.task], timeout=PATIENCE)
    assert exchange.task.done()
    error = exchange.task.exception()
    return [_as_without_us(message) for message in exchange.messages], repr(error)


def _as_without_us(message: Message) -> Message:
    if message["type"] != "http.response.start":
        return message
    lines = [line for line in message["headers"] if line[0] not in OURS or line[1] in (b"inner; hit", b"7")]
    return {**message, "headers": lines}


@settings(max_examples=200, deadline=None)
@given(_steps, _policies)
def test_a_first_request_gets_the_messages_that_the_app_sent(steps: list[Step], policy: Policy | None) -> None:
    app = _app(steps)
    ours = TierCacheMiddleware(app, cache=TierCache(), routes={"/": policy})
    assert asyncio.run(_seen(ours)) == asyncio.run(_seen(app))


@settings(max_examples=100, deadline=None)
@given(_steps, _policies)
def test_a_second_request_gets_the_same_answer(steps: list[Step], policy: Policy | None) -> None:
    app = _app(steps)
    ours = TierCacheMiddleware(app, cache=TierCache(), routes={"/": policy})

    async def twice() -> list[tuple[list[Message], str]]:
        return [await _seen(ours), await _seen(ours)]

    (first, error), (second, later) = asyncio.run(twice())
    assert _gist(second) == _gist(first)
    assert later in (error, "None")


def _gist(messages: list[Message]) -> tuple[list[tuple[int, list[tuple[bytes, bytes]]]], bytes]:
    """Status, headers without those of a single connection, and body up to its declared end."""
    starts = [message for message in messages if message["type"] == "http.response.start"]
    body = b""
    for message in messages:
        body += message.get("body", b"")
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            break
    own = {b"connection", b"x-hop", *OURS}
    return [(start["status"], [line for line in start["headers"] if line[0] not in own]) for start in starts], body


@pytest.mark.parametrize("policy", [Policy(ttl=60), Policy.http(), None])
def test_the_receive_of_a_first_request_gives_the_request_first(policy: Policy | None) -> None:
    heard: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        heard.append(await receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    asyncio.run(_seen(TierCacheMiddleware(app, cache=TierCache(), routes={"/": policy})))
    assert heard == [{"type": "http.request", "body": b"", "more_body": False}]
