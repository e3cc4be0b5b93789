"""The shortest complete program works."""

from __future__ import annotations

from starlette.testclient import TestClient

from asgi_tiercache.testing import assert_hit, assert_miss
from examples import minimal


def test_the_minimal_program_caches_by_argument() -> None:
    with TestClient(minimal.app) as client:
        assert_miss(client.get("/fibonacci/10"), stored=True)
        again = client.get("/fibonacci/10")

        assert_hit(again, "L1")
        assert again.json() == 55
        assert_miss(client.get("/fibonacci/11"))
