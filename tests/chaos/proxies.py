"""The fault proxies, one for each worker, in a process of their own; told what to do line by line.

A line is a list: which proxy, what, and with which fault. The first answer is the list of their ports.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.faults.proxy import Fault, FaultProxy

ROOT = Path(__file__).parents[2]


class Proxies:
    """The process, seen from the driver.

    Args:
        port: Of the Redis behind them.
        number: How many there are.
    """

    def __init__(self, port: int, number: int) -> None:
        command = [sys.executable, "-m", "tests.chaos.proxies", str(port), str(number)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.ports: list[int] = self._answer()

    def do(self, number: int, what: str, **fault: Any) -> None:
        """Let one of them do something; done when this returns."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([number, what, fault]) + "\n")
        self._process.stdin.flush()
        self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=20)

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def main() -> None:
    """Stand before a Redis until nobody says anything more."""
    port, number = map(int, sys.argv[1:])
    with contextlib.ExitStack() as stack:
        proxies = [stack.enter_context(FaultProxy(port)) for _ in range(number)]
        _say([proxy.port for proxy in proxies])
        for line in sys.stdin:
            which, what, fault = json.loads(line)
            if "garbage" in fault:
                fault["garbage"] = fault["garbage"].encode("latin-1")
            arguments = (Fault(**fault),) if what == "begin" else ()
            getattr(proxies[which], what)(*arguments)
            _say(True)


def _say(what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
