"""Stored responses that are validated: found in one tier or the other, once for all who wait, past invalidations."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from asgi_tiercache import Policy, TierCacheMiddleware
from asgi_tiercache.middleware.variants import MAX_VARIANTS
from tests.engine.doubles import Fleet, alone, written
from tests.middleware.apps import Handler, app_of, client_of
from tests.middleware.asgi import Exchange, Reply, ask, run, turns, until
from tests.middleware.origins import Origin

HTTP = Policy.http(tags=("t",))
RFC = Policy.rfc9111(tags=("t",))
EXPLICIT = Policy(ttl=10, retention=100, tags=("t",))
POLICIES = pytest.mark.parametrize("policy", [HTTP, RFC, EXPLICIT], ids=["http", "rfc9111", "explicit"])
COOKIE = [(b"cookie", b"a=b")]
VALIDATED = "tiercache; fwd=stale; fwd-status=304; stored"


def fields(reply: Reply) -> dict[bytes, bytes]:
    """The field lines of the reply, the last of each name."""
    return dict(next(message for message in reply.messages if message["type"] == "http.response.start")["headers"])


# ---- where it is found ----


@POLICIES
@pytest.mark.parametrize(("etag", "modified"), [(True, False), (False, True), (True, True)])
def test_a_stale_response_is_validated_and_fresh_again(policy: Policy, etag: bool, modified: bool) -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin(clock=clock, etag=etag, modified=modified)
        app = app_of(origin.handler, policy, cache=cache)
        await ask(app)
        for _ in range(3):
            clock.tick(11)
            reply = await ask(app)
            assert (reply.status, reply.body, reply.cache_status) == (200, b"version 1", VALIDATED)
            assert (await ask(app)).hit
        origin.version = 2
        clock.tick(11)
        reply = await ask(app)
        assert (reply.body, reply.cache_status) == (b"version 2", "tiercache; fwd=stale; stored")
        assert origin.answers == [200, 304, 304, 304, 200]

    run(test())


@POLICIES
def test_what_another_worker_has_stored_is_validated(policy: Policy) -> None:
    async def test() -> None:
        fleet, origin = Fleet(), Origin()
        one, two = fleet.worker(), fleet.worker()
        await ask(app_of(origin.handler, policy, cache=one))
        await written(one)
        fleet.clock.tick(11)
        reply = await ask(app_of(origin.handler, policy, cache=two))
        assert (reply.body, reply.cache_status) == (b"version 1", VALIDATED)
        await written(two)
        reply = await ask(app_of(origin.handler, policy, cache=one))
        assert reply.cache_status == "tiercache; hit; ttl=10; detail=L2", "its own is stale, the other's is not"
        await one.aclose()
        await two.aclose()

    run(test())


def test_a_copy_that_may_not_stay_in_memory_for_as_long_is_validated_from_the_lower_tier() -> None:
    async def test() -> None:
        fleet, origin = Fleet(), Origin()
        cache = fleet.worker()
        app = app_of(origin.handler, HTTP.but(l1_ttl=2), cache=cache)
        await ask(app)
        await written(cache)
        fleet.clock.tick(5)
        assert (await ask(app)).cache_status == "tiercache; hit; ttl=5; detail=L2"
        fleet.clock.tick(6)
        assert (await ask(app)).cache_status == VALIDATED
        await cache.aclose()

    run(test())


def test_without_a_running_lifespan_each_request_has_a_loop_of_its_own_and_validates_all_the_same() -> None:
    cache, clock = alone()
    origin = Origin("max-age=10, stale-while-revalidate=5")
    client = client_of(origin.handler, HTTP, cache=cache)
    client.get("/")
    clock.tick(20)
    assert client.get("/").headers["cache-status"] == VALIDATED
    clock.tick(12)
    assert "L1-stale" in client.get("/").headers["cache-status"]
    clock.tick(6)
    assert client.get("/").text == "version 1"


# ---- many at once ----


@POLICIES
def test_who_comes_while_it_is_validated_waits_for_that(policy: Policy) -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin()
        app = app_of(origin.handler, policy, cache=cache)
        await ask(app)
        clock.tick(11)
        origin.open.clear()
        exchanges = [Exchange(app) for _ in range(20)]
        await turns()
        origin.open.set()
        replies = [await exchange.reply() for exchange in exchanges]
        assert {(reply.status, reply.body) for reply in replies} == {(200, b"version 1")}
        assert origin.answers == [200, 304]

    run(test())


@pytest.mark.parametrize("policy", [HTTP, RFC])
@pytest.mark.parametrize("stored", [True, False])
def test_what_needs_validation_at_each_use_is_validated_by_each_request_and_nobody_waits(
    policy: Policy, stored: bool
) -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin("no-cache")
        app = app_of(origin.handler, policy, cache=cache)
        if stored:
            await ask(app)
        origin.open.clear()
        exchanges = [Exchange(app) for _ in range(20)]
        await turns()
        assert origin.handler.calls == (21 if stored else 1)
        clock.tick(1)  # what comes is younger than the requests
        origin.version = 2
        origin.open.set()
        replies = [await exchange.reply() for exchange in exchanges]
        assert {reply.body for reply in replies} == {b"version 2"}
        assert not any(reply.hit for reply in replies)
        assert origin.handler.calls == (21 if stored else 20)

    run(test())


# ---- invalidations ----


@POLICIES
@pytest.mark.parametrize("soft", [True, False])
def test_what_was_invalidated_is_not_asked_about(policy: Policy, soft: bool) -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin()
        app = app_of(origin.handler, policy, cache=cache)
        await ask(app)
        clock.tick(11)
        await cache.invalidate("t", soft=soft)
        await ask(app)
        assert "if-none-match" not in origin.handler.seen.headers

    run(test())


@POLICIES
def test_an_invalidation_during_the_validation_outlives_it(policy: Policy) -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin()
        app = app_of(origin.handler, policy, cache=cache)
        await ask(app)
        clock.tick(11)
        origin.open.clear()
        exchange = Exchange(app)
        await until(lambda: origin.handler.calls == 2)
        await cache.invalidate("t")
        origin.open.set()
        assert (await exchange.reply()).body == b"version 1", "it came before the invalidation"
        origin.version = 2
        assert (await ask(app)).body == b"version 2"
        assert "if-none-match" not in origin.handler.seen.headers

    run(test())


@pytest.mark.parametrize("tag", ["t", "first", "second"])
def test_what_was_validated_has_the_tags_of_both_responses(tag: str) -> None:
    async def test() -> None:
        cache, clock = alone()

        def respond(request: Request) -> Response:
            conditional = "if-none-match" in request.headers
            cache.current.tag("second" if conditional else "first")
            lines = {"cache-control": "max-age=10", "etag": '"1"'}
            return Response(status_code=304, headers=lines) if conditional else PlainTextResponse("text", headers=lines)

        handler = Handler(respond)
        app = app_of(handler, HTTP, cache=cache)
        await ask(app)
        clock.tick(11)
        assert (await ask(app)).cache_status == VALIDATED
        await cache.invalidate("other")
        assert (await ask(app)).hit
        await cache.invalidate(tag)
        assert not (await ask(app)).hit

    run(test())


def test_an_invalidation_between_the_304_and_the_end_of_the_response_holds() -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin()

        class Invalidating:
            """Invalidates once the handler's 304 has passed it."""

            def __init__(self, app: Any) -> None:
                self._app = app

            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
                async def after(message: Message) -> None:
                    if message["type"] == "http.response.start" and message["status"] == 304:
                        await cache.invalidate("t")
                    await send(message)

                await self._app(scope, receive, after)

        app = app_of(origin.handler, HTTP, cache=cache, below=[Middleware(Invalidating)])
        await ask(app)
        clock.tick(11)
        await ask(app)
        assert not (await ask(app)).hit

    run(test())


