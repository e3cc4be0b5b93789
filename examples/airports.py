"""A FastAPI service over 28,000 airports, cached with asgi_tiercache.

    uvicorn --factory examples.airports:build

That is memory only; `build`, at the end of this file, says what the environment can change.

The data comes from the PyPI package `airportsdata` and goes into a SQLite database, which plays the origin: the place
that is slow, and that others may change. What to look at first:

- every response carries tags that say what it was made of;
- an edit commits, then invalidates the tags of what it changed, so exactly those responses are made anew.

The tags:

    airport:<icao>      the response tells something about this airport
    listing:<country>   it lists airports of this country, or sums them up
    listing:all         it lists airports of every country
    country:<country>   it tells anything at all about this country
"""

from __future__ import annotations

import atexit
import contextlib
import heapq
import math
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import airportsdata
from fastapi import Depends, FastAPI, HTTPException, Path, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel
from starlette.datastructures import Headers

from asgi_tiercache import FREQUENT, SESSION, STATIC, TEMPORARY, TierCache, TierCacheMiddleware

PAGE = 20
CHUNK = 100
EARTH_RADIUS_KM = 6371.0
# In earnest these would be signed tokens; what matters here is that a token leads to one user.
TOKENS = {"token-of-ada": "ada", "token-of-grace": "grace"}

# Codes are taken in one spelling only: a tag made from "kjfk" would not be the tag that an edit of "KJFK" invalidates.
Icao = Annotated[str, Path(pattern=r"^[A-Z0-9_]{4}$", examples=["KJFK"])]
Country = Annotated[str, Path(pattern=r"^[A-Z]{2}$", examples=["DE"])]
Latitude = Annotated[float, Query(ge=-90, le=90)]
Longitude = Annotated[float, Query(ge=-180, le=180)]


# ---- what is told ----


class Airport(BaseModel):
    """One airport."""

    icao: str
    iata: str
    name: str
    city: str
    country: str
    elevation: float
    """Feet above the sea."""
    lat: float
    lon: float


class Changes(BaseModel):
    """What an edit may change; what is None stays. Codes, countries and positions are not for editing."""

    name: str | None = None
    city: str | None = None
    elevation: float | None = None


class Summary(BaseModel):
    """A country's airports in numbers."""

    country: str
    airports: int
    mean_elevation: float


class Page(BaseModel):
    """One page of a search."""

    page: int
    airports: list[Airport]
    summary: Summary | None
    """Of the country searched, if there is one."""


class Near(BaseModel):
    """An airport and how far away it is."""

    km: float
    airport: Airport


class Edited(BaseModel):
    """What came of an edit."""

    airport: Airport
    invalidated: tuple[str, ...]
    durable: bool


# ---- the origin ----


