"""What is part of the key tells answers apart."""

from __future__ import annotations

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from asgi_tiercache import Policy, TierCache
from asgi_tiercache.testing import assert_hit, assert_miss
from tests.middleware.apps import Handler, app_of, client_of
from tests.middleware.asgi import ask, run


def test_a_second_request_is_answered_from_memory() -> None:
    handler = Handler()
    client = client_of(handler, Policy(ttl=60))
    first, second = client.get("/"), client.get("/")
    assert_miss(first, stored=True)
    assert_hit(second, "L1")
    assert (first.text, second.text, handler.calls) == ("answer 1", "answer 1", 1)


def test_a_hit_carries_the_headers_and_the_status_of_the_first_answer() -> None:
    handler = Handler(lambda _: PlainTextResponse("made", status_code=203, headers={"x-made-by": "handler"}))
    client = client_of(handler, Policy(ttl=60))
    first, second = client.get("/"), client.get("/")
    ours = {"age", "cache-status"}
    assert_hit(second)
    assert second.status_code == 203
    assert [line for line in second.headers.items() if line[0] not in ours] == [
        line for line in first.headers.items() if line[0] not in ours
    ]


def test_users_do_not_share_answers() -> None:
    handler = Handler(lambda request: PlainTextResponse(request.headers["x-user"]))
    policy = Policy(ttl=60, vary_on=("x-user",), user=lambda scope: dict(scope["headers"])[b"x-user"])
    client = client_of(handler, policy)
    texts = [client.get("/", headers={"x-user": user}).text for user in ("ann", "bob", "ann", "bob")]
    assert texts == ["ann", "bob", "ann", "bob"]
    assert handler.calls == 2


def test_users_that_differ_only_in_type_do_not_share_answers() -> None:
    users: list[str | bytes] = ["7", b"7"]
    handler = Handler()
    policy = Policy(ttl=60, user=lambda scope: users[int(scope["query_string"] != b"")])
    client = client_of(handler, policy.but(query=()))
    assert client.get("/").text != client.get("/?other").text


def test_a_user_covers_authorization_and_cookies() -> None:
    handler = Handler(lambda request: PlainTextResponse(request.headers["authorization"]))
    policy = Policy(ttl=60, user=lambda scope: dict(scope["headers"])[b"authorization"])
    client = client_of(handler, policy)
    for token in ("Bearer a", "Bearer b"):
        assert client.get("/", headers={"authorization": token, "cookie": "x=1"}).text == token
        assert_hit(client.get("/", headers={"authorization": token, "cookie": "x=2"}))
    assert handler.calls == 2


@pytest.mark.parametrize("user", [None, True])
def test_a_user_callable_that_names_nobody_passes_by(user: bool | None) -> None:
    handler = Handler()
    client = client_of(handler, Policy(ttl=60, user=lambda _: user))
    for _ in range(2):
        response = client.get("/")
        assert_miss(response)
        assert "detail=user-callable" in response.headers["cache-status"]
    assert handler.calls == 2


def test_a_user_callable_that_raises_passes_by() -> None:
    handler = Handler()
    client = client_of(handler, Policy(ttl=60, user=lambda scope: str(scope["nothing of the kind"])))
    for _ in range(2):
        assert "detail=user-callable" in client.get("/").headers["cache-status"]
    assert handler.calls == 2


def test_hosts_do_not_share_answers() -> None:
    handler = Handler(lambda request: PlainTextResponse(request.url.hostname or ""))
    client = client_of(handler, Policy(ttl=60))
    texts = [client.get("/", headers={"host": host}).text for host in ("a.example", "b.example", "a.example")]
    assert texts == ["a.example", "b.example", "a.example"]
    assert handler.calls == 2


def test_one_host_spelled_two_ways_shares_an_answer() -> None:
    handler = Handler()
    client = client_of(handler, Policy(ttl=60))
    client.get("/", headers={"host": "a.example"})
    assert_hit(client.get("/", headers={"host": "A.Example:80"}))


def test_schemes_do_not_share_answers() -> None:
    handler = Handler(lambda request: PlainTextResponse(request.url.scheme))
    app = app_of(handler, Policy(ttl=60))
    plain, secure = TestClient(app, base_url="http://site"), TestClient(app, base_url="https://site")
    assert [plain.get("/").text, secure.get("/").text, plain.get("/").text] == ["http", "https", "http"]


