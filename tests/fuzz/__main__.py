"""Coverage-guided fuzzing of one parser: `python -m tests.fuzz TARGET --seconds 60`.

Needs atheris. An input that fails is left in the working directory, and told with its traceback. What covers more is
gone afterwards unless `--found` names a folder; `tests.fuzz.keep` takes over from there what is worth keeping.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["asgi_tiercache"]):
    from tests.fuzz.table import CORPUS, TARGETS, WORDS

MAX_LENGTH = 4096
"""Bytes of the longest input that is tried."""


def main() -> None:
    """Fuzz one target; the process ends with it."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("target", choices=["list", *TARGETS], help="what is fuzzed; list: tell what there is")
    parser.add_argument("--seconds", type=int, default=60, help="how long")
    parser.add_argument("--corpus", type=Path, help="what it begins with; default: what is committed")
    parser.add_argument("--found", type=Path, help="where to put what covers more; default: nowhere")
    arguments = parser.parse_args()
    if arguments.target == "list":
        sys.stdout.write("\n".join([*TARGETS, ""]))
        return
    corpus = arguments.corpus or CORPUS / arguments.target
    if arguments.found is not None:
        arguments.found.mkdir(parents=True, exist_ok=True)
        _fuzz(arguments.target, arguments.seconds, arguments.found, corpus)
        return
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        child = os.fork()  # libFuzzer ends the process in which it runs, at once: nothing would be tidied up
        if child == 0:
            _fuzz(arguments.target, arguments.seconds, Path(folder), corpus)
        _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


def _fuzz(name: str, seconds: int, found: Path, corpus: Path) -> None:
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={MAX_LENGTH}",
        f"-dict={WORDS / name}",
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(found), str(corpus)], TARGETS[name].check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
