"""The fault proxy itself: each fault is what it says, on a real socket."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.faults.proxy import Fault, FaultProxy


class Echo:
    """A server that sends back what it receives."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    echo = Echo()
    try:
        with FaultProxy(echo.port) as proxy:
            yield proxy
    finally:
        echo.close()


def connect(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def says(connection: socket.socket, text: bytes = b"hello") -> bytes:
    connection.sendall(text)
    return connection.recv(100)


def is_silent(connection: socket.socket) -> bool:
    connection.settimeout(0.1)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(5)
    return False


def test_without_a_fault_everything_passes(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        assert says(connection) == b"hello"
        assert proxy.open == proxy.accepted == 1


def test_a_delay_holds_up_what_the_server_sends(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        proxy.begin(Fault(delay=0.2))
        started = time.monotonic()
        assert says(connection) == b"hello"
        assert time.monotonic() - started >= 0.2


def test_a_rate_lets_few_bytes_pass_at_a_time(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        proxy.begin(Fault(rate=50))
        assert says(connection) == b"h"


def test_a_black_hole_takes_everything_and_gives_it_when_it_ends(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        proxy.begin(Fault(silent=True))
        connection.sendall(b"hello")
        assert is_silent(connection)
        proxy.end()
        assert connection.recv(100) == b"hello"


def test_a_fault_may_befall_only_those_that_are_open_or_only_new_ones(proxy: FaultProxy) -> None:
    with connect(proxy) as old:
        assert says(old) == b"hello"
        proxy.begin(Fault(silent=True, on="open"))
        with connect(proxy) as new:
            assert says(new) == b"hello"
        proxy.begin(Fault(silent=True, on="new"))
        assert says(old) == b"hello"
        with connect(proxy) as new:
            new.sendall(b"hello")
            assert is_silent(new)


def test_half_a_reply_is_followed_by_silence_for_good(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        proxy.begin(Fault(silent_after=2))
        assert says(connection) == b"he"
        assert is_silent(connection)
        proxy.end()
        connection.sendall(b"again")
        assert is_silent(connection)


def test_a_truncated_reply_ends_the_connection(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        proxy.begin(Fault(closed_after=3))
        assert says(connection) == b"hel"
        assert connection.recv(100) == b""


@pytest.mark.parametrize("passed", [0, 3])
def test_a_reset_may_come_before_or_within_a_reply(proxy: FaultProxy, passed: int) -> None:
    with connect(proxy) as connection:
        proxy.begin(Fault(reset_after=passed))
        if passed:
            assert says(connection) == b"hel"
        else:
            connection.sendall(b"hello")
        with pytest.raises(ConnectionResetError):
            connection.recv(100)


def test_garbage_comes_in_place_of_a_reply(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        proxy.begin(Fault(garbage=b"\xff\x00*"))
        assert says(connection) == b"\xff\x00*"


def test_something_may_come_before_a_reply(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        proxy.begin(Fault(before=b"oh "))
        assert says(connection) == b"oh hello"


@pytest.mark.parametrize("after", [0.0, 0.05])
def test_a_reply_may_come_twice(proxy: FaultProxy, after: float) -> None:
    with connect(proxy) as connection:
        proxy.begin(Fault(again_after=after))
        heard = says(connection)
        while len(heard) < 10:
            heard += connection.recv(100)
        assert heard == b"hellohello"


def test_refusing_resets_what_is_open_and_accepting_keeps_the_port(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        assert says(connection) == b"hello"
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        proxy.accept()
        with connect(proxy) as new:
            assert says(new) == b"hello"
        assert proxy.open <= 1


def test_everything_open_can_be_reset_once(proxy: FaultProxy) -> None:
    with connect(proxy) as old:
        assert says(old) == b"hello"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            old.recv(1)
        with connect(proxy) as new:
            assert says(new) == b"hello"
