"""A TCP proxy on loopback that behaves badly on purpose: it cuts connections in the middle of an answer, or is slow."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CHUNK_BYTES = 16384


class BadProxy:
    """Passes bytes to and from a server on this machine, a thread for each direction of each connection.

    Attributes:
        num_drops: How many of the coming connections are cut; counted down. Threads of one test set it at its start.
        drop_after_bytes: Of an answer, before its connection is cut.
        delay_seconds: Before each piece of an answer.
        most_delayed: How many pieces were held back at the same time, at most.
        num_connections: How many were made so far.
        port: Of 127.0.0.1.
    """

    def __init__(self, target_port: int) -> None:
        self.num_drops = 0
        self.drop_after_bytes = 2000
        self.delay_seconds = 0.0
        self.most_delayed = 0
        self.num_connections = 0
        self._target = ("127.0.0.1", target_port)
        self._num_delayed = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def endpoint(self) -> str:
        """As for AWS_ENDPOINT_URL."""
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Listen no more, and cut what is open."""
        _cut(self._listener)
        with self._lock:
            for connection in self._open:
                _cut(connection)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
            except OSError:
                return
            with self._lock:
                self.num_connections += 1
                self._open |= {client, server}
            threading.Thread(target=self._ask, args=(client, server), daemon=True).start()
            threading.Thread(target=self._answer, args=(client, server), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        """Pass on what the client says."""
        try:
            while data := client.recv(_CHUNK_BYTES):
                server.sendall(data)
        except OSError:
            pass
        _cut(server)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        """Pass on what the server says, until it is time to cut."""
        num_bytes = 0
        try:
            while data := server.recv(_CHUNK_BYTES):
                num_bytes += len(data)
                self._delay()
                if num_bytes > self.drop_after_bytes and self._drops_now():
                    client.sendall(data[: len(data) // 2])
                    break
                client.sendall(data)
        except OSError:
            pass
        _cut(client)
        _cut(server)

    def _delay(self) -> None:
        with self._lock:
            self._num_delayed += 1
            self.most_delayed = max(self.most_delayed, self._num_delayed)
        time.sleep(self.delay_seconds)
        with self._lock:
            self._num_delayed -= 1

    def _drops_now(self) -> bool:
        with self._lock:
            drops = self.num_drops > 0
            self.num_drops -= drops
            return drops


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@contextmanager
def bad_proxy(target_port: int) -> Iterator[BadProxy]:
    """Run a proxy in front of a server on 127.0.0.1."""
    proxy = BadProxy(target_port)
    try:
        yield proxy
    finally:
        proxy.close()
