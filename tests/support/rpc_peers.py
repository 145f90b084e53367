"""Peers of the RPC backend on this machine: the real program, what stands in for one, and a tap."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import llama_cpp

PROGRAM = Path(llama_cpp.__file__).parent / "lib" / "ggml-rpc-server"
HOST = "127.0.0.1"
THREADS = 2
HELLO = 14  # RPC_CMD_HELLO
HELLO_BYTES = 1 + 8 + 24  # the command, the size and the client's capabilities
# enum rpc_cmd: those that the peer answers
ANSWERED = {0, 1, 2, 3, 7, 8, 9, 11, 13, HELLO, 15, 19}
NAMES = {6: "set", 20: "runs", 8: "get", 10: "graph", 16: "again", 19: "supports"}


def free_port(host: str = HOST) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@dataclass
class Peer:
    """A ggml-rpc-server."""

    endpoint: str
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def peer(port: int = 0, *, host: str = HOST, before: Sequence[str] = ()) -> Iterator[Peer]:
    """A peer that listens; `before` goes in front of its command (ip netns exec ...)."""
    port = port or free_port()
    command = [*before, str(PROGRAM), "-H", host, "-p", str(port), "-t", str(THREADS)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found = Peer(f"{host}:{port}", process)
    try:
        for _ in range(200):
            assert process.poll() is None, f"it ended with {process.returncode}"
            with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
                break
            time.sleep(0.05)
        yield found
    finally:
        found.kill()


@dataclass
class Stand:
    """What answers HELLO like a peer of some build, and keeps all that it was sent."""

    endpoint: str
    got: bytearray = field(default_factory=bytearray)


@contextlib.contextmanager
def stand_in(version: tuple[int, int, int, int] | None) -> Iterator[Stand]:
    """major, minor, patch and build that it says; None: it never answers."""
    listener = socket.create_server((HOST, 0))
    found = Stand(f"{HOST}:{listener.getsockname()[1]}")

    def serve(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                found.got += data
                if version is not None and len(found.got) == HELLO_BYTES:
                    client.sendall(struct.pack("<Q4B24x", 28, *version))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield found
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@dataclass
class Traffic:
    """What went through a tap: messages and bytes by command, bytes that came back."""

    messages: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    received: int = 0
    round_trips: int = 0

    @property
    def bytes_sent(self) -> int:
        return sum(self.sent.values())


class Tap:
    """A way to a peer that counts what goes through.

    has_operator  False: it answers itself that the peer's devices lack LaMPE's operator
    rate          bytes a second that it lets through in each direction; 0: all
    """

    def __init__(self, to: str, *, has_operator: bool = True, rate: float = 0) -> None:
        host, _, port = to.rpartition(":")
        self._has_operator, self._rate = has_operator, rate
        self._owed = 0.0  # seconds
        self.traffic = Traffic()
        self._to = (host, int(port))
        self._listener = socket.create_server((HOST, 0))
        self.endpoint = f"{HOST}:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self) -> None:
        self.traffic = Traffic()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                server = socket.create_connection(self._to)
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for work in (self._forward, self._back):
                    threading.Thread(target=work, args=(client, server), daemon=True).start()

    def _take_time(self, size: int) -> None:
        if self._rate:
            self._owed += size / self._rate
            if self._owed > 1e-3:  # less cannot be slept
                begin = time.perf_counter()
                time.sleep(self._owed)
                self._owed -= time.perf_counter() - begin

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            source = client.makefile("rb")
            while head := source.read(9):
                command, size = struct.unpack("<BQ", head)
                name = NAMES.get(command, str(command))
                self.traffic.messages[name] += 1
                self.traffic.sent[name] += len(head) + size
                self.traffic.round_trips += command in ANSWERED
                body = source.read(size)
                if name == "supports" and not self._has_operator:
                    client.sendall(struct.pack("<QB", 1, 0))
                    continue
                self._take_time(len(head) + size)
                server.sendall(head + body)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _back(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 20):
                self.traffic.received += len(data)
                self._take_time(len(data))
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def timeout_of(seconds: int) -> Iterator[None]:
    """How long a peer may take from now on ($GGML_RPC_TIMEOUT)."""
    os.environ["GGML_RPC_TIMEOUT"] = str(seconds)
    try:
        yield
    finally:
        del os.environ["GGML_RPC_TIMEOUT"]
