"""Requests that servers present in odd ways: what one leaves behind is never an answer for an ordinary one."""

from __future__ import annotations

import pytest

from asgi_tiercache import Policy
from tests.hostile.apps import MODES, mirrored
from tests.hostile.sockets import raw, served

HOST = b"Host: example.org\r\n"
CLOSE = b"Connection: close\r\n\r\n"
ORDINARY = b"GET / HTTP/1.1\r\n" + HOST + CLOSE
UPGRADE = b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nConnection: Upgrade, HTTP2-Settings, close\r\n\r\n"
ODD = {
    "absolute form": b"GET http://evil.test/ HTTP/1.1\r\n" + HOST + CLOSE,
    "absolute form without a path": b"GET http://evil.test HTTP/1.1\r\n" + HOST + CLOSE,
    "absolute form of ourselves": b"GET http://example.org/?evil HTTP/1.1\r\n" + HOST + CLOSE,
    "HTTP/1.0 without a host": b"GET / HTTP/1.0\r\n\r\n",
    "an empty host": b"GET / HTTP/1.1\r\nHost: \r\n" + CLOSE,
    "a host with a user": b"GET / HTTP/1.1\r\nHost: evil@example.org\r\n" + CLOSE,
    "a host with a path": b"GET / HTTP/1.1\r\nHost: example.org/evil?\r\n" + CLOSE,
    "a host with a dot": b"GET / HTTP/1.1\r\nHost: example.org.\r\n" + CLOSE,
    "a fragment": b"GET /#evil HTTP/1.1\r\n" + HOST + CLOSE,
    "no scheme": b"GET //evil.test/ HTTP/1.1\r\n" + HOST + CLOSE,
    "an asterisk": b"GET * HTTP/1.1\r\n" + HOST + CLOSE,
    "a method in lower case": b"get / HTTP/1.1\r\n" + HOST + CLOSE,
    "HEAD": b"HEAD / HTTP/1.1\r\n" + HOST + CLOSE,
    "another protocol": b"GET / HTTP/1.1\r\n" + HOST + UPGRADE,
    "an expectation": b"GET / HTTP/1.1\r\nExpect: evil\r\n" + HOST + CLOSE,
    "a body of length 00": b"GET / HTTP/1.1\r\nContent-Length: 00\r\n" + HOST + CLOSE,
    "an empty chunked body": b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + HOST + CLOSE + b"0\r\n\r\n",
    "a range": b"GET / HTTP/1.1\r\nRange: bytes=0-1\r\n" + HOST + CLOSE,
    "a range of nothing": b"GET / HTTP/1.1\r\nRange: bytes=9999999-\r\n" + HOST + CLOSE,
    "any version": b"GET / HTTP/1.1\r\nIf-None-Match: *\r\n" + HOST + CLOSE,
    "a backslash": b"GET /\\ HTTP/1.1\r\n" + HOST + CLOSE,
    "a semicolon": b"GET /;evil HTTP/1.1\r\n" + HOST + CLOSE,
    "a NUL": b"GET /%00 HTTP/1.1\r\n" + HOST + CLOSE,
    "an encoding that is none": b"GET /%zz HTTP/1.1\r\n" + HOST + CLOSE,
}


@pytest.mark.parametrize("policy", MODES.values(), ids=MODES)
def test_no_odd_request_is_answered_for_an_ordinary_one(policy: Policy) -> None:
    with served(mirrored(policy)) as port:
        for number, (name, odd) in enumerate(ODD.items()):
            host = f"site{number}.test"  # each has a cache of its own in effect
            raw(port, odd.replace(b"example.org", host.encode()))
            answers = [raw(port, ORDINARY.replace(b"example.org", host.encode())) for _ in range(2)]
            expected = {"method": "GET", "base": f"http://{host}/", "path": "/", "raw_path": "/", "query": ""}
            for answer in answers:
                assert answer.status == 200, name
                told = answer.json
                assert {each: told[each] for each in expected} == expected, name
                if policy is MODES["strict"]:
                    assert told["headers"] == [["host", host]], name
            assert answers[1].hit, name
