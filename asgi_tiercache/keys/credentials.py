"""Which credentials a request carries, and which of them its policy has an answer for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.authentication import AuthCredentials, UnauthenticatedUser

from asgi_tiercache.config import Policy

_HEADERS = {"authorization": b"authorization", "cookie": b"cookie"}
_SCOPE = ("session", "user", "auth")


class OpenCredentials:
    """The credentials that a policy neither keys nor ignores.

    `user=` covers all of them; `cookies=` and `vary_on=` cover a header, never what a middleware derived from it,
    which may depend on more than the part that is keyed.
    """

    def __init__(self, policy: Policy) -> None:
        covered = {*policy.vary_on, *policy.ignore, *(("cookie",) if policy.cookies else ())}
        if policy.user is not None:
            covered.update(_HEADERS, _SCOPE)
        if policy.mode == "rfc9111":  # where section 3.5 knows one credential only
            covered.update({"cookie"}, _SCOPE)
        self.headers = frozenset(_HEADERS[name] for name in _HEADERS if name not in covered)
        self.scope = tuple(name for name in _SCOPE if name not in covered)

    def in_scope(self, scope: Mapping[str, Any]) -> str | None:
        """The first of `session`, `user` and `auth` that is open and says who is asking."""
        for name in self.scope:
            if name in scope and _tells_who(name, scope[name]):
                return name
        return None

    def anywhere(self, scope: Mapping[str, Any]) -> bool:
        """Whether a header or the scope holds an open credential."""
        for name, _ in scope["headers"]:
            if name in self.headers:
                return True
        return self.in_scope(scope) is not None


def _tells_who(name: str, value: object) -> bool:
    # Exact types: a class of the application's own may carry more than "nobody".
    if name == "user":
        return value is not None and type(value) is not UnauthenticatedUser
    if type(value) is AuthCredentials:
        return bool(value.scopes)
    return bool(value)
