"""N: network, sockets and queues, tried as commands."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from tests.attacks.inside.calls import call, syscall

Values = Mapping[str, Any]

LIMIT_S = 5.0
IO_URING_SETUP = 425
AF_ALG, AF_VSOCK, AF_NETLINK, AF_PACKET = 38, 40, 16, 17


def reach(host: str, port: int) -> None:
    """A TCP connection, and what the service says."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as client:
        client.settimeout(LIMIT_S)
        client.connect((host, port))
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        _hear(client)


def ask(host: str, port: int) -> None:
    """A datagram, and its answer."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(LIMIT_S)
        client.connect((host, port))
        client.send(QUESTION)
        assert client.recv(512)[:2] == QUESTION[:2]


QUESTION = (
    b"\x13\x37\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07allowed\x04test\x00\x00\x01\x00\x01"
)
"""A name server is asked for the address of allowed.test."""


def _hear(client: socket.socket) -> None:
    data = b"".join(iter(lambda: client.recv(4096), b""))
    assert data.endswith(b"hello\n"), f"it said {data!r}"


# -- programs: N1


def _program(argv: list[str]) -> str | None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=8, check=False)
    return None if done.returncode == 0 and done.stdout else f"exit {done.returncode}"


def bash(values: Values) -> str | None:
    """No program at all: the shell's own network."""
    return _program(
        ["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{values['http_port']} && echo connected"]
    )


def curl(values: Values) -> str | None:
    """By address."""
    return _program(["curl", "-qsS", "-m", "5", f"http://127.0.0.1:{values['http_port']}/"])


def wget(values: Values) -> str | None:
    """By address."""
    url = f"http://127.0.0.1:{values['http_port']}/"
    return _program(["wget", "--no-config", "-qO-", "-t1", "-T5", url])


def python(values: Values) -> None:
    """By address."""
    reach("127.0.0.1", values["http_port"])


def nc(values: Values) -> str | None:
    """By address; any of the programs of that name."""
    script = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 127.0.0.1 {values['http_port']}"
    return _program(["bash", "-c", script])


def ssh(values: Values) -> str | None:
    """It gets a connection, or says why not."""
    argv = ["ssh", "-F", "/dev/null", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5"]
    done = subprocess.run(
        [*argv, "-p", str(values["http_port"]), "127.0.0.1", "true"],
        capture_output=True,
        text=True,
        timeout=8,
        check=False,
    )
    refused = re.search(r"connect to host .* port \d+: (.*?)\r?\n", done.stderr)
    if refused:
        return refused[1]
    has_answer = "banner" in done.stderr or "kex_exchange" in done.stderr
    return None if has_answer else f"exit {done.returncode}: {done.stderr[-200:]}"


def getent(values: Values) -> str | None:
    """A name that only the name server knows."""
    return _program(["getent", "ahostsv4", "allowed.test"])


def ping(values: Values) -> str | None:
    """Another machine."""
    return _program(["ping", "-c1", "-W2", "192.0.2.1"])


def curl_by_name(values: Values) -> str | None:
    """A name leads to another machine."""
    return _program(["curl", "-qsS", "-m", "5", "http://allowed.test/"])


# -- addresses: N2 to N4


def direct_address(values: Values) -> None:
    """Another machine, a usual port."""
    reach("192.0.2.1", 80)


def odd_port(values: Values) -> None:
    """Another machine, a port that nobody thinks of."""
    reach("192.0.2.1", values["odd_port"])


def ipv6_address(values: Values) -> None:
    """Another machine, by IPv6."""
    reach("2001:db8::1", 80)


def name_server(values: Values) -> None:
    """A question carries data out, too."""
    ask("192.0.2.1", 53)


def metadata(values: Values) -> None:
    """The service that hands out a machine's credentials."""
    reach("169.254.169.254", 80)


def loopback(values: Values) -> None:
    """A service that the user runs."""
    reach("127.0.0.1", values["http_port"])


def loopback_ipv6(values: Values) -> None:
    """The same, by IPv6."""
    reach("::1", values["http_port"])


def loopback_other_address(values: Values) -> None:
    """The same, by another of its addresses."""
    reach("127.1.2.3", values["http_port"])


def loopback_mapped(values: Values) -> None:
    """The same, by an IPv6 address that carries the other one."""
    reach("::ffff:127.0.0.1", values["http_port"])


def loopback_datagram(values: Values) -> None:
    """Without a connection."""
    ask("127.0.0.1", values["udp_port"])


# -- the proxy: N5. Each says the status of the proxy's answer.


def _proxied(head: str, then: bytes = b"") -> str | None:
    with socket.create_connection(("127.0.0.1", 3128), LIMIT_S) as client:
        client.sendall(head.encode("latin-1"))
        answer = b""
        while b"\r\n\r\n" not in answer and (piece := client.recv(4096)):
            answer += piece
        status = answer.split(b" ", 2)[1:2]
        if status == [b"200"] and then:
            client.sendall(then)
            answer = b"".join(iter(lambda: client.recv(4096), b""))
            return None if b"hello" in answer else "cut"
        answer += b"".join(iter(lambda: client.recv(4096), b""))
    return None if b"hello" in answer else status[0].decode()


def proxied_control(values: Values) -> str | None:
    """What the policy allows works, else nothing is proven."""
    return _proxied("GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n")


def proxied(values: Values) -> str | None:
    """A whole request in ``head``; in a tunnel ``then`` follows, in hexadecimal."""
    return _proxied(values["head"], bytes.fromhex(values["then"]))


def curl_words(values: Values) -> str | None:
    """Without any proxy."""
    return _program(["curl", "-qsSf", "-m", "8", *values["words"]])


def proxied_by_curl(values: Values) -> str | None:
    """The real program, told of the proxy by its variables."""
    return _program(["curl", "-qsSf", "-m", "8", *values["words"]])


def proxy_socket(values: Values) -> str | None:
    """Past the forwarder, by the socket itself."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(LIMIT_S)
        client.connect(values["socket"])
        client.sendall(b"CONNECT evil.test:443 HTTP/1.1\r\n\r\n")
        return client.recv(4096).split(b" ", 2)[1].decode()


# -- unix sockets: N6, N7


def _unix(name: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(LIMIT_S)
        client.connect(name)
        _hear(client)


def abstract(values: Values) -> None:
    """A name without a file."""
    _unix("\0" + values["abstract"])


def abstract_datagram(values: Values) -> None:
    """The same, without a connection."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", "\0" + values["abstract"] + "-datagrams")


