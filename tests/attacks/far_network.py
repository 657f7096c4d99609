"""A network of one machine: addresses, names and services that attacks can reach without isolation.

It lies in the network namespace that the owner of a setting is started in, so nothing of the real
machine's changes. An ordinary user has no such namespace; there, loopback services are all.
"""

import contextlib
import ctypes
import fcntl
import ipaddress
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.attacks.ground import Ground

ADDRESSES = ("192.0.2.1", "192.0.2.66", "169.254.169.254", "2001:db8::1")
NAMES = {
    "allowed.test": "192.0.2.1",
    "other.allowed.test": "192.0.2.1",
    "a.wild.test": "192.0.2.1",
    "wild.test": "192.0.2.66",
    "evil.test": "192.0.2.66",
    "allowed.test.evil.test": "192.0.2.66",
    "xallowed.test": "192.0.2.66",
    "inner.test": "127.0.0.1",
    "metadata.test": "169.254.169.254",
}
"""192.0.2.66 is the attacker's."""
HEARD = "heard"
"""The file, beside the ground's directories, in which services of the attacker count."""

_SIOCSIFADDR, _SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCGIFINDEX = 0x8916, 0x8913, 0x8914, 0x8933
_IFF_UP = 1
_MS_BIND, _MNT_DETACH = 4096, 2
_TIMEOUT_S = 10.0


def has_network(user: str) -> bool:
    """Whether the setting's owner has a network namespace of its own."""
    return user in ("root", "mapped")


@contextlib.contextmanager
def far_network(ground: Ground) -> Iterator[Mapping[str, Any]]:
    """Addresses, a name server that the system asks, and services on usual ports."""
    if not has_network(ground.user):
        yield {}
        return
    (ground.root / HEARD).touch()
    _up()
    for number, address in enumerate(ADDRESSES):
        _add(address, number)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_resolved_by("192.0.2.1", ground.root / "resolv.conf"))
        stack.enter_context(names("192.0.2.1", 53))
        stack.enter_context(names("127.0.0.1", 53))
        stack.enter_context(_run_directory())
        for port in (80, 443):
            for address in ("192.0.2.1", "169.254.169.254", "2001:db8::1"):
                stack.enter_context(service(address, port))
            stack.enter_context(service("192.0.2.66", port, ground.root / HEARD))
        odd_port = stack.enter_context(service("192.0.2.1", 0))
        yield {"odd_port": odd_port}


def _up() -> None:
    """The loopback device works."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        flags = struct.unpack("16sh22x", fcntl.ioctl(device, _SIOCGIFFLAGS, _named("lo")))[1]
        fcntl.ioctl(device, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))


def _named(name: str) -> bytes:
    return struct.pack("16s24x", name.encode())


def _add(address: str, number: int) -> None:
    """This machine answers to one more address."""
    packed = ipaddress.ip_address(address).packed
    if len(packed) == 4:
        request = struct.pack("16sHH4s16x", f"lo:{number + 1}".encode(), socket.AF_INET, 0, packed)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
            fcntl.ioctl(device, _SIOCSIFADDR, request)
        return
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as device:
        index = struct.unpack("16si20x", fcntl.ioctl(device, _SIOCGIFINDEX, _named("lo")))[1]
        with contextlib.suppress(FileExistsError):
            fcntl.ioctl(device, _SIOCSIFADDR, struct.pack("16sIi", packed, 128, index))


@contextlib.contextmanager
def _resolved_by(address: str, file: Path) -> Iterator[None]:
    """The system asks this name server, in the owner's own mount namespace."""
    file.write_text(f"nameserver {address}\noptions timeout:1 attempts:1\n")
    libc = ctypes.CDLL(None, use_errno=True)
    target = os.fsencode(os.path.realpath("/etc/resolv.conf"))
    if libc.mount(os.fsencode(file), target, None, _MS_BIND, None) != 0:
        raise OSError(ctypes.get_errno(), f"mounting {file}")
    try:
        yield
    finally:
        libc.umount2(target, _MNT_DETACH)


