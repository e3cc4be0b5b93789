"""`Vary`: several answers below one key."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from asgi_tiercache import Policy, Region, TierCache
from asgi_tiercache.testing import assert_hit, assert_miss
from tests.middleware.apps import Handler, app_of, client_of
from tests.middleware.asgi import Exchange, ask, http_scope, run, turns


def _by(name: str, *, vary: str | None = None) -> Handler:
    """Answers with the value of a request header, and says so in `Vary`."""

    def respond(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.headers.get(name, "none"), headers={"vary": vary or name})

    return Handler(respond)


@pytest.mark.parametrize("policy", [Policy(ttl=60), Policy.http(ttl=60)])
def test_languages_have_answers_of_their_own(policy: Policy) -> None:
    handler = _by("accept-language")
    client = client_of(handler, policy)
    for language in ("en", "de", "en", "de"):
        response = client.get("/", headers={"accept-language": language})
        assert response.text == language
    assert_hit(response)
    assert handler.calls == 2


def test_no_language_is_a_variant_too() -> None:
    handler = _by("accept-language")
    app = app_of(handler, Policy(ttl=60))

    async def test() -> None:
        german = [(b"accept-language", b"de")]
        assert [(await ask(app)).body, (await ask(app, headers=german)).body] == [b"none", b"de"]
        assert [(await ask(app)).body, (await ask(app, headers=german)).hit] == [b"none", True]

    run(test())


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ("gzip, br", "br, gzip", True),
        ("gzip;q=1.0, br;q=0.5", "br;q=0.50,gzip", True),
        ("gzip;q=1.0, br;q=0.5", "br,gzip", False),
        ("GZIP", "gzip", True),
        ("x-gzip", "gzip", True),
        ("gzip", "br", False),
        ("gzip", "gzip;q=0", False),
        ("gzip", "identity", False),
    ],
)
def test_encodings_are_compared_by_their_meaning(first: str, second: str, shared: bool) -> None:
    handler = _by("accept-encoding")
    client = client_of(handler, Policy(ttl=60))
    client.get("/", headers={"accept-encoding": first})
    client.get("/", headers={"accept-encoding": second})
    assert handler.calls == (1 if shared else 2)


def test_several_fields_tell_variants_apart() -> None:
    handler = _by("accept-language", vary="Accept-Language, Accept-Encoding")
    client = client_of(handler, Policy(ttl=60))
    requests = [(language, coding) for language in ("en", "de") for coding in ("gzip", "br")]
    for language, coding in requests * 2:
        headers = {"accept-language": language, "accept-encoding": coding}
        response = client.get("/", headers=headers)
    assert_hit(response)
    assert handler.calls == 4


def test_vary_star_is_not_stored() -> None:
    handler = _by("accept-language", vary="*")
    client = client_of(handler, Policy(ttl=60))
    for _ in range(2):
        response = client.get("/")
        assert_miss(response, stored=False)
        assert "detail=vary" in response.headers["cache-status"]


def test_a_header_that_the_handler_did_not_get_makes_no_variants() -> None:
    handler = _by("user-agent")
    client = client_of(handler, Policy(ttl=60))
    texts = [client.get("/", headers={"user-agent": agent}).text for agent in ("one", "two")]
    assert texts == ["none", "none"]
    assert handler.calls == 1


def test_a_keyed_header_makes_no_variants_below_its_keys() -> None:
    handler = _by("x-tenant")
    cache = TierCache()
    client = client_of(handler, Policy(ttl=60, vary_on=("x-tenant",)), cache=cache)
    assert [client.get("/", headers={"x-tenant": name}).text for name in "aba"] == ["a", "b", "a"]
    assert handler.calls == 2
    assert len(cache.engine.memory.bucket(Policy(ttl=60).region)) == 2  # and no marker besides


def test_the_variants_of_a_key_are_bounded() -> None:
    handler = _by("accept-language")
    client = client_of(handler, Policy(ttl=60))
    for number in range(40):
        client.get("/", headers={"accept-language": f"x-{number}"})
    for number in (0, 31):
        assert_hit(client.get("/", headers={"accept-language": f"x-{number}"}))
    for _ in range(2):
        response = client.get("/", headers={"accept-language": "x-39"})
        assert response.text == "x-39"
        assert_miss(response)


def test_one_variant_too_many_does_not_claim_to_be_stored() -> None:
    client = client_of(_by("accept-language"), Policy(ttl=60))
    for number in range(33):
        response = client.get("/", headers={"accept-language": f"x-{number}"})
    assert_miss(response, stored=False)


@pytest.mark.parametrize(
    ("query", "lines"), [(b"x" * 20_000, 1), (b"", 2_000)], ids=["long URLs", "many lines without a value"]
)
def test_clients_cannot_fill_memory_with_what_chooses_variants(query: bytes, lines: int) -> None:
    policy = Policy.http(ttl=60, region=Region(name="small", max_bytes=100_000))
    handler = _by("x-a")
    app = app_of(handler, policy)
    headers = [(b"x-a", b"")] * lines

    async def ask_for(numbers: range) -> None:
        for number in numbers:
            await ask(app, query=b"%d&%b" % (number, query), headers=headers)
            handler.requests.clear()

    async def test() -> None:
        await ask_for(range(20))
        tracemalloc.start()
        try:
            await ask_for(range(20, 120))
            gc.collect()
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < 1_300_000  # most of it what `RequestKeys` remembers

    run(test())


def test_variants_made_anew_do_not_count_twice() -> None:
    cache = TierCache()
    client = client_of(_by("accept-language"), Policy(ttl=60, tags=("all",)), cache=cache)
    for _ in range(3):
        for number in range(20):
            client.get("/", headers={"accept-language": f"x-{number}"})
        asyncio.run(_invalidate(cache, "all"))
    client.get("/", headers={"accept-language": "x-19"})
    assert_hit(client.get("/", headers={"accept-language": "x-19"}))


async def _invalidate(cache: TierCache, tag: str) -> None:
    assert (await cache.invalidate(tag)).durable


def test_variants_that_were_invalidated_leave_room_for_others() -> None:
    cache = TierCache()
    client = client_of(_by("accept-language"), Policy(ttl=60, tags=("all",)), cache=cache)
    for number in range(32):
        client.get("/", headers={"accept-language": f"x-{number}"})
    asyncio.run(_invalidate(cache, "all"))
    for _ in range(2):
        response = client.get("/", headers={"accept-language": "new"})
    assert_hit(response)


def test_an_invalidation_reaches_every_variant() -> None:
    cache, handler = TierCache(), _by("accept-language")
    client = client_of(handler, Policy(ttl=60, tags=("all",)), cache=cache)
    for _ in range(2):
        for language in ("en", "de"):
            assert_miss(client.get("/", headers={"accept-language": language}))
        asyncio.run(_invalidate(cache, "all"))


def test_a_response_that_varies_only_sometimes_is_never_mixed_up() -> None:
    """Who sent no language got an answer for everybody, without `Vary`; whoever sends one has not had theirs yet."""

    def respond(request: Request) -> PlainTextResponse:
        language = request.headers.get("accept-language")
        return PlainTextResponse(language or "none", headers={"vary": "accept-language"} if language else {})

    app = app_of(Handler(respond), Policy(ttl=60))

    async def test() -> None:
        german = [(b"accept-language", b"de")]
        assert (await ask(app, headers=german)).body == b"de"
        assert (await ask(app)).body == b"none"

    run(test())


def test_requests_for_different_variants_do_not_wait_for_each_other_twice() -> None:
    go_on = asyncio.Event()

    async def respond(request: Request) -> PlainTextResponse:
        await go_on.wait()
        return PlainTextResponse(request.headers["accept-language"], headers={"vary": "accept-language"})

    handler = Handler(respond)
    app = app_of(handler, Policy(ttl=60))

    async def test() -> None:
        languages = [b"en", b"de"] * 10
        under_way = [Exchange(app, http_scope(headers=[(b"accept-language", each)])) for each in languages]
        await turns()
        go_on.set()
        assert [(await each.reply()).body for each in under_way] == languages
        assert handler.calls == 2

    run(test())