class Database:
    """The airports in a SQLite file; every method opens a connection of its own, so any thread may call it."""

    def __init__(self, path: str) -> None:
        self.path = path
        with self._connect() as connection:
            connection.execute("BEGIN IMMEDIATE")  # of several workers that start at once, one loads
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'airports'").fetchone():
                _create(connection)

    def airport(self, icao: str) -> Airport | None:
        """The airport with this ICAO code."""
        found = self._airports("SELECT * FROM airports WHERE icao = ?", icao)
        return found[0] if found else None

    def airports(self, icaos: Sequence[str]) -> list[Airport]:
        """The airports with these codes, in this order."""
        return [airport for icao in icaos if (airport := self.airport(icao)) is not None]

    def search(self, country: str, text: str, page: int) -> list[Airport]:
        """One page of the airports of a country, or of all, whose name or city contains `text`."""
        return self._airports(
            "SELECT * FROM airports WHERE (? = '' OR country = ?) AND instr(lower(name || ' ' || city), lower(?))"
            " ORDER BY icao LIMIT ? OFFSET ?",
            *(country, country, text, PAGE, PAGE * (page - 1)),
        )

    def nearest(self, lat: float, lon: float, count: int) -> list[Near]:
        """The airports nearest to a position. Honestly expensive: it looks at every one of them."""
        with self._connect() as connection:
            rows = connection.execute("SELECT icao, lat, lon FROM airports").fetchall()
        distances = ((_distance_km(lat, lon, row["lat"], row["lon"]), row["icao"]) for row in rows)
        nearest = heapq.nsmallest(count, distances)
        airports = self.airports([icao for _, icao in nearest])
        return [Near(km=round(km, 1), airport=airport) for (km, _), airport in zip(nearest, airports, strict=True)]

    def summary(self, country: str) -> Summary:
        """How many airports a country has, and how high they lie."""
        sql = "SELECT count(*), coalesce(avg(elevation), 0) FROM airports WHERE country = ?"
        with self._connect() as connection:
            airports, elevation = connection.execute(sql, (country,)).fetchone()
        return Summary(country=country, airports=airports, mean_elevation=round(elevation, 1))

    def chunks(self, country: str) -> Iterator[list[Airport]]:
        """All airports of a country, a few at a time."""
        with self._connect() as connection:
            cursor = connection.execute("SELECT * FROM airports WHERE country = ? ORDER BY icao", (country,))
            while rows := cursor.fetchmany(CHUNK):
                yield [_airport(row) for row in rows]

    def edit(self, icao: str, changes: Changes) -> Airport | None:
        """Change an airport and commit; what it is then."""
        with self._connect() as connection:
            for column, value in changes.model_dump(exclude_none=True).items():
                connection.execute(f"UPDATE airports SET {column} = ? WHERE icao = ?", (value, icao))
        return self.airport(icao)

    def reset(self, country: str) -> int:
        """Undo every edit in a country and commit; how many airports it has."""
        with self._connect() as connection:
            connection.execute("DELETE FROM airports WHERE country = ?", (country,))
            return _load(connection, lambda row: row["country"] == country)

    def favourites(self, user: str) -> list[Airport]:
        """The airports that a user likes."""
        sql = "SELECT airports.* FROM airports JOIN favourites USING (icao) WHERE user = ? ORDER BY icao"
        return self._airports(sql, user)

    def like(self, user: str, icao: str) -> None:
        """Add an airport to those that a user likes, and commit."""
        with self._connect() as connection:
            connection.execute("INSERT OR IGNORE INTO favourites VALUES (?, ?)", (user, icao))

    def _airports(self, sql: str, *parameters: object) -> list[Airport]:
        with self._connect() as connection:
            return [_airport(row) for row in connection.execute(sql, parameters)]

    @contextlib.contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        # A streaming response is read chunk by chunk, each on whichever worker thread is free.
        connection = sqlite3.connect(self.path, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        try:
            with connection:  # commits
                yield connection
        finally:
            connection.close()


def _create(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE airports (icao TEXT PRIMARY KEY, iata TEXT, name TEXT, city TEXT, country TEXT,"
        " elevation REAL, lat REAL, lon REAL)"
    )
    connection.execute("CREATE INDEX by_country ON airports (country)")
    connection.execute("CREATE TABLE favourites (user TEXT, icao TEXT, PRIMARY KEY (user, icao))")
    _load(connection, lambda _: True)


def _load(connection: sqlite3.Connection, wanted: Callable[[Mapping[str, Any]], bool]) -> int:
    rows = [row for row in airportsdata.load("ICAO").values() if wanted(row)]
    sql = "INSERT INTO airports VALUES (:icao, :iata, :name, :city, :country, :elevation, :lat, :lon)"
    connection.executemany(sql, rows)
    return len(rows)


def _airport(row: sqlite3.Row) -> Airport:
    return Airport.model_validate(dict(row))


def _distance_km(lat: float, lon: float, other_lat: float, other_lon: float) -> float:
    """The haversine formula."""
    phi, other_phi = math.radians(lat), math.radians(other_lat)
    half = math.sin((other_phi - phi) / 2) ** 2
    half += math.cos(phi) * math.cos(other_phi) * math.sin(math.radians(other_lon - lon) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(min(1.0, math.sqrt(half)))


# ---- who is asking ----


def user_of(scope: Mapping[str, Any]) -> str | None:
    """The user whose token came with a request; None, and the request passes by the cache, where there is none."""
    scheme, _, token = Headers(raw=scope["headers"]).get("authorization", "").partition(" ")
    return TOKENS.get(token) if scheme.lower() == "bearer" else None


def current_user(sent: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> str:
    """The same for FastAPI, with the error for whoever is nobody."""
    if sent.credentials not in TOKENS:
        raise HTTPException(401, "unknown token", {"WWW-Authenticate": "Bearer"})
    return TOKENS[sent.credentials]


User = Annotated[str, Depends(current_user)]


# ---- the service ----


def create_app(cache: TierCache, database: Database) -> FastAPI:
    """The service over `database`, its responses cached in `cache`."""
    app = FastAPI(title="Airports")
    # `@cache.response` names a policy beside the endpoint; `routes=` names it here, for endpoints of others.
    app.add_middleware(TierCacheMiddleware, cache=cache, routes={"/config": STATIC})
    app.mount("/cache", cache.stats_app(token=os.environ.get("STATS_TOKEN") or None))
    declare_events(cache)
    add_airports(app, cache, database)
    add_countries(app, cache, database)
    add_favourites(app, cache, database)

    @app.get("/config")
    def config() -> dict[str, object]:
        return {"page_size": PAGE, "units": {"elevation": "ft", "distance": "km"}}

    return app


def declare_events(cache: TierCache) -> None:
    """What goes out of date by what happens; said once, here, and not wherever it happens."""
    cache.on("airport_update", tags=["airport:{icao}", "listing:{country}", "listing:all"])
    cache.on("country_reset", tags=["country:{country}", "listing:all"])
    cache.on("favourites_update", users=["{user}"])


def add_airports(app: FastAPI, cache: TierCache, database: Database) -> None:
    """One airport, the nearest ones, and the edit."""

    @app.get("/airports/{icao}")
    @cache.response(ttl=3600, status_ttl={404: 60}, tags=["airport:{icao}"])
    def airport(icao: Icao) -> Airport:
        found = database.airport(icao)
        if found is None:
            raise HTTPException(404, f"no airport {icao}")  # remembered for a minute: see status_ttl
        # A tag that only the handler knows.
        cache.current.tag("country:{country}", country=found.country)
        return found

    @app.patch("/airports/{icao}")
    async def edit(icao: Icao, changes: Changes) -> Edited:
        # First commit, then invalidate: whoever asks in between caches what the invalidation then covers.
        airport = await run_in_threadpool(database.edit, icao, changes)
        if airport is None:
            raise HTTPException(404, f"no airport {icao}")
        receipt = await cache.emit("airport_update", icao=icao, country=airport.country)
        return Edited(airport=airport, invalidated=receipt.names, durable=receipt.durable)

    @app.get("/nearest")
    @cache.response(FREQUENT, query=["lat", "lon"])
    def nearest(
        lat: Annotated[float, Query(ge=-90, le=90)], lon: Annotated[float, Query(ge=-180, le=180)]
    ) -> list[Near]:
        found = database.nearest(lat, lon, 10)
        # Positions are not for editing, so which ten these are can only change with the whole country.
        for near in found:
            cache.current.tag("airport:{icao}", icao=near.airport.icao)
            cache.current.tag("country:{country}", country=near.airport.country)
        return found


def add_countries(app: FastAPI, cache: TierCache, database: Database) -> None:
    """What lists a country's airports or sums them up, and the way back to the data as it came."""

    # Two routes use this value. Both take over its tags, so neither can forget them.
    @cache.cached("summary:{country}", FREQUENT, tags=["listing:{country}", "country:{country}"])
    def summary_of(country: str) -> Summary:
        return database.summary(country)

    @app.get("/countries/{country}")
    @cache.response(FREQUENT)
    def summary(country: Country) -> Summary:
        return summary_of(country)

    @app.get("/airports")
    @cache.response(TEMPORARY, query=["country", "q", "page"])
    def search(
        country: Annotated[str, Query(pattern=r"^([A-Z]{2})?$")] = "",
        q: str = "",
        page: Annotated[int, Query(ge=1)] = 1,
    ) -> Page:
        # An edit may move an airport into a result that did not show it: tags of the airports shown would not do.
        cache.current.tag("listing:{country}", country=country or "all")
        return Page(
            page=page,
            airports=database.search(country, q, page),
            summary=summary_of(country) if country else None,
        )

    # What is larger than the policy's `max_body`, 1 MiB, such as the United States, is passed on and not stored.
    @app.get("/countries/{country}/airports.ndjson")
    @cache.response(FREQUENT, tags=["listing:{country}", "country:{country}"])
    def stream(country: Country) -> StreamingResponse:
        def lines() -> Iterator[str]:
            for chunk in database.chunks(country):
                yield "".join(f"{airport.model_dump_json()}\n" for airport in chunk)

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    # Emits once this has returned; its argument names the country.
    @app.post("/countries/{country}/reset")
    @cache.emits("country_reset")
    def reset(country: Country) -> dict[str, int]:
        return {"airports": database.reset(country)}


def add_favourites(app: FastAPI, cache: TierCache, database: Database) -> None:
    """What belongs to one user: `user=` makes whoever asks a part of the key."""

    @app.get("/me/favourites")
    @cache.response(SESSION, user=user_of)
    def favourites(user: User) -> list[Airport]:
        found = database.favourites(user)
        for airport in found:
            cache.current.tag("airport:{icao}", "country:{country}", icao=airport.icao, country=airport.country)
        return found

    @app.put("/me/favourites/{icao}", status_code=204)
    @cache.emits("favourites_update")
    def like(icao: Icao, user: User) -> None:
        database.like(user, icao)


# ---- how it is run ----


def build() -> FastAPI:
    """The service as the environment says.

    REDIS_URL: Redis as second tier; without it, memory only. CACHE_NAMESPACE: begins every key there.
    AIRPORTS_DB: the SQLite file; without it, one that is gone with the process. Several workers have to share one.
    STATS_TOKEN: shows single routes on /cache/stats to whoever sends it.
    """
    namespace = os.environ.get("CACHE_NAMESPACE", "airports")
    url = os.environ.get("REDIS_URL")
    cache = TierCache.from_url(url, namespace=namespace) if url else TierCache(namespace=namespace)
    return create_app(cache, Database(os.environ.get("AIRPORTS_DB") or _temporary_file()))


def _temporary_file() -> str:
    directory = tempfile.TemporaryDirectory(prefix="airports-")
    atexit.register(directory.cleanup)
    return os.path.join(directory.name, "airports.sqlite3")
