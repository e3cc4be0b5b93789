"""Work that nobody waits for: so much at once, so much for each place, so much that waits, and nothing left over."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

from asgi_tiercache.engine.background import Background
from tests.tiers.doubles import ticks, until


class Works:
    """Works that wait to be told to end."""

    def __init__(self, background: Background) -> None:
        self.background = background
        self.begun: list[str] = []
        self.go = asyncio.Event()

    def begin(self, key: str, place: object = None) -> bool:
        return self.background.begin(key, place, lambda: asyncio.create_task(self._work(key)))

    async def _work(self, key: str) -> None:
        self.begun.append(key)
        await self.go.wait()


def run(body: Any) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await body()

    asyncio.run(bounded())


def test_what_finds_no_room_waits_and_begins_in_its_turn() -> None:
    async def body() -> None:
        works = Works(Background(at_once=2, for_each=2, waiting=3))
        assert [works.begin(key) for key in "abcdef"] == [True] * 5 + [False]
        await ticks(2)
        assert works.begun == ["a", "b"]
        assert [works.background.waits(key) for key in "abcdef"] == [False, False, True, True, True, False]
        works.go.set()
        await until(lambda: not works.background.tasks())
        assert works.begun == list("abcde")

    run(body)


def test_what_waits_already_is_not_begun_twice() -> None:
    async def body() -> None:
        works = Works(Background(at_once=1))
        assert [works.begin(key) for key in "abb"] == [True, True, False]

    run(body)


def test_a_slow_place_leaves_room_for_the_others() -> None:
    async def body() -> None:
        slow, other = object(), object()
        works = Works(Background(at_once=3, for_each=2))
        for key in "abc":
            works.begin(key, slow)
        works.begin("d", other)
        await ticks(2)
        assert works.begun == ["a", "b", "d"]
        works.go.set()
        await until(lambda: len(works.begun) == 4)

    run(body)


def test_where_there_is_nothing_to_do_any_more_the_next_one_begins() -> None:
    async def body() -> None:
        background = Background(at_once=1)
        works = Works(background)
        works.begin("a")
        asked: list[str] = []
        background.begin("b", None, lambda: asked.append("b"))
        works.begin("c")
        works.go.set()
        await until(lambda: works.begun == ["a", "c"])
        assert asked == ["b"]

    run(body)


def test_it_begins_in_nobodys_context() -> None:
    async def body() -> None:
        variable, seen = contextvars.ContextVar("variable", default=""), list[str]()
        background = Background(at_once=1)
        go = asyncio.Event()

        async def work() -> None:
            seen.append(variable.get())
            await go.wait()

        for name in ("first", "second"):
            variable.set(name)
            background.begin(name, None, lambda: asyncio.create_task(work()))
        go.set()
        await until(lambda: len(seen) == 2)
        assert seen == ["", ""]

    run(body)


def test_what_waits_is_forgotten_on_demand_and_when_the_loop_ends() -> None:
    background = Background(at_once=1)
    begun = []

    async def body() -> None:
        works = Works(background)
        begun.append(works)
        for key in "ab":
            works.begin(key)
        await ticks(1)

    async def forgetting() -> None:
        await body()
        background.forget()
        begun[-1].go.set()
        await until(lambda: not background.tasks())

    asyncio.run(body())  # which cancels what is under way
    asyncio.run(forgetting())
    assert [works.begun for works in begun] == [["a"], ["a"]]


def test_failures_make_room_too() -> None:
    async def body() -> None:
        background = Background(at_once=1)
        works = Works(background)

        async def fail() -> None:
            raise ValueError

        task: list[asyncio.Task[None]] = []

        def start() -> asyncio.Task[None]:
            task.append(asyncio.create_task(fail()))
            return task[0]

        background.begin("a", None, start)
        works.begin("b")
        await until(lambda: works.begun == ["b"])
        assert isinstance(task[0].exception(), ValueError)

    run(body)
