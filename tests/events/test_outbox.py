"""When the purges of a request are made: before its messages leave, and again after the app has returned."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from asgi_tiercache.middleware.purging import PurgingApp
from asgi_tiercache.outbox import Outbox, Outboxes, PurgeOrder
from tests.events.recording import Recorder
from tests.middleware.asgi import http_scope

Handler = Callable[[Outbox, Send], Awaitable[None]]


class Stage:
    """An app whose request is `handler`, and a journal of what left and what was purged."""

    def __init__(self, handler: Handler) -> None:
        self.journal: list[str] = []
        self.recorder = Recorder(self.journal.append)
        self.outboxes = Outboxes(self.recorder)
        self.outboxes.used = True
        self.outbox: Outbox | None = None
        self._handler = handler

    async def request(self) -> list[str]:
        """Run one request; the journal."""
        await PurgingApp(self._app, self.outboxes)(http_scope(method="POST"), _receive, self._send)
        return self.journal

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.outbox = self.outboxes.current
        assert self.outbox is not None
        await self._handler(self.outbox, send)

    async def _send(self, message: Message) -> None:
        self.journal.append(message["type"].removeprefix("http.response.") + ("..." * message.get("more_body", False)))


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def start(status: int = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": []}


def body(*, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": b"x", "more_body": more}


def journal_of(handler: Handler) -> list[str]:
    return asyncio.run(Stage(handler).request())


def test_a_purge_precedes_the_response_and_comes_again_after_the_app_has_returned() -> None:
    async def handler(outbox: Outbox, send: Send) -> None:
        outbox.add(PurgeOrder(("a",)), if_successful=True)
        await send(start())
        await send(body())
        outbox.scope["journal"] = "committed"

    assert journal_of(handler) == ["purge a", "start", "body", "purge a"]


def test_what_is_added_while_a_body_streams_is_purged_before_the_next_part_and_all_again_before_the_last() -> None:
    async def handler(outbox: Outbox, send: Send) -> None:
        await send(start())
        await send(body(more=True))
        outbox.add(PurgeOrder(("a",)), if_successful=True)
        await send(body(more=True))
        await send(body(more=True))
        outbox.add(PurgeOrder(("b",)), if_successful=True)
        await send(body())

    assert journal_of(handler) == [
        "start",
        "body...",
        "purge a",
        "body...",
        "body...",
        "purge a b",
        "body",
        "purge a b",
    ]


def test_what_is_added_after_the_response_is_purged_once_the_app_has_returned() -> None:
    async def handler(outbox: Outbox, send: Send) -> None:
        await send(start())
        await send(body())
        outbox.add(PurgeOrder(("a",)), if_successful=True)

    assert journal_of(handler) == ["start", "body", "purge a"]


@pytest.mark.parametrize("status", [200, 201, 204, 303, 399])
def test_what_needs_success_is_purged_for_a_status_below_400(status: int) -> None:
    async def handler(outbox: Outbox, send: Send) -> None:
        outbox.add(PurgeOrder(("a",)), if_successful=True)
        await send(start(status))
        await send(body())

    assert journal_of(handler) == ["purge a", "start", "body", "purge a"]


@pytest.mark.parametrize("status", [400, 404, 409, 422, 500])
def test_what_needs_success_is_not_purged_for_an_error_and_the_rest_is(status: int) -> None:
    async def handler(outbox: Outbox, send: Send) -> None:
        outbox.add(PurgeOrder(("a",)), if_successful=True)
        outbox.add(PurgeOrder(("b",)), if_successful=False)
        await send(start(status))
        await send(body())

    assert journal_of(handler) == ["purge b", "start", "body", "purge b"]


def test_an_app_that_raises_before_its_response_purges_only_what_does_not_need_success() -> None:
    async def handler(outbox: Outbox, send: Send) -> None:
        outbox.add(PurgeOrder(("a",)), if_successful=True)
        outbox.add(PurgeOrder(("b",)), if_successful=False)
        raise ValueError("broken")

    stage = Stage(handler)
    with pytest.raises(ValueError, match="broken"):
        asyncio.run(stage.request())
    assert stage.journal == ["purge b"]


def test_an_app_that_raises_after_its_response_began_may_have_committed_before() -> None:
    async def handler(outbox: Outbox, send: Send) -> None:
        outbox.add(PurgeOrder(("a",)), if_successful=True)
        await send(start())
        raise ValueError("broken")

    stage = Stage(handler)
    with pytest.raises(ValueError, match="broken"):
        asyncio.run(stage.request())
    assert stage.journal == ["purge a", "start", "purge a"]


def test_a_request_that_is_cancelled_still_purges() -> None:
    entered, never = asyncio.Event(), asyncio.Event()

    async def handler(outbox: Outbox, send: Send) -> None:
        outbox.add(PurgeOrder(("a",)), if_successful=True)
        await send(start())
        entered.set()
        await never.wait()

    async def test() -> None:
        stage = Stage(handler)
        task = asyncio.create_task(stage.request())
        await entered.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert stage.journal == ["purge a", "start", "purge a"]

    asyncio.run(test())


def test_a_purge_that_fails_fails_no_request_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(outbox: Outbox, send: Send) -> None:
        outbox.add(PurgeOrder(("a",)), if_successful=True)
        await send(start())
        await send(body())

    stage = Stage(handler)
    stage.recorder.errors = [RuntimeError("one"), RuntimeError("two")]
    with caplog.at_level(logging.ERROR, logger="asgi_tiercache"):
        assert asyncio.run(stage.request()) == ["purge a", "start", "body", "purge a"]
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["one", "two"]


def test_what_comes_after_the_request_is_told_to_see_to_it_itself() -> None:
    async def handler(outbox: Outbox, send: Send) -> None:
        await send(start())

    stage = Stage(handler)
    assert asyncio.run(stage.request()) == ["start"]
    assert stage.outbox is not None
    assert stage.outbox.add(PurgeOrder(("a",)), if_successful=False) is False
    assert stage.outboxes.current is None


def test_the_same_purge_is_made_once_however_often_it_is_added_and_from_whatever_thread() -> None:
    async def handler(outbox: Outbox, send: Send) -> None:
        async with asyncio.TaskGroup() as group:
            for tag in ("a", "b", "a"):
                group.create_task(asyncio.to_thread(outbox.add, PurgeOrder((tag,)), if_successful=True))
        await send(start())
        await send(body())

    journal = journal_of(handler)
    assert sorted(journal[0].split()) == ["a", "b", "purge"]
    assert journal[1:3] == ["start", "body"]


def test_a_request_inside_a_request_has_an_outbox_of_its_own() -> None:
    async def test() -> None:
        recorder = Recorder()
        outboxes = Outboxes(recorder)
        outboxes.used = True

        async def inner(scope: Scope, receive: Receive, send: Send) -> None:
            assert outboxes.current is not None
            outboxes.current.add(PurgeOrder(("inner",)), if_successful=False)

        async def outer(scope: Scope, receive: Receive, send: Send) -> None:
            mine = outboxes.current
            await PurgingApp(inner, outboxes)(scope, receive, send)
            assert outboxes.current is mine
            assert [purge.tags for purge in recorder.purges] == [("inner",)]

        await PurgingApp(outer, outboxes)(http_scope(), _receive, _nowhere)
        assert len(recorder.purges) == 1

    asyncio.run(test())


def test_without_anything_that_could_be_added_the_app_is_given_the_clients_own_send() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(send)

    asyncio.run(_awaited(PurgingApp(app, Outboxes(Recorder()))(http_scope(), _receive, _nowhere)))
    assert seen == [_nowhere]


async def _nowhere(message: Message) -> None:
    pass


async def _awaited(work: Awaitable[None]) -> None:
    await work