# ---- what the 304 says ----


@pytest.mark.parametrize(("policy", "hit"), [(HTTP, False), (EXPLICIT, False), (RFC, True)])
def test_a_cookie_that_a_304_sets_is_for_its_client(policy: Policy, hit: bool) -> None:
    """By the RFC it is a field like others; elsewhere what sets a cookie is not stored, and not asked about again."""

    async def test() -> None:
        cache, clock = alone()
        origin = Origin()
        app = app_of(origin.handler, policy, cache=cache)
        await ask(app)
        clock.tick(11)
        origin.headers = {"set-cookie": "one=1"}
        assert fields(await ask(app))[b"set-cookie"] == b"one=1"
        origin.headers = {}
        reply = await ask(app)
        assert reply.hit is hit
        assert (b"set-cookie" in fields(reply)) is hit

    run(test())


@pytest.mark.parametrize("directive", ["private", "no-cache"])
def test_fields_that_may_not_be_stored_are_of_one_response(directive: str) -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin(f'max-age=10, {directive}="x-of"', headers={"x-of": "first"})
        app = app_of(origin.handler, HTTP, cache=cache)
        assert fields(await ask(app))[b"x-of"] == b"first"
        assert b"x-of" not in fields(await ask(app))
        clock.tick(11)
        origin.headers = {"x-of": "second"}
        reply = await ask(app)
        assert (reply.cache_status, fields(reply)[b"x-of"]) == (VALIDATED, b"second")
        origin.headers = {}
        assert b"x-of" not in fields(await ask(app))
        clock.tick(11)
        reply = await ask(app)
        assert reply.cache_status == VALIDATED
        assert b"x-of" not in fields(reply)

    run(test())


