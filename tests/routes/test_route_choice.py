"""The chosen route is the one that the app's own router runs."""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from fastapi import APIRouter, FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Host, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from asgi_tiercache.routes import RouteTable

VALUES = ["items", "me", "7", "1.5", "0b6e0a4c-3f0e-4d5e-9f2b-0c8f6a1f2d3e", "a b"]
HOSTS = ["api.example.org", "API.example.org:8000", "example.org"]


@dataclass(frozen=True)
class Entry:
    """One line of a generated route table."""

    kind: Literal["route", "websocket", "mount", "include", "host", "plain"]
    segments: tuple[str, ...] = ()
    methods: tuple[str, ...] = ("GET",)
    flavour: str = "starlette"
    entries: tuple[Entry, ...] = ()


segments = st.lists(
    st.sampled_from(["items", "me", "{}", "{}", "{:int}", "{:uuid}", "{:float}", "{:path}"]), min_size=1, max_size=2
).map(tuple)
prefixes = st.lists(st.sampled_from(["items", "me", "{}"]), min_size=1, max_size=1).map(tuple)
methods = st.sampled_from([("GET",), ("GET",), ("GET", "HEAD"), ("POST",), ("HEAD",), ("GET", "POST")])
simple = st.one_of(
    st.builds(Entry, st.sampled_from(["route", "route", "route", "route", "websocket"]), segments, methods),
    st.builds(Entry, st.sampled_from(["route", "route", "plain"]), prefixes, methods),
)


def nested(children: st.SearchStrategy[Entry]) -> st.SearchStrategy[Entry]:
    entries = st.lists(children, min_size=1, max_size=3).map(tuple)
    flavours = st.sampled_from(["starlette", "fastapi", "router", "gzip", "mounted gzip", "rooted"])
    return st.one_of(
        st.builds(Entry, st.just("mount"), prefixes, flavour=flavours, entries=entries),
        st.builds(Entry, st.just("include"), prefixes | st.just(()), entries=entries),
        st.builds(Entry, st.just("host"), flavour=flavours, entries=entries),
    )


tables = st.lists(st.recursive(simple, nested, max_leaves=6), min_size=1, max_size=5)
Ran: TypeAlias = tuple[object, dict[str, Any]]


@dataclass
class World:
    """An app built from entries, whose endpoints write down that they ran."""

    templates: dict[object, str] = field(default_factory=dict)
    ran: list[Ran] = field(default_factory=list)
    names: Iterator[int] = field(default_factory=itertools.count)

    def app(self, flavour: str, entries: tuple[Entry, ...], prefix: str = "") -> ASGIApp:
        if flavour in ("fastapi", "rooted"):
            app = FastAPI(openapi_url=None)
            app.root_path = "/rooted" if flavour == "rooted" else ""
            self.fill(app.router, entries, prefix)
            return app
        if flavour == "router":
            router = Router()
            self.fill(router, entries, prefix)
            return router
        starlette = Starlette(middleware=[Middleware(GZipMiddleware)] if flavour == "starlette" else None)
        self.fill(starlette.router, entries, prefix)
        return GZipMiddleware(starlette) if flavour == "gzip" else starlette

    def fill(self, router: Router, entries: tuple[Entry, ...], prefix: str) -> None:
        for entry in entries:
            self.add(router, entry, prefix)

    def add(self, router: Router, entry: Entry, prefix: str) -> None:
        path = self.path(entry.segments)
        match entry.kind:
            case "route" if isinstance(router, APIRouter) and "HEAD" not in entry.methods:
                router.add_api_route(path, self.endpoint(prefix + path), methods=list(entry.methods))
            case "route":
                router.routes.append(Route(path, self.endpoint(prefix + path), methods=list(entry.methods)))
            case "websocket":
                router.routes.append(WebSocketRoute(path, self.socket))
            case "plain":
                router.routes.append(Mount(path, self.plain(prefix + path + "/{path:path}")))
            case "mount":
                wrap = [Middleware(Rewriting)] if entry.flavour == "mounted gzip" else None
                app = self.app(entry.flavour, entry.entries, prefix + path)
                router.routes.append(Mount(path, app, middleware=wrap))
            case "host":
                router.routes.append(Host("{sub}.example.org", self.app(entry.flavour, entry.entries, prefix)))
            case "include":
                inner = APIRouter() if isinstance(router, APIRouter) else Router()
                self.fill(inner, entry.entries, prefix + path)
                if isinstance(router, APIRouter) and isinstance(inner, APIRouter):
                    router.include_router(inner, prefix=path)
                else:
                    router.routes.append(Mount(path, inner))

    def path(self, texts: tuple[str, ...]) -> str:
        return "".join("/" + text.replace("{", f"{{p{next(self.names)}") for text in texts)

    def endpoint(self, template: str) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            self.ran.append((endpoint, request.path_params))
            return Response()

        self.templates[endpoint] = template
        return endpoint

    def plain(self, template: str) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            self.ran.append((app, scope["path_params"]))
            await Response()(scope, receive, send)

        self.templates[app] = template
        return app

    async def socket(self, websocket: WebSocket) -> None:
        raise AssertionError("no request here is a websocket")

    def run(self, app: ASGIApp, scope: Scope) -> Ran | None:
        self.ran.clear()

        async def request() -> None:
            await app(copy.deepcopy(scope), receive, send)

        asyncio.run(request())
        return self.ran[0] if self.ran else None


