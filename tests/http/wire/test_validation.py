"""Asking the origin whether what is stored still holds (RFC 9111, sections 3.2, 4.3 and 5.2.2.4)."""

from __future__ import annotations

import asyncio

import pytest

from tests.http.wire.world import DOWN, Answer, World, over_sockets

FRESH = "Cache-Control: max-age=60"
MODIFIED = "Tue, 14 Nov 2023 20:00:00 GMT"
TAG = 'ETag: "a"'


async def _store(w: World, *lines: str, body: str = "stored", path: str = "/") -> None:
    """Store a response with these field lines, and let a minute pass, which makes those with `FRESH` stale."""
    w.origin.script(Answer(*lines, body=body))
    await w.get(path=path)
    w.clock.tick(60)


# ---- what the origin is asked ----


@pytest.mark.parametrize("etag", ['"a"', 'W/"a"', '""', '"a,b"', '"a\\"', '"\xe9"'])
@over_sockets
async def test_the_entity_tag_is_sent_as_it_is_stored(w: World, etag: str) -> None:
    await _store(w, FRESH, f"ETag: {etag}")
    await w.get()
    assert w.origin.last.values("if-none-match") == [etag]
    assert "if-modified-since" not in w.origin.last


@over_sockets
async def test_the_modification_date_is_sent_as_it_is_stored(w: World) -> None:
    await _store(w, FRESH, f"Last-Modified: {MODIFIED}")
    await w.get()
    assert w.origin.last.values("if-modified-since") == [MODIFIED]
    assert "if-none-match" not in w.origin.last


@over_sockets
async def test_both_are_sent_where_both_are_stored(w: World) -> None:
    await _store(w, FRESH, TAG, f"Last-Modified: {MODIFIED}")
    await w.get()
    assert (w.origin.last["if-none-match"], w.origin.last["if-modified-since"]) == ('"a"', MODIFIED)


@over_sockets
async def test_nothing_is_asked_where_nothing_is_stored_to_ask_by(w: World) -> None:
    await _store(w, FRESH, f"Date: {w.date()}")
    await w.get()
    assert "if-none-match" not in w.origin.last
    assert "if-modified-since" not in w.origin.last


@over_sockets
async def test_the_request_goes_on_as_it_came_otherwise(w: World) -> None:
    await _store(w, FRESH, TAG)
    await w.get("Accept: text/plain", "X-A: 1", "X-A: 2", "Cache-Control: foo")
    seen = w.origin.last
    assert (seen.method, seen.target, seen["accept"], seen.values("x-a")) == ("GET", "/", "text/plain", ["1", "2"])
    assert (seen["host"], seen["cache-control"]) == ("example.org", "foo")


@over_sockets
async def test_only_what_is_stored_under_the_same_key_is_asked_about(w: World) -> None:
    await _store(w, FRESH, 'ETag: "one"', path="/one")
    await _store(w, FRESH, 'ETag: "two"', path="/two")
    await w.get(path="/one")
    assert w.origin.last["if-none-match"] == '"one"'


@over_sockets
async def test_a_variant_is_asked_about_by_its_own_tag(w: World) -> None:
    w.origin.script(Answer(FRESH, "Vary: Foo", 'ETag: "one"'), Answer(FRESH, "Vary: Foo", 'ETag: "two"'))
    await w.get("Foo: 1")
    await w.get("Foo: 2")
    w.clock.tick(60)
    w.origin.script(Answer(FRESH, "Vary: Foo", 'ETag: "one"', status=304))
    reply = await w.get("Foo: 1")
    assert '"one"' in w.origin.last["if-none-match"]
    assert reply.text == "answer 1"


