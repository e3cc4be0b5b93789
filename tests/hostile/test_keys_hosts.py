"""`Host` in every spelling: the handler sees the host that is keyed, and no two hosts share an answer."""

from __future__ import annotations

import itertools

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Route, Router

from asgi_tiercache import Policy
from tests.hostile.apps import MODES, PUBLIC, asked, mirrored, seen
from tests.hostile.sockets import raw, served
from tests.middleware.asgi import run

modes = pytest.mark.parametrize("policy", MODES.values(), ids=MODES)

SPELLINGS = {
    b"example.org": b"example.org",
    b"EXAMPLE.Org": b"example.org",
    b"example.org:80": b"example.org",
    b"Example.ORG:80": b"example.org",
    b"example.org:443": b"example.org:443",
    b"example.org:8080": b"example.org:8080",
    b"example.org:080": b"example.org:080",
    b"example.org:": b"example.org:",
    b"example.org.": b"example.org.",
    b"example.org.:80": b"example.org.",
    b"example.org:80:80": b"example.org:80:80",
    b"example.org:8080:80": b"example.org:8080:80",
    b"example.org, evil.example": b"example.org, evil.example",
    b"example.org evil": b"example.org evil",
    b"evil.example@example.org": b"evil.example@example.org",
    b"example.org/evil": b"example.org/evil",
    b"example.org#": b"example.org#",
    b" example.org": b" example.org",
    b"xn--e1afmkfd.example": b"xn--e1afmkfd.example",
    b"\xd0\x9f.example": b"\xd0\x9f.example",
    b"[2001:DB8::1]:80": b"[2001:db8::1]",
    b"[2001:db8::80]": b"[2001:db8::80]",
    b"2001:db8::1:80": b"2001:db8::1:80",
    b":80": b":80",
    b"": b"",
}
"""What is sent, and what it is to cache and handler."""


def host_of(reply_headers: list[list[str]]) -> list[bytes]:
    return [value.encode("latin-1") for name, value in reply_headers if name == "host"]


@modes
def test_each_host_is_answered_for_itself_and_two_spellings_of_one_share(policy: Policy) -> None:
    async def test() -> None:
        app = mirrored(policy)
        known: set[bytes] = set()
        for sent, normal in itertools.chain(SPELLINGS.items(), SPELLINGS.items()):
            reply = await asked(app, host=sent)
            assert reply.hit == (normal in known), sent
            assert host_of(seen(reply)["headers"]) == [normal]
            known.add(normal)

    run(test())


@modes
def test_without_a_host_the_address_of_the_server_counts(policy: Policy) -> None:
    async def test() -> None:
        app = mirrored(policy)
        one, other = ("192.0.2.1", 80), ("192.0.2.2", 80)
        for server in (one, other, one, None, ["/run/app.sock", None]):
            reply = await asked(app, host=None, server=server)
            assert reply.hit == (server is one and "hit" in reply.cache_status)
            assert host_of(seen(reply)["headers"]) == []
            if server in (one, other):
                assert server[0] in seen(reply)["base"]
        assert not (await asked(app, host=b"")).hit
        assert not (await asked(app, host=b"192.0.2.1")).hit

    run(test())


@modes
@pytest.mark.parametrize("second", [b"example.org", b"evil.example", b""])
def test_a_second_host_passes_by_and_leaves_nothing(second: bytes, policy: Policy) -> None:
    async def test() -> None:
        app = mirrored(policy)
        for _ in range(2):
            reply = await asked(app, (b"host", second))
            assert "detail=host" in reply.cache_status
            assert host_of(seen(reply)["headers"]) == [b"example.org", second]
        assert not (await asked(app)).hit
        assert not (await asked(app, host=second + b".")).hit

    run(test())


@modes
def test_schemes_and_their_default_ports_stay_apart(policy: Policy) -> None:
    async def test() -> None:
        app = mirrored(policy)
        for scheme in ("http", "https"):
            reply = await asked(app, scheme=scheme)
            assert not reply.hit
            assert seen(reply)["base"] == f"{scheme}://example.org/"
        assert (await asked(app, scheme="https", host=b"example.org:443")).hit
        assert not (await asked(app, scheme="https", host=b"example.org:80")).hit
        assert not (await asked(app, host=b"example.org:443")).hit

    run(test())


@modes
@pytest.mark.parametrize("sent", [b"INNER.example", b"inner.example:80", b"inner.example:80:80", b"inner.example."])
def test_no_spelling_leads_past_a_host_route_of_the_app(sent: bytes, policy: Policy) -> None:
    """What the app's router would run for the host as it was sent is what answers, with the cache or without."""

    async def outer(_: Request) -> Response:
        return PlainTextResponse("outer", headers=PUBLIC)

    async def inner(_: Request) -> Response:
        return PlainTextResponse("inner", headers=PUBLIC)

    async def test() -> None:
        routes = [Host("inner.example", Router([Route("/", inner)])), Route("/", outer)]
        bare = await asked(Router(routes), host=sent)
        app = mirrored(policy, routes=routes)
        for host in (sent, b"inner.example", b"outer.example", sent):
            expected = bare.body if host is sent else host.partition(b".")[0]
            assert (await asked(app, host=host)).body == expected, host

    run(test())


@modes
def test_on_the_wire_too(policy: Policy) -> None:
    with served(mirrored(policy)) as port:
        for line, status, host in [
            (b"Host: example.org", 200, [b"example.org"]),
            (b"HOST: EXAMPLE.ORG:80", 200, [b"example.org"]),
            (b"Host: example.org.", 200, [b"example.org."]),
            (b"Host: evil.example", 200, [b"evil.example"]),
            (b"Host: example.org\r\nHost: evil.example", 400, []),
            (b"", 400, []),
        ]:
            answer = raw(port, b"GET / HTTP/1.1\r\n" + line + b"\r\n" * bool(line) + b"Connection: close\r\n\r\n")
            assert answer.status == status, line
            assert status != 200 or host_of(answer.json["headers"]) == host
        old = raw(port, b"GET / HTTP/1.0\r\n\r\n")
        assert (old.status, host_of(old.json["headers"])) == (200, [])
        assert not old.hit
        elsewhere = raw(port, b"GET http://evil.example/ HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n")
        assert (elsewhere.status, elsewhere.hit) == (404, False), "uvicorn takes it for a path"
