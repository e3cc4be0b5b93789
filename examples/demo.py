"""`make demo`: runs the airports service, sends it real requests, and says what hit and what missed.

Memory only, or with Redis where REDIS_URL says so; then a second process shows what the two share. Exits with 1 if
anything came from elsewhere than announced. KEEP=1 leaves the service running until Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from typing import IO

import httpx
import redis

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RUNNING = re.compile(r"running on (http://\S+)")
HOST = "airports.example"
NEAR_BERLIN = "/nearest?lat=52.52&lon=13.40"
NEAR_NEW_YORK = "/nearest?lat=40.71&lon=-74.00"
PATIENCE = 5.0
"""Seconds to wait for another process to hear of an edit; the cache promises `max_lag`, which is 1."""


class Server:
    """An app under uvicorn in a process of its own, on a free port of 127.0.0.1.

    Args:
        target: What uvicorn is to run, and its options: `"examples.minimal:app"`.
        environment: Variables for the process, beside those of this one.
    """

    def __init__(self, *target: str, environment: Mapping[str, str] | None = None) -> None:
        self._command = [sys.executable, "-m", "uvicorn", *target, "--host", "127.0.0.1", "--port", "0"]
        self._environment = {**os.environ, **(environment or {}), "PYTHONUNBUFFERED": "1"}
        self._environment.pop("TIERCACHE_DISABLED", None)
        self._said: list[str] = []
        self.url = ""
        """Where it answers, once it was entered."""

    def __enter__(self) -> Server:
        self._process = subprocess.Popen(
            [*self._command, "--no-access-log"],
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.append(line)
            if running := RUNNING.search(line):
                self.url = running[1]
                threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True).start()
                return self
        self.__exit__()
        raise SystemExit(f"the server did not start:\n{''.join(self._said)}")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _listen(self, pipe: IO[str]) -> None:
        """Read on, or the server would block once the pipe is full; what it has to complain about is passed on."""
        for line in pipe:
            if not line.startswith("INFO"):
                print(line, end="", file=sys.stderr)


class Visitor:
    """Sends requests, prints how each was answered, and counts what was not as expected."""

    def __init__(self) -> None:
        self.surprises = 0

    def get(self, client: httpx.Client, path: str, expected: str, *, user: str = "", note: str = "") -> None:
        """GET `path`, expecting a `"miss"`, a hit in `"L1"` or `"L2"`, or a `"pass"`."""
        headers = {"Authorization": f"Bearer token-of-{user}"} if user else {}
        started = time.perf_counter()
        with client.stream("GET", path, headers=headers) as response:
            chunks = response.iter_raw()
            size = len(next(chunks, b""))
            first_byte = time.perf_counter() - started
            size += sum(map(len, chunks))
        self._report(path, response, expected, first_byte, time.perf_counter() - started, size, note)

    def _report(
        self, path: str, response: httpx.Response, expected: str, first: float, whole: float, size: int, note: str
    ) -> None:
        status = response.headers.get("cache-status", "")
        outcome = outcome_of(status)
        surprise = "" if outcome == expected else f"   <-- expected: {expected}"
        self.surprises += bool(surprise)
        times = f"{first * 1000:8.1f} ms{whole * 1000:8.1f} ms"
        print(f"  {path:<46} {outcome:<5}{times}{size:>11,} B   {status}{surprise}")
        if note:
            print(f"      {note}")


def outcome_of(status: str) -> str:
    """`"L1"`, `"L2"`, ..., `"miss"` or `"pass"`, as `Cache-Status` tells it."""
    parts = [part.strip() for part in status.split(";")]
    if "hit" in parts:
        return next(part.removeprefix("detail=") for part in parts if part.startswith("detail="))
    return "pass" if "fwd=bypass" in parts else "miss"


def edit(client: httpx.Client, icao: str, elevation: float) -> None:
    """Change an airport, and say what that invalidated."""
    answer = client.patch(f"/airports/{icao}", json={"elevation": elevation}).raise_for_status().json()
    durable = "durable" if answer["durable"] else "not durable"
    print(f"  PATCH /airports/{icao}: committed, then invalidated {', '.join(answer['invalidated'])} ({durable})")


def headline(text: str) -> None:
    """Begin a part of the show."""
    print(f"\n{text}")


# ---- the show ----


def show_hits(visitor: Visitor, client: httpx.Client) -> None:
    """The same question twice: the first answer comes from the database, the second from memory."""
    headline("Asked for the first time, then again")
    for path in (NEAR_BERLIN, NEAR_NEW_YORK, "/airports/EDDB", "/airports/KJFK", "/config", "/airports/XXXX"):
        visitor.get(client, path, "miss")
        visitor.get(client, path, "L1")
    visitor.get(client, "/airports?country=DE&q=berlin", "miss")
    same = "the same search: order does not matter, and utm_source is not in query="
    visitor.get(client, "/airports?q=berlin&utm_source=mail&country=DE", "L1", note=same)
    visitor.get(client, "/airports?country=DE&q=berlin&page=2", "miss", note="another page is another answer")


def show_edit(visitor: Visitor, client: httpx.Client) -> None:
    """An edit purges what shows the airport, and nothing else."""
    headline("An edit of EDDB (Berlin) purges exactly what shows it")
    edit(client, "EDDB", 157.5)
    for path in ("/airports/EDDB", NEAR_BERLIN, "/airports?country=DE&q=berlin"):
        visitor.get(client, path, "miss")
    for path in ("/airports/KJFK", NEAR_NEW_YORK, "/config"):
        visitor.get(client, path, "L1")


def show_stream(visitor: Visitor, client: httpx.Client) -> None:
    """A streamed response flows through while it is being stored; one that grows too large just flows."""
    headline("Streams: the first byte does not wait for the last")
    visitor.get(client, "/countries/BR/airports.ndjson", "miss")
    visitor.get(client, "/countries/BR/airports.ndjson", "L1")
    visitor.get(client, "/countries/US/airports.ndjson", "miss")
    large = "above 1 MiB, the policy's max_body: passed on live, never held, so no hit"
    visitor.get(client, "/countries/US/airports.ndjson", "miss", note=large)


def show_users(visitor: Visitor, client: httpx.Client) -> None:
    """Who asks is part of the key."""
    headline("Two users never share an answer, and nobody gets neither")
    client.put("/me/favourites/EDDB", headers={"Authorization": "Bearer token-of-ada"}).raise_for_status()
    visitor.get(client, "/me/favourites", "miss", user="ada")
    visitor.get(client, "/me/favourites", "L1", user="ada")
    visitor.get(client, "/me/favourites", "miss", user="grace")
    visitor.get(client, "/me/favourites", "L1", user="grace")
    visitor.get(client, "/me/favourites", "pass", note="no token: 401, and nothing stored")


def show_second_process(visitor: Visitor, client: httpx.Client, other: httpx.Client) -> None:
    """What one process has stored in Redis another one finds there; an edit in one reaches the other."""
    headline("A second process finds in Redis what the first has stored")
    for path in (NEAR_BERLIN, "/airports/EDDB", "/countries/BR/airports.ndjson"):
        visitor.get(other, path, "L2")
        visitor.get(other, path, "L1")
    headline("An edit in the first process reaches the second")
    edit(client, "EDDB", 160.0)
    started = time.perf_counter()
    while other.get("/airports/EDDB").json()["elevation"] != 160.0:
        if time.perf_counter() - started > PATIENCE:
            visitor.surprises += 1
            break
        time.sleep(0.02)
    print(f"  the second process told the old height for another {time.perf_counter() - started:.2f} s (at most 1 s)")
    visitor.get(other, "/airports/KJFK", "L2", note="what the edit did not touch is still there")


def show_summary(client: httpx.Client) -> None:
    """What the cache counted."""
    stats = client.get("/cache/stats").json()
    answers, memory = stats["answers"], stats["tiers"]["L1"]
    headline("GET /cache/stats")
    print(f"  {answers['hits']} hits, {answers['misses']} misses, {answers['passes']} passed by")
    print(f"  {memory['entries']} entries, {memory['bytes']:,} B in memory")


def visit(visitor: Visitor, first: httpx.Client, second: httpx.Client | None) -> None:
    """Everything, in order."""
    print(f"  {'GET':<46} {'from':<5}{'first byte':>11}{'whole':>11}{'size':>13}   Cache-Status")
    show_hits(visitor, first)
    show_edit(visitor, first)
    show_stream(visitor, first)
    show_users(visitor, first)
    if second is not None:
        show_second_process(visitor, first, second)
    show_summary(first)


# ---- the stage ----


@contextlib.contextmanager
def cache_environment() -> Iterator[dict[str, str]]:
    """A database of the demo's own and, where Redis is used, a namespace of its own, removed at the end."""
    namespace = f"demo-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(prefix="airports-") as directory:
        try:
            yield {"AIRPORTS_DB": os.path.join(directory, "airports.sqlite3"), "CACHE_NAMESPACE": namespace}
        finally:
            if url := os.environ.get("REDIS_URL"):
                remove(url, namespace)


