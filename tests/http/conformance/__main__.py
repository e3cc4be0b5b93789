"""Writes `docs/rfc-conformance.md` from the table: `python -m tests.http.conformance`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.http.conformance import rfc5861, rfc8246, rfc9110, rfc9111, rfc9211, rfc9213, rfc9875
from tests.http.conformance.rows import REASONS, Keyword, Row

DOCUMENT = Path(__file__).parents[3] / "docs" / "rfc-conformance.md"
TABLES = {
    "RFC 9111, HTTP Caching": rfc9111.ROWS,
    "RFC 9110, HTTP Semantics, sections 8, 9, 13, 14 and 15": rfc9110.ROWS,
    "RFC 5861, stale-while-revalidate and stale-if-error": rfc5861.ROWS,
    "RFC 8246, immutable responses": rfc8246.ROWS,
    "RFC 9211, Cache-Status": rfc9211.ROWS,
    "RFC 9213, targeted cache control": rfc9213.ROWS,
    "RFC 9875, cache groups": rfc9875.ROWS,
}
KEYWORDS: tuple[Keyword, ...] = ("MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "MAY", "OPTIONAL")

_INTRODUCTION = """\
# What the RFCs ask, sentence by sentence

Made by `python -m tests.http.conformance`; the tests see to it that it is up to date.

`Policy.rfc9111()` is a shared HTTP cache by these RFCs. Each row is a sentence that carries a keyword of BCP 14, or an
item of a list in it, in our words: what is asked of whoever the sentence speaks to. Beside it stand the tests that show
it, below `tests/`; most of them run over real sockets, between a raw client and a scripted origin. Where there is none
the row says why:
"""


def render() -> str:
    """The whole document."""
    return "\n".join((_INTRODUCTION, *_reasons(), "", *_counts(), *_tables())) + "\n"


def _reasons() -> Iterator[str]:
    for word, meaning in REASONS.items():
        yield f"- *{word}*: {meaning}"


def _counts() -> Iterator[str]:
    yield "| sentences, of which tests show | " + " | ".join(KEYWORDS) + " |"
    yield "| --- |" + " --- |" * len(KEYWORDS)
    for title, rows in TABLES.items():
        all_of = Counter(row.keyword for row in rows)
        shown = Counter(row.keyword for row in rows if row.shown_by)
        cells = (f"{all_of[word]}, {shown[word]}" if all_of[word] else "" for word in KEYWORDS)
        yield f"| {title.partition(',')[0]} | " + " | ".join(cells) + " |"


def _tables() -> Iterator[str]:
    for title, rows in TABLES.items():
        yield from ("", f"## {title}", "", "| row | keyword | what is asked | shown by |", "| --- | --- | --- | --- |")
        yield from map(_line, rows)


def _line(row: Row) -> str:
    return f"| {row.id} | {row.keyword} | {row.asks} | {_tests(row.shown_by) if row.shown_by else _reason(row)} |"


def _tests(names: Sequence[str]) -> str:
    return "<br>".join(f"`{name}`" for name in names)


def _reason(row: Row) -> str:
    word, _, rest = row.not_ours.partition(":")
    return f"*{word}*:{rest}"


if __name__ == "__main__":
    DOCUMENT.write_text(render(), encoding="utf-8")
