"""The scope that a fill sees: what is not in the key does not reach the handler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.authentication import AuthCredentials, UnauthenticatedUser
from starlette.types import Scope

from asgi_tiercache.config import Policy
from asgi_tiercache.http.conditional import PARTIAL_AND_CONDITIONAL
from asgi_tiercache.keys.cookies import chosen_cookies, cookie_line
from asgi_tiercache.keys.forwarded import underscored
from asgi_tiercache.keys.host import normal_host
from asgi_tiercache.types import Header

# Content negotiation (candidates for `Vary`, besides `Accept*`), the key's own host, tracing.
_PASS_SET = frozenset({b"origin", b"host", b"traceparent", b"tracestate", b"baggage", b"x-request-id"})
BODY_HEADERS = frozenset({b"content-type", b"content-length", b"content-encoding", b"transfer-encoding"})
NOBODYS_ADDRESS = ("0.0.0.0", 0)  # noqa: S104 - an address to be read, not bound
"""What a strict handler finds as the client's address: code that reads it goes on working."""
_CREDENTIALS = frozenset({b"authorization", b"cookie"})
_NOBODY: dict[str, Callable[[], object]] = {"session": dict, "user": UnauthenticatedUser, "auth": AuthCredentials}


class Withholding:
    """Reduces a scope to what a policy keys or lets through."""

    def __init__(self, policy: Policy) -> None:
        # Where dependencies run on every request, the handler sees it as it came.
        self._strict = policy.strict and policy.dependencies != "always"
        self._cookies = policy.cookies
        self._ignored = policy.ignore
        # A fill wants the whole response, whatever part of it or proof of change this client asked for.
        ignored = {name.encode() for name in policy.ignore}
        self._removed = PARTIAL_AND_CONDITIONAL.union(ignored, *map(underscored, ignored))
        self._let_through = _PASS_SET | {name.encode() for name in policy.vary_on}
        if policy.body:
            self._let_through |= BODY_HEADERS
        if policy.user is not None or policy.mode != "explicit":
            # The user stands for them in the key, or the response has to say that it may be shared.
            self._let_through |= _CREDENTIALS
        if self._cookies:
            self._removed |= {b"cookie"}  # written anew, with the keyed cookies only

    def reduced(self, scope: Scope, query: bytes) -> Scope:
        """A copy of `scope` for a fill, with `query` as its query string; `scope` stays as it is."""
        reduced = dict(scope)
        reduced["query_string"] = query
        reduced["headers"] = self._headers(scope)
        if self._strict:
            reduced["client"] = NOBODYS_ADDRESS
        for name in self._ignored:
            if name in _NOBODY and name in scope:
                reduced[name] = _NOBODY[name]()
        if "tls" in self._ignored and scope.get("extensions"):
            reduced["extensions"] = _without_certificate(scope["extensions"])
        return reduced

    def reaches(self, name: bytes) -> bool:
        """Whether the handler receives the request field `name` as it was sent."""
        if name in self._removed:
            return False
        return not self._strict or name in self._let_through or name == b"accept" or name.startswith(b"accept-")

    def _headers(self, scope: Scope) -> list[Header]:
        scheme = scope.get("scheme", "http")
        lines: list[Header] = []
        for name, value in scope["headers"]:
            if self.reaches(name):
                lines.append((name, normal_host(value, scheme) if name == b"host" else value))
        if self._cookies:
            sent = [value for name, value in scope["headers"] if name == b"cookie"]
            if line := cookie_line(chosen_cookies(sent, self._cookies)):
                lines.append((b"cookie", line))
        return lines


def _without_certificate(extensions: Mapping[str, Any]) -> dict[str, Any]:
    """The same, but for the client's certificate."""
    tls = extensions.get("tls")
    if not tls:
        return dict(extensions)
    return {**extensions, "tls": {**tls, "client_cert_chain": (), "client_cert_name": None, "client_cert_error": None}}
