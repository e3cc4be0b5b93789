"""Plays every row several times, and writes what was measured into `docs/reliability.md`.

    python -m tests.faults [--runs 5] [--only TEXT] [--print]
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.faults import network
from tests.faults.proxy import FaultProxy
from tests.faults.scenario import play
from tests.faults.table import Figures, Row, Stage
from tests.servers import RedisServer, find_binaries

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- made by python -m tests.faults: begin -->", "<!-- made by python -m tests.faults: end -->"
ROWS: tuple[Row, ...] = network.ROWS
HEAD = "| fault | what clients see | added ms | us, breaker open | invalidations | recovers by | s | test |"


def render(measured: Sequence[tuple[Row, Sequence[Figures]]]) -> str:
    """The table, as it stands between the two marks."""
    return "\n".join([HEAD, "|" + " --- |" * (HEAD.count("|") - 1), *(line(row, runs) for row, runs in measured)])


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


def _measure(row: Row, runs: int) -> list[Figures]:
    figures = []
    for _ in range(runs):
        server = RedisServer(next(iter(find_binaries().values()))).start()
        try:
            with FaultProxy(server.port) as proxy:
                figures.append(asyncio.run(play(row, Stage(server, proxy))))
        finally:
            server.close()
    return figures


def _measured(rows: Sequence[Row], runs: int) -> Iterator[tuple[Row, Sequence[Figures]]]:
    for row in rows:
        figures = _measure(row, runs)
        sys.stderr.write(line(row, figures) + "\n")
        yield row, figures


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
    rows = [row for row in ROWS if told.only in row.name]
    table = render(list(_measured(rows, told.runs)))
    if told.print or told.only:
        sys.stdout.write(table + "\n")
    else:
        DOCUMENT.write_text(written_into(DOCUMENT.read_text(encoding="utf-8"), table), encoding="utf-8")


if __name__ == "__main__":
    main()
