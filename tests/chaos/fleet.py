"""The worker processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.chaos.client import Connection, CutError, Response, request

ROOT = Path(__file__).parents[2]
STARTING = 60.0
"""Seconds that a process may take to begin, on a machine that is busy."""
COMPLAINTS = ("UNPLANNED", "never retrieved", "was destroyed", "never awaited", "Unclosed", "ResourceWarning")

CONTEXT = 30
"""Lines that are shown of what follows a complaint, a traceback as a rule."""


class GoneError(Exception):
    """A worker gave no answer."""


class Processes:
    """Worker processes, each behind a port of its own that it keeps over a restart.

    Args:
        urls: Where each finds its Redis.
        directory: Where their output goes, and the versions are.
        namespace: The cache's.
        seed: Of what their handlers leave to chance.
        plant: What is wrong with them.
    """

    def __init__(self, urls: list[str], directory: Path, *, namespace: str, seed: int, plant: str) -> None:
        self.ports = _free_ports(len(urls))
        self.lives = [0] * len(urls)
        self._urls = urls
        self._directory = directory
        self._options = ["--namespace", namespace, "--versions", str(directory / "versions"), "--plant", plant]
        self._seed = seed
        self._outputs = [(directory / f"worker{number}").open("ab") for number in range(len(urls))]
        self._processes: list[subprocess.Popen[bytes]] = [self._spawn(number) for number in range(len(urls))]
        self._controls = [Control(port) for port in self.ports]

    async def ready(self) -> None:
        """Wait until all of them answer."""
        for number in range(len(self.ports)):
            await self._answers(number)

    def life(self, number: int) -> str:
        """Names the process that is a worker now."""
        return f"{number}.{self.lives[number]}"

    async def tell(self, number: int, what: str, **asked: Any) -> dict[str, Any]:
        """Ask a worker something, outside of its cache.

        Raises:
            GoneError: it is not there.
        """
        return await self._controls[number].tell(what, **asked)

    def control(self, number: int) -> Control:
        """Another connection to ask a worker on."""
        return Control(self.ports[number])

    # ---- faults ----

    def pause(self, number: int) -> None:
        """Stop its process (SIGSTOP)."""
        self._processes[number].send_signal(signal.SIGSTOP)

    def resume(self, number: int) -> None:
        """Let it go on (SIGCONT)."""
        self._processes[number].send_signal(signal.SIGCONT)

    def kill(self, number: int) -> None:
        """End it (SIGKILL)."""
        self._processes[number].kill()
        self._processes[number].wait()

    async def restart(self, number: int) -> None:
        """Start it anew; returns when it accepts connections."""
        self.lives[number] += 1
        self._processes[number] = self._spawn(number)
        await self._answers(number)

    async def block(self, number: int, seconds: float) -> None:
        """Let its event loop stand still."""
        control = self.control(number)
        try:
            await control.tell("block", seconds=seconds)
        finally:
            control.close()

    # ---- the end ----

    @property
    def dead(self) -> list[int]:
        """Those that have ended by themselves."""
        return [number for number, process in enumerate(self._processes) if process.poll() is not None]

    def complaints(self) -> list[str]:
        """What they have written that should never be written."""
        found = []
        for number in range(len(self.ports)):
            lines = (self._directory / f"worker{number}").read_text(errors="replace").splitlines()
            for at, line in enumerate(lines):
                if any(complaint in line for complaint in COMPLAINTS):
                    found.append(
                        f"worker {number}: " + "\n      ".join(each[:300] for each in lines[at : at + CONTEXT])
                    )
        return found

    async def stop(self) -> list[int]:
        """Ask them to end (SIGTERM); the return codes."""
        for control in self._controls:
            control.close()
        for process in self._processes:
            process.terminate()
        async with asyncio.timeout(30):
            return [await asyncio.to_thread(process.wait) for process in self._processes]

    def close(self) -> None:
        """End what still runs."""
        for process, output in zip(self._processes, self._outputs, strict=True):
            if process.poll() is None:
                process.kill()
                process.wait()
            output.close()

    def _spawn(self, number: int) -> subprocess.Popen[bytes]:
        own = ["--url", self._urls[number], "--port", str(self.ports[number]), "--life", self.life(number)]
        own += ["--seed", str(self._seed * 100 + self.lives[number] * 10 + number)]
        command = [sys.executable, "-W", "error", "-m", "tests.chaos.worker", *own, *self._options]
        output = self._outputs[number]
        return subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT)

    async def _answers(self, number: int) -> None:
        control = self.control(number)
        async with asyncio.timeout(STARTING):
            while True:
                with contextlib.suppress(GoneError):
                    await control.tell("state")
                    break
                if self._processes[number].poll() is not None:
                    raise RuntimeError((self._directory / f"worker{number}").read_text(errors="replace")[-3000:])
                await asyncio.sleep(0.05)
        control.close()


class Control:
    """A connection to a worker that is not of its clients."""

    def __init__(self, port: int) -> None:
        self._connection = Connection(port)
        self._turn = asyncio.Lock()

    async def tell(self, what: str, **asked: Any) -> dict[str, Any]:
        """Ask it something; another process may answer than the last time.

        Raises:
            GoneError: it is not there.
        """
        sent = request("POST", f"/_chaos/{what}", (), json.dumps(asked).encode())
        async with self._turn:
            try:
                async with asyncio.timeout(STARTING):
                    response = await self._answer(sent)
            except (OSError, CutError) as error:
                raise GoneError from error
        answer: dict[str, Any] = json.loads(response.body)
        return answer | {"life": response.headers["x-life"]}

    async def _answer(self, sent: bytes) -> Response:
        try:
            await self._connection.send([sent])
            return await self._connection.receive()
        except BaseException as error:
            self._connection.close()
            if not getattr(error, "reused", False):
                raise
        return await self._answer(sent)  # by the process that has taken the place of the one it was connected to

    def close(self) -> None:
        """Leave."""
        self._connection.close()


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [listener.getsockname()[1] for listener in listeners]