def socket_in_tmp(values: Values) -> None:
    """Where ssh-agent and tmux have theirs."""
    _unix(values["tmp_socket"])


def socket_in_readable_place(values: Values) -> None:
    """A read-only view does not close a socket."""
    _unix(values["readable_socket"])


def socket_in_home(values: Values) -> None:
    """Where gpg-agent has its."""
    _unix(values["home_socket"])


def docker(values: Values) -> None:
    """Whoever reaches it is root."""
    _unix("/run/docker.sock")


def docker_by_another_name(values: Values) -> None:
    """The same directory."""
    _unix("/var/run/docker.sock")


def podman(values: Values) -> None:
    """As docker's."""
    _unix("/run/podman/podman.sock")


def containerd(values: Values) -> None:
    """As docker's."""
    _unix("/run/containerd/containerd.sock")


def system_bus(values: Values) -> None:
    """Services of the machine."""
    _unix("/run/dbus/system_bus_socket")


def user_bus(values: Values) -> None:
    """``systemd-run --user`` starts programs outside by it."""
    _unix("/run/user/0/bus")


def wayland(values: Values) -> None:
    """The screen and the keyboard."""
    _unix("/run/user/0/wayland-0")


# -- kinds of sockets and queues: N8 to N12


def _make(family: int, kind: int = socket.SOCK_STREAM, protocol: int = 0) -> None:
    socket.socket(family, kind, protocol).close()


def vsock(values: Values) -> None:
    """To the host of a virtual machine."""
    _make(AF_VSOCK)


def io_uring(values: Values) -> None:
    """It makes sockets without the call that is filtered."""
    os.close(syscall(IO_URING_SETUP, 1, b"\0" * 120))


def descriptors(values: Values) -> str:
    """What is open: the probe's own pipe and the listing are above 2."""
    code = "import os; print(*sorted(map(int, os.listdir('/proc/self/fd')))[:-1])"
    argv = [sys.executable, "-I", "-S", "-c", code]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def netlink(values: Values) -> None:
    """Settings of the network."""
    _make(AF_NETLINK, socket.SOCK_RAW)


def packet(values: Values) -> None:
    """What goes over the wire."""
    _make(AF_PACKET, socket.SOCK_RAW)


def raw(values: Values) -> None:
    """Packets of one's own."""
    _make(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)


def message_queue(values: Values) -> None:
    """System V: by its key."""
    call("msgget", values["ipc_key"], 0)


def message_queue_by_number(values: Values) -> None:
    """System V: without asking for it."""
    call("msgsnd", values["msg_id"], b"\1" + b"\0" * 15, 8, 0o4000)


def shared_memory(values: Values) -> None:
    """System V: by its key."""
    call("shmget", values["ipc_key"], 1, 0)


def semaphore(values: Values) -> None:
    """System V: by its key."""
    call("semget", values["ipc_key"], 0, 0)


def posix_queue(values: Values) -> None:
    """By its name."""
    call("mq_open", values["mq_name"].encode(), os.O_RDONLY)


def posix_memory(values: Values) -> None:
    """By its name; it is a file in /dev/shm."""
    with open(values["shm_path"]) as file:
        assert file.read() == "hush-hush"