def test_queries_do_not_share_answers() -> None:
    handler = Handler(lambda request: PlainTextResponse(request.url.query))
    client = client_of(handler, Policy(ttl=60))
    assert [client.get(f"/?q={q}").text for q in "121"] == ["q=1", "q=2", "q=1"]
    assert handler.calls == 2


def test_the_order_of_query_parameters_does_not_count() -> None:
    handler = Handler()
    client = client_of(handler, Policy(ttl=60))
    client.get("/?a=1&b=2")
    assert_hit(client.get("/?b=2&a=1"))


def test_the_order_of_repeated_parameters_counts() -> None:
    handler = Handler(lambda request: PlainTextResponse(",".join(request.query_params.getlist("a"))))
    client = client_of(handler, Policy(ttl=60))
    assert [client.get("/?a=1&a=2").text, client.get("/?a=2&a=1").text] == ["1,2", "2,1"]


def test_keyed_headers_do_not_share_answers() -> None:
    handler = Handler(lambda request: PlainTextResponse(request.headers.get("x-tenant", "none")))
    client = client_of(handler, Policy(ttl=60, vary_on=("X-Tenant",)))
    texts = [client.get("/", headers={"x-tenant": tenant}).text for tenant in ("a", "b", "a")]
    assert texts == ["a", "b", "a"]
    assert client.get("/").text == "none"
    assert handler.calls == 3


def test_keyed_authorization_tells_users_apart() -> None:
    handler = Handler(lambda request: PlainTextResponse(request.headers.get("authorization", "nobody")))
    client = client_of(handler, Policy(ttl=60, vary_on=("authorization",)))
    for token in ("Bearer a", "Bearer b", "Bearer a"):
        assert client.get("/", headers={"authorization": token}).text == token
    assert client.get("/").text == "nobody"
    assert handler.calls == 3


def test_keyed_cookies_do_not_share_answers() -> None:
    handler = Handler(lambda request: PlainTextResponse(request.cookies.get("session", "none")))
    client = client_of(handler, Policy(ttl=60, cookies=("session",)))
    texts = [client.get("/", headers={"cookie": f"session={value}"}).text for value in "aba"]
    assert texts == ["a", "b", "a"]
    assert handler.calls == 2


def test_methods_do_not_share_answers() -> None:
    handler = Handler(lambda request: PlainTextResponse(request.method))
    client = TestClient(app_of(handler, Policy(ttl=60), methods=["GET", "POST", "PUT", "DELETE"]))
    for method in ("POST", "PUT", "DELETE", "POST"):
        assert client.get("/").text == "GET"
        assert_hit(client.get("/"))
        response = client.request(method, "/")
        assert response.text == method
        assert "cache-status" not in response.headers
    assert handler.calls == 8


def test_paths_do_not_share_answers() -> None:
    handler = Handler(lambda request: PlainTextResponse(request.path_params["item"]))
    client = client_of(handler, Policy(ttl=60), path="/items/{item}")
    assert [client.get(f"/items/{item}").text for item in "121"] == ["1", "2", "1"]


def test_an_encoded_slash_and_a_slash_do_not_share_answers() -> None:
    def respond(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.scope["raw_path"].decode())

    client = client_of(Handler(respond), Policy(ttl=60), path="/{rest:path}")
    assert [client.get("/a/b").text, client.get("/a%2Fb").text] == ["/a/b", "/a%2Fb"]


def test_two_caches_do_not_share_answers() -> None:
    handler = Handler()
    first = client_of(handler, Policy(ttl=60), cache=TierCache())
    second = client_of(handler, Policy(ttl=60), cache=TierCache())
    assert [first.get("/").text, second.get("/").text] == ["answer 1", "answer 2"]


def test_a_request_with_two_hosts_passes_by() -> None:
    handler = Handler()
    app = app_of(handler, Policy(ttl=60))

    async def test() -> None:
        for _ in range(2):
            reply = await ask(app, headers=[(b"host", b"evil.example")])
            assert "detail=host" in reply.cache_status
        assert handler.calls == 2

    run(test())