def remove(url: str, namespace: str) -> None:
    """Take a namespace out of Redis: entries and control state."""
    with contextlib.suppress(redis.RedisError), redis.Redis.from_url(url) as client:
        for pattern in (f"{namespace}:*", f"{{{namespace}}}:*"):
            if keys := list(client.scan_iter(pattern, count=1000)):
                client.unlink(*keys)


def main() -> int:
    """Run the demo; 0 if everything came from where it should."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    keep = bool(os.environ.get("KEEP"))
    visitor = Visitor()
    with cache_environment() as environment, contextlib.ExitStack() as stack:

        def start() -> httpx.Client:
            server = stack.enter_context(Server("--factory", "examples.airports:build", environment=environment))
            # The host is part of every key: processes share what they serve under one name.
            headers = {"Host": HOST}
            return stack.enter_context(httpx.Client(base_url=server.url, headers=headers, timeout=30, trust_env=False))

        print("Loading 28,000 airports into SQLite ...")
        first = start()
        second = start() if os.environ.get("REDIS_URL") else None
        print(f"Serving them at {first.base_url}, {'memory and Redis' if second else 'memory only'}\n")
        visit(visitor, first, second)
        if keep:
            linger(first.base_url)
    print("\nEverything came from where it should." if not visitor.surprises else f"\n{visitor.surprises} surprises!")
    if not keep:
        print("The servers are stopped; `make demo KEEP=1` leaves them running, and says what to open.")
    return 1 if visitor.surprises else 0


def linger(url: httpx.URL) -> None:
    """Leave the service running until Ctrl-C."""
    headline("Open these; Ctrl-C ends the demo")
    for path in ("/docs", "/airports/KJFK", NEAR_BERLIN, "/airports?country=IS", "/cache/stats"):
        print(f"  {url.join(path)}")
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


if __name__ == "__main__":
    raise SystemExit(main())
