"""The code in README and docs runs, and the README's program does what the text beside it says."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from asgi_tiercache.testing import assert_hit, assert_miss

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITHOUT_CODE = [ROOT / "docs" / name for name in ("rfc-conformance.md", "reliability.md", "security.md")]
"""Pages that are made of data, without any code."""
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def run(page: Path) -> dict[str, Any]:
    """Run the Python blocks of a page, one after the other, in a fresh namespace; `await` stands where it likes."""
    namespace: dict[str, Any] = {"__name__": page.stem}
    text = page.read_text()
    source = "\n".join(BLOCK.findall(text))
    code = compile(source, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, namespace)
    if inspect.iscoroutine(result):
        asyncio.run(result)
    return namespace


@pytest.mark.parametrize("page", [page for page in PAGES if page not in WITHOUT_CODE], ids=lambda page: page.name)
def test_the_python_blocks_run(page: Path) -> None:
    assert len(run(page)) > 2, "the page has no code that defines anything"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())

    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.fixture
def readme() -> dict[str, Any]:
    return run(PAGES[0])


def test_the_readme_program_hits_and_purges(readme: dict[str, Any]) -> None:
    with TestClient(readme["app"]) as client:
        assert_miss(client.get("/videos/42"), stored=True)
        again = client.get("/videos/42")
        assert_hit(again, "L1")
        assert again.headers["cache-status"] in (ROOT / "README.md").read_text()

        client.put("/videos/42", params={"title": "Sintel"})

        changed = client.get("/videos/42")
        assert_miss(changed, stored=True)
        assert changed.json() == {"title": "Sintel"}


def test_the_readme_program_caches_the_route_named_beside_the_app(readme: dict[str, Any]) -> None:
    with TestClient(readme["app"]) as client:
        client.get("/config")

        assert_hit(client.get("/config"), "L1")
        assert client.get("/cache/stats").json()["answers"]["hits"] == 1


def test_the_readme_function_is_cached(readme: dict[str, Any]) -> None:
    load: Callable[[str], Any] = readme["load_profile"]

    async def twice() -> list[Any]:
        return [await load("u1"), await load("u1")]

    assert asyncio.run(twice()) == [{"id": "u1"}] * 2
    assert readme["cache"].stats()["answers"]["hits"] == 1
