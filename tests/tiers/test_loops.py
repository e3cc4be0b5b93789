from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from asgi_tiercache.tiers import loops
from asgi_tiercache.tiers.loops import PerLoop

Runner = Callable[[Coroutine[Any, Any, None]], None]


class Thing:
    def __init__(self) -> None:
        self.closed_by: list[asyncio.AbstractEventLoop] = []

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.closed_by.append(asyncio.get_running_loop())


def things() -> tuple[PerLoop[Thing], list[Thing]]:
    made: list[Thing] = []

    def make() -> Thing:
        made.append(Thing())
        return made[-1]

    return PerLoop(make, Thing.aclose), made


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_what_a_loop_holds_is_closed_on_it_when_it_ends(run: Runner) -> None:
    per_loop, made = things()

    async def body() -> None:
        assert per_loop.peek() is None
        assert per_loop.get() is per_loop.get() is per_loop.peek()
        assert made[-1].closed_by == []

    watched = len(loops._watches)
    run(body())
    run(body())
    assert [len(thing.closed_by) for thing in made] == [1, 1]
    assert made[0] is not made[1]
    assert len(loops._watches) <= watched, "nothing keeps a loop that ended"


def test_no_task_shows_that_something_is_held() -> None:
    per_loop, _ = things()

    async def body() -> None:
        per_loop.get()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(body())


def test_what_is_closed_before_is_not_closed_again_and_made_anew_on_demand() -> None:
    per_loop, made = things()

    async def body() -> None:
        first = per_loop.get()
        await per_loop.aclose()
        await per_loop.aclose()
        assert len(first.closed_by) == 1
        assert per_loop.get() is not first

    asyncio.run(body())
    assert [len(thing.closed_by) for thing in made] == [1, 1]


def test_what_a_forgotten_owner_held_is_closed_all_the_same() -> None:
    made: list[Thing] = []

    async def body() -> None:
        per_loop, makes = things()
        per_loop.get()
        made.extend(makes)
        del per_loop, makes
        gc.collect()
        await asyncio.sleep(0)
        assert made[0].closed_by == []

    asyncio.run(body())
    assert len(made[0].closed_by) == 1


def test_nothing_new_is_made_on_a_loop_that_is_ending() -> None:
    per_loop, made = things()
    raised: list[Exception] = []

    class Late(Thing):
        async def aclose(self) -> None:
            for _ in range(5):
                await asyncio.sleep(0)
            try:
                per_loop.get()
            except RuntimeError as error:
                raised.append(error)

    other = PerLoop(Late, Late.aclose)

    async def body() -> None:
        per_loop.get()
        other.get()

    asyncio.run(body())
    assert str(raised[0]) == "the event loop is ending"
    assert len(made) == 1


def test_a_test_client_closes_what_each_request_held() -> None:
    per_loop, made = things()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        per_loop.get()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    client = TestClient(app)
    for _ in range(2):
        assert client.get("/").status_code == 200
    assert [len(thing.closed_by) for thing in made] == [1, 1]


def test_a_loop_closed_without_ceremony_is_forgotten_by_the_next() -> None:
    per_loop, made = things()

    async def body() -> None:
        per_loop.get()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(body())
    loop.close()
    assert loop in loops._watches
    asyncio.run(body())
    assert len(made) == 2
    assert loop not in loops._watches
    assert loop not in per_loop._held
    gc.collect()


def test_without_a_running_loop_there_is_nothing_to_hold() -> None:
    per_loop, made = things()
    with pytest.raises(RuntimeError, match="no running event loop"):
        per_loop.get()
    assert made == []
