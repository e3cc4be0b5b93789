"""Which policy goes with a route: the keys of `routes=`, marks, the default."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from asgi_tiercache.config import Policy
from asgi_tiercache.errors import ConfigError
from asgi_tiercache.routes import RouteTable, Target

DEFAULT = Policy.http()
EXACT, TEMPLATE, MARK, PREFIX, LONGER = (Policy(ttl=ttl) for ttl in (1, 2, 3, 4, 5))


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("plain")(scope, receive, send)


async def endpoint(request: Request) -> Response:
    return Response()


async def marked(request: Request) -> Response:
    return Response()


def table_of(app: object, routes: Mapping[str, Policy | None]) -> RouteTable:
    return RouteTable(app, routes, DEFAULT, mark=lambda endpoint: MARK if endpoint is marked else None)


def http_scope(path: str, method: str = "GET", **extra: Any) -> dict[str, Any]:
    return {"type": "http", "method": method, "path": path, "root_path": "", "headers": [], **extra}


def target(app: object, routes: Mapping[str, Policy | None], path: str, **extra: Any) -> Target:
    return table_of(app, routes).choose(http_scope(path, **extra)).target


VIDEOS = Starlette(
    routes=[
        Route("/videos/{video_id:int}", endpoint),
        Route("/marked/{name}", marked),
        Mount("/files", plain),
    ]
)


def test_an_exact_path_goes_before_everything_else() -> None:
    keys = {"/marked/a": EXACT, "/marked/*": PREFIX}
    assert target(VIDEOS, keys, "/marked/a").policy is EXACT
    assert target(VIDEOS, keys, "/marked/b").policy is MARK


def test_a_mark_goes_before_a_prefix() -> None:
    assert target(VIDEOS, {"/*": PREFIX}, "/marked/a").policy is MARK


def test_the_policy_of_the_route_goes_before_a_prefix() -> None:
    assert target(VIDEOS, {"/*": PREFIX, "/videos/{id}": TEMPLATE}, "/videos/7").policy is TEMPLATE


def test_the_longest_prefix_counts() -> None:
    keys = {"/*": EXACT, "/videos/*": LONGER, "/v/*": PREFIX}
    assert target(VIDEOS, keys, "/videos/7").policy is LONGER


def test_a_prefix_ends_at_a_slash() -> None:
    app = Starlette(routes=[Route("/videos", endpoint), Route("/videos-old", endpoint)])
    assert target(app, {"/videos/*": PREFIX}, "/videos-old").policy is DEFAULT


def test_a_template_binds_whatever_its_parameters_are_called_and_converted_by() -> None:
    found = target(VIDEOS, {"/videos/{id}": TEMPLATE}, "/videos/7")
    assert (found.template, found.policy, found.named) == ("/videos/{video_id:int}", TEMPLATE, True)


def test_a_template_that_merely_fits_the_path_does_not_count() -> None:
    assert target(VIDEOS, {"/{section}/{name}": TEMPLATE}, "/videos/7").policy is DEFAULT


def test_path_parameters_have_the_names_and_types_of_the_route() -> None:
    choice = table_of(VIDEOS, {"/videos/{id}": TEMPLATE}).choose(http_scope("/videos/7"))
    assert choice.path_params == {"video_id": 7}


def test_none_means_never_cached() -> None:
    found = target(VIDEOS, {"/videos/{id}": None}, "/videos/7")
    assert (found.policy, found.named) == (None, True)


def test_the_default_is_not_named() -> None:
    found = target(VIDEOS, {}, "/videos/7")
    assert (found.policy, found.named, found.endpoint) == (DEFAULT, False, endpoint)


@pytest.mark.parametrize("path", ["/videos/x", "/nowhere"])
def test_exact_paths_and_templates_need_a_route(path: str) -> None:
    found = target(VIDEOS, {path: EXACT, "/videos/{id}": TEMPLATE}, path)
    assert (found.policy, found.template, found.named) == (DEFAULT, "", False)


def test_a_prefix_speaks_for_paths_without_a_route_too() -> None:
    found = target(VIDEOS, {"/nowhere/*": None}, "/nowhere/x")
    assert (found.policy, found.template, found.named) == (None, "/nowhere/*", True)


def test_a_template_counts_by_path_below_a_mounted_plain_app() -> None:
    choice = table_of(VIDEOS, {"/files/{name}": TEMPLATE}).choose(http_scope("/files/a"))
    assert choice.target.policy is TEMPLATE
    assert choice.path_params == {"name": "a"}
    assert target(VIDEOS, {"/files/{name}": TEMPLATE}, "/files/a/b").policy is DEFAULT


def test_a_template_names_a_mount() -> None:
    assert target(VIDEOS, {"/files/{rest:path}": TEMPLATE}, "/files/a/b").policy is TEMPLATE


def test_templates_show_the_prefixes_of_mounts_and_routers() -> None:
    inner, outer, app = APIRouter(), APIRouter(prefix="/outer"), FastAPI()
    inner.add_api_route("/{video_id:int}", endpoint)
    outer.include_router(inner, prefix="/inner")
    app.include_router(outer, prefix="/api")
    root = Starlette(routes=[Mount("/v1/{tenant}", app)])
    keys = {"/v1/{}/api/outer/inner/{}".replace("{}", "{x}", 1).replace("{}", "{y}"): TEMPLATE}
    found = target(root, keys, "/v1/a/api/outer/inner/7")
    assert found.template == "/v1/{tenant}/api/outer/inner/{video_id:int}"
    assert found.policy is TEMPLATE


def test_keys_count_below_root_path() -> None:
    scope = http_scope("/root/videos/7", root_path="/root")
    assert table_of(VIDEOS, {"/videos/7": EXACT}).choose(scope).target.policy is EXACT


def test_a_root_path_that_ends_within_a_segment_is_none_of_the_path() -> None:
    scope = http_scope("/videos/7", root_path="/vid")
    assert table_of(VIDEOS, {"/videos/7": EXACT}).choose(scope).target.policy is EXACT


def test_keys_count_below_the_root_path_of_a_fastapi_app() -> None:
    app = FastAPI()
    app.root_path = "/root"
    app.add_api_route("/{name}", lambda: None)
    assert target(app, {"/x": EXACT}, "/root/x").policy is EXACT


def test_head_counts_where_the_route_accepts_it() -> None:
    app = FastAPI()
    app.add_api_route("/x", lambda: None)
    assert target(app, {"/x": EXACT}, "/x", method="HEAD").policy is DEFAULT
    starlette = Starlette(routes=[Route("/x", endpoint)])
    assert target(starlette, {"/x": EXACT}, "/x", method="HEAD").policy is EXACT


def test_a_mark_is_found_in_a_mounted_app_and_on_an_included_router() -> None:
    router, app = APIRouter(), FastAPI()
    router.add_api_route("/x", marked)
    app.include_router(router, prefix="/api")
    app.mount("/sub", Starlette(routes=[Route("/x", marked)]))
    assert target(app, {}, "/api/x").policy is MARK
    assert target(app, {}, "/sub/x").policy is MARK


def test_routes_of_a_fastapi_that_copies_included_routers_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    import fastapi.routing

    monkeypatch.delattr(fastapi.routing, "iter_route_contexts")
    app = FastAPI()
    app.include_router(APIRouter(routes=[Route("/x", marked)]), prefix="/unreadable")
    app.add_api_route("/api/{name}", marked)
    found = table_of(app, {}).choose(http_scope("/api/x")).target
    assert (found.template, found.policy) == ("/api/{name}", MARK)
    assert table_of(app, {}).choose(http_scope("/unreadable/x")).target.policy is DEFAULT


def test_dependants_run_the_endpoint() -> None:
    router, app = APIRouter(), FastAPI()
    router.add_api_route("/x", marked)
    app.include_router(router, prefix="/api")
    table = table_of(app, {})
    (dependant,) = table.dependants(table.choose(http_scope("/api/x")).target)
    assert getattr(dependant, "call") is marked  # noqa: B009
    assert table.dependants(table.choose(http_scope("/openapi.json")).target) == []


def test_replacing_what_a_dependant_calls_replaces_the_endpoint() -> None:
    from starlette.testclient import TestClient

    router, app = APIRouter(), FastAPI()
    router.add_api_route("/x", lambda: "endpoint")
    app.include_router(router, prefix="/api")
    app.add_api_route("/y", lambda: "endpoint")
    table = table_of(app, {})
    client = TestClient(app)
    for path in ("/api/x", "/y"):
        assert client.get(path).json() == "endpoint"
        (dependant,) = table.dependants(table.choose(http_scope(path)).target)
        setattr(dependant, "call", lambda: "gate")  # noqa: B010
        assert client.get(path).json() == "gate"


class TestPlainApp:
    """An app that shows no routes: by path alone."""

    keys: Mapping[str, Policy | None] = {
        "/{name}": TEMPLATE,
        "/exact": EXACT,
        "/{number:int}/x": MARK,
        "/{other}/x": LONGER,
        "/static/*": PREFIX,
    }

    @pytest.mark.parametrize(
        ("path", "key", "policy"),
        [
            ("/exact", "/exact", EXACT),
            ("/other", "/{name}", TEMPLATE),
            ("/7/x", "/{number:int}/x", MARK),
            ("/a/x", "/{other}/x", LONGER),
            ("/static/a/b", "/static/*", PREFIX),
            ("/a/b/c", "", DEFAULT),
        ],
    )
    def test_chooses(self, path: str, key: str, policy: Policy) -> None:
        found = target(plain, self.keys, path)
        assert (found.template, found.policy, found.endpoint) == (key, policy, None)

    def test_converts_parameters(self) -> None:
        assert table_of(plain, self.keys).choose(http_scope("/7/x")).path_params == {"number": 7}

    def test_passes_over_a_template_whose_converter_fails(self) -> None:
        assert target(plain, self.keys, "/" + "9" * 5_000 + "/x").policy is LONGER

    def test_has_no_dependants(self) -> None:
        table = table_of(plain, self.keys)
        assert table.dependants(table.choose(http_scope("/exact")).target) == []


def test_memory_does_not_grow_with_the_paths_asked_for() -> None:
    table = table_of(plain, {})
    short, long = http_scope("/x"), http_scope("/" + "x" * 5_000)
    assert table.choose(short) is table.choose(short)
    assert table.choose(long) is not table.choose(long)
    first = table.choose(short)
    for number in range(5_000):
        table.choose(http_scope(f"/{number}"))
    assert table.choose(short) is not first


@pytest.mark.parametrize(
    "key",
    ["videos", "", "/a*", "/*/b", "/a/**", "/{", "/{a", "/a}", "/{a-b}", "/{a:unknown}", "/{a}/{a}", "/{a}/*", "/{}"],
)
def test_a_malformed_key_is_an_error_that_names_it(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        table_of(plain, {key: EXACT})
    assert caught.value.option == f"routes[{key!r}]"


@pytest.mark.parametrize("value", [30, {"ttl": 30}, "STATIC"])
def test_a_value_that_is_no_policy_is_an_error_that_names_the_key(value: Any) -> None:
    with pytest.raises(ConfigError, match="/config"):
        table_of(plain, {"/config": value})


@given(st.text(max_size=20))
def test_any_text_is_a_key_or_a_config_error(key: str) -> None:
    try:
        table = table_of(plain, {key: EXACT})
    except ConfigError as error:
        option = error.option
    else:
        option = f"routes[{key!r}]" if key.startswith("/") else ""
        assert table.choose(http_scope("//")).target.policy in (EXACT, DEFAULT)
    assert option == f"routes[{key!r}]"


def test_repr_counts_routes() -> None:
    assert repr(table_of(VIDEOS, {"/videos/{id}": TEMPLATE})) == "<RouteTable routes=3 named=2>"
    assert repr(table_of(plain, {})) == "<RouteTable routes=unknown named=0>"


def test_fastapi_is_not_needed() -> None:
    program = """
import sys
sys.modules["fastapi"] = None
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from asgi_tiercache.config import Policy
from asgi_tiercache.routes import RouteTable
def endpoint(request): ...
policy = Policy(ttl=1)
app = Starlette(routes=[Mount("/sub", routes=[Route("/{name}", endpoint)])])
table = RouteTable(app, {"/sub/{x}": policy}, None, mark=lambda endpoint: None)
assert table.check() == []
choice = table.choose({"type": "http", "method": "GET", "path": "/sub/x", "headers": []})
assert choice.target.policy is policy
print("works")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("works\n", "")


def test_importing_the_package_does_not_import_fastapi() -> None:
    program = "import sys, asgi_tiercache.routes; print('fastapi' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
