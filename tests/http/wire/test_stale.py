"""When a stale response answers (RFC 9111, sections 4.2.4, 4.3.3 and 5.2.2; RFC 5861)."""

from __future__ import annotations

import pytest

from tests.http.wire.world import DOWN, Answer, Raw, World, over_sockets

FRESH = "Cache-Control: max-age=60"
FAILURES = [DOWN, Answer(status=500), Answer(status=502), Answer(status=503), Answer(status=504)]
NEVER_STALE = [
    "max-age=60, must-revalidate",
    "max-age=60, proxy-revalidate",
    "s-maxage=60",
    "no-cache",
    "max-age=60, MUST-Revalidate",
    "max-age=60, must-revalidate=1",
    "s-maxage=60, max-age=600",
]
VALIDATORS = ['ETag: "a"', "Last-Modified: Tue, 14 Nov 2023 20:00:00 GMT"]


def _named(failure: object) -> str:
    return str(failure.status) if isinstance(failure, Answer) else "down"


each_failure = pytest.mark.parametrize("failure", FAILURES, ids=_named)


async def _store(w: World, *lines: str, stale_for: float = 10) -> None:
    """Store a response that is fresh for a minute, and let so much more time pass."""
    w.origin.script(Answer(*lines, body="stored"))
    await w.get()
    w.clock.tick(60 + stale_for)


@pytest.mark.parametrize("lines", [[FRESH], [FRESH, *VALIDATORS]])
@over_sockets
async def test_an_origin_that_answers_is_always_asked(w: World, lines: list[str]) -> None:
    await _store(w, *lines)
    w.origin.script(Answer(body="new"))
    assert (await w.get()).text == "new"


# ---- errors ----


@each_failure
@over_sockets
async def test_where_the_origin_fails_a_stale_response_stands_in(w: World, failure: Answer | Raw) -> None:
    await _store(w, FRESH, 'ETag: "a"')
    w.origin.script(failure)
    reply = await w.get()
    assert (reply.status, reply.text, reply.age, w.origin.asked) == (200, "stored", 70, 2)
    assert int(reply.told.get("ttl", -10)) == -10


@each_failure
@over_sockets
async def test_a_stale_response_stands_in_for_every_request_that_fails(w: World, failure: Answer | Raw) -> None:
    await _store(w, FRESH, 'ETag: "a"')
    w.origin.script(failure)
    for number in (2, 3):
        assert ((await w.get()).text, w.origin.asked) == ("stored", number)
    w.origin.script(Answer(FRESH, body="new"))
    assert (await w.get()).text == "new"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 429, 501, 505])
@over_sockets
async def test_other_errors_are_answers(w: World, status: int) -> None:
    await _store(w, "Cache-Control: max-age=60, stale-if-error=600", 'ETag: "a"')
    w.origin.script(Answer(status=status, body="refused"))
    reply = await w.get()
    assert (reply.status, reply.text) == (status, "refused")


@each_failure
@over_sockets
async def test_a_failure_with_nothing_stored_is_a_failure(w: World, failure: Answer | Raw) -> None:
    w.origin.script(failure)
    assert (await w.get()).status >= 500


@each_failure
@over_sockets
async def test_a_response_that_is_long_stale_stands_in_for_nothing(w: World, failure: Answer | Raw) -> None:
    await _store(w, FRESH, 'ETag: "a"', stale_for=3_600)
    w.origin.script(failure)
    assert (await w.get()).status >= 500


@each_failure
@pytest.mark.parametrize("directives", NEVER_STALE)
@over_sockets
async def test_what_must_be_validated_stands_in_for_nothing(w: World, directives: str, failure: Answer | Raw) -> None:
    await _store(w, f"Cache-Control: {directives}", 'ETag: "a"')
    w.origin.script(failure)
    reply = await w.get()
    assert reply.status >= 500
    assert reply.text != "stored"


@each_failure
@pytest.mark.parametrize("directives", NEVER_STALE)
@over_sockets
async def test_no_other_directive_lifts_that(w: World, directives: str, failure: Answer | Raw) -> None:
    said = f"Cache-Control: {directives}, stale-if-error=600, stale-while-revalidate=600"
    await _store(w, said, 'ETag: "a"')
    w.origin.script(failure)
    for line in ("Accept: */*", "Cache-Control: stale-if-error=600", "Cache-Control: max-stale=600"):
        assert (await w.get(line)).status >= 500