@pytest.mark.parametrize("line", ["Cache-Control: no-cache", "Pragma: no-cache", "Cache-Control: max-age=0"])
@over_sockets
async def test_a_client_may_have_what_is_fresh_validated(w: World, line: str) -> None:
    w.origin.script(Answer(FRESH, TAG, body="stored"))
    await w.get()
    w.clock.tick(10)
    w.origin.script(Answer(FRESH, TAG, status=304))
    reply = await w.get(line)
    assert (w.origin.last["if-none-match"], reply.status, reply.text) == ('"a"', 200, "stored")
    w.clock.tick(59)
    assert (await w.get()).hit


# ---- 304 ----


@pytest.mark.parametrize("validator", [TAG, 'ETag: W/"a"', f"Last-Modified: {MODIFIED}"])
@over_sockets
async def test_a_304_makes_what_is_stored_the_answer_and_fresh_again(w: World, validator: str) -> None:
    await _store(w, FRESH, validator)
    w.origin.script(Answer(FRESH, validator, status=304), Answer(body="new"))
    reply = await w.get()
    assert (reply.status, reply.text, reply.complete) == (200, "stored", True)
    w.clock.tick(59)
    reply = await w.get()
    assert (reply.hit, reply.age, reply.text, w.origin.asked) == (True, 59, "stored", 2)
    w.clock.tick(1)
    assert not (await w.get()).hit


@over_sockets
async def test_freshening_goes_on_as_long_as_the_origin_says_so(w: World) -> None:
    await _store(w, FRESH, TAG)
    for _ in range(3):
        w.origin.script(Answer(FRESH, TAG, status=304))
        assert (await w.get()).text == "stored"
        w.clock.tick(60)
    assert w.origin.asked == 4


@over_sockets
async def test_a_304_replaces_the_field_lines_that_it_brings(w: World) -> None:
    await _store(w, FRESH, TAG, f"Date: {w.date()}", "X-A: 1", "X-A: 2", "X-B: 3", "Content-Language: de", "Server: a")
    made = w.date()
    w.origin.script(
        Answer(
            "Cache-Control: max-age=120",
            TAG,
            f"Date: {made}",
            "X-A: 4",
            "X-C: 5",
            "X-C: 6",
            "Content-Language: en",
            "Set-Cookie: a=b",
            status=304,
        )
    )
    for reply in (await w.get(), await w.get()):
        assert (reply["cache-control"], reply.values("date"), reply["content-language"]) == (
            "max-age=120",
            [made],
            "en",
        )
        assert (reply.values("x-a"), reply["x-b"], reply.values("x-c")) == (["4"], "3", ["5", "6"])
        assert (reply["server"], reply["set-cookie"]) == ("a", "a=b")
    w.clock.tick(119)
    assert (await w.get()).hit


@over_sockets
async def test_a_304_does_not_replace_the_length(w: World) -> None:
    await _store(w, FRESH, TAG)
    w.origin.script(Answer(FRESH, TAG, "Content-Length: 1", status=304))
    for reply in (await w.get(), await w.get()):
        assert (reply.values("content-length"), reply.text) == (["6"], "stored")


@pytest.mark.parametrize(
    "line", ["Connection: x-a", "Keep-Alive: timeout=5", "Proxy-Authenticate: Basic", "Trailer: X-A", "Upgrade: foo"]
)
@over_sockets
async def test_a_304_brings_nothing_into_the_store_that_does_not_belong_there(w: World, line: str) -> None:
    await _store(w, FRESH, TAG)
    w.origin.script(Answer(FRESH, TAG, line, "X-A: 1", status=304))
    await w.get()
    reply = await w.get()
    assert (reply.hit, line.partition(":")[0].lower() in reply) == (True, False)
    assert ("x-a" in reply) is (not line.startswith("Connection"))


@pytest.mark.parametrize("directive", ["private", "no-cache"])
@over_sockets
async def test_a_304_brings_no_field_into_the_store_that_it_limits(w: World, directive: str) -> None:
    await _store(w, FRESH, TAG)
    w.origin.script(Answer(f'Cache-Control: max-age=60, {directive}="x-a"', TAG, "X-A: 1", status=304))
    await w.get()
    reply = await w.get()
    assert (reply.hit, "x-a" in reply) == (True, False)


