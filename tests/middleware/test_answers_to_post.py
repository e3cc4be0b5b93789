"""The answer to a POST that represents its target answers a later GET (RFC 9110, section 9.3.3), where that is safe."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from fastapi import Depends, FastAPI
from fastapi import Response as FastAPIResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from tests.middleware.asgi import Exchange, Reply, ask, http_scope, run
from tests.servers import RedisServer

HTTP_MODES = [Policy.http(), Policy.rfc9111()]
Write = Callable[[Request], Response | Awaitable[Response]]


def representing(text: str = "posted", code: int = 200, **headers: str) -> PlainTextResponse:
    fields = {"cache_control": "max-age=60", "content_location": "/a", **headers}
    return PlainTextResponse(text, code, {name.replace("_", "-"): value for name, value in fields.items() if value})


def app_of(
    write: Write, *, policy: Policy | None = HTTP_MODES[0], cache: TierCache | None = None, **routes: Policy | None
) -> Starlette:
    """Reads "read", and is written to at the same path."""

    async def read(_: Request) -> Response:
        return PlainTextResponse("read", headers={"cache-control": "max-age=60"})

    async def post(request: Request) -> Response:
        response = write(request)
        return response if isinstance(response, Response) else await response

    ours = Middleware(TierCacheMiddleware, cache=cache or TierCache(), default=policy, routes=routes)
    return Starlette(
        routes=[Route("/{name}", read), Route("/{name}", post, methods=["POST", "PUT"])], middleware=[ours]
    )


async def is_kept(app: Any, path: str = "/a", *, get: dict[str, Any] | None = None, **scope: Any) -> bool:
    """Whether a GET is answered with what a POST before it was answered."""
    await ask(app, path, method="POST", body=b"data", **scope)
    reply = await ask(app, path, **(get if get is not None else scope))
    assert reply.body == (b"posted" if reply.hit else b"read")
    return reply.hit


async def once(write: Write, *, path: str = "/a", get: dict[str, Any] | None = None, **options: Any) -> bool:
    scope = {name: options.pop(name) for name in ("query", "headers", "session") if name in options}
    return await is_kept(app_of(write, **options), path, get=get, **scope)


def kept(write: Write, **options: Any) -> bool:
    return asyncio.run(once(write, **options))


# ---- what is kept ----


@pytest.mark.parametrize("policy", HTTP_MODES)
def test_it_answers_get_and_head(policy: Policy) -> None:
    async def test() -> None:
        app = app_of(lambda _: representing(x_own="1"), policy=policy)
        reply = await ask(app, "/a", method="POST", body=b"x")
        assert reply.cache_status == ""
        for method, body in (("GET", b"posted"), ("HEAD", b"")):
            found = await ask(app, "/a", method=method)
            assert (found.hit, found.status, found.body) == (True, 200, body)
            assert (b"x-own", b"1") in found.messages[0]["headers"]
            assert (b"content-location", b"/a") in found.messages[0]["headers"]

    run(test())


def test_it_replaces_what_was_stored_before_and_goes_with_the_next_change() -> None:
    async def test() -> None:
        number = 0

        def write(_: Request) -> Response:
            nonlocal number
            number += 1
            return representing(f"posted {number}")

        cache = TierCache()
        app = app_of(write, cache=cache)
        assert (await ask(app, "/a")).body == b"read"
        for body in (b"posted 1", b"posted 2"):
            await ask(app, "/a", method="POST")
            found = await ask(app, "/a")
            assert (found.hit, found.body) == (True, body)
        await cache.invalidate_path("/a")
        assert (await ask(app, "/a")).body == b"read"

    run(test())


def test_each_query_is_a_target_of_its_own() -> None:
    assert kept(lambda _: representing(content_location="/a?x=1"), query=b"x=1")
    assert not kept(lambda _: representing(content_location="/a"), query=b"x=1")
    assert not kept(lambda _: representing(content_location="/a?x=1"), query=b"x=1", get={"query": b"x=2"})


def test_it_wakes_a_route_that_was_not_looked_up_any_more() -> None:
    async def test() -> None:
        async def read(_: Request) -> Response:
            return PlainTextResponse("read")

        async def post(_: Request) -> Response:
            return representing()

        ours = Middleware(TierCacheMiddleware, cache=TierCache())
        app = Starlette(routes=[Route("/a", read), Route("/a", post, methods=["POST"])], middleware=[ours])
        for _ in range(10):
            assert (await ask(app, "/a")).body == b"read"
        assert await is_kept(app)

    run(test())


def test_a_streamed_answer_is_kept_whole() -> None:
    async def parts() -> AsyncIterator[str]:
        for part in ("pos", "t", "ed"):
            yield part

    headers = {"cache-control": "max-age=60", "content-location": "/a"}
    assert kept(lambda _: StreamingResponse(parts(), headers=headers))


def test_its_vary_chooses_by_what_the_post_was_sent() -> None:
    sent = [(b"accept-language", b"de")]
    assert kept(lambda _: representing(vary="accept-language"), headers=sent)
    assert not kept(lambda _: representing(vary="accept-language"), headers=sent, get={})


# ---- what is not ----


@pytest.mark.parametrize(
    "headers",
    [
        {"content_location": ""},
        {"content_location": "/b"},
        {"content_location": "/a#part"},
        {"content_location": "http://example.com/a"},
        {"cache_control": "", "last_modified": "Thu, 01 Jan 1970 00:00:00 GMT"},
        {"cache_control": "", "x": "y"},
        {"cache_control": "max-age=0"},
        {"cache_control": "no-store, max-age=60"},
        {"cache_control": "private, max-age=60"},
        {"vary": "*"},
        {"set_cookie": "a=b"},
    ],
)
def test_what_may_not_be_stored_or_is_no_representation_is_not(headers: dict[str, str]) -> None:
    assert not kept(lambda _: representing("posted", 200, **headers))


@pytest.mark.parametrize("status", [201, 202, 206, 303, 404, 500])
def test_no_status_but_200_is(status: int) -> None:
    assert not kept(lambda _: representing(code=status))


@pytest.mark.parametrize("policy", [Policy(ttl=60), None])
def test_an_explicit_policy_says_itself_what_is_cached(policy: Policy | None) -> None:
    assert not kept(lambda _: representing(), policy=policy)


def test_a_credential_keeps_it_from_others_as_it_does_for_get() -> None:
    cookie = [(b"cookie", b"a=b")]
    assert not kept(lambda _: representing(), headers=cookie, get={})
    assert not kept(lambda _: representing(), headers=cookie)
    assert kept(lambda _: representing(cache_control="public, max-age=60"), headers=cookie, get={})


def test_what_a_get_would_not_have_been_told_must_not_have_mattered() -> None:
    policy = Policy.http(ignore=["cookie"])
    assert kept(lambda _: representing(), policy=policy)
    assert not kept(lambda _: representing(), policy=policy, headers=[(b"cookie", b"a=b")])
    assert not kept(lambda _: representing(), policy=policy, headers=[(b"if-match", b'"x"')])
    policy = Policy.http(ignore=["session"])
    assert kept(lambda _: representing(), policy=policy)
    assert not kept(lambda _: representing(), policy=policy, session={"name": "a"})


def test_a_put_answers_nothing() -> None:
    async def test() -> None:
        app = app_of(lambda _: representing())
        await ask(app, "/a", method="PUT")
        assert not (await ask(app, "/a")).hit

    run(test())


def test_a_handler_may_refuse() -> None:
    cache = TierCache()

    def write(_: Request) -> Response:
        cache.current.no_store()
        return representing()

    assert not kept(write, cache=cache)


def test_a_body_that_ends_early_is_not_kept() -> None:
    async def parts() -> AsyncIterator[str]:
        yield "post"
        raise ValueError("broken")

    async def test() -> None:
        app = app_of(
            lambda _: StreamingResponse(parts(), headers={"cache-control": "max-age=60", "content-location": "/a"})
        )
        with pytest.raises(ValueError, match="broken"):
            await ask(app, "/a", method="POST")
        assert not (await ask(app, "/a")).hit

    run(test())


# ---- what else happened in between ----


class Story:
    """A POST whose handler waits in the middle, and whose dependency does after the response was sent."""

    def __init__(self, cache: TierCache) -> None:
        self.in_handler, self.handler_may_go = asyncio.Event(), asyncio.Event()
        self.committing, self.may_commit = asyncio.Event(), asyncio.Event()
        self.fail = False
        app = FastAPI()
        app.add_middleware(TierCacheMiddleware, cache=cache)

        async def session() -> AsyncIterator[None]:
            yield
            self.committing.set()
            await self.may_commit.wait()
            if self.fail:
                raise ValueError("could not commit")

        @app.get("/a")
        async def read(response: FastAPIResponse) -> str:
            response.headers["cache-control"] = "max-age=60"
            return "read"

        @app.post("/a", dependencies=[Depends(session)])
        async def write(response: FastAPIResponse) -> str:
            self.in_handler.set()
            await self.handler_may_go.wait()
            response.headers.update({"cache-control": "max-age=60", "content-location": "/a"})
            return "posted"

        self.app = app

    async def tell(
        self, *, while_running: Callable[[], Awaitable[object]], before_commit: Callable[[], Awaitable[object]]
    ) -> Reply:
        """Run the POST; returns what a GET is answered afterwards."""
        post = Exchange(self.app, http_scope("/a", method="POST"))
        await self.in_handler.wait()
        await while_running()
        self.handler_may_go.set()
        await self.committing.wait()
        await before_commit()
        self.may_commit.set()
        if self.fail:
            with pytest.raises(ValueError, match="commit"):
                await post.reply()
        else:
            await post.reply()
        return await ask(self.app, "/a")


async def nothing() -> None:
    pass


@pytest.mark.parametrize("with_redis", [False, True])
@pytest.mark.parametrize("tag", ["*path:/a", "unrelated"])
@pytest.mark.parametrize("moment", ["never", "while_running", "before_commit"])
def test_an_invalidation_of_somebody_elses_in_between_keeps_it_from_being_kept(
    redis_server: RedisServer, moment: str, tag: str, with_redis: bool
) -> None:
    async def test() -> None:
        namespace = uuid4().hex
        cache = TierCache.from_url(redis_server.url, namespace=namespace) if with_redis else TierCache()
        other = TierCache.from_url(redis_server.url, namespace=namespace) if with_redis else cache
        async with cache, other:
            story = Story(cache)

            async def invalidate() -> None:
                receipt = await other.engine.invalidation.invalidate([tag])
                assert receipt.durable

            moments = {"while_running": nothing, "before_commit": nothing}
            if moment != "never":
                moments[moment] = invalidate
            reply = await story.tell(**moments)
            assert (reply.hit, reply.body) == ((True, b'"posted"') if moment == "never" else (False, b'"read"'))

    run(test())


def test_what_others_invalidate_afterwards_counts_as_ever(redis_server: RedisServer) -> None:
    async def test() -> None:
        namespace = uuid4().hex
        cache, other = (TierCache.from_url(redis_server.url, namespace=namespace) for _ in range(2))
        async with cache, other:
            app, elsewhere = (
                app_of(lambda _: representing(), cache=cache),
                app_of(lambda _: representing(), cache=other),
            )
            assert await is_kept(app)
            async with asyncio.timeout(5):
                while not (found := await ask(elsewhere, "/a")).hit:  # the write to Redis is nobody's to wait for
                    await other.invalidate_path("/nowhere")
                    await elsewhere_forgets(other)
            assert found.body == b"posted"
            await other.invalidate_path("/a")
            assert not (await ask(elsewhere, "/a")).hit

    run(test())


async def elsewhere_forgets(cache: TierCache) -> None:
    """Empty the memory of a worker, so that it has to look into Redis."""
    cache.engine.memory.clear()
    await asyncio.sleep(0.01)


def test_a_commit_that_fails_keeps_it_from_being_kept() -> None:
    async def test() -> None:
        story = Story(TierCache())
        story.fail = True
        reply = await story.tell(while_running=nothing, before_commit=nothing)
        assert (reply.hit, reply.body) == (False, b'"read"')

    run(test())


def test_nobody_is_given_it_before_the_commit() -> None:
    async def test() -> None:
        story = Story(TierCache())

        async def look() -> None:
            assert (await ask(story.app, "/a")).body == b'"read"'

        reply = await story.tell(while_running=look, before_commit=look)
        assert (reply.hit, reply.body) == (True, b'"posted"')

    run(test())


def test_what_the_handler_read_through_the_cache_and_then_made_invalid_is_not_kept() -> None:
    async def test() -> None:
        for names in (["own"], ["other"]):
            cache = TierCache()

            @cache.cached("value:{name}", ttl=60, tags=["own"])
            async def value(name: str) -> str:
                return name

            async def write(_: Request, value: Any = value, names: list[str] = names) -> Response:
                await value("x")
                return representing(cache_group_invalidation=", ".join(f'"{name}"' for name in names))

            assert await once(write, cache=cache) is (names == ["other"])

    run(test())


def test_an_answer_that_invalidates_its_own_group_is_not_kept() -> None:
    assert kept(lambda _: representing(cache_groups='"g"'))
    assert not kept(lambda _: representing(cache_groups='"g"', cache_group_invalidation='"g"'))


def test_a_handler_that_has_read_its_own_path_through_the_cache_is_not_believed() -> None:
    async def test() -> None:
        cache = TierCache()
        inner = app_of(lambda _: representing(), cache=cache)

        async def write(_: Request) -> Response:
            await ask(inner, "/a")
            return representing()

        assert not await once(write, cache=cache)

    run(test())


def test_beside_events_it_is_not_kept() -> None:
    cache = TierCache()
    cache.on("edit", tags=["t"])

    async def write(_: Request) -> Response:
        return representing()

    assert kept(write, cache=cache)
    emitting = TierCache()
    emitting.on("edit", tags=["t"])

    @emitting.emits("edit")
    async def emit() -> None:
        pass

    async def write_and_emit(_: Request) -> Response:
        await emit()
        return representing()

    assert not kept(write_and_emit, cache=emitting)
    cache.close()
    emitting.close()


def test_two_posts_at_a_time_keep_nothing_that_is_older() -> None:
    async def test() -> None:
        state, opened, begun = ["start"], asyncio.Event(), asyncio.Event()

        async def write(request: Request) -> Response:
            state[0] = mine = request.query_params["to"]
            if mine == "one":
                begun.set()
                await opened.wait()
            return representing(mine, content_location=f"/a?to={mine}")

        async def read(_: Request) -> Response:
            return PlainTextResponse(state[0], headers={"cache-control": "max-age=60"})

        ours = Middleware(TierCacheMiddleware, cache=TierCache())
        app = Starlette(routes=[Route("/a", read), Route("/a", write, methods=["POST"])], middleware=[ours])
        slow = Exchange(app, http_scope("/a", method="POST", query=b"to=one"))
        await begun.wait()
        await ask(app, "/a", method="POST", query=b"to=two")
        opened.set()
        await slow.reply()
        assert (await ask(app, "/a", query=b"to=one")).body == b"two"

    run(test())


def test_while_redis_takes_no_invalidation_nothing_is_kept(own_redis: RedisServer) -> None:
    async def test() -> None:
        cache = TierCache.from_url(own_redis.url)
        app = app_of(lambda _: representing(), cache=cache)
        async with cache:
            assert await is_kept(app)
            own_redis.stop()
            assert not await is_kept(app)

    run(test())