@over_sockets
async def test_what_must_be_validated_is_not_used_unvalidated_although_the_origin_is_there(w: World) -> None:
    await _store(w, "Cache-Control: max-age=60, must-revalidate, stale-while-revalidate=600", 'ETag: "a"')
    w.origin.script(Answer(FRESH, body="new"))
    assert (await w.get("Cache-Control: max-stale")).text == "new"


@over_sockets
async def test_what_must_be_validated_is_used_once_it_was(w: World) -> None:
    await _store(w, "Cache-Control: max-age=60, must-revalidate", 'ETag: "a"')
    w.origin.script(Answer('ETag: "a"', status=304))
    assert (await w.get()).text == "stored"
    w.clock.tick(59)
    assert (await w.get()).hit


@over_sockets
async def test_what_must_be_validated_is_reused_while_it_is_fresh(w: World) -> None:
    assert await w.reuses("Cache-Control: max-age=60, must-revalidate", after=59)
    assert await w.reuses("Cache-Control: max-age=60, proxy-revalidate", after=59)


@over_sockets
async def test_only_if_cached_on_what_must_be_validated_is_504(w: World) -> None:
    await _store(w, "Cache-Control: max-age=60, must-revalidate", 'ETag: "a"')
    assert (await w.get("Cache-Control: only-if-cached, max-stale")).status == 504


@each_failure
@over_sockets
async def test_what_was_invalidated_stands_in_for_nothing(w: World, failure: Answer | Raw) -> None:
    await _store(w, "Cache-Control: max-age=60, stale-if-error=600", 'ETag: "a"')
    await w.cache.invalidate_path("/")
    w.origin.script(failure)
    assert (await w.get()).status >= 500


@each_failure
@over_sockets
async def test_a_variant_stands_in_for_its_own_requests_alone(w: World, failure: Answer | Raw) -> None:
    w.origin.script(Answer(FRESH, "Vary: Foo", 'ETag: "a"', body="stored"))
    await w.get("Foo: 1")
    w.clock.tick(70)
    w.origin.script(failure)
    assert (await w.get("Foo: 2")).status >= 500
    assert (await w.get("Foo: 1")).text == "stored"


@over_sockets
async def test_an_error_that_says_that_it_may_be_stored_is_still_an_error(w: World) -> None:
    await _store(w, "Cache-Control: max-age=60, stale-if-error=600", 'ETag: "a"')
    w.origin.script(Answer(FRESH, status=503))
    assert (await w.get()).text == "stored"


# ---- stale-if-error ----


@each_failure
@pytest.mark.parametrize(("stale_for", "status"), [(0, 200), (100, 200), (101, 500)])
@over_sockets
async def test_stale_if_error_says_for_how_long(w: World, failure: Answer | Raw, stale_for: float, status: int) -> None:
    await _store(w, "Cache-Control: max-age=60, stale-if-error=100", *VALIDATORS, stale_for=stale_for)
    w.origin.script(failure)
    assert (await w.get()).status // 100 == status // 100


@over_sockets
async def test_stale_if_error_may_be_longer_than_anything_else(w: World) -> None:
    await _store(w, "Cache-Control: max-age=60, stale-if-error=86400", stale_for=86_000)
    w.origin.script(Answer(status=503))
    reply = await w.get()
    assert (reply.text, reply.age) == ("stored", 86_060)


@over_sockets
async def test_stale_if_error_needs_no_validator(w: World) -> None:
    await _store(w, "Cache-Control: max-age=60, stale-if-error=100")
    w.origin.script(DOWN)
    assert (await w.get()).text == "stored"


@over_sockets
async def test_stale_if_error_without_an_error_is_no_freshness(w: World) -> None:
    await _store(w, "Cache-Control: max-age=60, stale-if-error=600", *VALIDATORS)
    w.origin.script(Answer(body="new"))
    assert (await w.get()).text == "new"


