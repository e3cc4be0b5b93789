"""A worker in a process of its own, which a test may stop, let go on and kill.

    python -m tests.faults.process --url redis://...

It reads commands as lines of JSON, carries each out at once beside those before it, and answers with the command's
number and what came of it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.faults.scene import Truth, Worker

ROOT = Path(__file__).parents[2]


class Process:
    """The test's side of it.

    Args:
        url: Where the worker finds Redis.
        options: Those of its `TierCache`.
    """

    def __init__(self, url: str, **options: Any) -> None:
        command = [sys.executable, "-W", "error", "-m", "tests.faults.process", "--url", url]
        self._numbers = itertools.count()
        self._process = subprocess.Popen(
            [*command, "--options", json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self._answers: dict[int, Any] = {}

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def begin(self, do: str, **told: Any) -> int:
        """Hand it a command; returns its number."""
        number = next(self._numbers)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"number": number, "do": do, **told}) + "\n")
        self._process.stdin.flush()
        return number

    def answer(self, number: int) -> Any:
        """What came of the command `number`; waits for it."""
        assert self._process.stdout is not None
        while number not in self._answers:
            line = self._process.stdout.readline()
            if not line:
                assert self._process.stderr is not None
                raise AssertionError(f"the worker has ended: {self._process.stderr.read()}")
            said = json.loads(line)
            self._answers[said["number"]] = said["answer"]
        return self._answers.pop(number)

    def do(self, do: str, **told: Any) -> Any:
        """What comes of one command."""
        return self.answer(self.begin(do, **told))

    def ask(self, path: str) -> Any:
        """The version that the answer tells of, and whether a handler ran."""
        return self.do("ask", path=path)

    def stop(self) -> None:
        """Let it stand still (SIGSTOP)."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on (SIGCONT)."""
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> str:
        """Let it close its cache and end; what it has said to standard error."""
        _, said = self._process.communicate(timeout=20)
        assert self._process.returncode == 0, said
        return said

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self._process.kill()
        self._process.wait(timeout=10)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None and not pipe.closed:
                pipe.close()


class Commands:
    """The worker's side."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self.worker = Worker(url, Truth(), **options)

    async def run(self) -> None:
        """Until standard input ends."""
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        async with self.worker.cache, asyncio.TaskGroup() as tasks:
            while line := await reader.readline():
                tasks.create_task(self._do(json.loads(line)))
        assert self.worker.wrong == []

    async def _do(self, told: dict[str, Any]) -> None:
        number, do = told.pop("number"), told.pop("do")
        answer = await getattr(self, do)(**told)
        sys.stdout.write(json.dumps({"number": number, "answer": answer}) + "\n")
        sys.stdout.flush()

    async def ask(self, path: str) -> tuple[int, bool]:
        answer = await self.worker.ask(path)
        return answer.version, "fwd=" in answer.told

    async def take(self, seconds: float) -> None:
        """Handlers take that long from now on."""
        self.worker.seconds = seconds

    async def commit(self, item: str, version: int) -> None:
        """Another worker has committed `version`, which every handler reads from now on."""
        self.worker.truth.versions[item] = version

    async def change(self, item: str) -> bool:
        """Commit a new version, and invalidate; whether that is durable."""
        return (await self.worker.change(item)).durable

    async def lose(self) -> bool:
        """Whether Redis is out of use here."""
        return not self.worker.uses_redis


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--options", type=json.loads, default={})
    given = parser.parse_args()
    asyncio.run(Commands(given.url, given.options).run())
