from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from asgi_tiercache.errors import ConfigError
from asgi_tiercache.signals import Answered, Evicted, Invalidated, Signals, TierFailed, TierRead
from asgi_tiercache.stats import RegionSize, Stats
from asgi_tiercache.statsapp import make_stats_app

TOKEN = "correct-horse"


def busy_stats() -> Stats:
    stats, signals = Stats(lambda: [RegionSize("static", 1, 10, 500, 1_000, 0)]), Signals()
    stats.listen_to(signals)
    signals.emit(Answered("/secret/{who}", "hit", "L1", 1e-6))
    signals.emit(Answered("/secret/{who}", "pass", "cookie", 0.0))
    signals.emit(TierRead("L2", 1, 1, 0.001))
    signals.emit(TierFailed("L2", "get_many", "key api:response:/secret/42 timed out"))
    signals.emit(Evicted("static", 1))
    signals.emit(Invalidated("tag", 1, True))
    return stats


def snapshot(routes: bool) -> Mapping[str, Any]:
    return busy_stats().snapshot(routes=routes)


def client(*, token: str | None = TOKEN, authorize: Any = None) -> TestClient:
    return TestClient(make_stats_app(snapshot, token=token, authorize=authorize))


def bearer(token: str | bytes) -> dict[bytes, bytes]:
    return {b"Authorization": b"Bearer " + (token.encode() if isinstance(token, str) else token)}


def test_without_a_token_the_answer_is_aggregates_as_json_that_nobody_stores() -> None:
    response = client().get("/stats")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert response.json() == snapshot(False)


def test_aggregates_name_no_route_key_or_tag() -> None:
    text = client(token=None).get("/stats").text
    assert "secret" not in text
    assert "routes" not in text
    assert "api:" not in text


def test_the_token_adds_the_routes() -> None:
    response = client().get("/stats", headers=bearer(TOKEN))
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    assert response.json()["routes"]["/secret/{who}"]["answers"]["hits"] == 1


@pytest.mark.parametrize("value", [f"bearer {TOKEN}", f"BEARER   {TOKEN}", f"Bearer {TOKEN} "])
def test_the_scheme_counts_in_any_case_and_blanks_around_the_token_do_not(value: str) -> None:
    assert "routes" in client().get("/stats", headers={"Authorization": value}).json()


@pytest.mark.parametrize("token", ["wrong", "", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), b"\xff\xfe", "gr\u00fcn"])
def test_a_wrong_token_is_refused_rather_than_answered_with_aggregates(token: str | bytes) -> None:
    response = client().get("/stats", headers=bearer(token))
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer ")
    assert response.headers["cache-control"] == "no-store"
    assert "hits" not in response.text


def test_a_token_outside_ascii_is_compared_by_its_utf_8_bytes() -> None:
    app = client(token="gr\u00fcn-\u9375")
    assert "routes" in app.get("/stats", headers=bearer("gr\u00fcn-\u9375")).json()
    assert app.get("/stats", headers=bearer("gr\u00fcn".encode("latin-1"))).status_code == 401


def test_credentials_of_another_scheme_are_no_token() -> None:
    response = client().get("/stats", headers={"Authorization": f"Basic {TOKEN}"})
    assert response.status_code == 200
    assert "routes" not in response.json()


def test_a_token_in_the_query_does_not_count() -> None:
    assert "routes" not in client().get(f"/stats?token={TOKEN}&routes=true").json()


def test_where_no_token_is_set_a_bearer_token_changes_nothing() -> None:
    response = client(token=None).get("/stats", headers=bearer("anything"))
    assert response.status_code == 200
    assert "routes" not in response.json()


def allow(request: Request) -> bool:
    return request.headers.get("x-operator") == "yes"


async def allow_async(request: Request) -> bool:
    return allow(request)


@pytest.mark.parametrize("authorize", [allow, allow_async])
def test_authorize_decides_by_the_request(authorize: Callable[[Request], Any]) -> None:
    app = client(token=None, authorize=authorize)
    assert "routes" in app.get("/stats", headers={"X-Operator": "yes"}).json()
    refused = app.get("/stats")
    assert refused.status_code == 200
    assert "routes" not in refused.json()