@over_sockets
async def test_a_304_without_date_is_as_new_as_its_arrival(w: World) -> None:
    await _store(w, FRESH, TAG, f"Date: {w.date()}")
    w.origin.script(Answer(TAG, status=304))
    await w.get()
    w.clock.tick(30)
    reply = await w.get()
    assert (reply.hit, reply.age) == (True, 30)


@over_sockets
async def test_a_304_may_have_an_age(w: World) -> None:
    await _store(w, FRESH, TAG)
    w.origin.script(Answer(FRESH, TAG, "Age: 20", status=304))
    await w.get()
    w.clock.tick(10)
    assert (await w.get()).age == 30


@over_sockets
async def test_a_304_that_says_no_store_is_the_last_use(w: World) -> None:
    await _store(w, FRESH, TAG)
    w.origin.script(Answer("Cache-Control: no-store", TAG, status=304), Answer(body="new"))
    assert (await w.get()).text == "stored"
    assert (await w.get()).text == "new"


@over_sockets
async def test_a_304_with_another_strong_tag_freshens_nothing(w: World) -> None:
    await _store(w, FRESH, TAG)
    w.origin.script(Answer(FRESH, 'ETag: "b"', "X-A: 1", status=304), Answer(FRESH, 'ETag: "b"', body="new"))
    reply = await w.get()
    assert (reply.status, reply.text) == (200, "new")
    assert "if-none-match" not in w.origin.last
    assert (await w.get()).text == "new"


@over_sockets
async def test_a_304_without_validator_gets_the_client_an_answer_all_the_same(w: World) -> None:
    await _store(w, FRESH, TAG)
    w.origin.script(Answer(FRESH, status=304), Answer(FRESH, TAG, body="stored"))
    reply = await w.get()
    assert (reply.status, reply.text) == (200, "stored")


@over_sockets
async def test_a_304_with_a_weak_tag_freshens_what_has_it(w: World) -> None:
    await _store(w, FRESH, 'ETag: W/"a"')
    w.origin.script(Answer(FRESH, 'ETag: W/"a"', status=304))
    assert (await w.get()).text == "stored"
    assert (await w.get()).hit


@over_sockets
async def test_head_is_answered_by_what_a_304_has_freshened(w: World) -> None:
    await _store(w, FRESH, TAG)
    w.origin.script(Answer(FRESH, TAG, "X-A: 1", status=304))
    await w.get()
    reply = await w.head()
    assert (reply.hit, reply["x-a"], reply["content-length"]) == (True, "1", "6")


# ---- other answers ----


@pytest.mark.parametrize("status", [200, 203, 404, 410])
@over_sockets
async def test_any_full_answer_takes_the_place_of_what_is_stored(w: World, status: int) -> None:
    await _store(w, FRESH, TAG)
    w.origin.script(Answer(FRESH, 'ETag: "b"', status=status, body="new"))
    reply = await w.get()
    assert (reply.status, reply.text) == (status, "new")
    reply = await w.get()
    assert (reply.hit, reply.status, reply.text) == (True, status, "new")


@over_sockets
async def test_a_full_answer_that_is_not_to_be_stored_ends_what_is(w: World) -> None:
    await _store(w, FRESH, TAG)
    w.origin.script(Answer("Cache-Control: no-store", body="new"), DOWN)
    assert (await w.get()).text == "new"
    assert (await w.get()).status >= 500


@over_sockets
async def test_a_redirection_is_an_answer_too(w: World) -> None:
    await _store(w, FRESH, TAG)
    w.origin.script(Answer("Location: /b", status=302))
    assert (await w.get()).status == 302


# ---- conditions of the client's own ----


@over_sockets
async def test_a_304_that_the_client_did_not_ask_for_is_a_200_to_it(w: World) -> None:
    await _store(w, FRESH, TAG)
    w.origin.script(Answer(FRESH, TAG, "X-A: 1", status=304))
    reply = await w.get('If-None-Match: "b"')
    assert (reply.status, reply.text, reply["x-a"]) == (200, "stored", "1")
    assert '"a"' in w.origin.last["if-none-match"]


