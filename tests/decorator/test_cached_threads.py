from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import anyio.to_thread
import pytest

from asgi_tiercache import BlockingCallError, TierCache
from tests.engine.doubles import Fleet, alone
from tests.tiers.doubles import until

PATIENCE = 10.0
"""Seconds after which a test calls a thread stuck; nothing here takes a tenth of that."""


@pytest.fixture
def cache() -> Iterator[TierCache]:
    cache, _ = alone()
    yield cache
    cache.close()


class Counted:
    """A plain function that counts its calls, and the threads that they ran on."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def __call__(self, n: int) -> int:
        self.threads.append(threading.get_ident())
        return n * 2


def test_a_script_without_a_loop_just_calls(cache: TierCache) -> None:
    counted = Counted()

    @cache.cached("f:{n}", ttl=10)
    def f(n: int) -> int:
        return counted(n)

    assert [f(1), f(n=1), f(2)] == [2, 2, 4]
    assert counted.threads == [threading.get_ident()] * 2, "computed on the caller's own thread"


def test_from_an_anyio_worker_thread_the_apps_loop_is_used(cache: TierCache) -> None:
    counted = Counted()

    @cache.cached("f:{n}", ttl=10)
    def f(n: int) -> int:
        return counted(n)

    async def body() -> None:
        assert await anyio.to_thread.run_sync(f, 1) == 2
        assert await anyio.to_thread.run_sync(f, 1) == 2
        assert "asgi_tiercache" not in [thread.name for thread in threading.enumerate()]

    asyncio.run(body())
    assert len(counted.threads) == 1


def test_from_asyncio_to_thread_the_loop_that_started_the_cache_is_used(cache: TierCache) -> None:
    counted = Counted()

    @cache.cached("f:{n}", ttl=10)
    def f(n: int) -> int:
        return counted(n)

    async def body() -> None:
        async with cache:
            assert await asyncio.to_thread(f, 1) == 2
            assert await asyncio.to_thread(f, 1) == 2
            assert "asgi_tiercache" not in [thread.name for thread in threading.enumerate()]

    asyncio.run(body())
    assert len(counted.threads) == 1


def test_from_asyncio_to_thread_it_works_without_a_start_as_well(cache: TierCache) -> None:
    counted = Counted()

    @cache.cached("f:{n}", ttl=10)
    def f(n: int) -> int:
        return counted(n)

    async def body() -> list[int]:
        return [await asyncio.to_thread(f, 1) for _ in range(2)]

    assert asyncio.run(body()) == [2, 2]
    assert len(counted.threads) == 1


def test_on_a_loops_own_thread_it_raises_and_blocks_nothing(cache: TierCache) -> None:
    counted = Counted()

    @cache.cached("f:{n}", ttl=10)
    def f(n: int) -> int:
        return counted(n)

    async def body() -> None:
        with pytest.raises(BlockingCallError, match="f"):
            f(1)

    asyncio.run(body())
    assert counted.threads == []


def test_many_threads_at_once_compute_once(cache: TierCache) -> None:
    go = threading.Event()
    calls: list[int] = []

    @cache.cached("f", ttl=10)
    def f() -> int:
        calls.append(1)
        assert go.wait(PATIENCE)
        return 7

    with ThreadPoolExecutor(20) as pool:
        futures = [pool.submit(f) for _ in range(20)]
        while not calls:
            assert not futures[0].done()
        go.set()
        assert [future.result(PATIENCE) for future in futures] == [7] * 20
    assert len(calls) == 1


def test_a_thread_pool_as_small_as_its_work_does_not_wait_for_itself(cache: TierCache) -> None:
    @cache.cached("inner:{n}", ttl=10)
    def inner(n: int) -> int:
        return n

    @cache.cached("outer:{n}", ttl=10)
    def outer(n: int) -> int:
        return inner(n) + inner(n + 1)

    async def body() -> None:
        limiter = anyio.CapacityLimiter(1)
        calls = (anyio.to_thread.run_sync(outer, n, limiter=limiter) for n in range(5))
        assert await asyncio.wait_for(asyncio.gather(*calls), PATIENCE) == [1, 3, 5, 7, 9]

    asyncio.run(body())


def test_nested_functions_hand_on_their_tags_in_threads(cache: TierCache) -> None:
    source = [1]

    @cache.cached("inner", ttl=10, tags=["inner"])
    def inner() -> int:
        return source[0]

    @cache.cached("outer", ttl=10)
    def outer() -> int:
        cache.current.tag("outer")
        return inner() * 10

    async def from_async() -> int:
        async with cache:
            return await anyio.to_thread.run_sync(outer)

    async def invalidate(tag: str) -> None:
        await cache.invalidate(tag)

    assert [outer(), outer()] == [10, 10]
    for value, tag in ((2, "inner"), (3, "outer")):
        source[0] = value
        asyncio.run(invalidate(tag))
        if tag == "outer":
            asyncio.run(invalidate("inner"))
        assert outer() == value * 10
        assert asyncio.run(from_async()) == value * 10


def test_an_async_function_that_computes_in_a_thread_inherits_from_there(cache: TierCache) -> None:
    source = [1]

    @cache.cached("inner", ttl=10, tags=["inner"])
    def inner() -> int:
        return source[0]

    @cache.cached("outer", ttl=10)
    async def outer() -> int:
        return await anyio.to_thread.run_sync(inner)

    async def body() -> None:
        async with cache:
            assert await outer() == 1
            source[0] = 2
            await cache.invalidate("inner")
            assert await outer() == 2

    asyncio.run(body())


def test_a_plain_function_that_calls_itself_does_not_wait_for_itself(cache: TierCache) -> None:
    depth = [0]

    @cache.cached("f", ttl=10)
    def f() -> int:
        depth[0] += 1
        return 0 if depth[0] == 3 else 1 + f()

    assert f() == 2


def test_ttl_and_refusal_can_be_told_from_a_thread(cache: TierCache) -> None:
    calls: list[str] = []

    @cache.cached("f:{how}", ttl=10)
    def f(how: str) -> None:
        calls.append(how)
        if how == "no":
            cache.current.no_store()
        else:
            cache.current.set_ttl(0)

    for how in ("no", "no", "zero", "zero"):
        f(how)
    assert calls == ["no", "no", "zero", "zero"]


def test_the_function_sees_its_callers_context(cache: TierCache) -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user")

    @cache.cached("f", ttl=10)
    def f() -> str:
        return user.get()

    user.set("me")
    assert f() == "me"


class Abort(BaseException):
    pass


@pytest.mark.parametrize("error", [LookupError("x"), Abort("x"), StopIteration("x"), GeneratorExit()], ids=repr)
def test_exceptions_pass_through_as_they_are(cache: TierCache, error: BaseException) -> None:
    calls: list[int] = []

    @cache.cached("f", ttl=10)
    def f() -> int:
        calls.append(1)
        raise error

    for _ in range(2):
        with pytest.raises(type(error)) as caught:
            f()
        assert caught.value is error
    assert len(calls) == 2


def test_a_failure_reaches_every_thread_that_waited(cache: TierCache) -> None:
    go = threading.Event()
    calls: list[int] = []

    @cache.cached("f", ttl=10)
    def f() -> int:
        calls.append(1)
        assert go.wait(PATIENCE)
        raise LookupError

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(f) for _ in range(4)]
        while not calls:
            assert not futures[0].done()
        go.set()
        assert {type(future.exception(PATIENCE)) for future in futures} == {LookupError}


def test_a_request_that_is_cancelled_leaves_the_thread_to_its_end(cache: TierCache) -> None:
    go, inside = threading.Event(), threading.Event()
    calls: list[int] = []

    @cache.cached("f", ttl=10)
    def f() -> int:
        calls.append(1)
        inside.set()
        assert go.wait(PATIENCE)
        return 5

    async def body() -> None:
        async with cache:
            task = asyncio.create_task(anyio.to_thread.run_sync(f, abandon_on_cancel=True))
            await until(inside.is_set)
            task.cancel()
            await asyncio.wait([task])
            go.set()
            assert await anyio.to_thread.run_sync(f) == 5
            assert len(calls) == 1

    asyncio.run(body())


def test_closing_ends_the_thread_and_the_next_call_starts_another(cache: TierCache) -> None:
    @cache.cached("f", ttl=10)
    def f() -> int:
        return 1

    def running() -> bool:
        return any(thread.name == "asgi_tiercache" for thread in threading.enumerate())

    f()
    assert running()
    cache.close()
    assert not running()
    cache.close()
    assert f() == 1
    assert running()


def test_closing_flushes_what_plain_functions_have_queued() -> None:
    fleet = Fleet()
    cache = fleet.worker()

    @cache.cached("f", ttl=10)
    def f() -> int:
        return 1

    f()
    cache.close()
    assert list(fleet.tier.data) == ["f"]


def test_disabled_a_plain_function_may_be_called_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERCACHE_DISABLED", "1")
    cache, _ = alone()

    @cache.cached("f", ttl=10)
    def f() -> int:
        cache.current.tag("t")
        return 1

    async def body() -> int:
        return f()

    assert asyncio.run(body()) == f() == 1


# ---- whole programs ----


def _run(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program with `cache` made; a stuck one fails the test."""
    head = "import os, sys\nfrom asgi_tiercache import TierCache\ncache = TierCache()\n"
    return subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_a_program_ends_without_closing_anything() -> None:
    ended = _run(
        """
        @cache.cached("f:{n}", ttl=10)
        def f(n: int) -> int:
            return n

        print(f(1), f(1))
        """
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "1 1\n", "")


