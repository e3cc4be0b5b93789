"""Which field lines are stored with a response (RFC 9111, sections 3.1, 5.2.2.4 and 5.2.2.7)."""

from __future__ import annotations

import pytest

from tests.http.wire.world import Answer, Raw, World, over_sockets

STORED = [
    "Accept-Ranges: bytes",
    "Allow: GET",
    'Clear-Site-Data: "cache"',
    "Content-Disposition: inline",
    "Content-Encoding: gzip",
    "Content-Language: de",
    "Content-Location: /b",
    "Content-Security-Policy: default-src",
    "Content-Type: text/plain",
    "Date: Tue, 14 Nov 2023 22:13:20 GMT",
    'ETag: "a"',
    "Expires: Tue, 14 Nov 2023 22:14:20 GMT",
    "Last-Modified: Tue, 14 Nov 2023 22:00:00 GMT",
    "Link: </a>; rel=next",
    "Location: /c",
    "P3P: a",
    "Public-Key-Pins: a",
    "Referrer-Policy: no-referrer",
    "Retry-After: 5",
    "Server: a",
    "Set-Cookie: a=b; Path=/",
    "Strict-Transport-Security: max-age=1",
    "Test-Header: a",
    "Timing-Allow-Origin: *",
    "Vary: Accept",
    "Via: 1.1 a",
    'Warning: 110 - "a"',
    "WWW-Authenticate: Basic",
    "X-Content-Type-Options: nosniff",
    "X-Frame-Options: deny",
    "X-Latin: \xe9",
    "X-Empty:",
    "Content-MD5: a",
]


@pytest.mark.parametrize("line", STORED)
@over_sockets
async def test_a_field_is_stored_known_or_not(w: World, line: str) -> None:
    name, _, value = line.partition(":")
    w.origin.script(Answer("Cache-Control: max-age=60", line))
    for hit in (False, True):
        reply = await w.get()
        assert (reply.hit, reply.values(name.lower())) == (hit, [value.strip()])


@over_sockets
async def test_the_lines_of_a_field_stay_apart_and_in_order(w: World) -> None:
    w.origin.script(
        Answer("X-A: 1", "X-B: 2", "Cache-Control: max-age=60", "X-A: 3", "Set-Cookie: a=1", "Set-Cookie: b=2")
    )
    await w.get()
    reply = await w.get()
    lines = [line for line in reply.lines if line[0] in ("x-a", "x-b", "set-cookie")]
    assert lines == [("x-a", "1"), ("x-b", "2"), ("x-a", "3"), ("set-cookie", "a=1"), ("set-cookie", "b=2")]


@pytest.mark.parametrize(
    "line",
    [
        "Keep-Alive: timeout=5",
        "Proxy-Connection: close",
        "TE: trailers",
        "Trailer: X-A",
        "Upgrade: foo",
        "Connection: close",
        "Proxy-Authenticate: Basic",
        "Proxy-Authentication-Info: a=b",
        "Proxy-Authorization: Basic YTpi",
    ],
)
@over_sockets
async def test_what_belongs_to_a_connection_or_to_a_proxy_is_not_stored(w: World, line: str) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60", line))
    await w.get()
    reply = await w.get()
    assert (reply.hit, line.partition(":")[0].lower() in reply) == (True, False)


@pytest.mark.parametrize(
    "lines",
    [
        ["Connection: x-a"],
        ["Connection: X-A"],
        ["Connection: foo, x-a ,bar"],
        ["Connection: foo", "Connection: x-a"],
        ["Connection: ,x-a,"],
    ],
)
@over_sockets
async def test_what_connection_names_is_not_stored(w: World, lines: list[str]) -> None:
    w.origin.script(Answer("Cache-Control: max-age=60", *lines, "X-A: 1", "X-A: 2", "X-B: 3"))
    await w.get()
    reply = await w.get()
    assert (reply.hit, "x-a" in reply, reply["x-b"]) == (True, False, "3")


@over_sockets
async def test_trailers_are_not_taken_for_headers(w: World) -> None:
    head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n"
    w.origin.script(Raw(head + b"3\r\none\r\n0\r\nX-A: late\r\n\r\n"))
    await w.get()
    reply = await w.get()
    assert (reply.hit, "x-a" in reply) == (True, False)


@pytest.mark.parametrize("directive", ["private", "no-cache"])
@pytest.mark.parametrize("argument", ['"x-a"', '"X-A"', '"x-c, x-a"', '" ,x-a, "', "x-a", '"x-c", {}="x-a"'])
@over_sockets
async def test_a_field_that_is_for_nobody_else_is_left_out(w: World, directive: str, argument: str) -> None:
    said = f"Cache-Control: max-age=60, {directive}={argument.format(directive)}"
    w.origin.script(Answer(said, "X-A: 1", "X-A: 2", "X-B: 3"))
    first = await w.get()
    second = await w.get()
    assert (first["x-a"], second.hit, "x-a" in second, second["x-b"]) == ("1, 2", True, False, "3")


@pytest.mark.parametrize("directive", ["private", "no-cache"])
@pytest.mark.parametrize("form", ['{0}, {0}="x-a"', '{0}="x-a", {0}', '{0}=""', '{0}=" , "'])
@over_sockets
async def test_where_it_is_also_said_of_the_whole_it_is_said_of_the_whole(w: World, directive: str, form: str) -> None:
    assert not await w.reuses(f"Cache-Control: max-age=60, {form.format(directive)}", "X-A: 1")


@over_sockets
async def test_fields_can_be_kept_back_by_a_targeted_field(w: World) -> None:
    w.origin.script(Answer('CDN-Cache-Control: max-age=60, private="x-a"', "X-A: 1"))
    await w.get()
    reply = await w.get()
    assert (reply.hit, "x-a" in reply) == (True, False)


# ---- the content ----


@pytest.mark.parametrize("line", ["Cache-Control: max-age=60", "Cache-Control: max-age=60, no-transform"])
@over_sockets
async def test_the_content_is_stored_byte_for_byte(w: World, line: str) -> None:
    content = bytes(range(256)) * 40
    w.origin.script(Answer(line, "Content-Type: text/plain", "Content-Encoding: gzip", body=content))
    for hit in (False, True):
        reply = await w.get("Accept-Encoding: br", "Cache-Control: no-transform")
        assert (reply.hit, reply.body, reply["content-encoding"]) == (hit, content, "gzip")
