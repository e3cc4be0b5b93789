"""Around an app that shows no routes: policies by path alone."""

from __future__ import annotations

import pytest
from starlette.types import Receive, Scope, Send

from asgi_tiercache import ConfigError, Policy, TierCache, TierCacheMiddleware
from tests.middleware.asgi import ask, run

POLICY = Policy(ttl=60)


class Plain:
    """Answers with a number, and with the path."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        headers = [(b"cache-control", b"max-age=60")] if scope["path"].startswith("/public") else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": f"{self.calls} {scope['path']}".encode()})


def _ours(
    routes: dict[str, Policy | None], default: Policy | None = None, *, cache: TierCache | None = None
) -> TierCacheMiddleware:
    return TierCacheMiddleware(Plain(), cache=cache or TierCache(), routes=routes, default=default)


def _hits(app: TierCacheMiddleware, *paths: str) -> list[bool]:
    """Whether a second request to each path is a hit."""
    found: list[bool] = []

    async def test() -> None:
        for path in paths:
            await ask(app, path)
            found.append((await ask(app, path)).hit)

    run(test())
    return found


def test_an_exact_path_is_cached_and_nothing_else() -> None:
    assert _hits(_ours({"/a": POLICY}), "/a", "/a/", "/a/b", "/ab", "/") == [True, False, False, False, False]


def test_a_template_is_cached() -> None:
    assert _hits(_ours({"/items/{item:int}": POLICY}), "/items/7", "/items/x", "/items", "/items/7/x") == [
        True,
        False,
        False,
        False,
    ]


def test_a_prefix_is_cached() -> None:
    assert _hits(_ours({"/static/*": POLICY}), "/static/a", "/static/a/b", "/static", "/statics") == [
        True,
        True,
        False,
        False,
    ]


def test_none_is_never_cached() -> None:
    app = _ours({"/static/*": POLICY, "/static/no": None, "/static/not/*": None})
    assert _hits(app, "/static/yes", "/static/no", "/static/not/x") == [True, False, False]


def test_without_a_default_no_other_route_is_touched() -> None:
    app = _ours({"/a": POLICY}, None)

    async def test() -> None:
        for _ in range(2):
            assert (await ask(app, "/public")).cache_status == ""

    run(test())


def test_by_default_a_response_decides() -> None:
    app = TierCacheMiddleware(Plain(), cache=TierCache())
    assert _hits(app, "/public", "/private") == [True, False]


def test_a_default_of_ones_own_is_used() -> None:
    assert _hits(_ours({"/a": None}, POLICY), "/other", "/a") == [True, False]


def test_a_tag_is_filled_from_a_template() -> None:
    cache = TierCache()
    app = _ours({"/items/{item}": Policy(ttl=60, tags=("item:{item}",))}, cache=cache)

    async def test() -> None:
        for item in "12":
            await ask(app, f"/items/{item}")
        await cache.invalidate("item:1")
        assert [(await ask(app, f"/items/{item}")).hit for item in "12"] == [False, True]

    run(test())


def test_a_root_path_belongs_to_the_key() -> None:
    app = _ours({"/a": POLICY})

    async def test() -> None:
        for root in ("", "/one", "/two"):
            assert not (await ask(app, f"{root}/a", root_path=root)).hit
            assert (await ask(app, f"{root}/a", root_path=root)).hit

    run(test())


def test_an_unused_query_makes_a_key_of_its_own() -> None:
    app = _ours({"/a": POLICY})

    async def test() -> None:
        await ask(app, "/a")
        assert not (await ask(app, "/a", query=b"x=1")).hit

    run(test())


@pytest.mark.parametrize("key", ["a", "/a/*/b", "/{", "/{x}/*", "/{x:unknown}", ""])
def test_a_malformed_key_is_refused_at_once(key: str) -> None:
    with pytest.raises(ConfigError):
        _ours({key: POLICY})


def test_a_value_that_is_no_policy_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="/a"):
        _ours({"/a": 60})  # type: ignore[dict-item]
