"""Which credentials a request carries, and which of them its policy has an answer for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from starlette.authentication import AuthCredentials, UnauthenticatedUser

from asgi_tiercache.config import Policy

_HEADERS = ("authorization", "cookie")
_SCOPE = ("session", "user", "auth", "tls")
"""What a scope says who is asking by; `tls` stands for the client's certificate, in the extension of that name."""
_IDENTITY = frozenset(
    {
        "api-key",
        "cf-access-jwt-assertion",
        "private-token",
        "proxy-authorization",
        "remote-user",
        "ssl-client-cert",
        "tailscale-user-login",
        "x-access-token",
        "x-amzn-oidc-data",
        "x-amzn-oidc-identity",
        "x-api-key",
        "x-auth-request-email",
        "x-auth-request-user",
        "x-auth-token",
        "x-authenticated-userid",
        "x-authentik-username",
        "x-client-cert",
        "x-consumer-id",
        "x-consumer-username",
        "x-credential-identifier",
        "x-forwarded-access-token",
        "x-forwarded-email",
        "x-forwarded-preferred-username",
        "x-forwarded-user",
        "x-goog-authenticated-user-email",
        "x-goog-authenticated-user-id",
        "x-goog-iap-jwt-assertion",
        "x-jwt-assertion",
        "x-ms-client-principal",
        "x-pomerium-jwt-assertion",
        "x-remote-user",
        "x-session-id",
        "x-session-token",
        "x-ssl-client-cert",
        "x-ssl-client-s-dn",
        "x-user",
        "x-user-email",
        "x-user-id",
        "x-webauth-user",
    }
)
"""Fields of no standard that say who asks: API keys, and what proxies write that have authenticated their client."""


class OpenCredentials:
    """The credentials that a policy neither keys nor ignores.

    `user=` covers all of them; `cookies=` and `vary_on=` cover a header, never what a middleware derived from it,
    which may depend on more than the part that is keyed. Beside `Authorization` and `Cookie` there are headers that
    are known to say who asks, and those that a route declares to read its credentials from (`declared`): not where
    they are withheld, nor by the letter of RFC 9111.
    """

    def __init__(self, policy: Policy, declared: Collection[str] = ()) -> None:
        covered = {*policy.vary_on, *policy.ignore, *(("cookie",) if policy.cookies else ())}
        if policy.user is not None:
            covered.update(_HEADERS, _SCOPE, _IDENTITY, declared)
        if policy.mode == "rfc9111":  # where section 3.5 knows one credential only
            covered.update({"cookie"}, _SCOPE)
        names = {*_HEADERS, *(_IDENTITY.union(declared) if _reach_handlers(policy) else ())}
        self.headers = frozenset(name.encode("latin-1") for name in names - covered)
        self.scope = tuple(name for name in _SCOPE if name not in covered)

    def in_scope(self, scope: Mapping[str, Any]) -> str | None:
        """The first of `session`, `user`, `auth` and `tls` that is open and says who is asking."""
        for name in self.scope:
            value = scope.get(name) if name != "tls" else (scope.get("extensions") or {}).get("tls")
            if value is not None and _tells_who(name, value):
                return name
        return None

    def anywhere(self, scope: Mapping[str, Any]) -> bool:
        """Whether a header or the scope holds an open credential."""
        for name, _ in scope["headers"]:
            if name in self.headers:
                return True
        return self.in_scope(scope) is not None


def _reach_handlers(policy: Policy) -> bool:
    """Whether a handler is given headers of no standard, and the cache has to mind what they say.

    Where dependencies run on every request, a credential is theirs to judge.
    """
    return not policy.strict and policy.mode != "rfc9111" and policy.dependencies != "always"


def _tells_who(name: str, value: Any) -> bool:
    # Exact types: a class of the application's own may carry more than "nobody".
    if name == "user":
        return type(value) is not UnauthenticatedUser
    if name == "tls":
        return bool(value.get("client_cert_chain") or value.get("client_cert_name"))
    if type(value) is AuthCredentials:
        return bool(value.scopes)
    return bool(value)
