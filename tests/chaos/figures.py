"""What a run says of itself."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.chaos.run import Result

SHOWN = 12
"""Violations that are shown."""


def lines(result: Result) -> Iterator[str]:
    """All of it, line by line."""
    total = result.counts["answers"]
    yield f"{result.seconds:.0f} s, seed {result.seed}: {total:,} answers checked, {total / result.seconds:.0f}/s"
    yield f"  asked for: {_counts(result.figures.kinds)}"
    for phase, origins in result.figures.origins.items():
        if everything := origins.total():
            shares = ", ".join(f"{name} {count / everything:.1%}" for name, count in origins.most_common())
            yield f"  answered in {phase} ({everything:,}): {shares}"
    for (phase, what), seconds in sorted(result.figures.seconds.items()):
        yield f"  ms in {phase}, {what}: {_latency(seconds)}"
    yield f"  counted: {_counts(result.counts)}"
    faults = Counter(event.name for event in result.timeline.events)
    yield f"  faults ({faults.total()}): {_counts(faults)}"
    yield from _recovery(result)
    yield f"  epochs: {result.epochs}"
    if result.hits_after:
        yield (
            f"  share of hits in the calm after a fault: median {statistics.median(result.hits_after):.1%},"
            f" least {min(result.hits_after):.1%}"
        )
    yield from _workers(result)
    yield f"  wrong: {len(result.violations)}"
    for violation in result.violations[:SHOWN]:
        yield f"    - {violation}"


def _recovery(result: Result) -> Iterator[str]:
    for name, seconds in sorted(result.recoveries.items()):
        yield f"  well again after {name}: {', '.join(f'{each:.2f}' for each in seconds)} s"


def _workers(result: Result) -> Iterator[str]:
    for report, first, grown in zip(result.reports, result.at_first, result.growth, strict=True):
        failures = {tier: dict(each) for tier, each in report["failures"].items()}
        yield (
            f"  worker {report['life']}: {sum(report['tasks'].values())} tasks (at start"
            f" {sum(first['tasks'].values())}), {report['fds']} files ({first['fds']}),"
            f" {report['rss'] / 1e6:.0f} MB, grown by {grown / 1e6:.1f}; evictions {report['evictions']:,};"
            f" breaker changes {[each['changes'] for each in report['breakers'].values()]}; failures {failures};"
            f" rejected {report['rejected']}; writes {report['writes']}"
        )


def _latency(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    at = {name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in SHARES.items()}
    return ", ".join(f"{name} {value * 1000:.2f}" for name, value in at.items()) + f" (of {len(ordered):,})"


SHARES: Mapping[str, float] = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda pair: -pair[1]))