class Rewriting:
    """A middleware that nobody knows; the mount shows the routes behind it all the same."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


async def receive() -> MutableMapping[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: MutableMapping[str, Any]) -> None:
    pass


def http_scope(path: str, method: str = "GET", *, host: str = "example.org", **extra: Any) -> dict[str, Any]:
    headers = [(b"accept", b"*/*"), (b"host", host.encode())]
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "root_path": "", "headers": headers}
    return {**scope, **extra}


def no_mark(endpoint: object) -> None:
    return None


def table_of(app: object) -> RouteTable:
    return RouteTable(app, {}, None, mark=no_mark)


def fitting(part: str) -> st.SearchStrategy[str]:
    """Mostly what the converter of a parameter takes."""
    if not part.startswith("{"):
        return st.just(part)
    numbers = {"int}": "7", "float}": "1.5", "uuid}": VALUES[4]}
    fit = numbers.get(part.partition(":")[2])
    return st.sampled_from([fit, fit, fit, *VALUES] if fit else VALUES)


@st.composite
def paths(draw: st.DrawFn, templates: list[str]) -> str:
    if not templates or draw(st.integers(0, 4)) == 0:
        path = "/" + "/".join(draw(st.lists(st.sampled_from(VALUES), max_size=4)))
    else:
        template = draw(st.sampled_from(templates))
        path = "/" + "/".join(draw(fitting(part)) for part in template[1:].split("/"))
    return path + draw(st.sampled_from(["", "", "", "", "", "/"]))


@given(st.data(), tables, st.sampled_from(["starlette", "fastapi", "router", "gzip", "rooted"]))
@settings(max_examples=120, deadline=None)
def test_chooses_what_the_app_runs(data: st.DataObject, entries: list[Entry], flavour: str) -> None:
    world = World()
    app = world.app(flavour, tuple(entries))
    table = table_of(app)
    for _ in range(8):
        path = data.draw(paths(list(world.templates.values())))
        root_path = data.draw(st.sampled_from(["", "", "/root"]))
        host = data.draw(st.sampled_from(HOSTS))
        below = root_path + path if data.draw(st.booleans()) else path
        for method in ("GET", "HEAD"):
            scope = http_scope(below, method, host=host, root_path=root_path)
            before = copy.deepcopy(scope)
            choice = table.choose(scope)
            assert scope == before
            assert table.choose(copy.deepcopy(scope)) is choice
            assert_is_what_runs(world, app, scope, choice)


def assert_is_what_runs(world: World, app: ASGIApp, scope: dict[str, Any], choice: Any) -> None:
    ran = world.run(app, scope)
    assert choice.target.template == ("" if ran is None else world.templates[ran[0]])
    if ran is not None:
        endpoint, path_params = ran
        assert choice.target.endpoint in (endpoint, None)
        assert dict(choice.path_params) == path_params


def test_prefers_a_route_with_the_method_over_an_earlier_one_without() -> None:
    world = World()
    post, get = world.endpoint("/items"), world.endpoint("/{name}")
    app = Starlette(routes=[Route("/items", post, methods=["POST"]), Route("/{name}", get)])
    assert table_of(app).choose(http_scope("/items")).target.endpoint is get


def test_no_route_is_chosen_where_only_the_method_is_wrong() -> None:
    app = FastAPI()
    app.get("/items")(lambda: None)
    table = table_of(app)
    assert table.choose(http_scope("/items")).target.template == "/items"
    assert table.choose(http_scope("/items", "HEAD")).target.template == ""


def test_no_route_is_chosen_where_the_router_would_redirect() -> None:
    app = Starlette(routes=[Route("/items", World().endpoint("/items"))])
    assert table_of(app).choose(http_scope("/items/")).target.endpoint is None


def test_a_mount_is_never_left_again() -> None:
    world = World()
    late = world.endpoint("/api/{name}")
    app = Starlette(routes=[Mount("/api", routes=[]), Route("/api/{name}", late)])
    assert table_of(app).choose(http_scope("/api/x")).target.endpoint is None
    assert world.run(app, http_scope("/api/x")) is None


def test_path_parameters_of_an_outer_mount_are_kept_apart_between_requests() -> None:
    app = Starlette(routes=[Route("/{name}", World().endpoint("/{name}"))])
    table = table_of(app)
    for tenant in ("one", "two"):
        choice = table.choose(http_scope("/x", path_params={"tenant": tenant}))
        assert choice.path_params == {"tenant": tenant, "name": "x"}


def test_routes_added_late_are_found() -> None:
    world = World()
    app, sub, outer, inner = FastAPI(), Starlette(), APIRouter(), APIRouter()
    outer.include_router(inner, prefix="/inner")
    app.include_router(outer, prefix="/outer")
    app.mount("/sub", GZipMiddleware(sub))
    table = table_of(app)
    paths = ["/late", "/outer/late", "/outer/inner/late", "/sub/late"]
    assert [table.choose(http_scope(path)).target.endpoint for path in paths] == [None] * 4
    inner.add_api_route("/late", world.endpoint("/outer/inner/late"))
    outer.add_api_route("/late", world.endpoint("/outer/late"))
    app.add_api_route("/late", world.endpoint("/late"))
    sub.add_route("/late", world.endpoint("/sub/late"))
    for path in paths:
        choice = table.choose(http_scope(path))
        assert choice.target.template == path
        assert_is_what_runs(world, app, http_scope(path), choice)


def test_a_late_route_in_each_place_alone_changes_the_choice() -> None:
    world = World()
    app, sub, included = FastAPI(), Starlette(), APIRouter()
    app.include_router(included, prefix="/included")
    app.mount("/sub", sub)
    table = table_of(app)
    steps: list[tuple[str, Callable[[str, Any], None]]] = [
        ("/included/late", lambda path, endpoint: included.add_api_route("/late", endpoint)),
        ("/sub/late", lambda path, endpoint: sub.add_route("/late", endpoint)),
        ("/late", lambda path, endpoint: app.add_api_route("/late", endpoint)),
    ]
    for path, add in steps:
        assert table.choose(http_scope(path)).target.template == ""
        endpoint = world.endpoint(path)
        add(path, endpoint)
        assert table.choose(http_scope(path)).target.endpoint is endpoint


def test_a_replaced_route_list_of_the_same_length_is_noticed() -> None:
    world = World()
    first, second = world.endpoint("/x"), world.endpoint("/x")
    app = Starlette(routes=[Route("/x", first)])
    table = table_of(app)
    assert table.choose(http_scope("/x")).target.endpoint is first
    app.router.routes = [Route("/x", second)]
    assert table.choose(http_scope("/x")).target.endpoint is second


def test_a_target_stays_the_same_object_until_routes_change() -> None:
    app = Starlette(routes=[Route("/{name}", World().endpoint("/{name}"))])
    table = table_of(app)
    targets = {table.choose(http_scope(f"/{number}")).target for number in range(5_000)}
    assert len(targets) == 1
    app.router.routes.append(Route("/y", World().endpoint("/y")))
    assert table.choose(http_scope("/0")).target not in targets


def test_a_converter_that_fails_leaves_the_request_to_the_app() -> None:
    app = Starlette(routes=[Route("/{number:int}", World().endpoint("/{number:int}"))])
    target = table_of(app).choose(http_scope("/" + "9" * 5_000)).target
    assert (target.template, target.policy) == ("", None)


def test_a_route_class_of_the_users_own_decides_each_time() -> None:
    world = World()
    newest, oldest = world.endpoint("/x"), world.endpoint("/x")

    class Versioned(Route):
        def matches(self, scope: Any) -> Any:
            version = dict(scope["headers"]).get(b"version")
            return super().matches(scope) if version == b"2" else (type(super().matches(scope)[0]).NONE, {})

    app = Starlette(routes=[Versioned("/x", newest), Route("/x", oldest)])
    table = table_of(app)
    for version, endpoint in [(b"1", oldest), (b"2", newest), (b"1", oldest)]:
        scope = http_scope("/x", headers=[(b"version", version)])
        assert table.choose(scope).target.endpoint is endpoint


def test_a_route_class_of_the_users_own_decides_in_an_included_router_too() -> None:
    from fastapi.routing import APIRoute

    class Versioned(APIRoute):
        def matches(self, scope: Any) -> Any:
            match, child_scope = super().matches(scope)
            wanted = dict(scope["headers"]).get(b"version") == b"2"
            return (match, child_scope) if wanted else (type(match).NONE, {})

    world = World()
    newest, oldest = world.endpoint("/api/x"), world.endpoint("/api/x")
    new, old, app = APIRouter(route_class=Versioned), APIRouter(), FastAPI()
    new.add_api_route("/x", newest)
    old.add_api_route("/x", oldest)
    app.include_router(new, prefix="/api")
    app.include_router(old, prefix="/api")
    table = table_of(app)
    for version, endpoint in [(b"1", oldest), (b"2", newest), (b"1", oldest)]:
        scope = http_scope("/api/x", headers=[(b"version", version)])
        before = copy.deepcopy(scope)
        assert table.choose(scope).target.endpoint is endpoint
        assert scope == before
        ran = world.run(app, scope)
        assert ran is not None
        assert ran[0] is endpoint


def test_state_that_fastapi_left_in_the_scope_is_not_touched() -> None:
    app, router = FastAPI(), APIRouter()
    router.add_api_route("/x", World().endpoint("/api/x"))
    app.include_router(router, prefix="/api")
    state: dict[str, object] = {"form_limits": {}}
    scope = http_scope("/api/x", fastapi=state)
    assert table_of(app).choose(scope).target.template == "/api/x"
    assert scope["fastapi"] is state
    assert state == {"form_limits": {}}


def test_an_app_behind_an_unknown_middleware_is_not_looked_into() -> None:
    sub = Starlette(routes=[Route("/x", World().endpoint("/sub/x"))])
    app = Starlette(routes=[Mount("/sub", Rewriting(sub))])
    target = table_of(app).choose(http_scope("/sub/x")).target
    assert (target.template, target.endpoint) == ("/sub/{path:path}", None)


def test_an_app_behind_a_dispatch_function_is_not_looked_into() -> None:
    async def dispatch(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        return response

    sub = Starlette(routes=[Route("/x", World().endpoint("/sub/x"))])
    app = Starlette(routes=[Mount("/sub", BaseHTTPMiddleware(sub, dispatch=dispatch))])
    assert table_of(app).choose(http_scope("/sub/x")).target.endpoint is None


def test_an_app_mounted_twice_is_looked_into_twice() -> None:
    sub = Starlette(routes=[Route("/x", World().endpoint("/x"))])
    table = table_of(Starlette(routes=[Mount("/one", sub), Mount("/two", sub)]))
    templates = [table.choose(http_scope(path)).target.template for path in ("/one/x", "/two/x")]
    assert templates == ["/one/x", "/two/x"]


def test_a_router_with_a_routing_of_its_own_is_not_looked_into() -> None:
    class Random(Router):
        async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.not_found(scope, receive, send)

    app = Starlette(routes=[Mount("/sub", Random([Route("/x", World().endpoint("/sub/x"))]))])
    assert table_of(app).choose(http_scope("/sub/x")).target.endpoint is None


def test_an_app_mounted_in_itself_is_no_endless_tree() -> None:
    app = Starlette(routes=[Route("/x", World().endpoint("/x"))])
    app.mount("/again", app)
    assert table_of(app).choose(http_scope("/again/x")).target.template == "/again/{path:path}"


def test_frontend_files_of_fastapi_are_no_route(tmp_path: Any) -> None:
    (tmp_path / "index.html").write_text("hello")
    app = FastAPI(openapi_url=None)
    app.get("/x")(lambda: None)
    app.frontend("/", directory=tmp_path)
    table = table_of(app)
    assert table.choose(http_scope("/index.html")).target.template == ""
    assert table.choose(http_scope("/x")).target.template == "/x"


def test_a_mount_and_a_host_in_an_included_router_get_its_prefix() -> None:
    world = World()
    routes: list[BaseRoute] = [
        Mount("/files", routes=[Route("/{name}", world.endpoint("/api/files/{name}"))]),
        Host("{sub}.example.org", Starlette(routes=[Route("/x", world.endpoint("/api/x"))])),
    ]
    app, router = FastAPI(), APIRouter(routes=routes)
    app.include_router(router, prefix="/api")
    table = table_of(app)
    for scope in (http_scope("/api/files/a"), http_scope("/api/x", host="one.example.org")):
        choice = table.choose(scope)
        assert choice.target.endpoint is not None
        assert_is_what_runs(world, app, scope, choice)
