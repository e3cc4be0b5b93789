"""What `Cache-Status` says of a request that went on (RFC 9211, sections 2.2 and 2.6)."""

from __future__ import annotations

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from asgi_tiercache import Policy, TierCache
from asgi_tiercache.testing import TickingClock
from tests.middleware.apps import Gated, Handler, app_of
from tests.middleware.asgi import Exchange, ask, run, turns

EXACT = Policy.rfc9111()


def test_a_stored_part_that_does_not_hold_all_that_is_asked_for_is_said_to_be_one() -> None:
    def part(request: Request) -> Response:
        first, last = request.headers["range"].removeprefix("bytes=").split("-")
        body = "0123456789"[int(first) : int(last) + 1]
        return PlainTextResponse(
            body, 206, {"content-range": f"bytes {first}-{last}/10", "cache-control": "max-age=60", "etag": '"a"'}
        )

    async def test() -> None:
        app = app_of(Handler(part), EXACT)
        for asked, told in (("0-5", "fwd=uri-miss"), ("2-4", "hit"), ("4-8", "fwd=partial"), ("4-8", "hit")):
            reply = await ask(app, headers=[(b"range", b"bytes=" + asked.encode())])
            assert reply.cache_status.startswith(f"tiercache; {told}"), asked

    run(test())


def test_a_request_that_waited_in_vain_says_so() -> None:
    async def test() -> None:
        gated = Gated(headers={"cache-control": "private"})
        app = app_of(gated.handler, EXACT.but(ttl=None))
        under_way = [Exchange(app) for _ in range(3)]
        await gated.entered()
        await turns()
        gated.open.set()
        told = [(await each.reply()).cache_status for each in under_way]
        assert sum("; collapsed=?0" in line for line in told) == 2
        assert not any("; collapsed;" in line for line in told)

    run(test())


@pytest.mark.parametrize("downstream", ["keep", "remove", "max-age=5"])
def test_a_stale_response_stands_in_whatever_clients_are_told(downstream: str) -> None:
    async def test() -> None:
        clock = TickingClock()
        handler = Handler(
            lambda _: PlainTextResponse("text", 200 if handler.calls == 1 else 503, {"cache-control": "max-age=60"})
        )
        app = app_of(handler, EXACT.but(downstream=downstream), cache=TierCache(clock=clock))
        await ask(app)
        clock.tick(61)
        reply = await ask(app)
        assert (reply.status, reply.body) == (200, b"text")
        assert reply.cache_status == "tiercache; fwd=stale; fwd-status=503; detail=stale-if-error"

    run(test())