@pytest.mark.parametrize(("how", "code"), [("sys.exit(3)", 3), ("raise KeyboardInterrupt", -2)])
def test_a_program_may_end_inside_a_cached_function(how: str, code: int) -> None:
    try:
        ended = _run(
            f"""
            @cache.cached("f", ttl=10)
            def f() -> int:
                {how}

            f()
            """
        )
    except subprocess.TimeoutExpired:
        pytest.fail("the call never returned")
    assert ended.returncode == code


def test_after_a_call_that_exited_others_work() -> None:
    try:
        ended = _run(
            """
            @cache.cached("f:{n}", ttl=10)
            def f(n: int) -> int:
                if n == 1:
                    sys.exit(3)
                return n

            try:
                f(1)
            except SystemExit:
                print(f(2))
            """
        )
    except subprocess.TimeoutExpired:
        pytest.fail("the call never returned")
    assert ended.stdout == "2\n"


def test_a_forked_child_can_call_what_its_parent_has_called() -> None:
    """As under a server that loads the app, calls something cached, and then forks its workers."""
    try:
        ended = _run(
            """
            @cache.cached("f:{n}", ttl=10)
            def f(n: int) -> int:
                return n

            f(1)
            child = os.fork()
            if child == 0:
                import signal
                signal.alarm(2)
                os._exit(f(2))
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)
            """
        )
    except subprocess.TimeoutExpired:
        pytest.fail("the child never returned")
    assert ended.returncode == 2, "the child was stuck"
