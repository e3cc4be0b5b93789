"""Who is asking: sessions and an authentication backend for the tests."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping

import itsdangerous
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser
from starlette.requests import HTTPConnection

COOKIE = "session"


def signed(session: Mapping[str, object], *, secret: str = "s") -> str:
    """The cookie that `SessionMiddleware` reads `session` from."""
    data = b64encode(json.dumps(dict(session)).encode())
    return itsdangerous.TimestampSigner(secret).sign(data).decode()


class ByHeader(AuthenticationBackend):
    """Believes the header `X-User`."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        name = conn.headers.get("x-user")
        return (AuthCredentials(["known"]), SimpleUser(name)) if name else None