@contextlib.contextmanager
def _run_directory() -> Iterator[None]:
    """A ``/run`` with the sockets of a desktop with containers; the real one is out of sight."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", b"/run", b"tmpfs", 0, None) != 0:
        raise OSError(ctypes.get_errno(), "mounting /run")
    try:
        with contextlib.ExitStack() as stack:
            for name in RUN_SOCKETS:
                path = Path("/run", name)
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(unix_service(str(path)))
            yield
    finally:
        libc.umount2(b"/run", _MNT_DETACH)


RUN_SOCKETS = (
    *("docker.sock", "podman/podman.sock", "containerd/containerd.sock"),
    *("dbus/system_bus_socket", "user/0/bus", "user/0/wayland-0"),
)


@contextlib.contextmanager
def service(address: str, port: int, heard: Path | None = None) -> Iterator[int]:
    """Every connection is told ``hello`` in HTTP; the port. ``heard`` grows by a line for each."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family, backlog=64) as listener:
        found: int = listener.getsockname()[1]
        with _serving(listener, lambda client: _answer(client, heard)):
            yield found


@contextlib.contextmanager
def unix_service(name: str) -> Iterator[None]:
    """The same on a unix socket."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        os.chmod(name, 0o777) if not name.startswith("\0") else None
        listener.listen(64)
        with _serving(listener, lambda client: _answer(client, None)):
            yield
    if not name.startswith("\0"):
        os.unlink(name)


def _answer(client: socket.socket, heard: Path | None) -> None:
    with client:
        if heard is not None:
            with heard.open("a") as file:
                file.write("reached\n")
        client.settimeout(0.5 if client.family == socket.AF_UNIX else _TIMEOUT_S)
        request = b""
        if client.family != socket.AF_UNIX:
            request = client.recv(65536)
        body = b"hello\n"
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        if b"/redirect" in request:
            head = head.replace("200 OK", "302 Found\r\nLocation: http://evil.test/")
        client.sendall(head.encode() + body)


@contextlib.contextmanager
def _serving(listener: socket.socket, answer: Callable[[socket.socket], None]) -> Iterator[None]:
    def serve() -> None:
        while True:
            try:
                client = listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=_quietly, args=(answer, client), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(_TIMEOUT_S)


def _quietly(answer: Callable[[socket.socket], None], client: socket.socket) -> None:
    with contextlib.suppress(OSError):  # a client that has gone away
        answer(client)


@contextlib.contextmanager
def names(address: str, port: int) -> Iterator[int]:
    """A name server for ``NAMES``; the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, port))
        server.settimeout(0.1)
        is_over = threading.Event()
        thread = threading.Thread(target=_answer_names, args=(server, is_over), daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            is_over.set()
            thread.join(_TIMEOUT_S)


def _answer_names(server: socket.socket, is_over: threading.Event) -> None:
    while not is_over.is_set():
        try:
            question, client = server.recvfrom(512)
        except TimeoutError:
            continue
        with contextlib.suppress(OSError):
            server.sendto(answer_to(question), client)


def answer_to(question: bytes) -> bytes:
    """A name server's answer; RFC 1035 section 4. Without an entry: no such name."""
    labels, at = [], 12
    while question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]].decode("ascii", "replace"))
        at += 1 + question[at]
    end = at + 5
    address = NAMES.get(".".join(labels).lower())
    wants_ipv4 = question[at + 1 : at + 3] == b"\0\1"
    has_answer = address is not None and wants_ipv4
    flags = b"\x81\x80" if address is not None else b"\x81\x83"
    counts = struct.pack(">HHHH", 1, int(has_answer), 0, 0)
    head = question[:2] + flags + counts + question[12:end]
    if not has_answer:
        return head
    packed = ipaddress.ip_address(address or "").packed
    return head + b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + packed
