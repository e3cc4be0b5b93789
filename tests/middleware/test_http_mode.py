"""Routes that nobody named: cached only if the response itself says so (RFC 9111)."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import formatdate

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.testclient import TestClient

from asgi_tiercache import Policy, TierCache
from asgi_tiercache.testing import TickingClock, assert_hit, assert_miss
from tests.middleware.apps import Handler, app_of, client_of

HTTP = Policy.http()


def _saying(cache_control: str, **headers: str) -> Handler:
    lines = {"cache-control": cache_control, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return Handler(lambda request: PlainTextResponse(f"for {request.headers.get('cookie')}", headers=lines))


def test_a_response_that_says_nothing_is_not_stored() -> None:
    handler = Handler()
    client = client_of(handler, HTTP)
    for number in range(1, 10):
        response = client.get("/")
        assert response.text == f"answer {number}"
        assert response.headers["cache-status"] == "tiercache; fwd=uri-miss; detail=no-freshness"


@pytest.mark.parametrize(
    ("headers", "lifetime"),
    [
        ({"cache-control": "max-age=60"}, 60),
        ({"cache-control": "max-age=5, s-maxage=60"}, 60),
        ({"cache-control": "max-age=5", "cdn-cache-control": "max-age=60"}, 60),
        ({"cache-control": "no-store", "cdn-cache-control": "max-age=60"}, 60),
        ({"cache-control": "max-age=100", "age": "40"}, 60),
    ],
)
def test_a_response_lives_as_long_as_it_says(headers: Mapping[str, str], lifetime: int) -> None:
    clock = TickingClock()
    client = client_of(Handler(lambda _: PlainTextResponse("", headers=headers)), HTTP, cache=TierCache(clock=clock))
    client.get("/")
    clock.tick(lifetime - 1)
    assert_hit(client.get("/"))
    clock.tick(2)
    assert_miss(client.get("/"))


def test_an_expiry_date_counts() -> None:
    clock = TickingClock()

    def respond(_: Request) -> Response:
        dates = {"date": formatdate(clock.time(), usegmt=True), "expires": formatdate(clock.time() + 60, usegmt=True)}
        return PlainTextResponse("", headers=dates)

    client = client_of(Handler(respond), HTTP, cache=TierCache(clock=clock))
    client.get("/")
    clock.tick(58)
    assert_hit(client.get("/"))
    clock.tick(3)
    assert_miss(client.get("/"))


@pytest.mark.parametrize(
    "cache_control", ["no-store, max-age=60", "private, max-age=60", "no-cache, max-age=60", "max-age=0", "s-maxage=0"]
)
def test_a_response_that_forbids_it_is_not_stored(cache_control: str) -> None:
    handler = _saying(cache_control)
    client = client_of(handler, HTTP)
    for _ in range(6):
        assert_miss(client.get("/"), stored=False)
    assert handler.calls == 6


def test_a_route_that_becomes_cacheable_is_cached() -> None:
    lines: dict[str, str] = {}
    client = client_of(Handler(lambda _: PlainTextResponse("", headers=lines)), HTTP)
    for _ in range(20):
        client.get("/")
    lines["cache-control"] = "max-age=60"
    for _ in range(3):
        last = client.get("/")
    assert_hit(last)


@pytest.mark.parametrize("cache_control", ["public, max-age=60", "s-maxage=60"])
def test_a_request_with_a_cookie_meets_what_says_that_it_may_be_shared(cache_control: str) -> None:
    client = client_of(_saying(cache_control), HTTP)
    client.get("/")
    assert_hit(client.get("/", headers={"cookie": "a=1"}))


def test_a_targeted_field_says_that_a_response_may_be_shared() -> None:
    client = client_of(_saying("max-age=60", cdn_cache_control="max-age=60"), HTTP)
    client.get("/")
    assert_hit(client.get("/", headers={"authorization": "Bearer a"}))


@pytest.mark.parametrize("credential", ["cookie", "authorization"])
def test_a_request_with_a_credential_meets_nothing_else(credential: str) -> None:
    handler = _saying("max-age=60")
    client = client_of(handler, HTTP)
    client.get("/")
    for _ in range(2):
        assert_miss(client.get("/", headers={credential: "a=1"}), stored=False)
    assert_hit(client.get("/"))
    assert handler.calls == 3


def test_the_answer_to_a_request_with_a_credential_is_not_stored() -> None:
    handler = _saying("max-age=60")
    client = client_of(handler, HTTP)
    assert client.get("/", headers={"cookie": "a=1"}).text == "for a=1"
    assert client.get("/").text == "for None"


def test_the_credential_reaches_the_handler() -> None:
    client = client_of(_saying("no-store"), HTTP)
    assert client.get("/", headers={"cookie": "a=1"}).text == "for a=1"


def test_a_response_that_sets_a_cookie_is_not_stored() -> None:
    handler = _saying("public, max-age=60", set_cookie="a=1")
    client = client_of(handler, HTTP)
    assert_miss(client.get("/"), stored=False)
    assert_miss(TestClient(client.app).get("/"))


@pytest.mark.parametrize("directive", ["no-cache", "max-age=0", "min-fresh=61"])
def test_a_request_may_ask_for_a_new_answer(directive: str) -> None:
    clock = TickingClock()
    handler = _saying("max-age=60")
    client = client_of(handler, HTTP, cache=TierCache(clock=clock))
    client.get("/")
    clock.tick(1)
    assert_miss(client.get("/", headers={"cache-control": directive}), stored=True)
    assert client.get("/").headers["age"] == "0"


def test_pragma_asks_for_a_new_answer() -> None:
    client = client_of(_saying("max-age=60"), HTTP)
    client.get("/")
    assert_miss(client.get("/", headers={"pragma": "no-cache"}))


def test_a_request_may_bound_the_age() -> None:
    clock = TickingClock()
    client = client_of(_saying("max-age=60"), HTTP, cache=TierCache(clock=clock))
    client.get("/")
    clock.tick(10)
    assert_hit(client.get("/", headers={"cache-control": "max-age=11"}))
    assert_miss(client.get("/", headers={"cache-control": "max-age=9"}))


def test_a_request_may_refuse_to_be_stored() -> None:
    client = client_of(_saying("max-age=60"), HTTP)
    assert_miss(client.get("/", headers={"cache-control": "no-store"}), stored=False)
    assert_miss(client.get("/"))


def test_a_request_for_a_stored_answer_only_gets_one_or_504() -> None:
    handler = _saying("max-age=60")
    client = client_of(handler, HTTP)
    only = {"cache-control": "only-if-cached"}
    response = client.get("/", headers=only)
    assert (response.status_code, response.content, handler.calls) == (504, b"", 0)
    client.get("/")
    assert_hit(client.get("/", headers=only))


def test_a_route_that_stores_nothing_answers_504_too() -> None:
    handler = Handler()
    client = client_of(handler, HTTP)
    for _ in range(10):
        client.get("/")
    assert client.get("/", headers={"cache-control": "only-if-cached"}).status_code == 504


@pytest.mark.parametrize("directive", ["no-cache", "max-age=0", "no-store", "only-if-cached", "min-fresh=100"])
@pytest.mark.parametrize("policy", [Policy.http(request_directives=False), Policy(ttl=60)])
def test_where_requests_have_no_say_no_client_forces_a_miss(directive: str, policy: Policy) -> None:
    client = client_of(_saying("max-age=60"), policy)
    assert client.get("/", headers={"cache-control": directive}).status_code == 200
    assert_hit(client.get("/", headers={"cache-control": directive}))


def test_the_uri_counts_as_sent() -> None:
    handler = _saying("max-age=60")
    client = client_of(handler, HTTP)
    client.get("/?a=1&b=2")
    assert_miss(client.get("/?b=2&a=1"))


def test_unkeyed_headers_reach_the_handler() -> None:
    handler = Handler()
    client_of(handler, HTTP).get("/", headers={"x-other": "b"})
    assert handler.seen.headers["x-other"] == "b"


def test_a_response_that_may_not_be_stored_still_answers_a_conditional_request() -> None:
    """Once it is known that there is nothing to store, the condition is the handler's again: 304 saves the body."""

    def respond(request: Request) -> Response:
        headers = {"etag": '"one"', "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == '"one"':
            return Response(status_code=304, headers=headers)
        return PlainTextResponse("long", headers=headers)

    client = client_of(Handler(respond), HTTP)
    client.get("/")
    assert client.get("/", headers={"if-none-match": '"one"'}).status_code == 304


def test_head_is_answered_from_a_stored_get() -> None:
    handler = _saying("max-age=60")
    client = client_of(handler, HTTP)
    client.get("/")
    response = client.head("/")
    assert_hit(response)
    assert (response.content, response.headers["content-length"]) == (b"", "8")


def test_by_the_rfc_cookies_are_no_obstacle() -> None:
    handler = _saying("max-age=60")
    client = client_of(handler, Policy.rfc9111())
    client.get("/", headers={"cookie": "a=1"})
    assert_hit(client.get("/", headers={"cookie": "a=2"}))


@pytest.mark.parametrize(("cache_control", "hit"), [("max-age=60", False), ("public, max-age=60", True)])
def test_by_the_rfc_authorization_is_one(cache_control: str, hit: bool) -> None:
    handler = _saying(cache_control)
    client = client_of(handler, Policy.rfc9111())
    for _ in range(2):
        response = client.get("/", headers={"authorization": "Bearer a"})
    assert ("hit" in response.headers["cache-status"]) is hit


@pytest.mark.parametrize(("policy", "hit"), [(Policy.rfc9111(), True), (HTTP, False)])
def test_by_the_rfc_a_lifetime_may_be_guessed(policy: Policy, hit: bool) -> None:
    clock = TickingClock()
    modified = formatdate(clock.time() - 1000, usegmt=True)
    handler = Handler(lambda _: PlainTextResponse("", headers={"last-modified": modified}))
    client = client_of(handler, policy, cache=TierCache(clock=clock))
    client.get("/")
    clock.tick(90)
    assert ("hit" in client.get("/").headers["cache-status"]) is hit
    clock.tick(20)
    assert_miss(client.get("/"))


def test_a_policy_of_none_leaves_the_route_alone() -> None:
    handler = _saying("public, max-age=60")
    client = TestClient(app_of(handler, None))
    for _ in range(2):
        assert "cache-status" not in client.get("/").headers
    assert handler.calls == 2
