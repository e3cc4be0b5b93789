"""The app that validates: what becomes of a 304, of an error, of everything else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_tiercache.middleware.validating import DRAINED_BYTES, DRAINED_MESSAGES, ValidatingApp
from asgi_tiercache.types import Entry, Flag, Header, Stamp
from tests.middleware.asgi import Exchange, Reply, http_scope, run

ETAG = b'"1"'
DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"


def stored(*headers: Header, body: bytes = b"stored", status: int = 200, flags: Flag = Flag.NONE) -> Entry:
    entry = Entry(stamp=Stamp("", 0), created=0.0, lifetime=60, canonical=b"", status=status, headers=headers)
    entry.body, entry.flags = body, flags
    return entry


TAGGED = stored((b"etag", ETAG), (b"cache-control", b"max-age=1"), (b"x", b"stays"))
PLAIN = stored((b"x", b"y"))


def always(_: Entry, __: int | None) -> bool:
    return True


def never(_: Entry, __: int | None) -> bool:
    return False


class Scripted:
    """An app whose runs send the messages of a script, one list each; an exception in it is raised."""

    def __init__(self, *runs: list[Message | BaseException]) -> None:
        self.runs = list(runs)
        self.asked: list[dict[bytes, bytes]] = []
        self.finished = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(dict(scope["headers"]))
        for message in self.runs[len(self.asked) - 1]:
            if isinstance(message, BaseException):
                raise message
            await send(message)
        self.finished += 1


def start(status: int, *headers: Header) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(content: bytes = b"", *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more}


def whole(status: int, *headers: Header, content: bytes = b"") -> list[Message | BaseException]:
    return [start(status, *headers), body(content)]


async def ask(app: ASGIApp, scope: Scope | None = None, *, content: bytes = b"") -> Reply:
    return await Exchange(app, scope, body=content).reply()


def headers_of(reply: Reply) -> dict[bytes, bytes]:
    return dict(reply.messages[0]["headers"])


# ---- 304 ----


def test_the_handler_finds_the_conditions_in_its_scope() -> None:
    async def main() -> None:
        app = Scripted(whole(200))
        entry = stored((b"etag", ETAG), (b"last-modified", DATE))
        await ask(ValidatingApp(app, [entry], may_stand_in=never), http_scope(headers=[(b"a", b"b")]))
        assert app.asked[0] == {
            b"host": b"example.org",
            b"a": b"b",
            b"if-none-match": ETAG,
            b"if-modified-since": DATE,
        }

    run(main())


def test_the_scope_stays_the_object_it_was_and_its_old_header_list_untouched() -> None:
    async def main() -> None:
        scope = http_scope()
        lines = scope["headers"]

        async def app(given: Scope, receive: Receive, send: Send) -> None:
            assert given is scope
            given["route"] = "chosen"
            await Scripted(whole(200))(given, receive, send)

        await ask(ValidatingApp(app, [TAGGED], may_stand_in=never), scope)
        assert scope["route"] == "chosen"
        assert lines == [(b"host", b"example.org")]

    run(main())


def test_a_304_becomes_the_complete_response_as_it_updates_it() -> None:
    async def main() -> None:
        update = [(b"ETag", ETAG), (b"Cache-Control", b"max-age=9"), (b"content-length", b"0"), (b"y", b"new")]
        update.append((b"Age", b"5"))
        app = ValidatingApp(Scripted(whole(304, *update)), [PLAIN, TAGGED], may_stand_in=never)
        reply = await ask(app)
        assert reply.messages == [
            start(
                200,
                (b"x", b"stays"),
                (b"etag", ETAG),
                (b"cache-control", b"max-age=9"),
                (b"y", b"new"),
                (b"age", b"5"),
                (b"content-length", b"6"),
            ),
            body(b"stored"),
        ]
        assert app.validated is TAGGED
        assert (app.stood_in, app.status) == (None, 304)

    run(main())


def test_what_it_really_was_is_known_before_the_response_begins() -> None:
    async def main() -> None:
        known: list[object] = []
        validated = ValidatingApp(Scripted(whole(304, (b"etag", ETAG))), [TAGGED], may_stand_in=never)
        failed = ValidatingApp(Scripted(whole(503)), [PLAIN], may_stand_in=always)

        async def see(message: Message) -> None:
            if message["type"] == "http.response.start":
                known.append((validated.validated, validated.status, failed.stood_in, failed.status))

        await validated(http_scope(), asyncio.Event().wait, see)  # type: ignore[arg-type]
        await failed(http_scope(), asyncio.Event().wait, see)  # type: ignore[arg-type]
        assert known == [(TAGGED, 304, None, None), (TAGGED, 304, PLAIN, 503)]

    run(main())


def test_a_generated_entity_tag_is_not_passed_off_as_the_handlers() -> None:
    async def main() -> None:
        entry = stored((b"etag", ETAG), (b"last-modified", DATE), flags=Flag.GENERATED_ETAG)
        app = Scripted(whole(304))
        reply = await ask(ValidatingApp(app, [entry], may_stand_in=never))
        assert b"if-none-match" not in app.asked[0]
        assert b"etag" not in headers_of(reply)
        assert reply.body == b"stored"

    run(main())


def test_the_length_is_that_of_the_stored_bytes() -> None:
    async def main() -> None:
        entry = stored((b"etag", ETAG), (b"content-length", b"7"))
        for script, status in ((whole(304, (b"etag", ETAG)), 304), (whole(503), 503)):
            app = ValidatingApp(Scripted(script), [entry], may_stand_in=always)
            reply = await ask(app)
            assert reply.messages[0]["headers"] == [(b"etag", ETAG), (b"content-length", b"6")]
            assert app.status == status

    run(main())


def test_a_response_that_has_no_content_is_given_no_length() -> None:
    async def main() -> None:
        entry = stored((b"etag", ETAG), status=204, body=b"")
        reply = await ask(ValidatingApp(Scripted(whole(304, (b"etag", ETAG))), [entry], may_stand_in=never))
        assert reply.status == 204
        assert b"content-length" not in headers_of(reply)

    run(main())


def test_a_304_about_nothing_that_is_stored_is_asked_again_without_conditions() -> None:
    async def main() -> None:
        app = Scripted(whole(304, (b"etag", b'"2"')), whole(200, content=b"new"))
        validating = ValidatingApp(app, [TAGGED], may_stand_in=never)
        reply = await ask(validating)
        assert reply.messages == whole(200, content=b"new")
        assert [b"if-none-match" in asked for asked in app.asked] == [True, False]
        assert (validating.validated, validating.stood_in, validating.status) == (None, None, 200)

    run(main())


def test_a_304_that_nobody_asked_for_passes() -> None:
    async def main() -> None:
        app = ValidatingApp(Scripted(whole(304, (b"etag", ETAG))), [PLAIN], may_stand_in=always)
        assert (await ask(app)).messages == whole(304, (b"etag", ETAG))
        again = Scripted(whole(304, (b"etag", b'"2"')), whole(304, (b"etag", ETAG)))
        app = ValidatingApp(again, [TAGGED], may_stand_in=always)
        assert (await ask(app)).messages == whole(304, (b"etag", ETAG))
        assert app.validated is None

    run(main())


def test_the_second_run_finds_scope_and_body_as_the_first_did() -> None:
    async def handler(request: Request) -> Response:
        content = await request.body()
        if "if-none-match" in request.headers:
            return Response(status_code=304, headers={"etag": '"other"'})
        return PlainTextResponse(f"{request.url.path} {content.decode()}")

    async def main() -> None:
        app = Starlette(routes=[Mount("/mounted", routes=[Route("/a", handler)])])
        validating = ValidatingApp(app, [TAGGED], may_stand_in=never)
        reply = await ask(validating, http_scope("/mounted/a"), content=b"asked")
        assert (reply.status, reply.body) == (200, b"/mounted/a asked")

    run(main())


def test_the_second_run_finds_nothing_of_what_the_first_left_in_the_scope() -> None:
    async def main() -> None:
        found: list[object] = []
        script = Scripted(whole(304, (b"etag", b'"2"')), whole(200))

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            found.append(scope.get("route"))
            scope["route"] = "chosen"
            await script(scope, receive, send)

        await ask(ValidatingApp(app, [TAGGED], may_stand_in=never))
        assert found == [None, None]

    run(main())


def test_a_second_run_that_answers_nothing_has_no_status() -> None:
    async def main() -> None:
        app = ValidatingApp(Scripted(whole(304, (b"etag", b'"2"')), []), [TAGGED], may_stand_in=always)
        assert (await ask(app)).messages == []
        assert app.status is None

    run(main())


def test_an_error_of_the_second_run_is_an_error_like_others() -> None:
    async def main() -> None:
        mismatch = whole(304, (b"etag", b'"2"'))
        app = ValidatingApp(Scripted(mismatch, whole(503)), [TAGGED], may_stand_in=always)
        assert (await ask(app)).body == b"stored"
        assert (app.stood_in, app.status) == (TAGGED, 503)
        app = ValidatingApp(Scripted(mismatch, [KeyError("no")]), [TAGGED], may_stand_in=never)
        with pytest.raises(KeyError):
            await ask(app)
        assert app.status is None

    run(main())


def test_an_exception_after_a_304_passes_once_the_response_was_sent() -> None:
    async def main() -> None:
        app = ValidatingApp(Scripted([*whole(304, (b"etag", ETAG)), KeyError("late")]), [TAGGED], may_stand_in=always)
        exchange = Exchange(app)
        with pytest.raises(KeyError):
            await exchange.reply()
        assert Reply(exchange.messages).body == b"stored"

    run(main())


# ---- errors ----


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_stale_response_stands_in_for_an_error(status: int) -> None:
    async def main() -> None:
        asked: list[tuple[Entry, int | None]] = []

        def second(entry: Entry, error: int | None) -> bool:
            asked.append((entry, error))
            return entry is TAGGED

        app = ValidatingApp(
            Scripted(whole(status, (b"x", b"error"), content=b"sorry")), [PLAIN, TAGGED], may_stand_in=second
        )
        reply = await ask(app)
        assert reply.messages == [start(200, *TAGGED.headers, (b"content-length", b"6")), body(b"stored")]
        assert asked == [(PLAIN, status), (TAGGED, status)]
        assert (app.validated, app.stood_in, app.status) == (None, TAGGED, status)

    run(main())


@pytest.mark.parametrize(("status", "may"), [(500, never), (501, always), (429, always), (404, always), (200, always)])
def test_what_nothing_may_stand_in_for_passes(status: int, may: Callable[[Entry, int | None], bool]) -> None:
    async def main() -> None:
        script = [start(status), body(b"a", more=True), body(b"b")]
        app = ValidatingApp(Scripted([*script]), [TAGGED], may_stand_in=may)
        reply = await ask(app)
        assert all(sent is given for sent, given in zip(reply.messages, script, strict=True))
        assert (app.validated, app.stood_in, app.status) == (None, None, status)

    run(main())


def test_an_error_is_heard_to_its_end() -> None:
    async def main() -> None:
        chunks = [body(b"x", more=True) for _ in range(DRAINED_MESSAGES)]
        app = Scripted([start(500), *chunks, body()])
        assert (await ask(ValidatingApp(app, [PLAIN], may_stand_in=always))).body == b"stored"
        assert app.finished == 1

    run(main())


@pytest.mark.parametrize("status", [503, 304])
@pytest.mark.parametrize(("size", "number"), [(0, DRAINED_MESSAGES), (DRAINED_BYTES // 4, 4)])
def test_what_nobody_receives_and_has_no_end_is_stopped_without_a_word(
    size: int, number: int, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        sent = 0

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal sent
            await send(start(status))
            while True:
                await send(body(b"x" * size, more=True))
                sent += 1

        assert (await ask(ValidatingApp(app, [TAGGED], may_stand_in=always))).body == b"stored"
        assert sent == number

    run(main())
    assert not [record for record in caplog.records if record.name == "asgi_tiercache"]


def test_a_stream_without_an_end_is_stopped_in_an_app_of_starlette() -> None:
    async def chunks() -> object:
        while True:
            yield b"x"

    async def handler(request: Request) -> Response:
        return StreamingResponse(chunks(), status_code=503)  # type: ignore[arg-type]

    async def main() -> None:
        app = ValidatingApp(Starlette(routes=[Route("/", handler)]), [PLAIN], may_stand_in=always)
        assert (await ask(app)).body == b"stored"

    run(main())


def test_an_exception_before_the_response_began_is_logged_and_stood_in_for(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        app = ValidatingApp(Scripted([KeyError("broken")]), [TAGGED], may_stand_in=always)
        assert (await ask(app)).body == b"stored"
        assert (app.validated, app.stood_in, app.status) == (None, TAGGED, None)

    run(main())
    (record,) = [record for record in caplog.records if record.name == "asgi_tiercache"]
    assert record.levelno == logging.WARNING
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)


def test_an_exception_that_nothing_may_stand_in_for_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        app = ValidatingApp(Scripted([KeyError("broken")]), [TAGGED], may_stand_in=never)
        with pytest.raises(KeyError):
            await ask(app)
        assert app.stood_in is None

    run(main())
    assert not caplog.records


def test_an_exception_after_the_response_began_is_raised() -> None:
    async def main() -> None:
        for status in (200, 501):
            app = ValidatingApp(Scripted([start(status), KeyError("late")]), [TAGGED], may_stand_in=always)
            exchange = Exchange(app)
            with pytest.raises(KeyError):
                await exchange.reply()
            assert exchange.messages == [start(status)]
            assert (app.stood_in, app.status) == (None, status)

    run(main())


def test_an_exception_that_an_app_reports_and_raises_is_stood_in_for_once(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(request: Request) -> Response:
        raise KeyError("broken")

    async def main() -> None:
        app = ValidatingApp(Starlette(routes=[Route("/", handler)]), [TAGGED], may_stand_in=always)
        reply = await ask(app)
        assert (len(reply.messages), reply.body) == (2, b"stored")
        assert (app.stood_in, app.status) == (TAGGED, 500)

    run(main())
    assert [record.levelno for record in caplog.records if record.name == "asgi_tiercache"] == [logging.WARNING]


def test_an_exception_after_a_304_about_nothing_is_stood_in_for_and_not_asked_again() -> None:
    async def main() -> None:
        app = Scripted([*whole(304, (b"etag", b'"2"')), KeyError("late")])
        validating = ValidatingApp(app, [TAGGED], may_stand_in=always)
        assert (await ask(validating)).body == b"stored"
        assert (validating.stood_in, validating.status, len(app.asked)) == (TAGGED, None, 1)

    run(main())


def test_a_cancellation_passes() -> None:
    async def main() -> None:
        app = ValidatingApp(Scripted([asyncio.CancelledError()]), [TAGGED], may_stand_in=always)
        with pytest.raises(asyncio.CancelledError):
            await app(http_scope(), asyncio.Event().wait, asyncio.Queue().put)  # type: ignore[arg-type]
        assert app.stood_in is None

    run(main())


@pytest.mark.parametrize("script", [whole(503), whole(304, (b"etag", ETAG)), whole(200), [KeyError("broken")]])
@pytest.mark.parametrize("refuse", [0, 1])
def test_a_client_that_is_gone_is_no_error_to_stand_in_for(
    script: list[Message | BaseException], refuse: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        app = ValidatingApp(Scripted(script), [TAGGED], may_stand_in=always)
        exchange = Exchange(app, refuse=refuse)
        with pytest.raises(OSError, match="the client is gone"):
            await exchange.reply()
        assert len(exchange.messages) == refuse

    run(main())
    assert not caplog.records


# ---- everything else ----


def test_nothing_is_held_back() -> None:
    async def main() -> None:
        go_on = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.debug", "info": {}})
            await send(start(200))
            await send(body(b"a", more=True))
            await go_on.wait()
            await send(body(b"b"))

        exchange = Exchange(ValidatingApp(app, [TAGGED], may_stand_in=always))
        await exchange.until(3)
        go_on.set()
        assert (await exchange.reply()).body == b"ab"

    run(main())


def test_an_app_behind_http_middleware_is_validated_too() -> None:
    async def through(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    async def handler(request: Request) -> Response:
        if request.headers.get("if-none-match") == ETAG.decode():
            return Response(status_code=304)
        raise KeyError("broken")

    async def main() -> None:
        app = Starlette(routes=[Route("/", handler)], middleware=[Middleware(BaseHTTPMiddleware, dispatch=through)])
        validating = ValidatingApp(app, [TAGGED], may_stand_in=always)
        assert (await ask(validating)).body == b"stored"
        assert validating.validated is TAGGED
        validating = ValidatingApp(app, [PLAIN], may_stand_in=always)
        assert (await ask(validating)).body == b"stored"
        assert validating.stood_in is PLAIN

    run(main())


def test_a_second_response_is_left_to_the_server_to_refuse() -> None:
    async def main() -> None:
        app = ValidatingApp(Scripted([*whole(200), *whole(503)]), [TAGGED], may_stand_in=always)
        assert (await ask(app)).messages == [*whole(200), *whole(503)]
        assert (app.stood_in, app.status) == (None, 200)

    run(main())


def test_an_app_that_answers_nothing_is_left_to_the_server() -> None:
    async def main() -> None:
        app = ValidatingApp(Scripted([]), [TAGGED], may_stand_in=always)
        assert (await ask(app)).messages == []
        assert app.status is None

    run(main())
