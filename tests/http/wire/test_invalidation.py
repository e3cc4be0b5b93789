"""What unsafe requests do to what is stored (RFC 9111, sections 4 and 4.4)."""

from __future__ import annotations

import pytest

from tests.http.wire.world import DOWN, Answer, World, over_sockets

FRESH = "Cache-Control: max-age=600"
UNSAFE = ["POST", "PUT", "DELETE", "PATCH", "FOO", "LOCK", "get", "M-SEARCH"]
SAFE = ["GET", "HEAD", "OPTIONS", "TRACE", "QUERY"]
HERE = "Host: example.org"


async def _stays(
    w: World, answer: Answer, *, method: str = "POST", path: str = "/b", stored: str = "/a", host: str = HERE
) -> bool:
    """Whether what is stored for one path is still used after the origin answered a request for another one so."""
    w.origin.script(Answer(FRESH, 'ETag: "a"'))
    await w.request("GET", path=stored, host=host)
    w.origin.script(answer)
    await w.request(method, "Cache-Control: no-cache", path=path)
    w.origin.script(Answer(FRESH))
    return (await w.request("GET", path=stored, host=host)).hit


@pytest.mark.parametrize("method", UNSAFE)
@pytest.mark.parametrize("status", [200, 201, 202, 204, 205, 226, 299, 301, 302, 303, 307, 308, 399])
@over_sockets
async def test_an_unsafe_request_that_succeeds_invalidates_its_uri(w: World, method: str, status: int) -> None:
    assert not await _stays(w, Answer(status=status), method=method, path="/a")


@pytest.mark.parametrize("method", UNSAFE)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 500, 503, 599])
@over_sockets
async def test_one_that_fails_does_not(w: World, method: str, status: int) -> None:
    assert await _stays(w, Answer("Location: /a", "Content-Location: /a", status=status), method=method, path="/a")


@over_sockets
async def test_one_that_has_no_answer_does_not_have_to(w: World) -> None:
    w.origin.script(Answer(FRESH))
    await w.get()
    w.origin.script(DOWN)
    assert (await w.request("POST")).status == 500


@pytest.mark.parametrize("method", SAFE)
@over_sockets
async def test_a_safe_request_invalidates_nothing(w: World, method: str) -> None:
    assert await _stays(w, Answer("Location: /a", "Content-Location: /a"), method=method, path="/b")
    if method not in ("GET", "HEAD"):
        assert await _stays(w, Answer(), method=method, path="/a")


@over_sockets
async def test_other_uris_are_left_alone(w: World) -> None:
    assert await _stays(w, Answer(), path="/b")
    assert await _stays(w, Answer(), path="/a/b")
    assert await _stays(w, Answer(), path="/")


@over_sockets
async def test_the_query_is_part_of_the_uri(w: World) -> None:
    assert not await _stays(w, Answer(), path="/a?b=c", stored="/a?b=c")


@over_sockets
async def test_what_is_stored_for_another_host_is_left_alone(w: World) -> None:
    assert await _stays(w, Answer(), path="/a", host="Host: example.com")
    assert await _stays(w, Answer(), path="/a", host="Host: example.org:8000")


@over_sockets
async def test_all_variants_of_the_uri_are_invalidated(w: World) -> None:
    w.origin.script(Answer(FRESH, "Vary: Foo"))
    await w.get("Foo: 1")
    await w.get("Foo: 2")
    await w.request("POST")
    assert not (await w.get("Foo: 1")).hit
    assert not (await w.get("Foo: 2")).hit


@over_sockets
async def test_what_is_invalidated_is_asked_for_anew(w: World) -> None:
    w.origin.script(Answer(FRESH, 'ETag: "a"', body="old"))
    await w.get()
    await w.request("PUT", body=b"new")
    w.origin.script(Answer(FRESH, 'ETag: "b"', body="new"))
    reply = await w.get('If-None-Match: "a"')
    assert (reply.status, reply.text) == (200, "new")
    assert "if-none-match" not in w.origin.last


@over_sockets
async def test_what_is_invalidated_is_not_used_stale_either(w: World) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60, stale-if-error=600", 'ETag: "a"', body="old"))
    await w.get()
    await w.request("DELETE")
    w.origin.script(Answer(status=503))
    assert (await w.get("Cache-Control: max-stale")).status == 503


@over_sockets
async def test_an_unsafe_request_is_never_answered_without_the_origin(w: World) -> None:
    w.origin.script(Answer(FRESH))
    await w.get()
    for method in UNSAFE:
        await w.request(method, "Cache-Control: only-if-cached")
        assert w.origin.last.method == method


@pytest.mark.parametrize("method", UNSAFE)
@over_sockets
async def test_an_unsafe_request_is_sent_once_even_where_that_fails(w: World, method: str) -> None:
    w.origin.script(DOWN)
    assert ((await w.request(method)).status, w.origin.asked) == (500, 1)


# ---- Location and Content-Location ----


@pytest.mark.parametrize("name", ["Location", "Content-Location"])
@pytest.mark.parametrize(
    "target",
    [
        "/a",
        "http://example.org/a",
        "http://EXAMPLE.ORG/a",
        "http://example.org:80/a",
        "a",
        "./a",
        "x/../a",
        "//example.org/a",
        "/a#b",
    ],
)
@over_sockets
async def test_a_location_of_the_same_origin_is_invalidated(w: World, name: str, target: str) -> None:
    assert not await _stays(w, Answer(f"{name}: {target}", status=201))


@pytest.mark.parametrize("name", ["Location", "Content-Location"])
@over_sockets
async def test_a_location_may_have_a_query(w: World, name: str) -> None:
    assert not await _stays(w, Answer(f"{name}: /a?b=c"), stored="/a?b=c")


@pytest.mark.parametrize("name", ["Location", "Content-Location"])
@pytest.mark.parametrize(
    "target",
    [
        "http://example.com/a",
        "https://example.org/a",
        "http://example.org:8000/a",
        "//example.com/a",
        "ftp://example.org/a",
    ],
)
@over_sockets
async def test_a_location_of_another_origin_is_not(w: World, name: str, target: str) -> None:
    assert await _stays(w, Answer(f"{name}: {target}"))


@pytest.mark.parametrize("name", ["Location", "Content-Location"])
@over_sockets
async def test_nobody_invalidates_what_is_stored_for_another_host(w: World, name: str) -> None:
    assert await _stays(w, Answer(f"{name}: http://example.com/a"), host="Host: example.com")
    assert await _stays(w, Answer(f"{name}: /a"), host="Host: example.com")


@pytest.mark.parametrize("name", ["Location", "Content-Location"])
@pytest.mark.parametrize(
    "target",
    ["", "http://[", "http://example.org:port/a", "\xe9", "::", "%", "http://", "//", "?", "javascript:a", "a:b:c"],
)
@over_sockets
async def test_a_location_that_is_no_uri_is_no_error(w: World, name: str, target: str) -> None:
    w.origin.script(Answer(f"{name}: {target}"))
    reply = await w.request("POST")
    assert (reply.status, reply[name.lower()]) == (200, target)


@pytest.mark.parametrize("status", [201, 303])
@over_sockets
async def test_both_locations_count(w: World, status: int) -> None:
    assert not await _stays(w, Answer("Location: /a", "Content-Location: /c", status=status))
    assert not await _stays(w, Answer("Location: /c", "Content-Location: /a", status=status))