def test_a_304_to_one_user_that_is_not_public_leaves_nothing_for_others() -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin("max-age=10, public")
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app)
        clock.tick(11)
        origin.cache_control, origin.headers = "max-age=10", {"x-user": "one"}
        assert fields(await ask(app, headers=COOKIE))[b"x-user"] == b"one"
        origin.headers = {}
        assert b"x-user" not in fields(await ask(app))

    run(test())


def test_what_is_not_for_requests_with_credentials_is_not_asked_about_by_them() -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin()
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app)
        clock.tick(11)
        await ask(app, headers=COOKIE)
        assert "if-none-match" not in origin.handler.seen.headers
        assert origin.answers == [200, 200]

    run(test())


def test_a_clients_condition_is_judged_on_what_the_validation_brings() -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin()
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app)
        clock.tick(11)
        reply = await ask(app, headers=[(b"if-none-match", b'"other"')])
        assert (reply.status, reply.body) == (200, b"version 1")
        clock.tick(11)
        reply = await ask(app, headers=[(b"if-none-match", b'"v1"')])
        assert (reply.status, reply.body) == (304, b"")
        origin.version = 2
        clock.tick(11)
        assert (await ask(app, headers=[(b"if-none-match", b'"v1"')])).body == b"version 2"

    run(test())


# ---- what the request says ----


@pytest.mark.parametrize("directive", [b"no-cache", b"max-age=0", b"min-fresh=10"])
def test_a_request_may_have_what_is_fresh_validated(directive: bytes) -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin()
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app)
        clock.tick(1)
        reply = await ask(app, headers=[(b"cache-control", directive)])
        assert reply.cache_status == "tiercache; fwd=request; fwd-status=304; stored"
        assert fields(await ask(app))[b"age"] == b"0"

    run(test())


def test_a_request_that_wants_nothing_stored_is_given_what_was_validated_and_leaves_all_as_it_was() -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin()
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app)
        clock.tick(11)
        for _ in range(6):
            reply = await ask(app, headers=[(b"cache-control", b"no-store")])
            assert (reply.status, reply.body) == (200, b"version 1")
        assert (await ask(app)).cache_status == VALIDATED

    run(test())


# ---- Vary ----


class Languages:
    """Answers in the language asked for, or says with a 304 that another one will do."""

    def __init__(self) -> None:
        self.vary: dict[str, str] = {"vary": "accept-language"}
        self.picks: str | None = None
        self.handler = Handler(self._respond)

    def _respond(self, request: Request) -> Response:
        language = request.headers.get("accept-language", "none")
        chosen = self.picks or language
        lines = {"cache-control": "max-age=10", "etag": f'"{chosen}"', "content-language": chosen, **self.vary}
        if f'"{chosen}"' in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=lines)
        return PlainTextResponse(chosen, headers=lines)


def language(name: str) -> list[tuple[bytes, bytes]]:
    """The request field."""
    return [(b"accept-language", name.encode())]


