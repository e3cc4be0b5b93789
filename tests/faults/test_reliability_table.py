"""That `docs/reliability.md` tells of every fault, by the words of its row, with figures and a test that is there."""

from __future__ import annotations

import importlib
import itertools
import re

import pytest

from tests.faults.__main__ import BEGIN, CASES, DOCUMENT, END, TABLES, written_into
from tests.faults.table import Case, Row

ROWS: list[Row | Case] = [
    *itertools.chain.from_iterable(TABLES.values()),
    *itertools.chain.from_iterable(CASES.values()),
]
LINES = {line.split(" | ")[0].removeprefix("| "): line for line in DOCUMENT.read_text(encoding="utf-8").splitlines()}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_document_tells_of_every_fault(row: Row | Case) -> None:
    cells = LINES[row.name].strip("| ").split(" | ")
    assert row.clients in cells
    assert row.recovery in cells
    assert cells[-1] == f"`{row.test}`"
    assert any(re.search(r"\d", cell) for cell in cells[2:-1]), "a figure"
    assert all(cells)


@pytest.mark.parametrize("name", sorted({row.test for row in ROWS}))
def test_a_test_that_the_table_names_is_there(name: str) -> None:
    module, _, function = name.partition("::")
    assert callable(getattr(importlib.import_module(f"tests.{module}"), function))


def test_the_document_tells_of_no_fault_that_nobody_plays() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    table = text[text.index(BEGIN) : text.index(END)]
    told = {line.split(" | ")[0].removeprefix("| ") for line in table.splitlines() if line.startswith("| ")}
    assert told - {"fault", "---"} == {row.name for row in ROWS}


def test_every_fault_has_a_name_of_its_own() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_the_table_is_put_between_its_marks() -> None:
    assert written_into(f"a\n{BEGIN}\nold\n{END}\nb\n", "new") == f"a\n{BEGIN}\n\nnew\n\n{END}\nb\n"
