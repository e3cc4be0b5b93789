"""The airports example through the cache and without it: schemathesis asks what its OpenAPI describes, and more."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode, Response
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance
from starlette.types import ASGIApp

from asgi_tiercache import TierCache
from examples.airports import Database, create_app

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance]
OURS = frozenset({"age", "cache-status"})
"""The headers that the cache adds."""
KNOWN = {"icao": ["KJFK", "KJFK", "LSZH"], "country": ["LI", "CH"]}
"""Values that lead to something."""
SENT = st.sampled_from([None, None, "Bearer token-of-ada", "bearer token-of-grace", "Bearer nobody", "Basic eA=="])
"""`Authorization`; None: what was generated."""

# The same questions every time, but in the long run.
_EXAMPLES = int(os.environ.get("HYPOTHESIS_MAX_EXAMPLES", "100")) // 5
_THE_SAME = "HYPOTHESIS_MAX_EXAMPLES" not in os.environ


class Pair:
    """The service twice, each over a database of its own: with its cache, and with that switched off."""

    def __init__(self, folder: Path) -> None:
        first = folder / "cached.sqlite3"
        Database(str(first)).like("ada", "KJFK")
        second = folder / "alone.sqlite3"
        second.write_bytes(first.read_bytes())
        self.cached = create_app(TierCache(), Database(str(first)))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TIERCACHE_DISABLED", "1")
            self.alone = create_app(TierCache(), Database(str(second)))
        self.hits = 0
        self._read: deque[Case[Any]] = deque(maxlen=4)

    def ask(self, case: Case[Any]) -> None:
        """Ask both, and what only reads once more, which may be a hit; after a change, also what was read before."""
        self._compare(case)
        if case.method != "GET":
            for earlier in self._read:
                self._compare(earlier)
        elif case not in self._read:
            self._read.append(case)

    def _compare(self, case: Case[Any]) -> None:
        expected = _asked(case, self.alone)
        for _ in range(2 if case.method == "GET" else 1):
            answer = _asked(case, self.cached)
            case.validate_response(answer, checks=[not_a_server_error] if _is_stream(case) else CHECKS)
            assert _seen(answer) == _seen(expected)
            self.hits += "hit" in "".join(answer.headers.get("cache-status", [])).split("; ")


def _is_stream(case: Case[Any]) -> bool:
    """Whether it asks for what the example's OpenAPI calls JSON, and is a JSON value in each line."""
    return case.path.endswith(".ndjson")


def _asked(case: Case[Any], app: ASGIApp) -> Response:
    answer: Response = case.call(app=app)
    return answer


def _seen(response: Response) -> tuple[int, bytes, dict[str, list[str]]]:
    headers = {name: values for name, values in response.headers.items() if name not in OURS}
    return response.status_code, response.content, headers


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("airports"))


def cases(app: ASGIApp) -> st.SearchStrategy[list[Case[Any]]]:
    """Some requests, one after the other: what the schema allows, and what it does not."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations: list[Any] = [result.ok() for result in schema.get_all_operations()]  # type: ignore[union-attr]
    each = [
        operation.as_strategy(generation_mode=mode)
        for operation in operations
        for mode in (GenerationMode.POSITIVE, GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    ]
    return st.lists(st.builds(_aimed, st.one_of(each), st.integers(0, 5), SENT), min_size=1, max_size=5)


def _aimed(case: Case[Any], choice: int, sent: str | None) -> Case[Any]:
    """`case`, often about something that there is."""
    for name, values in KNOWN.items():
        for parameters in (case.path_parameters, case.query):
            if parameters and name in parameters and choice < len(values):
                parameters[name] = values[choice]
    if sent is not None:
        case.headers["Authorization"] = sent
    return case


def test_the_service_answers_through_the_cache_as_without_it(pair: Pair) -> None:
    # The service remembers, so a shorter example shows something else.
    @settings(max_examples=_EXAMPLES, derandomize=_THE_SAME, phases=[Phase.generate])
    @given(asked=cases(pair.cached))
    def test(asked: list[Case[Any]]) -> None:
        for case in asked:
            pair.ask(case)

    test()
    assert pair.hits > 0
