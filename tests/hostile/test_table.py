"""That `docs/security.md` names, for each attack, tests that are there."""

from __future__ import annotations

import importlib
import itertools

import pytest

from tests.hostile.__main__ import BEGIN, DOCUMENT, END, written_into
from tests.hostile.table import TABLES, Attack

ATTACKS = list(itertools.chain.from_iterable(TABLES.values()))


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.what)
def test_each_attack_has_a_defence_and_tests_that_are_there(attack: Attack) -> None:
    assert attack.defence
    assert attack.shown_by
    assert len(set(attack.shown_by)) == len(attack.shown_by)
    for name in attack.shown_by:
        module, _, function = name.partition("::")
        assert callable(getattr(importlib.import_module(f"tests.{module}"), function))


def test_the_document_is_up_to_date() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    assert text == written_into(text), "python -m tests.hostile writes it"
