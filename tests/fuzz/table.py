"""All fuzz targets by name, with what lies in files beside them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz import codecs, fields, keying, redises
from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {**codecs.TARGETS, **keying.TARGETS, **fields.TARGETS, **redises.TARGETS}
CORPUS = Path(__file__).parent / "corpus"
"""Inputs that lead to different places, some of them to a defect of old; a folder for each target."""
WORDS = Path(__file__).parent / "words"
"""Pieces that mean something in the inputs; a file for each target, in the form that libFuzzer reads."""


def corpus(name: str) -> Iterator[tuple[str, bytes]]:
    """The inputs kept for the target called `name`, each with the name of its file."""
    for path in sorted((CORPUS / name).glob("*")):
        yield path.name, path.read_bytes()


def words(name: str) -> list[bytes]:
    """The words of the target called `name`."""
    return [ast.literal_eval(f"b{line}") for line in (WORDS / name).read_text().splitlines()]
