"""Requests for a part: out of what is stored, past what is not, and what is stored of a part."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import Depends, FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response

from asgi_tiercache import Policy, TierCacheMiddleware
from tests.engine.doubles import Fleet, alone, written
from tests.middleware.apps import Handler, app_of
from tests.middleware.asgi import Reply, ask, run, turns
from tests.middleware.origins import Origin

HTTP = Policy.http(tags=("t",))
RFC = Policy.rfc9111(tags=("t",))
EXPLICIT = Policy(ttl=10, tags=("t",))
POLICIES = pytest.mark.parametrize("policy", [HTTP, RFC], ids=["http", "rfc9111"])
CONTENT = b"0123456789"


def part(value: bytes, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """The fields of a request for a part."""
    return [(b"range", b"bytes=" + value), *more]


def fields(reply: Reply) -> dict[bytes, bytes]:
    """The field lines of the reply."""
    return dict(reply.messages[0]["headers"])


class Parts:
    """A handler that knows ranges: `first-last` of its content, and `If-Range` by entity tag."""

    def __init__(self, **headers: str) -> None:
        self.headers = {"cache-control": "max-age=10", "etag": '"1"', **headers}
        self.content = CONTENT
        self.complete_length = True
        self.handler = Handler(self._respond)

    def _respond(self, request: Request) -> Response:
        asked = request.headers.get("range")
        if asked is None or request.headers.get("if-range", self.headers["etag"]) != self.headers["etag"]:
            return Response(self.content, headers=self.headers)
        first, last = (int(number or len(self.content) - 1) for number in asked.removeprefix("bytes=").split("-"))
        length = str(len(self.content)) if self.complete_length else "*"
        lines = {**self.headers, "content-range": f"bytes {first}-{last}/{length}"}
        return Response(self.content[first : last + 1], 206, headers=lines)


# ---- of what is stored ----


@pytest.mark.parametrize("policy", [HTTP, RFC, EXPLICIT])
def test_a_fresh_response_answers_with_its_part(policy: Policy) -> None:
    async def test() -> None:
        cache, _ = alone()
        origin = Parts()
        app = app_of(origin.handler, policy, cache=cache)
        await ask(app)
        reply = await ask(app, headers=part(b"2-4"))
        assert (reply.status, reply.body, reply.hit) == (206, b"234", True)
        assert fields(reply)[b"content-range"] == b"bytes 2-4/10"
        assert (await ask(app, headers=part(b"10-"))).status == 416
        assert (await ask(app, headers=part(b"0-1", (b"if-range", b'"2"')))).body == CONTENT
        assert (await ask(app, headers=part(b"0-1", (b"if-range", b'"1"')))).body == b"01"
        assert (await ask(app, headers=part(b"0-1", (b"if-none-match", b'"1"')))).status == 304
        assert origin.handler.calls == 1

    run(test())


@POLICIES
def test_a_stale_one_answers_with_its_part_where_stale_ones_answer(policy: Policy) -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Parts(**{"cache-control": "max-age=10, stale-while-revalidate=10"})
        app = app_of(origin.handler, policy, cache=cache)
        await ask(app)
        clock.tick(15)
        reply = await ask(app, headers=part(b"2-4"))
        assert (reply.status, reply.body) == (206, b"234")
        assert "L1-stale" in reply.cache_status
        await turns()
        assert "range" not in origin.handler.seen.headers, "it is made anew as a whole"
        assert (await ask(app)).hit

    run(test())


@POLICIES
def test_past_that_the_handler_answers_for_the_part_and_the_whole_is_validated_by_the_next(policy: Policy) -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Parts()
        app = app_of(origin.handler, policy, cache=cache)
        await ask(app)
        clock.tick(15)
        reply = await ask(app, headers=part(b"2-4"))
        assert (reply.status, reply.body, reply.hit) == (206, b"234", False)
        assert origin.handler.seen.headers["range"] == "bytes=2-4"
        reply = await ask(app)
        assert (reply.status, reply.body) == (200, CONTENT)
        assert (await ask(app)).hit

    run(test())


# ---- of what is not ----


@POLICIES
def test_a_part_is_stored_and_answers_for_what_it_covers_and_nothing_else(policy: Policy) -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Parts()
        app = app_of(origin.handler, policy, cache=cache)
        assert (await ask(app, headers=part(b"2-6"))).body == b"23456"
        reply = await ask(app, headers=part(b"3-5"))
        assert (reply.status, reply.body, reply.hit) == (206, b"345", True)
        assert fields(reply)[b"content-range"] == b"bytes 3-5/10"
        assert (await ask(app, headers=part(b"3-5"), method="HEAD")).status in (200, 206)
        assert not (await ask(app, headers=part(b"5-7"))).hit
        assert (await ask(app)).body == CONTENT
        assert (await ask(app, query=b"other", headers=part(b"5-7"))).hit is False
        clock.tick(11)
        assert not (await ask(app, headers=part(b"5-7"))).hit

    run(test())


@POLICIES
@pytest.mark.parametrize("value", [b"0-9", b"0-"])
def test_a_part_that_is_all_of_it_is_stored_as_that(policy: Policy, value: bytes) -> None:
    async def test() -> None:
        cache, _ = alone()
        origin = Parts()
        app = app_of(origin.handler, policy, cache=cache)
        assert (await ask(app, headers=part(value))).status == 206
        reply = await ask(app)
        assert (reply.status, reply.body, reply.hit) == (200, CONTENT, True)
        assert b"content-range" not in fields(reply)

    run(test())


@POLICIES
def test_a_part_of_unknown_length_is_no_whole(policy: Policy) -> None:
    async def test() -> None:
        cache, _ = alone()
        origin = Parts()
        origin.complete_length = False
        app = app_of(origin.handler, policy, cache=cache)
        await ask(app, headers=part(b"0-9"))
        assert not (await ask(app)).hit
        assert origin.handler.calls == 2

    run(test())


def test_who_resumes_by_if_range_leaves_no_whole_behind() -> None:
    async def test() -> None:
        cache, _ = alone()
        origin = Parts()
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app, headers=part(b"0-9", (b"if-range", b'"1"')))
        assert not (await ask(app)).hit

    run(test())


@pytest.mark.parametrize("soft", [True, False])
def test_a_part_is_invalidated_like_a_whole(soft: bool) -> None:
    async def test() -> None:
        cache, _ = alone()
        origin = Parts()
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app, headers=part(b"2-6"))
        await cache.invalidate("t", soft=soft)
        origin.content = b"abcdefghij"
        if soft:
            await ask(app, headers=part(b"2-6"))
            await turns()
        assert (await ask(app, headers=part(b"2-6"))).body == b"cdefg"

    run(test())


def test_a_part_that_varies_is_not_stored() -> None:
    async def test() -> None:
        cache, _ = alone()
        origin = Parts(vary="accept-language")
        app = app_of(origin.handler, HTTP, cache=cache)
        reply = await ask(app, headers=part(b"2-6"))
        assert reply.cache_status == "tiercache; fwd=uri-miss; detail=partial"
        assert not (await ask(app, headers=part(b"2-6"))).hit

    run(test())


def test_a_part_whose_length_is_not_what_it_says_is_not_stored() -> None:
    async def test() -> None:
        cache, _ = alone()
        lines = {"cache-control": "max-age=10", "content-range": "bytes 0-4/10"}
        handler = Handler(lambda _: Response(b"012", 206, headers=lines))
        app = app_of(handler, HTTP, cache=cache)
        await ask(app, headers=part(b"0-4"))
        assert not (await ask(app, headers=part(b"0-1"))).hit

    run(test())


@pytest.mark.parametrize(("cache_control", "hit"), [("max-age=10", False), ("max-age=10, public", True)])
def test_a_part_for_one_user_is_another_users_only_where_it_says_so(cache_control: str, hit: bool) -> None:
    async def test() -> None:
        cache, _ = alone()
        origin = Parts(**{"cache-control": cache_control})
        app = app_of(origin.handler, HTTP, cache=cache)
        one, two = [(b"cookie", b"a=1")], [(b"cookie", b"a=2")]
        await ask(app, headers=[*part(b"2-6"), *one])
        assert (await ask(app, headers=part(b"2-6"))).hit is hit
        assert (await ask(app, headers=[*part(b"2-6"), *two])).hit is hit

    run(test())


def test_a_part_from_another_worker_is_used() -> None:
    async def test() -> None:
        fleet, origin = Fleet(), Parts()
        one, two = fleet.worker(), fleet.worker()
        await ask(app_of(origin.handler, HTTP, cache=one), headers=part(b"2-6"))
        await written(one)
        reply = await ask(app_of(origin.handler, HTTP, cache=two), headers=part(b"2-3"))
        assert (reply.body, reply.hit) == (b"23", True)
        await one.aclose()
        await two.aclose()

    run(test())


def test_a_request_for_a_part_that_wants_nothing_stored_leaves_nothing() -> None:
    async def test() -> None:
        cache, _ = alone()
        origin = Parts()
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app, headers=part(b"2-6", (b"cache-control", b"no-store")))
        assert not (await ask(app, headers=part(b"2-6"))).hit

    run(test())


def test_under_an_explicit_policy_a_part_that_is_not_stored_is_the_handlers_affair() -> None:
    async def test() -> None:
        cache, _ = alone()
        origin = Parts()
        app = app_of(origin.handler, EXPLICIT, cache=cache)
        for _ in range(2):
            reply = await ask(app, headers=part(b"2-6"))
            assert (reply.status, reply.body, reply.cache_status) == (
                206,
                b"23456",
                "tiercache; fwd=bypass; detail=range",
            )

    run(test())


def test_a_handler_that_knows_no_ranges_is_stored_and_knows_them_from_then_on() -> None:
    async def test() -> None:
        cache, _ = alone()
        origin = Origin()
        app = app_of(origin.handler, HTTP, cache=cache)
        assert (await ask(app, headers=part(b"0-1"))).status == 200
        reply = await ask(app, headers=part(b"0-1"))
        assert (reply.status, reply.body, reply.hit) == (206, b"ve", True)

    run(test())


def test_a_file_response_with_ranges_of_its_own_goes_with_it(tmp_path: Any) -> None:
    async def test() -> None:
        (tmp_path / "file").write_bytes(CONTENT)
        cache, _ = alone()
        handler = Handler(lambda _: FileResponse(tmp_path / "file", headers={"cache-control": "max-age=10"}))
        app = app_of(handler, HTTP, cache=cache)
        assert (await ask(app, headers=part(b"2-4"))).body == b"234"
        reply = await ask(app, headers=part(b"3-4"))
        assert (reply.status, reply.body, reply.hit) == (206, b"34", True)
        assert (await ask(app)).body == CONTENT
        reply = await ask(app, headers=part(b"0-1,8-9"))
        assert (reply.status, reply.hit) == (206, True)

    run(test())


@pytest.mark.parametrize("policy", [Policy(ttl=10, dependencies="always"), Policy.http(dependencies="always")])
def test_with_dependencies_on_every_request_parts_are_cut_from_what_is_stored(policy: Policy) -> None:
    async def test() -> None:
        cache, _ = alone()
        asked: list[list[str]] = []

        def dependency(request: Request) -> None:
            asked.append(request.headers.getlist("range"))

        app = FastAPI()

        @app.get("/", dependencies=[Depends(dependency)])
        def endpoint() -> PlainTextResponse:
            return PlainTextResponse(CONTENT.decode(), headers={"cache-control": "max-age=10"})

        app.add_middleware(TierCacheMiddleware, cache=cache, routes={"/": policy})
        assert (await ask(app, headers=part(b"2-4"))).status == 200
        assert asked == [["bytes=2-4"]], "it comes as it was sent"
        await ask(app)
        reply = await ask(app, headers=part(b"2-4"))
        assert (reply.status, reply.body, reply.hit) == (206, b"234", True)

    run(test())


def test_a_part_is_not_used_any_more_once_the_whole_may_not_be_stored() -> None:
    async def test() -> None:
        cache, clock = alone()
        origin = Parts(**{"cache-control": "max-age=10, stale-while-revalidate=100"})
        app = app_of(origin.handler, HTTP, cache=cache)
        await ask(app, headers=part(b"2-4"))
        clock.tick(11)
        origin.headers["cache-control"] = "no-store"
        assert "L1-stale" in (await ask(app, headers=part(b"2-4"))).cache_status
        await turns()
        assert not (await ask(app, headers=part(b"2-4"))).hit

    run(test())
