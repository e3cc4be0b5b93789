"""Plays every row several times, and writes what was measured into `docs/reliability.md`.

python -m tests.faults [--runs 5] [--only TEXT] [--print]
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.faults import failovers, given_clients, network, processes, redis_states
from tests.faults.company import own_redis, played_alone
from tests.faults.table import Case, Figures, Row

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- made by python -m tests.faults: begin -->", "<!-- made by python -m tests.faults: end -->"
TABLES: dict[str, Sequence[Row]] = {
    "The network, and the server at its other end": network.ROWS,
    "The state of Redis": redis_states.ROWS,
    "Failovers and clusters": failovers.ROWS,
}
"""Rows that `play` plays, by the heading that they stand under."""
CASES: dict[str, Sequence[Case]] = {
    "Leases": redis_states.CASES,
    "Failovers that lose writes, and addresses that are wrong": failovers.CASES,
    "Clients that the app shares with the cache": given_clients.CASES,
    "Processes and clients": processes.CASES,
}
"""Likewise, cases."""
LINE = "| fault | what clients see | ms added | µs, breaker open | invalidations | recovers by | within s | shown by |"
CASE_LINE = "| fault | what clients see | invalidations | recovers by | measured | shown by |"


def render(
    rows: Mapping[str, Sequence[tuple[Row, Sequence[Figures]]]], cases: Mapping[str, Sequence[tuple[Case, str]]]
) -> str:
    """The tables, as they stand between the two marks."""
    lines = []
    for title, measured in rows.items():
        if measured:
            lines += [f"### {title}", "", *_head(LINE), *(line(row, runs) for row, runs in measured), ""]
    for title, played in cases.items():
        if played:
            lines += [f"### {title}", "", *_head(CASE_LINE), *(case_line(*case) for case in played), ""]
    return "\n".join(lines).strip()


def _head(line: str) -> tuple[str, str]:
    return line, "|" + " --- |" * (line.count("|") - 1)


def case_line(case: Case, figure: str) -> str:
    """One row of the second kind."""
    cells = (case.name, case.clients, case.receipts, case.recovery, figure, f"`{case.test}`")
    return f"| {' | '.join(cells)} |"


def line(row: Row, runs: Sequence[Figures]) -> str:
    """One row of the table: medians and, behind a slash, what was highest."""
    costs = [run.open_cost for run in runs if run.open_cost is not None]
    cells = (
        row.name,
        row.clients,
        _spread([max(run.added, 0.0) * 1000 for run in runs], ".0f"),
        f"{statistics.median(costs) * 1e6:.0f}" if costs else "stays closed",
        _receipts(runs),
        row.recovery,
        _spread([run.recovery for run in runs], ".2f"),
        f"`{row.test}`",
    )
    return f"| {' | '.join(cells)} |"


def _spread(values: Sequence[float], form: str) -> str:
    return f"{statistics.median(values):{form}} / {max(values):{form}}"


def _receipts(runs: Sequence[Figures]) -> str:
    durable, held = sum(run.durable for run in runs), sum(run.held for run in runs)
    if not held:
        return "durable"
    return "held, then replayed" if not durable else f"{durable} durable, {held} held, then replayed"


def measured(row: Row, runs: int) -> list[Figures]:
    """What `runs` runs of `row` have measured, each before servers of its own."""
    figures = [played_alone(row) for _ in range(runs)]
    sys.stderr.write(line(row, figures) + "\n")
    return figures


def measured_case(case: Case) -> str:
    """The figure of one run of `case`."""
    with own_redis() as server:
        figure = case.play(server)
    sys.stderr.write(case_line(case, figure) + "\n")
    return figure


def written_into(document: str, table: str) -> str:
    """`document` with `table` between its marks."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="", help="rows whose name has this in it; they are only printed")
    parser.add_argument("--print", action="store_true", help="write the table to standard output alone")
    told = parser.parse_args()
    logging.disable(logging.CRITICAL)
    rows = {
        title: [(row, measured(row, told.runs)) for row in rows if told.only in row.name]
        for title, rows in TABLES.items()
    }
    cases = {
        title: [(case, measured_case(case)) for case in cases if told.only in case.name]
        for title, cases in CASES.items()
    }
    table = render(rows, cases)
    if told.print or told.only:
        sys.stdout.write(table + "\n")
    else:
        DOCUMENT.write_text(written_into(DOCUMENT.read_text(encoding="utf-8"), table), encoding="utf-8")


if __name__ == "__main__":
    main()
