"""Keeps of what fuzzing has found what covers most: `python -m tests.fuzz.keep TARGET FOLDER`.

The folder's files and those of the corpus are tried, the shortest first; each that takes a way through the package that
none before it took is kept in the corpus, named by its hash, the others are not. What has a name of its own stays.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import asgi_tiercache
from tests.fuzz.table import CORPUS, TARGETS, corpus

MAX_BYTES = 1_024
"""Of the longest input that is kept."""
MAX_FILES = 40
"""Kept for one target because of their ways."""
MORE = 10
"""Kept beside these."""

_HASH = re.compile("[0-9a-f]{12}")
_PACKAGE = str(Path(asgi_tiercache.__file__).parent)
Arc = tuple[str, int, int]
"""A file, and two lines of it that ran one after the other."""


def main() -> None:
    """Choose, and write the corpus anew."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.keep")
    parser.add_argument("target", choices=[*TARGETS])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    found = {path.read_bytes() for path in arguments.folder.glob("*")}
    candidates = found | {data for _, data in corpus(arguments.target)}
    kept = _chosen(arguments.target, sorted((each for each in candidates if len(each) <= MAX_BYTES), key=_order))
    folder = CORPUS / arguments.target
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*"):
        if _HASH.fullmatch(path.name):
            path.unlink()
    for data in kept:
        (folder / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)
    sys.stdout.write(f"{arguments.target}: {len(kept)} of {len(candidates)} kept, {sum(map(len, kept))} bytes\n")


def _order(data: bytes) -> tuple[int, bytes]:
    return len(data), data


def _chosen(name: str, candidates: list[bytes]) -> list[bytes]:
    covered: set[Arc] = set()
    found: list[tuple[int, bytes]] = []
    for data in candidates:
        new = _arcs(name, data) - covered
        covered |= new
        if new:
            found.append((len(new), data))
    found.sort(key=lambda each: -each[0])
    kept = [data for _, data in found[:MAX_FILES]]
    # The ways inside regular expressions do not show: of the others some of each length.
    others = sorted(set(candidates).difference(kept), key=_order)
    kept += others[:: max(1, len(others) // MORE)][:MORE]
    return sorted(kept, key=_order)


def _arcs(name: str, data: bytes) -> set[Arc]:
    arcs: set[Arc] = set()
    last: dict[FrameType, int] = {}

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            return None
        arcs.add((frame.f_code.co_filename, last.get(frame, 0), frame.f_lineno))
        last[frame] = frame.f_lineno
        return trace

    sys.settrace(trace)
    try:
        TARGETS[name].outcome(data)
    finally:
        sys.settrace(None)
    return arcs


if __name__ == "__main__":
    main()