def test_other_variants_are_named_and_one_of_them_may_be_the_answer_for_this_request_alone() -> None:
    async def test() -> None:
        cache, clock = alone()
        app_of_languages = Languages()
        app = app_of(app_of_languages.handler, RFC, cache=cache)
        await ask(app, headers=language("en"))
        await ask(app, headers=language("de"))
        app_of_languages.picks = "en"
        reply = await ask(app, headers=language("fr"))
        assert app_of_languages.handler.seen.headers["if-none-match"] == '"en", "de"'
        assert (reply.body, fields(reply)[b"content-language"]) == (b"en", b"en")
        assert reply.cache_status == "tiercache; fwd=vary-miss; fwd-status=304; stored"
        app_of_languages.picks = None
        for name, body in (("fr", b"en"), ("en", b"en"), ("de", b"de")):
            reply = await ask(app, headers=language(name))
            assert (reply.body, reply.hit) == (body, True)
        clock.tick(11)
        assert (await ask(app, headers=language("fr"))).body == b"fr"

    run(test())


def test_an_invalidated_variant_is_named_to_nobody() -> None:
    async def test() -> None:
        cache, _ = alone()

        def respond(request: Request) -> Response:
            name = request.headers["accept-language"]
            cache.current.tag(name)
            lines = {"cache-control": "max-age=10", "etag": f'"{name}"', "vary": "accept-language"}
            return PlainTextResponse(name, headers=lines)

        handler = Handler(respond)
        app = app_of(handler, RFC, cache=cache)
        await ask(app, headers=language("en"))
        await ask(app, headers=language("de"))
        await cache.invalidate("en")
        await ask(app, headers=language("fr"))
        assert handler.seen.headers["if-none-match"] == '"de"'

    run(test())


def test_a_variant_that_another_worker_has_stored_is_validated() -> None:
    async def test() -> None:
        fleet, origin = Fleet(), Languages()
        one, two = fleet.worker(), fleet.worker()
        for name in ("en", "de"):
            await ask(app_of(origin.handler, HTTP, cache=one), headers=language(name))
        await written(one)
        fleet.clock.tick(11)
        app = app_of(origin.handler, HTTP, cache=two)
        for name in ("de", "en"):
            reply = await ask(app, headers=language(name))
            assert (reply.body, reply.cache_status) == (name.encode(), VALIDATED)
        await one.aclose()
        await two.aclose()

    run(test())


def test_variants_are_kept_for_as_long_as_each_is_of_use() -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Languages()
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app, headers=language("en"))
        clock.tick(3_000)
        await ask(app, headers=language("de"))
        clock.tick(3_000)
        assert (await ask(app, headers=language("de"))).cache_status == VALIDATED

    run(test())


def test_a_response_without_vary_after_others_with_it_mixes_nothing_up() -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Languages()
        app = app_of(origin.handler, HTTP, cache=cache)
        for name in ("en", "de"):
            await ask(app, headers=language(name))
        origin.vary = {}
        await ask(app, headers=language("fr"))
        for name in ("en", "de", "fr"):
            assert (await ask(app, headers=language(name))).body == name.encode()
        clock.tick(11)
        for name in ("en", "de"):
            assert (await ask(app, headers=language(name))).body == name.encode()

    run(test())


def test_the_bound_on_variants_holds_whatever_way_they_are_made() -> None:
    async def test() -> None:
        cache, _ = alone()
        origin = Languages()
        app = app_of(origin.handler, HTTP, cache=cache)
        for number in range(2 * MAX_VARIANTS):
            await ask(app, headers=language(f"x{number}"))
        origin.picks = "x0"
        for number in range(2 * MAX_VARIANTS):
            await ask(app, headers=language(f"y{number}"))
        origin.picks, origin.vary = None, {}
        for number in range(MAX_VARIANTS):
            await ask(app, headers=language(f"z{number}"))
        assert len(cache.engine.memory.bucket(HTTP.region)) <= MAX_VARIANTS + 1
        reply = await ask(app, headers=language("x1"))
        assert reply.body == b"z0", "one that says that nothing chooses it"

    run(test())


# ---- generated entity tags ----


