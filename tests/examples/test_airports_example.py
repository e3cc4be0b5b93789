"""The airports service: what is cached, what an edit purges, who shares what."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import airportsdata
import pytest
from starlette.testclient import TestClient
from starlette.types import Message

from asgi_tiercache import TierCache
from asgi_tiercache.testing import assert_hit, assert_miss
from examples.airports import Airport, Database, Summary, create_app, user_of

ADA = {"Authorization": "Bearer token-of-ada"}
GRACE = {"Authorization": "Bearer token-of-grace"}
BERLIN = "/nearest?lat=52.52&lon=13.40"
NEW_YORK = "/nearest?lat=40.71&lon=-74.00"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The database file with every airport, as it is before any edit."""
    path = tmp_path_factory.mktemp("origin") / "airports.sqlite3"
    Database(str(path))
    return path.read_bytes()


@pytest.fixture
def database(loaded: bytes, tmp_path: Path) -> Database:
    path = tmp_path / "airports.sqlite3"
    path.write_bytes(loaded)
    return Database(str(path))


@pytest.fixture
def client(database: Database) -> Iterator[TestClient]:
    with TestClient(create_app(TierCache(), database)) as client:
        yield client


def promised(path: str) -> bool:
    """Whether a miss says that it is stored: not of a stream, whose length nobody knows when it begins."""
    return not path.endswith(".ndjson")


def fill(client: TestClient, *paths: str) -> None:
    for path in paths:
        assert_miss(client.get(path), stored=promised(path))
        assert_hit(client.get(path), "L1")


@pytest.mark.parametrize(
    "path",
    [
        "/airports/KJFK",
        BERLIN,
        "/airports?country=DE&q=berlin&page=1",
        "/airports?q=berlin",
        "/countries/DE",
        "/countries/DE/airports.ndjson",
        "/config",
    ],
)
def test_the_second_answer_comes_from_memory_and_is_the_same(client: TestClient, path: str) -> None:
    first, second = client.get(path), client.get(path)

    assert_miss(first, stored=promised(path))
    assert_hit(second, "L1")
    assert second.status_code == 200
    assert second.content == first.content


def test_an_unknown_airport_is_remembered_as_such(client: TestClient) -> None:
    assert_miss(client.get("/airports/XXXX"), stored=True)

    again = client.get("/airports/XXXX")

    assert_hit(again)
    assert again.status_code == 404


def test_a_code_in_another_spelling_is_refused_and_not_stored(client: TestClient) -> None:
    for _ in range(2):
        answer = client.get("/airports/kjfk")
        assert answer.status_code == 422
        assert_miss(answer, stored=False)


def test_parameters_that_do_not_count_do_not_make_another_answer(client: TestClient) -> None:
    fill(client, "/airports?country=DE&q=berlin")

    assert_hit(client.get("/airports?utm_source=mail&q=berlin&country=DE"))
    assert_miss(client.get("/airports?country=DE&q=berlin&page=2"))
    assert_miss(client.get("/airports?country=FR&q=berlin"))


def test_the_nearest_airports_are_in_the_order_of_their_distance(client: TestClient) -> None:
    found = client.get(BERLIN).json()

    assert len(found) == 10
    assert [near["km"] for near in found] == sorted(near["km"] for near in found)
    assert {"EDDB", "EDDT"} <= {near["airport"]["icao"] for near in found}


def test_an_edit_purges_what_shows_the_airport_and_nothing_else(client: TestClient) -> None:
    own = [
        "/airports/EDDB",
        BERLIN,
        "/airports?country=DE&q=berlin",
        "/airports?q=berlin",
        "/countries/DE",
        "/countries/DE/airports.ndjson",
    ]
    others = [
        "/airports/KJFK",
        "/airports/EDDF",  # of the same country, yet another page
        NEW_YORK,
        "/airports?country=FR&q=paris",
        "/countries/FR",
        "/countries/FR/airports.ndjson",
        "/config",
    ]
    fill(client, *own, *others)

    edited = client.patch("/airports/EDDB", json={"name": "Willy Brandt"}).json()

    assert edited["invalidated"] == ["airport:EDDB", "listing:DE", "listing:all"]
    assert edited["durable"] is True
    for path in others:
        assert_hit(client.get(path), "L1")
    for path in own:
        assert_miss(client.get(path), stored=promised(path))
    assert client.get("/airports/EDDB").json()["name"] == "Willy Brandt"


def test_an_edit_shows_in_a_search_that_did_not_find_the_airport_before(client: TestClient) -> None:
    search = "/airports?country=DE&q=willy"
    fill(client, search)
    assert client.get(search).json()["airports"] == []

    client.patch("/airports/EDDB", json={"name": "Willy Brandt"})

    assert [airport["icao"] for airport in client.get(search).json()["airports"]] == ["EDDB"]


