"""Apps that give away all they see, and requests to find out to whom."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from asgi_tiercache import Policy, TierCache, TierCacheMiddleware
from tests.middleware.asgi import Exchange, Reply, http_scope

Line = tuple[bytes, bytes]

MODES: Mapping[str, Policy] = {
    "strict": Policy(ttl=60),
    "lax": Policy(ttl=60, strict=False),
    "http": Policy.http(),
    "rfc9111": Policy.rfc9111(),
}
"""One policy of each kind."""
PUBLIC = {"cache-control": "public, max-age=60"}


def everything(request: Request) -> dict[str, Any]:
    """All that an app can learn of a request, where it may be reached by the client."""
    scope = request.scope
    return {
        "method": request.method,
        "base": str(request.base_url),
        "path": scope["path"],
        "raw_path": (scope.get("raw_path") or b"").decode("latin-1"),
        "query": scope["query_string"].decode("latin-1"),
        "parameters": request.query_params.multi_items(),
        "path_params": request.path_params,
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
        "cookies": dict(request.cookies),
        "client": list(scope.get("client") or ()),
        "session": scope.get("session"),
        "user": getattr(scope.get("user"), "username", None),
    }


def mirror(headers: Mapping[str, str] = PUBLIC) -> Any:
    """An endpoint that answers with everything it has seen, and says with `headers` that it may be cached."""

    async def show(request: Request) -> Response:
        return JSONResponse(everything(request), headers=dict(headers))

    return show


def behind(
    app: Starlette,
    policy: Policy | None,
    *,
    cache: TierCache | None = None,
    routes: Mapping[str, Policy | None] | None = None,
) -> Starlette:
    """`app` with the cache before it, and `policy` for all of its paths."""
    app.add_middleware(TierCacheMiddleware, cache=cache or TierCache(), routes=routes, default=policy)
    return app


def mirrored(
    policy: Policy,
    *,
    cache: TierCache | None = None,
    routes: Sequence[BaseRoute] = (),
    headers: Mapping[str, str] = PUBLIC,
    below: Sequence[Middleware] = (),
) -> Starlette:
    """A cached app of `routes`, or of a mirror at every path; `below` stands between cache and router."""
    all_paths = Route("/{path:path}", mirror(headers), methods=["GET", "POST", "PUT"])
    ours = Middleware(TierCacheMiddleware, cache=cache or TierCache(), default=policy)
    return Starlette(routes=list(routes) or [all_paths], middleware=[ours, *below])


async def asked(app: ASGIApp, *headers: Line, host: bytes | None = b"example.org", **scope: Any) -> Reply:
    """The answer to a request with exactly these header lines, and a `Host` before them unless that is None."""
    lines: Iterable[Line] = headers if host is None else [(b"host", host), *headers]
    return await Exchange(app, {**http_scope(scope.pop("path", "/")), "headers": list(lines), **scope}).reply()


def seen(reply: Reply) -> dict[str, Any]:
    """What the app had seen that made this answer."""
    told: dict[str, Any] = json.loads(reply.body)
    return told