def test_a_generated_entity_tag_outlives_validation_and_is_the_same_for_every_worker() -> None:
    async def test() -> None:
        fleet = Fleet()
        one, two = fleet.worker(), fleet.worker()
        origin = Origin(etag=False, modified=True)
        policy = HTTP.but(etag=True)
        first = app_of(origin.handler, policy, cache=one)
        await ask(first)
        tag = fields(await ask(first))[b"etag"]
        await written(one)
        fleet.clock.tick(11)
        assert (await ask(first)).cache_status == VALIDATED
        assert "if-none-match" not in origin.handler.seen.headers
        assert fields(await ask(first))[b"etag"] == tag
        await written(one)
        second = app_of(origin.handler, policy, cache=two)
        assert fields(await ask(second))[b"etag"] == tag
        assert (await ask(second, headers=[(b"if-none-match", tag)])).status == 304
        assert (await ask(second, query=b"other")).status == 200
        assert (await ask(second, query=b"other", headers=[(b"if-none-match", tag)])).status == 200
        await one.aclose()
        await two.aclose()

    run(test())


def test_the_entity_tag_of_what_was_invalidated_yields_no_304() -> None:
    async def test() -> None:
        cache, _ = alone()
        origin = Origin("max-age=100", etag=False)
        app = app_of(origin.handler, HTTP.but(etag=True), cache=cache)
        await ask(app)
        condition = [(b"if-none-match", fields(await ask(app))[b"etag"])]
        assert (await ask(app, headers=condition)).status == 304
        await cache.invalidate("t")
        origin.version = 2
        assert (await ask(app, headers=condition)).body == b"version 2"
        assert (await ask(app, headers=condition)).body == b"version 2"

    run(test())


def test_the_handlers_own_entity_tag_is_left_alone() -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Origin()
        app = app_of(origin.handler, HTTP.but(etag=True), cache=cache)
        await ask(app)
        assert fields(await ask(app))[b"etag"] == b'"v1"'
        clock.tick(11)
        assert (await ask(app)).cache_status == VALIDATED

    run(test())


# ---- handlers of other kinds ----


def test_a_background_task_of_a_304_runs_and_nobody_waits_for_it() -> None:
    async def test() -> None:
        cache, clock = alone()
        go, done = asyncio.Event(), []

        async def task() -> None:
            await go.wait()
            done.append(True)

        def respond(request: Request) -> Response:
            lines = {"cache-control": "max-age=10", "etag": '"1"'}
            if "if-none-match" in request.headers:
                return Response(status_code=304, headers=lines, background=BackgroundTask(task))
            return PlainTextResponse("text", headers=lines)

        app = app_of(Handler(respond), HTTP, cache=cache)
        await ask(app)
        clock.tick(11)
        leader = Exchange(app)
        await leader.until(2)
        assert (await ask(app)).hit
        go.set()
        await leader.reply()
        assert done

    run(test())


def test_a_stream_in_place_of_what_was_stored_flows_as_it_comes() -> None:
    async def test() -> None:
        cache, clock = alone()
        go = asyncio.Event()

        async def chunks() -> Any:
            yield b"a"
            await go.wait()
            yield b"b"

        tags = iter(('"1"', '"2"'))
        go.set()
        handler = Handler(
            lambda _: StreamingResponse(chunks(), headers={"cache-control": "max-age=10", "etag": next(tags)})
        )
        app = app_of(handler, HTTP, cache=cache)
        await ask(app)
        clock.tick(11)
        go.clear()
        exchange = Exchange(app)
        await exchange.until(2)
        assert exchange.messages[1]["body"] == b"a"
        go.set()
        assert (await exchange.reply()).body == b"ab"
        assert (await ask(app)).hit

    run(test())


def test_a_session_that_is_changed_while_it_is_validated_is_not_stored() -> None:
    async def test() -> None:
        cache, clock = alone()

        def respond(request: Request) -> Response:
            if "if-none-match" in request.headers:
                request.session["seen"] = True
                return Response(status_code=304)
            return PlainTextResponse("text", headers={"cache-control": "max-age=10", "etag": '"1"'})

        handler = Handler(respond)
        app = app_of(handler, HTTP, cache=cache, above=[Middleware(SessionMiddleware, secret_key="s")])
        await ask(app)
        clock.tick(11)
        reply = await ask(app)
        assert (reply.body, b"set-cookie" in fields(reply)) == (b"text", True)
        assert b"set-cookie" not in fields(await ask(app))
        assert handler.calls == 3

    run(test())