@pytest.mark.parametrize("argument", ["a", "-1", "", "1.5", '"a"'])
@over_sockets
async def test_a_stale_if_error_that_is_no_number_allows_nothing(w: World, argument: str) -> None:
    await _store(w, f"Cache-Control: max-age=60, stale-if-error={argument}", *VALIDATORS)
    w.origin.script(Answer(status=503))
    assert (await w.get()).status == 503


@pytest.mark.parametrize(("seconds", "status"), [(10, 200), (9, 503)])
@over_sockets
async def test_a_request_may_allow_more_than_the_response(w: World, seconds: int, status: int) -> None:
    await _store(w, "Cache-Control: max-age=60, stale-if-error=5", *VALIDATORS)
    w.origin.script(Answer(status=503))
    assert (await w.get()).status == 503
    assert (await w.get(f"Cache-Control: stale-if-error={seconds}")).status == status


@pytest.mark.parametrize(("seconds", "status"), [(10, 200), (9, 503), (0, 503)])
@over_sockets
async def test_where_the_response_does_not_say_the_request_does(w: World, seconds: int, status: int) -> None:
    await _store(w, FRESH, *VALIDATORS)
    w.origin.script(Answer(status=503))
    assert (await w.get(f"Cache-Control: stale-if-error={seconds}")).status == status
    assert (await w.get()).status == 200


# ---- stale-while-revalidate ----


@pytest.mark.parametrize(("stale_for", "text"), [(0, "stored"), (29, "stored"), (31, "new")])
@over_sockets
async def test_stale_while_revalidate_says_for_how_long(w: World, stale_for: float, text: str) -> None:
    await _store(w, "Cache-Control: max-age=60, stale-while-revalidate=30", stale_for=stale_for)
    w.origin.script(Answer(FRESH, body="new"))
    assert (await w.get()).text == text


@over_sockets
async def test_what_is_used_while_it_is_validated_is_visibly_stale(w: World) -> None:
    await _store(w, "Cache-Control: max-age=60, stale-while-revalidate=30", stale_for=7)
    w.origin.script(Answer(FRESH, body="new"))
    reply = await w.get()
    assert (reply.text, reply.age, reply.hit, reply.told["ttl"]) == ("stored", 67, True, "-7")


@over_sockets
async def test_it_is_validated_meanwhile(w: World) -> None:
    await _store(w, "Cache-Control: max-age=60, stale-while-revalidate=30", 'ETag: "a"')
    w.origin.script(Answer(FRESH, 'ETag: "a"', "X-A: 1", status=304))
    assert (await w.get()).text == "stored"
    await w.origin.was_asked(2)
    assert w.origin.last["if-none-match"] == '"a"'


@over_sockets
async def test_a_new_one_takes_its_place(w: World) -> None:
    await _store(w, "Cache-Control: max-age=60, stale-while-revalidate=30")
    w.origin.script(Answer(FRESH, body="new"))
    assert (await w.get()).text == "stored"
    await w.origin.was_asked(2)
    while (reply := await w.get()).text == "stored":
        assert w.origin.asked == 2
    assert (reply.hit, reply.text) == (True, "new")


@pytest.mark.parametrize("argument", ["=a", "=-1", "=0", "=", "", "=1.5"])
@over_sockets
async def test_a_stale_while_revalidate_that_is_no_number_allows_nothing(w: World, argument: str) -> None:
    await _store(w, f"Cache-Control: max-age=60, stale-while-revalidate{argument}")
    w.origin.script(Answer(FRESH, body="new"))
    assert (await w.get()).text == "new"


@over_sockets
async def test_it_may_be_quoted(w: World) -> None:
    await _store(w, 'Cache-Control: max-age=60, stale-while-revalidate="30"')
    w.origin.script(Answer(FRESH, body="new"))
    assert (await w.get()).text == "stored"


@pytest.mark.parametrize("directive", ["no-cache", "max-age=0", "min-fresh=1", "max-age=60"])
@over_sockets
async def test_a_client_may_refuse_what_is_stale(w: World, directive: str) -> None:
    await _store(w, "Cache-Control: max-age=60, stale-while-revalidate=30")
    w.origin.script(Answer(FRESH, body="new"))
    assert (await w.get(f"Cache-Control: {directive}")).text == "new"
