"""Writes the table of attacks into `docs/security.md`: `python -m tests.hostile`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.hostile.table import TABLES, Attack

DOCUMENT = Path(__file__).parents[2] / "docs" / "security.md"
BEGIN, END = "<!-- made by python -m tests.hostile: begin -->", "<!-- made by python -m tests.hostile: end -->"


def written_into(document: str) -> str:
    """`document` with the tables between its marks."""
    before, _, rest = document.partition(BEGIN)
    after = rest.partition(END)[2]
    return "\n".join((f"{before}{BEGIN}", *_tables(), "", f"{END}{after}"))


def _tables() -> Iterator[str]:
    for title, attacks in TABLES.items():
        yield from ("", f"### {title}", "", "| what | what keeps it harmless | shown by |", "| --- | --- | --- |")
        yield from map(_line, attacks)


def _line(attack: Attack) -> str:
    return f"| {attack.what} | {attack.defence} | {'<br>'.join(f'`{name}`' for name in attack.shown_by)} |"


if __name__ == "__main__":
    DOCUMENT.write_text(written_into(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
