"""Network namespaces and TUN devices, by system calls: no program from outside is needed.

The namespaces have no name: they end with the last process inside, and the devices with the
process that holds them, however it ends. Linux only; needs root (CAP_SYS_ADMIN, CAP_NET_ADMIN).
"""

import ctypes
import fcntl
import os
import signal
import socket
import struct
from pathlib import Path

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
IFF_UP, IFF_RUNNING = 0x1, 0x40
SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x8914, 0x8916, 0x891C
SIOCSIFMTU, SIOCSIFTXQLEN = 0x8922, 0x8943
MTU = 1500
QUEUE_PACKETS = 2000
IPV4 = Path("/proc/sys/net/ipv4")


def why_not() -> str | None:
    """Why links between namespaces cannot be made here; None when nothing speaks against it."""
    if os.geteuid() != 0:
        return "needs root for network namespaces and TUN devices"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "there is no usable /dev/net/tun"
    return None


def end_with_parent() -> None:
    """This process is killed when the one that started it ends, however that ends."""
    _check(_libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")


def enter_new() -> None:
    """This process is in a network namespace of its own, with loopback up. Raises OSError."""
    _check(_libc().unshare(CLONE_NEWNET), "unshare")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        _set_up(control, "lo")


def enter(path: str) -> None:
    """This process is in the namespace at ``path``, e.g. ``/proc/7/fd/3``. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _check(_libc().setns(descriptor, CLONE_NEWNET), "setns")
    finally:
        os.close(descriptor)


def open_tun(name: str, address: str) -> int:
    """The descriptor of a new TUN device in this namespace, up, with ``address``/24.

    One read or write is one IP packet. Raises OSError.
    """
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH14x", name.encode(), IFF_TUN | IFF_NO_PI))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for request, value in ((SIOCSIFADDR, address), (SIOCSIFNETMASK, "255.255.255.0")):
            packed = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(value))
            fcntl.ioctl(control, request, struct.pack("16s16s", name.encode(), packed))
        for request, number in ((SIOCSIFMTU, MTU), (SIOCSIFTXQLEN, QUEUE_PACKETS)):
            fcntl.ioctl(control, request, struct.pack("16si12x", name.encode(), number))
        _set_up(control, name)
    return tun


def set_ipv4(name: str, value: str) -> None:
    """Set ``net.ipv4.NAME`` of this process's namespace. Raises OSError."""
    (IPV4 / name).write_text(value, "ascii")


def ipv4(name: str) -> str:
    """The setting ``net.ipv4.NAME`` as this process's namespace has it."""
    return (IPV4 / name).read_text("ascii").strip()


def _set_up(control: socket.socket, name: str) -> None:
    flags = struct.pack("16sH14x", name.encode(), IFF_UP | IFF_RUNNING)
    fcntl.ioctl(control, SIOCSIFFLAGS, flags)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
