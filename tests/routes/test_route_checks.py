"""What is refused at start because a policy does not fit its route."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Cookie, Depends, FastAPI, Header, Path, Query, Request, Security
from fastapi.security import (
    APIKeyCookie,
    APIKeyHeader,
    APIKeyQuery,
    HTTPBasic,
    HTTPBearer,
    OAuth2PasswordBearer,
    OpenIdConnect,
)
from pydantic import AliasChoices, BaseModel, Field
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.routing import Host, Mount, Route, WebSocketRoute

from asgi_tiercache.config import SESSION, Policy
from asgi_tiercache.errors import ConfigError
from asgi_tiercache.routes import RouteTable


def user(scope: Mapping[str, Any]) -> str:
    return "u1"


def check(
    app: object,
    routes: Mapping[str, Policy | None] | None = None,
    *,
    marks: Mapping[object, Policy] | None = None,
    default: Policy | None = None,
) -> list[str]:
    return RouteTable(app, routes or {}, default, mark=(marks or {}).get).check()


def check_endpoint(endpoint: Callable[..., Any], policy: Policy, path: str = "/x/{item}") -> list[str]:
    app = FastAPI()
    app.add_api_route(path, endpoint)
    return check(app, marks={endpoint: policy})


def refused(endpoint: Callable[..., Any], policy: Policy, path: str = "/x/{item}") -> str:
    with pytest.raises(ConfigError) as caught:
        check_endpoint(endpoint, policy, path)
    assert path in str(caught.value)
    return str(caught.value)


def _plain(request: Request) -> Response:
    return Response()


plain_endpoint: Any = _plain


PLAIN = Starlette(routes=[Route("/x/{item}", plain_endpoint)])


# ---- two policies, none that fits ----


def test_a_mark_and_a_key_for_one_route() -> None:
    with pytest.raises(ConfigError, match=r"routes\['/x/\{id\}'\].*/x/\{item\}"):
        check(PLAIN, {"/x/{id}": Policy(ttl=1)}, marks={plain_endpoint: Policy(ttl=2)})


def test_a_mark_and_the_exact_path_of_a_route_without_parameters() -> None:
    app = Starlette(routes=[Route("/x", plain_endpoint)])
    with pytest.raises(ConfigError, match="/x"):
        check(app, {"/x": Policy(ttl=1)}, marks={plain_endpoint: Policy(ttl=2)})


def test_an_exact_path_beside_a_marked_template_is_fine() -> None:
    assert check(PLAIN, {"/x/7": Policy(ttl=1)}, marks={plain_endpoint: Policy(ttl=2)}) == []


def test_two_keys_that_name_the_same_paths() -> None:
    with pytest.raises(ConfigError, match=r"/x/\{b:int\}.*/x/\{a\}"):
        check(PLAIN, {"/x/{a}": Policy(ttl=1), "/x/{b:int}": Policy(ttl=2)})


def test_a_mark_on_a_route_that_only_writes_is_no_second_policy() -> None:
    app = Starlette(routes=[Route("/x", plain_endpoint, methods=["POST"])])
    warnings = check(app, {"/x": Policy(ttl=1)}, marks={plain_endpoint: SESSION})
    assert warnings == [
        "routes['/x'] has no effect: no route of the app answers GET or HEAD there",
        "the policy of route /x has no effect: it caches GET, and the route answers POST; add methods=['POST'] and "
        "body=True to it",
    ]


@pytest.mark.parametrize("place", ["key", "mark", "default"])
def test_a_policy_per_user_without_a_user(place: str) -> None:
    routes = {"/x/{a}": SESSION} if place == "key" else {}
    marks = {plain_endpoint: SESSION} if place == "mark" else {}
    with pytest.raises(ConfigError, match="user"):
        check(PLAIN, routes, marks=marks, default=SESSION if place == "default" else None)


@pytest.mark.parametrize(
    "options", [{"user": user}, {"vary_on": "authorization"}, {"vary_on": "cookie"}, {"cookies": "session"}]
)
def test_a_policy_per_user_with_a_keyed_credential(options: dict[str, Any]) -> None:
    assert check(PLAIN, {"/x/{a}": SESSION.but(**options)}) == []


@pytest.mark.parametrize("key", ["/y/{item}", "/y", "/x", "/socket"])
def test_a_key_without_a_route_is_a_warning_that_names_it(key: str) -> None:
    app = Starlette(routes=[*PLAIN.routes, WebSocketRoute("/socket", plain_app)])
    (warning,) = check(app, {key: Policy(ttl=1)})
    assert repr(key) in warning


def test_a_route_that_answers_head_alone_is_a_route() -> None:
    app = Starlette(routes=[Route("/x/{item}", plain_endpoint, methods=["HEAD"])])
    assert check(app, {"/x/7": Policy(ttl=1)}) == []


@pytest.mark.parametrize("key", ["/x/{item}", "/x/7", "/files/a.css", "/files/{name}", "/nowhere/*"])
def test_a_key_with_a_route_or_a_prefix_is_no_warning(key: str) -> None:
    app = Starlette(routes=[*PLAIN.routes, Mount("/files", app=plain_app)])
    assert check(app, {key: Policy(ttl=1)}) == []


async def plain_app(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("nothing is asked here")


# ---- inputs that are not in the key ----


def tenant(x_tenant: Annotated[str, Header()], item: str) -> None: ...
def theme(theme: Annotated[str, Cookie()], item: str) -> None: ...
def bearer(item: str, token: Annotated[Any, Depends(HTTPBearer())]) -> None: ...
def basic(item: str, token: Annotated[Any, Security(HTTPBasic())]) -> None: ...
def oauth(item: str, token: Annotated[Any, Depends(OAuth2PasswordBearer(tokenUrl="t"))]) -> None: ...
def openid(item: str, token: Annotated[Any, Depends(OpenIdConnect(openIdConnectUrl="u"))]) -> None: ...
def key_header(item: str, token: Annotated[Any, Depends(APIKeyHeader(name="X-Key"))]) -> None: ...
def key_cookie(item: str, token: Annotated[Any, Depends(APIKeyCookie(name="sid"))]) -> None: ...
def key_query(item: str, token: Annotated[Any, Depends(APIKeyQuery(name="token"))]) -> None: ...
def in_a_dependency(item: str, value: Annotated[Any, Depends(tenant)]) -> None: ...


class Headers(BaseModel):
    x_tenant: str
    other: str = Field("", alias="x-other")


def header_model(item: str, headers: Annotated[Headers, Header()]) -> None: ...


INPUTS = [
    (tenant, "x-tenant", {"vary_on": "X-Tenant"}),
    (theme, "theme", {"cookies": "theme"}),
    (bearer, "authorization", {"vary_on": "authorization"}),
    (basic, "authorization", {"vary_on": "authorization"}),
    (oauth, "authorization", {"user": user}),
    (openid, "authorization", {"user": user}),
    (key_header, "x-key", {"vary_on": "x-key"}),
    (key_cookie, "sid", {"cookies": "sid"}),
    (key_cookie, "sid", {"user": user}),
    (key_cookie, "sid", {"vary_on": "cookie"}),
    (key_query, "token", {}),
    (in_a_dependency, "x-tenant", {"vary_on": "x-tenant"}),
    (header_model, "x-tenant", {"vary_on": ["x-tenant", "x-other"]}),
]


@pytest.mark.parametrize(("endpoint", "name", "options"), INPUTS)
def test_an_input_that_is_not_keyed_is_refused_and_the_message_says_what_to_add(
    endpoint: Callable[..., Any], name: str, options: dict[str, Any]
) -> None:
    policy = Policy(ttl=1, drop_query=("token",)) if endpoint is key_query else Policy(ttl=1)
    message = refused(endpoint, policy)
    assert repr(name) in message
    assert "add" in message or "keep" in message
    assert check_endpoint(endpoint, Policy(ttl=1, **options)) == []


@pytest.mark.parametrize(
    ("endpoint", "ignore"),
    [(tenant, "x-tenant"), (theme, "cookie"), (key_cookie, "cookie"), (bearer, "authorization"), (key_header, "x-key")],
)
def test_an_input_may_be_declared_irrelevant(endpoint: Callable[..., Any], ignore: str) -> None:
    assert check_endpoint(endpoint, Policy(ttl=1, ignore=(ignore,))) == []


def test_a_security_scheme_counts_through_partials_and_wrappers() -> None:
    scheme = HTTPBearer()

    async def wrapper(request: Request) -> Any:
        return await scheme(request)

    functools.update_wrapper(wrapper, scheme, assigned=())
    for dependency in (functools.partial(scheme), wrapper):
        assert "HTTPBearer" in refused(taking(dependency), Policy(ttl=1))


def test_every_header_of_a_model_counts() -> None:
    assert "'x-other'" in refused(header_model, Policy(ttl=1, vary_on=("x-tenant",)))


def test_a_condition_that_a_handler_looks_for_is_no_input() -> None:
    """Of a fill it is the cache's own, if any; what the client asked is the cache's to answer."""

    def looks(
        item: str,
        if_none_match: Annotated[str | None, Header()] = None,
        if_modified_since: Annotated[str | None, Header()] = None,
        range: Annotated[str | None, Header()] = None,
    ) -> None: ...
    def needs(item: str, if_none_match: Annotated[str, Header()]) -> None: ...

    assert check_endpoint(looks, Policy(ttl=1)) == []
    assert "'if-none-match'" in refused(needs, Policy(ttl=1))


def test_an_api_key_in_the_query_is_not_ignored_by_its_name() -> None:
    assert "'token'" in refused(key_query, Policy(ttl=1, drop_query=("token",), ignore=("token",)))


def test_a_user_stands_for_an_api_key_only_where_the_header_is_not_withheld() -> None:
    assert "'x-key'" in refused(key_header, Policy(ttl=1, user=user))
    assert check_endpoint(key_header, Policy(ttl=1, user=user, strict=False)) == []


def test_a_user_does_not_stand_for_other_headers() -> None:
    assert "'x-tenant'" in refused(tenant, Policy(ttl=1, user=user, strict=False))


def test_the_host_is_always_keyed() -> None:
    def endpoint(item: str, host: Annotated[str, Header()]) -> None: ...

    assert check_endpoint(endpoint, Policy(ttl=1)) == []


def test_a_dependency_of_router_or_app_counts() -> None:
    def endpoint() -> None: ...

    app, router = FastAPI(), APIRouter()
    router.add_api_route("/x", endpoint)
    app.include_router(router, prefix="/api", dependencies=[Depends(HTTPBearer())])
    with pytest.raises(ConfigError, match=r"/api/x.*HTTPBearer"):
        check(app, marks={endpoint: Policy(ttl=1)})


@pytest.mark.parametrize("key", ["/x/{item}", "/x/*", "/x/7", "/*"])
def test_every_kind_of_key_is_checked(key: str) -> None:
    app = FastAPI()
    app.add_api_route("/x/{item}", tenant)
    with pytest.raises(ConfigError, match="x-tenant"):
        check(app, {key: Policy(ttl=1)})


def test_an_explicit_default_is_checked() -> None:
    app = FastAPI()
    app.add_api_route("/x/{item}", tenant)
    with pytest.raises(ConfigError, match="x-tenant"):
        check(app, default=Policy(ttl=1))
    assert check(app, {"/x/{item}": None}, default=Policy(ttl=1)) == []
    assert check(app, {"/x/*": None}, default=Policy(ttl=1)) == []


def test_a_prefix_is_not_checked_where_the_route_has_a_policy_of_its_own() -> None:
    app = FastAPI()
    app.add_api_route("/x/{item}", tenant)
    assert check(app, {"/x/{item}": None, "/x/*": Policy(ttl=1)}) == []


@pytest.mark.parametrize("policy", [Policy.http(), Policy.rfc9111()])
def test_in_http_mode_the_response_decides(policy: Policy) -> None:
    assert check_endpoint(tenant, policy) == []


# ---- tags and query ----


def search(item: str, q: str, page: int = 1, limit: Annotated[int, Query(alias="size")] = 10) -> None: ...


@pytest.mark.parametrize("field", ["item", "q", "page", "size"])
def test_tags_are_filled_from_path_and_query(field: str) -> None:
    assert check_endpoint(search, Policy(ttl=1, tags=(f"t:{{{field}}}",))) == []


@pytest.mark.parametrize("field", ["limit", "video"])
def test_a_tag_field_that_is_no_parameter(field: str) -> None:
    assert repr(field) in refused(search, Policy(ttl=1, tags=(f"t:{{{field}}}",)))


def test_a_tag_field_that_is_dropped_from_the_query() -> None:
    assert "'page'" in refused(search, Policy(ttl=1, tags=("t:{page}",), query=("q",)))


def test_a_tag_field_of_a_mount_or_a_host() -> None:
    app = Starlette(routes=[Host("{sub}.example.org", Starlette(routes=[Mount("/{tenant}", routes=PLAIN.routes)]))])
    policy = Policy(ttl=1, query=("q",), tags=("{sub}:{tenant}:{item}:{q}",))
    assert check(app, marks={plain_endpoint: policy}) == []


def test_a_tag_field_in_http_mode_where_the_query_counts_as_sent() -> None:
    assert check_endpoint(search, Policy.http(tags="t:{page}")) == []


def test_a_tag_field_that_comes_from_a_mount_around_the_app() -> None:
    def endpoint(item: str, tenant: Annotated[str, Path()]) -> None: ...

    assert check_endpoint(endpoint, Policy(ttl=1, tags=("t:{tenant}",))) == []


def test_a_tag_field_of_a_plain_route() -> None:
    assert check(PLAIN, {"/x/{a}": Policy(ttl=1, tags=("t:{anything}",))}) == []
    with pytest.raises(ConfigError, match="anything"):
        check(PLAIN, {"/x/{a}": Policy(ttl=1, tags=("t:{anything}",), query=("q",))})


def test_a_tag_field_of_the_key_counts_where_no_route_is_known() -> None:
    policy = Policy(ttl=1, tags=("t:{name}",), query=("q",))
    assert check(plain_app, {"/files/{name}": policy}) == []
    assert check(Starlette(routes=[Mount("/files", plain_app)]), {"/files/{name}": policy}) == []
    with pytest.raises(ConfigError, match="name"):
        check(plain_app, {"/files/{other}": policy})


@pytest.mark.parametrize("options", [{"query": ["page"]}, {"drop_query": ["q"]}, {"drop_query": ["q*"]}])
def test_a_required_query_parameter_that_would_not_reach_the_handler(options: dict[str, Any]) -> None:
    assert "'q'" in refused(search, Policy(ttl=1, **options))


def test_a_query_parameter_counts_under_the_name_that_requests_use() -> None:
    def endpoint(item: str, text: Annotated[str, Query(validation_alias="real")]) -> None: ...

    assert "'real'" in refused(endpoint, Policy(ttl=1, query=("text",)))
    assert check_endpoint(endpoint, Policy(ttl=1, query=("real",))) == []


def test_one_of_several_names_of_a_query_parameter_is_enough() -> None:
    def endpoint(item: str, text: Annotated[str, Query(validation_alias=AliasChoices("q", "query"))]) -> None: ...

    assert check_endpoint(endpoint, Policy(ttl=1, query=("q",))) == []


def test_an_optional_query_parameter_may_be_dropped() -> None:
    assert check_endpoint(search, Policy(ttl=1, query=("q",))) == []


# ---- dependencies="always" ----


def always(**options: Any) -> Policy:
    return Policy(ttl=1, dependencies="always", **options)


def whole_request(request: Request) -> str:
    return "x"


def connection(connection: HTTPConnection) -> str:
    return "x"


def current_user(token: Annotated[Any, Depends(HTTPBearer())]) -> str:
    return "x"


def current_theme(theme: Annotated[str, Cookie()]) -> str:
    return "x"


def source(utm_source: str = "") -> str:
    return "x"


TAKEN = [
    (whole_request, "request"),
    (connection, "connection"),
    (current_user, "authorization"),
    (current_theme, "theme"),
    (tenant, "x-tenant"),
]


def taking(dependency: Callable[..., Any]) -> Callable[..., Any]:
    def endpoint(item: str, value: Any = Depends(dependency)) -> None: ...  # noqa: B008

    return endpoint


@pytest.mark.parametrize(("dependency", "name"), TAKEN)
def test_a_dependency_that_the_handler_takes_must_be_keyed(dependency: Callable[..., Any], name: str) -> None:
    message = refused(taking(dependency), always())
    assert "'value'" in message
    assert name in message
    assert check_endpoint(taking(dependency), always(user=user)) == []
    assert check_endpoint(taking(dependency), always(key=user)) == []


def test_a_dependency_that_the_handler_takes_is_fine_with_its_header_in_the_key() -> None:
    assert check_endpoint(taking(current_user), always(vary_on="authorization")) == []


def test_to_ignore_what_the_handler_takes_is_not_enough() -> None:
    assert "'x-tenant'" in refused(taking(tenant), always(ignore="x-tenant"))
    assert "'x-tenant'" in refused(tenant, always(ignore="x-tenant"))


def test_a_dropped_query_parameter_still_reaches_what_the_handler_takes() -> None:
    assert "'utm_source'" in refused(taking(source), always(drop_query="utm_*"))


@pytest.mark.parametrize(("dependency", "name"), TAKEN)
def test_a_dependency_that_only_runs_may_read_anything(dependency: Callable[..., Any], name: str) -> None:
    def endpoint(item: str) -> None: ...

    app = FastAPI()
    app.add_api_route("/x/{item}", endpoint, dependencies=[Depends(dependency)])
    assert check(app, marks={endpoint: always()}) == []


def test_a_handler_that_takes_the_request_itself() -> None:
    def endpoint(item: str, request: Request) -> None: ...

    assert "'request'" in refused(endpoint, always())
    assert "'request'" in refused(endpoint, always(user=user))


def test_a_route_that_is_not_fastapis() -> None:
    with pytest.raises(ConfigError, match=r"/x/\{item\}.*FastAPI"):
        check(PLAIN, {"/x/{a}": always()})
    with pytest.raises(ConfigError, match="FastAPI"):
        check(Starlette(routes=[Mount("/files", plain_app)]), {"/files/reports/*": always()})
    with pytest.raises(ConfigError, match="FastAPI"):
        check(plain_app, {"/x": always()})


def test_plain_routes_beside_fastapis_do_not_matter_below_a_prefix() -> None:
    app = FastAPI()  # with /docs and /openapi.json
    assert check(app, {"/*": always()}) == []
    assert check(app, default=always()) == []