def test_what_the_handler_leaves_in_the_state_of_the_request_is_found_above() -> None:
    async def test() -> None:
        cache, clock = alone()
        seen: list[object] = []

        class Looking:
            def __init__(self, app: Any) -> None:
                self._app = app

            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
                await self._app(scope, receive, send)
                if scope["type"] == "http":
                    seen.append(scope["state"].get("calls"))

        def respond(request: Request) -> Response:
            request.state.calls = handler.calls
            lines = {"cache-control": "max-age=10", "etag": '"1"'}
            if "if-none-match" in request.headers:
                return Response(status_code=304, headers=lines)
            return PlainTextResponse("text", headers=lines)

        handler = Handler(respond)
        app = app_of(handler, HTTP, cache=cache, above=[Middleware(Looking)])
        await ask(app)
        clock.tick(11)
        await ask(app)
        assert seen == [1, 2]

    run(test())


@pytest.mark.parametrize("kind", ["http.response.debug", "http.response.trailers", "http.response.pathsend"])
def test_messages_of_other_kinds_pass_where_something_new_comes_in_place_of_what_was_stored(
    kind: str, tmp_path: Path
) -> None:
    async def test() -> None:
        cache, clock = alone()
        calls = 0

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal calls
            calls += 1
            lines = [(b"cache-control", b"max-age=10"), (b"etag", b'"%d"' % calls)]
            start = {"type": "http.response.start", "status": 200, "headers": lines, "trailers": "trailers" in kind}
            if calls == 1:
                start["trailers"] = False
            if "debug" in kind and calls > 1:
                await send({"type": kind, "info": {}})
            await send(start)
            if "pathsend" in kind and calls > 1:
                await send({"type": kind, "path": str(tmp_path / "file")})
                return
            await send({"type": "http.response.body", "body": b"text"})
            if "trailers" in kind and calls > 1:
                await send({"type": kind, "headers": [], "more_trailers": False})

        (tmp_path / "file").write_text("file")
        served = TierCacheMiddleware(app, cache=cache, default=HTTP)
        await ask(served)
        clock.tick(11)
        reply = await ask(served)
        assert kind in [message["type"] for message in reply.messages]
        await ask(served)
        assert calls == 3, "it was not stored, nor is what it has superseded used"

    run(test())


def test_a_stored_answer_to_a_post_is_made_anew_without_conditions() -> None:
    """Other methods than GET and HEAD fail with 412 where a condition does (RFC 9110, section 13.1.2)."""

    async def test() -> None:
        cache, clock = alone()

        def respond(request: Request) -> Response:
            lines = {"etag": '"1"', "cache-control": "stale-if-error=50"}
            return Response(status_code=412 if "if-none-match" in request.headers else status, headers=lines)

        status = 200
        handler = Handler(respond)
        policy = Policy(ttl=10, retention=100, methods=["POST"], body=True)
        app = app_of(handler, policy, cache=cache, methods=["POST"])
        await ask(app, method="POST", body=b"question")
        clock.tick(11)
        assert (await ask(app, method="POST", body=b"question")).status == 200
        clock.tick(11)
        status = 503
        assert (await ask(app, method="POST", body=b"question")).status == 200

    run(test())


@pytest.mark.parametrize("policy", [HTTP, RFC])
def test_a_variant_that_may_not_be_stored_any_more_leaves_the_others(policy: Policy) -> None:
    async def test() -> None:
        cache, _ = alone()
        private = False

        def respond(request: Request) -> Response:
            name = request.headers["accept-language"]
            lines = {"cache-control": "private" if private else "max-age=10", "vary": "accept-language"}
            return PlainTextResponse(name, headers=lines)

        app = app_of(Handler(respond), policy, cache=cache)
        await ask(app, headers=language("en"))
        await ask(app, headers=language("de"))
        private = True
        await ask(app, headers=[*language("en"), (b"cache-control", b"no-cache")])
        assert not (await ask(app, headers=language("en"))).hit
        assert (await ask(app, headers=language("de"))).hit

    run(test())
