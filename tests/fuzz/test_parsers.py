"""Every parser of bytes from outside, judged by an oracle: on generated inputs, and on those that fuzzing has found."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.table import TARGETS, corpus, words

NAMES = sorted(TARGETS)
SECONDS = int(os.environ.get("FUZZ_SECONDS", "5"))
"""How long each parser is fuzzed in the long run."""
SHORT, LONG = 4_000, 32_000
"""Bytes of the inputs whose cost is compared."""
STEEP = 16
"""How many times the cost of the short one the long one may have; linear is 8, quadratic 64."""
HOSTILE = [b'"', b'\\",', b'",', b'"a', b"(", b"[", b'{"a":', b",", b" ", b"\t,", b"%", b"*a", b"/..", b"W/", b";="]
"""What is repeated."""
CHEAP = 0.2
"""Seconds below which nothing is steep."""


def pieces(name: str) -> st.SearchStrategy[bytes]:
    """Inputs put together from what means something to the target."""
    word = st.sampled_from(words(name))
    piece = st.one_of(word, word, st.binary(max_size=4))
    return st.lists(piece, max_size=24).map(b"".join)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_what_is_parsed_is_judged_right(name: str, data: st.DataObject) -> None:
    TARGETS[name].check(data.draw(pieces(name)))


@pytest.mark.parametrize("name", NAMES)
def test_what_fuzzing_has_found_is_still_judged_right(name: str) -> None:
    kept = dict(corpus(name))
    assert kept
    for file, content in kept.items():
        try:
            TARGETS[name].check(content)
        except Exception as error:
            raise AssertionError(f"{name}/{file}: {content!r}") from error


@pytest.mark.parametrize("name", [name for name in NAMES if TARGETS[name].linear])
@settings(max_examples=10)
@given(data=st.data())
def test_long_inputs_cost_linear_time(name: str, data: st.DataObject) -> None:
    """Of processor time; what is repeated is made of the words that mean something."""
    word = st.sampled_from([*words(name), b"a", b" "])
    head, body, tail = (data.draw(st.lists(word, max_size=4).map(b"".join)) for _ in range(3))
    check_cost(name, head, body, tail)


@pytest.mark.parametrize("name", [name for name in NAMES if TARGETS[name].linear])
def test_what_begins_and_does_not_end_costs_linear_time(name: str) -> None:
    for body in HOSTILE:
        for head in (b"", b'"', b"\x01"):
            check_cost(name, head, body, b"x")


def check_cost(name: str, head: bytes, body: bytes, tail: bytes) -> None:
    def cost(size: int) -> float:
        content = head + body * (size // max(1, len(body))) + tail
        start = time.thread_time()
        TARGETS[name].outcome(content)
        return time.thread_time() - start

    if cost(LONG) > CHEAP:
        assert min(cost(LONG) for _ in range(3)) < STEEP * max(cost(SHORT) for _ in range(3)), (head, body, tail)


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="there is no atheris for this machine")
@pytest.mark.parametrize("name", NAMES)
def test_fuzzing_finds_nothing(name: str, tmp_path: Path) -> None:
    """By coverage; what fails is told with the bytes that make it fail."""
    command = [sys.executable, "-m", "tests.fuzz", name, "--seconds", str(SECONDS), "--found", str(tmp_path / "found")]
    root = Path(__file__).parents[2]
    run = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-4_000:]