def test_a_reset_purges_all_of_a_country(client: TestClient) -> None:
    client.patch("/airports/EDDB", json={"elevation": 1.0})
    fill(client, "/airports/EDDB", "/airports/EDDF", BERLIN, "/countries/DE", "/airports/KJFK")

    client.post("/countries/DE/reset")

    for path in ("/airports/EDDB", "/airports/EDDF", BERLIN, "/countries/DE"):
        assert_miss(client.get(path))
    assert_hit(client.get("/airports/KJFK"))
    assert client.get("/airports/EDDB").json()["elevation"] != 1.0


class CountingDatabase(Database):
    """Counts how often it is asked for a summary."""

    summaries = 0

    def summary(self, country: str) -> Summary:
        self.summaries += 1
        return super().summary(country)


def test_two_routes_share_one_summary(database: Database) -> None:
    counting = CountingDatabase(database.path)
    with TestClient(create_app(TierCache(), counting)) as client:
        page = client.get("/airports?country=DE&q=berlin").json()
        summary = client.get("/countries/DE")

    assert_miss(summary, stored=True)
    assert summary.json() == page["summary"]
    assert counting.summaries == 1


def test_users_never_share_an_answer(client: TestClient) -> None:
    client.put("/me/favourites/EDDB", headers=ADA)
    client.put("/me/favourites/KJFK", headers=GRACE)

    for user, favourite in ((ADA, "EDDB"), (GRACE, "KJFK")):
        assert_miss(client.get("/me/favourites", headers=user), stored=True)
        again = client.get("/me/favourites", headers=user)
        assert_hit(again, "L1")
        assert [airport["icao"] for airport in again.json()] == [favourite]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer token-of-nobody"}, {"Authorization": "Basic ada"}])
def test_whoever_is_nobody_is_refused_and_passes_by(client: TestClient, headers: dict[str, str]) -> None:
    client.get("/me/favourites", headers=ADA)

    answer = client.get("/me/favourites", headers=headers)

    assert answer.status_code == 401
    assert_miss(answer, stored=False)
    assert "detail=user-callable" in answer.headers["cache-status"]


def test_a_new_favourite_purges_the_favourites_of_that_user_only(client: TestClient) -> None:
    for user in (ADA, GRACE):
        client.get("/me/favourites", headers=user)

    client.put("/me/favourites/EDDB", headers=ADA)

    assert_miss(client.get("/me/favourites", headers=ADA))
    assert_hit(client.get("/me/favourites", headers=GRACE))


def test_an_edit_purges_the_favourites_that_show_the_airport(client: TestClient) -> None:
    client.put("/me/favourites/EDDB", headers=ADA)
    for user in (ADA, GRACE):
        client.get("/me/favourites", headers=user)

    client.patch("/airports/EDDB", json={"city": "Schönefeld"})

    changed = client.get("/me/favourites", headers=ADA)
    assert_miss(changed)
    assert changed.json()[0]["city"] == "Schönefeld"
    assert_hit(client.get("/me/favourites", headers=GRACE))


@pytest.mark.parametrize("value", [b"Bearer token-of-ada", b"bearer token-of-ada"])
def test_a_token_leads_to_its_user(value: bytes) -> None:
    assert user_of({"headers": [(b"authorization", value)]}) == "ada"


class GatedDatabase(Database):
    """Gives the second chunk of a country only once the gate is open."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.gate = threading.Event()

    def chunks(self, country: str) -> Iterator[list[Airport]]:
        chunks = super().chunks(country)
        yield next(chunks)
        assert self.gate.wait(10), "the first chunk was held back"
        yield from chunks


def test_a_stream_reaches_the_client_while_the_origin_still_produces_it(database: Database) -> None:
    gated = GatedDatabase(database.path)
    app = create_app(TierCache(), gated)
    bodies: list[bytes] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            bodies.append(message["body"])
            gated.gate.set()

    asyncio.run(app(_get("/countries/DE/airports.ndjson"), _nothing, send))

    assert b"".join(bodies).count(b"\n") == sum(row["country"] == "DE" for row in airportsdata.load().values())
    assert bodies[0].count(b"\n") == 100


def test_a_stream_that_grows_too_large_is_passed_on_whole_and_not_stored(client: TestClient) -> None:
    path = "/countries/US/airports.ndjson"

    answers = [client.get(path) for _ in range(2)]

    for answer in answers:
        assert_miss(answer)
        assert answer.text.count("\n") > 12_000


def test_the_stats_of_everyone_name_no_route(client: TestClient) -> None:
    fill(client, "/airports/KJFK")

    stats = client.get("/cache/stats")

    assert stats.json()["answers"]["hits"] == 1
    assert "KJFK" not in stats.text
    assert "routes" not in stats.json()


def _get(path: str) -> dict[str, object]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"testserver")],
        "server": ("testserver", 80),
        "client": ("testclient", 50000),
    }


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}
