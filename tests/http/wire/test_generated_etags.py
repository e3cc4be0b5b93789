"""Entity tags made from the content, where a policy says so (RFC 9110, sections 8.8.1, 8.8.3 and 8.8.3.1)."""

from __future__ import annotations

import re

import pytest

from asgi_tiercache import Policy
from tests.http.wire.world import Answer, World, in_world, over_sockets, world

FRESH = "Cache-Control: max-age=60"
TAGGING = Policy.rfc9111(etag=True)


async def _tag(w: World, *lines: str, body: str = "content", path: str = "/") -> str:
    """The tag with which what is stored answers."""
    w.origin.script(Answer(FRESH, *lines, body=body))
    await w.get(path=path)
    reply = await w.get(path=path)
    assert reply.hit
    (tag,) = reply.values("etag")
    return tag


@in_world(TAGGING)
async def test_what_has_no_tag_is_given_one_that_answers_conditions(w: World) -> None:
    tag = await _tag(w)
    assert re.fullmatch(r'(W/)?"[!#-~]+"', tag)
    assert (await w.get(f"If-None-Match: {tag}")).status == 304
    assert (await w.get('If-None-Match: "another"')).status == 200
    assert (await w.head()).values("etag") == [tag]


@in_world(TAGGING)
async def test_other_content_and_other_uris_have_other_tags(w: World) -> None:
    cases = [("/a", "one"), ("/a", "two"), ("/b", "one"), ("/a", "")]
    tags = []
    for path, body in cases:
        tags.append(await _tag(w, body=body, path=path))
        await w.cache.invalidate_path(path)
    assert len(set(tags)) == len(cases)


@in_world(TAGGING)
async def test_the_same_content_has_the_same_tag_elsewhere_and_later(w: World) -> None:
    tag = await _tag(w)
    async with world(TAGGING) as another:
        another.clock.tick(86_400)
        assert await _tag(another) == tag
    await w.cache.invalidate_path("/")
    assert await _tag(w) == tag


@in_world(TAGGING)
async def test_a_tag_of_the_handlers_own_is_left_alone(w: World) -> None:
    assert await _tag(w, 'ETag: W/"a"') == 'W/"a"'


@in_world(TAGGING)
async def test_the_origin_is_never_asked_about_a_tag_that_it_does_not_know(w: World) -> None:
    modified = "Last-Modified: Tue, 14 Nov 2023 20:00:00 GMT"
    tag = await _tag(w, modified)
    w.clock.tick(60)
    w.origin.script(Answer(FRESH, modified, status=304))
    reply = await w.get()
    assert (reply.text, "if-none-match" in w.origin.last) == ("content", False)
    assert w.origin.last["if-modified-since"]
    assert (await w.get(f"If-None-Match: {tag}")).status == 304


@in_world(TAGGING)
async def test_a_client_that_has_what_is_made_anew_is_told_so(w: World) -> None:
    tag = await _tag(w)
    w.clock.tick(60)
    assert (await w.get(f"If-None-Match: {tag}")).text in ("", "content")
    assert (await w.get(f"If-None-Match: {tag}")).status == 304


@in_world(TAGGING)
async def test_the_tag_of_what_was_invalidated_yields_no_304_for_what_is_new(w: World) -> None:
    tag = await _tag(w, body="old")
    await w.cache.invalidate_path("/")
    w.origin.script(Answer(FRESH, body="new"))
    for _ in range(2):
        reply = await w.get(f"If-None-Match: {tag}")
        assert (reply.status, reply.text) == (200, "new")


@in_world(TAGGING)
async def test_ranges_may_be_resumed_by_it(w: World) -> None:
    tag = await _tag(w)
    reply = await w.get("Range: bytes=0-2", f"If-Range: {tag}")
    assert (reply.status, reply.text) == ((200, "content") if tag.startswith("W/") else (206, "con"))


@pytest.mark.parametrize("status", [301, 404])
@in_world(TAGGING)
async def test_a_tag_makes_no_304_of_anything_but_a_success(w: World, status: int) -> None:
    w.origin.script(Answer(FRESH, status=status, body="content"))
    await w.get()
    reply = await w.get("If-None-Match: *")
    assert (reply.hit, reply.status) == (True, status)


@over_sockets
async def test_nobody_is_given_a_tag_unasked(w: World) -> None:
    w.origin.script(Answer(FRESH))
    await w.get()
    assert "etag" not in await w.get()