def refuse_by_response(_: Request) -> Any:
    return JSONResponse({}, 403)


async def refuse_by_response_async(_: Request) -> Any:
    return JSONResponse({}, 403)


@pytest.mark.parametrize("authorize", [refuse_by_response, refuse_by_response_async, lambda _: 1, lambda _: None])
def test_only_true_itself_is_a_permission(authorize: Callable[[Request], Any]) -> None:
    assert "routes" not in client(authorize=authorize).get("/stats").json()


def fail(_: Request) -> bool:
    raise LookupError("no such operator")


async def fail_async(_: Request) -> bool:
    raise LookupError("no such operator")


@pytest.mark.parametrize("authorize", [fail, fail_async])
def test_an_authorize_that_raises_is_a_refusal_and_logged(
    authorize: Callable[[Request], Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, logger="asgi_tiercache"):
        response = client(authorize=authorize).get("/stats")
    assert response.status_code == 200
    assert "routes" not in response.json()
    assert "no such operator" in caplog.text


def test_either_the_token_or_authorize_is_enough() -> None:
    app = client(authorize=allow)
    assert "routes" in app.get("/stats", headers=bearer(TOKEN)).json()
    assert (
        "routes" in app.get("/stats", headers={"X-Operator": "yes", "Authorization": "Bearer of-another-kind"}).json()
    )
    assert app.get("/stats", headers=bearer("wrong")).status_code == 401


@pytest.mark.parametrize("token", ["", " ", "two words", "line\n", "nul\x00", "\ud800", 7, b"bytes"])
def test_a_token_that_no_client_could_send_is_refused_at_once(token: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        make_stats_app(snapshot, token=token)
    assert caught.value.option == "token"


def test_a_refused_token_is_not_quoted() -> None:
    with pytest.raises(ConfigError) as caught:
        make_stats_app(snapshot, token="hunter2\n")
    assert "hunter2" not in str(caught.value)


def test_an_authorize_that_cannot_be_called_is_refused_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        make_stats_app(snapshot, authorize="admin")  # type: ignore[arg-type]
    assert caught.value.option == "authorize"


@pytest.mark.parametrize("path", ["/", "/stats/", "/stats/x", "/purge"])
def test_other_paths_are_not_found(path: str) -> None:
    assert client().get(path, follow_redirects=False).status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_other_methods_are_not_allowed(method: str) -> None:
    response = client().request(method, "/stats", headers=bearer(TOKEN))
    assert response.status_code == 405
    assert "GET" in response.headers["allow"]


def test_control_characters_in_a_route_are_escaped() -> None:
    stats, signals = Stats(), Signals()
    stats.listen_to(signals)
    signals.emit(Answered("/a\n\x1b[2J", "hit", "L1", 0.0))
    app = make_stats_app(lambda routes: stats.snapshot(routes=routes), token=TOKEN)
    response = TestClient(app).get("/stats", headers=bearer(TOKEN))
    assert b"\n" not in response.content
    assert b"\x1b" not in response.content
    assert list(response.json()["routes"]) == ["/a\n\x1b[2J"]


@pytest.mark.parametrize("make_outer", [FastAPI, Starlette])
def test_it_serves_below_a_mount(make_outer: Callable[[], FastAPI | Starlette]) -> None:
    outer = make_outer()
    outer.mount("/cache", make_stats_app(snapshot, token=TOKEN))
    with TestClient(outer) as app:
        assert app.get("/cache/stats").json() == snapshot(False)
        assert "routes" in app.get("/cache/stats", headers=bearer(TOKEN)).json()
        assert app.get("/cache/stats", headers=bearer("wrong")).status_code == 401
        assert app.get("/cache/other").status_code == 404
        assert app.post("/cache/stats").status_code == 405
        assert app.get("/stats").status_code == 404


def test_it_serves_alone_with_a_lifespan() -> None:
    app: ASGIApp = make_stats_app(snapshot)
    with TestClient(app) as alone:
        assert alone.get("/stats").status_code == 200


def test_any_mapping_will_do_as_a_snapshot() -> None:
    app = make_stats_app(lambda routes: MappingProxyType({"hits": 1, "full": routes}))
    assert TestClient(app).get("/stats").json() == {"hits": 1, "full": False}