@pytest.mark.parametrize("line", ['If-None-Match: "a"', 'If-None-Match: "b", W/"a"', f"If-Modified-Since: {MODIFIED}"])
@over_sockets
async def test_a_304_that_the_client_asked_for_is_one_to_it(w: World, line: str) -> None:
    await _store(w, FRESH, TAG, f"Last-Modified: {MODIFIED}")
    w.origin.script(Answer(FRESH, TAG, status=304))
    assert (await w.get(line)).status == 304
    reply = await w.get()
    assert (reply.hit, reply.text) == (True, "stored")


@over_sockets
async def test_a_client_that_has_the_new_one_is_told_so(w: World) -> None:
    await _store(w, FRESH, TAG)
    w.origin.script(Answer(FRESH, 'ETag: "b"', body="new"))
    assert (await w.get('If-None-Match: "b"')).status == 304
    assert (await w.get()).text == "new"


# ---- no-cache ----


@pytest.mark.parametrize("directives", ["no-cache", "no-cache, max-age=60", "max-age=60, no-cache", "public, no-cache"])
@pytest.mark.parametrize("validator", [TAG, f"Last-Modified: {MODIFIED}"])
@over_sockets
async def test_no_cache_has_every_use_validated(w: World, directives: str, validator: str) -> None:
    said = f"Cache-Control: {directives}"
    w.origin.script(Answer(said, validator, body="stored"), Answer(said, validator, status=304))
    await w.get()
    for number in (2, 3):
        reply = await w.get()
        assert (reply.status, reply.text, w.origin.asked) == (200, "stored", number)
        assert w.origin.last["if-none-match"] or w.origin.last["if-modified-since"]


@over_sockets
async def test_no_cache_without_validator_is_never_used(w: World) -> None:
    w.origin.script(Answer("Cache-Control: no-cache, max-age=60"))
    await w.get()
    assert (await w.get()).text == "answer 2"


@over_sockets
async def test_no_cache_is_not_used_where_the_origin_fails(w: World) -> None:
    w.origin.script(Answer("Cache-Control: no-cache", TAG), DOWN)
    await w.get()
    assert (await w.get()).status >= 500


@over_sockets
async def test_no_cache_may_end_with_a_304(w: World) -> None:
    w.origin.script(Answer("Cache-Control: no-cache", TAG, body="stored"), Answer(FRESH, TAG, status=304))
    await w.get()
    await w.get()
    assert (await w.get()).hit


# ---- several at once ----


@over_sockets
async def test_one_validation_serves_all_who_wait(w: World) -> None:
    await _store(w, FRESH, TAG)
    gate = asyncio.Event()
    w.origin.script(Answer(FRESH, TAG, status=304, gate=gate))
    asked = [asyncio.create_task(w.get()) for _ in range(3)]
    await w.origin.was_asked(2)
    gate.set()
    assert [(reply.status, reply.text) for reply in await asyncio.gather(*asked)] == [(200, "stored")] * 3
    assert w.origin.asked == 2


# ---- what was invalidated ----


@over_sockets
async def test_what_was_invalidated_is_not_even_asked_about(w: World) -> None:
    await _store(w, FRESH, TAG)
    await w.cache.invalidate_path("/")
    w.origin.script(Answer(FRESH, TAG, body="new"))
    assert (await w.get()).text == "new"
    assert "if-none-match" not in w.origin.last


@over_sockets
async def test_the_tag_of_what_was_invalidated_is_worth_nothing(w: World) -> None:
    w.origin.script(Answer(FRESH, TAG, body="stored"))
    await w.get()
    await w.cache.invalidate_path("/")
    w.origin.script(Answer(FRESH, 'ETag: "b"', body="new"))
    reply = await w.get('If-None-Match: "a"')
    assert (reply.status, reply.text) == (200, "new")
