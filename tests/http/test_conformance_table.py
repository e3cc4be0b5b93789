"""That the table of conformance is whole: each sentence has its tests, or a reason why it has none."""

from __future__ import annotations

import importlib
import itertools

import pytest

from tests.http.conformance.__main__ import DOCUMENT, TABLES, render
from tests.http.conformance.rows import BINDING, REASONS, Row

ROWS = list(itertools.chain.from_iterable(TABLES.values()))
NAMES = sorted({name for row in ROWS for name in row.shown_by})


def _section(row: Row) -> list[int]:
    return [int(part) for part in row.section.split(".")]


@pytest.mark.parametrize("name", NAMES)
def test_a_test_that_the_table_names_is_there(name: str) -> None:
    module, _, function = name.partition("::")
    assert function.startswith("test_")
    assert callable(getattr(importlib.import_module(f"tests.{module}"), function))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_row_has_tests_or_a_reason(row: Row) -> None:
    word, colon, why = row.not_ours.partition(": ")
    assert bool(row.shown_by) != bool(row.not_ours)
    assert row.shown_by or (word in REASONS and colon and why)
    assert row.asks
    assert len(set(row.shown_by)) == len(row.shown_by)


@pytest.mark.parametrize("row", [row for row in ROWS if row.keyword in BINDING], ids=lambda row: row.id)
def test_what_binds_is_no_matter_of_choice(row: Row) -> None:
    assert not row.not_ours.startswith("choice")


@pytest.mark.parametrize("rows", TABLES.values(), ids=TABLES)
def test_the_rows_are_in_the_order_of_the_rfc(rows: tuple[Row, ...]) -> None:
    assert [_section(row) for row in rows] == sorted(map(_section, rows))
    assert len({row.rfc for row in rows}) == 1


def test_every_row_has_a_name_of_its_own() -> None:
    names = [row.id for row in ROWS]
    assert len(set(names)) == len(names)


def test_rows_that_reasons_speak_of_are_there() -> None:
    names = {row.id for row in ROWS}
    for row in ROWS:
        _, see, named = row.not_ours.rpartition("see ")
        assert not see or named in names or named.startswith("the "), row


def test_the_document_is_up_to_date() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == render(), "python -m tests.http.conformance writes it"
