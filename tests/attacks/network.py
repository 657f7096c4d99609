"""N: network, sockets and queues."""

import asyncio
import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.attacks import far_network, way_out
from tests.attacks.attack import Attack, Inside, Probe
from tests.attacks.ground import Ground
from tests.attacks.inside import network as inside
from tests.attacks.inside.calls import call

FAR = ("root", "mapped")
"""Whose owner has a network namespace with other machines in it."""
_IPC_CREAT, _IPC_RMID = 0o1000, 0
_LATER = (
    "a socket that a host program makes after the start, or in another network namespace, in a place "
    'that is readable inside; `unix_sockets = "deny"` closes it, and docs/sandbox.md says so.'
)


@contextlib.contextmanager
def services(ground: Ground) -> Iterator[Mapping[str, Any]]:
    """What the user runs on loopback and on unix sockets."""
    name = f"tightloop-{ground.root.name}"
    with contextlib.ExitStack() as stack:
        agent = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ssh-"))) / "agent"
        for path in (agent, ground.outside / "socket", ground.home / "S.gpg-agent"):
            stack.enter_context(far_network.unix_service(str(path)))
        stack.enter_context(far_network.unix_service(f"\0{name}"))
        datagrams = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        datagrams.bind(f"\0{name}-datagrams")
        http_port = stack.enter_context(_on_both("127.0.0.1", "::1"))
        yield {
            "http_port": http_port,
            "udp_port": stack.enter_context(far_network.names("127.0.0.1", 0)),
            "abstract": name,
            "tmp_socket": str(agent),
            "readable_socket": str(ground.outside / "socket"),
            "home_socket": str(ground.home / "S.gpg-agent"),
        }


@contextlib.contextmanager
def _on_both(first: str, second: str) -> Iterator[int]:
    """One service on all addresses of the loopback device, of both kinds; the port."""
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(far_network.service("0.0.0.0", 0))
        if socket.has_ipv6:
            with contextlib.suppress(OSError):  # shown by the control of its probe
                stack.enter_context(far_network.service(second, port))
        yield port


@contextlib.contextmanager
def queues(ground: Ground) -> Iterator[Mapping[str, Any]]:
    """Queues and memory that another program of the user has made."""
    key = 0x54000000 | os.getpid()
    name = f"/tightloop-{ground.root.name}"
    memory = Path(f"/dev/shm{name}")
    memory.write_text("hush-hush")
    message = call("msgget", key, _IPC_CREAT | 0o600)
    shared = call("shmget", key, 64, _IPC_CREAT | 0o600)
    semaphores = call("semget", key, 1, _IPC_CREAT | 0o600)
    queue = call("mq_open", name.encode(), os.O_RDWR | os.O_CREAT, 0o600, None)
    os.close(queue)
    try:
        yield {"ipc_key": key, "msg_id": message, "mq_name": name, "shm_path": str(memory)}
    finally:
        call("msgctl", message, _IPC_RMID, None)
        call("shmctl", shared, _IPC_RMID, None)
        call("semctl", semaphores, 0, _IPC_RMID)
        call("mq_unlink", name.encode())
        memory.unlink()


async def inherited(ground: Ground) -> str:
    """What was open and inheritable when the sandbox was entered, of what a command has."""
    code = "import os; print(*os.listdir('/proc/self/fd'))"
    secret = os.open(ground.closed / "secret", os.O_RDONLY)
    connected, other = socket.socketpair()
    try:
        for fd in (secret, connected.fileno()):
            os.set_inheritable(fd, True)
        if ground.backend == "none":  # even this kind has an exec server that closes them
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-c", code),
                stdout=asyncio.subprocess.PIPE,
                close_fds=False,
            )
            said = (await child.communicate())[0].decode()
            return "ok" if {str(secret), str(connected.fileno())} <= set(said.split()) else said
        sandbox = await ground.open()
        return await way_out.run_inside(sandbox, inside.descriptors, {})
    finally:
        os.close(secret)
        connected.close()
        other.close()


async def made_later(ground: Ground) -> str:
    """A socket in a readable place, made when the sandbox was already there."""
    path = ground.outside / "later"
    about = ground.outside.stat()
    with far_network.unix_service(str(path)):
        values = {"readable_socket": str(path)}
        said = await way_out.run_inside(ground.sandbox, inside.socket_in_readable_place, values)
    os.utime(ground.outside, ns=(about.st_atime_ns, about.st_mtime_ns))  # the socket was ours
    return said


Stopped = tuple[str, str]
"""How it ends with bubblewrap and with Landlock."""
REFUSED: Stopped = ("ECONNREFUSED", "EPERM")
UNREACHABLE: Stopped = ("ENETUNREACH", "EPERM")
NO_FAMILY: Stopped = ("EPERM", "EPERM")
HIDDEN: Stopped = ("ENOENT", "EPERM")


def _probe(name: str, run: Inside, stopped: Stopped) -> Probe:
    return Probe(name, run, *stopped)


def _far(name: str, run: Inside, stopped: Stopped) -> Probe:
    return Probe(name, run, *stopped, users=FAR)


PROPS = (far_network.far_network, services, queues)

ATTACKS = (
    Attack(
        "N1",
        "programs that use the network",
        (
            Probe("bash /dev/tcp", inside.bash, bubblewrap="exit 1", landlock="exit 1"),
            Probe("curl", inside.curl, bubblewrap="exit 7", landlock="exit 7", program="curl"),
            Probe("wget", inside.wget, bubblewrap="exit 4", landlock="exit 4", program="wget"),
            _probe("python", inside.python, REFUSED),
            Probe(
                "ssh",
                inside.ssh,
                bubblewrap="Connection refused",
                landlock="failure",
                users=FAR,  # the program wants an entry in the list of users
                program="ssh",
            ),
            Probe("nc", inside.nc, bubblewrap="exit 1", landlock="exit 1", program="nc"),
            Probe(
                "getent",
                inside.getent,
                bubblewrap="exit 2",
                landlock="exit 2",
                users=FAR,
                program="getent",
            ),
            Probe(
                "curl, by name",
                inside.curl_by_name,
                bubblewrap="exit 6",
                landlock="exit 6",
                users=FAR,
                program="curl",
            ),
            Probe(
                "ping",
                inside.ping,
                bubblewrap="exit 2",
                landlock="exit 2",
                users=FAR,
                program="ping",
            ),
        ),
    ),
    Attack(
        "N2",
        "another machine",
        (
            _far("by address", inside.direct_address, UNREACHABLE),
            _far("on an odd port", inside.odd_port, UNREACHABLE),
            _far("by IPv6", inside.ipv6_address, UNREACHABLE),
            _far("its name server", inside.name_server, UNREACHABLE),
        ),
    ),
    Attack(
        "N3",
        "the metadata service",
        (
            _far("by address", inside.metadata, UNREACHABLE),
            *way_out.METADATA,
        ),
    ),
    Attack(
        "N4",
        "a loopback service of the host",
        (
            _probe("127.0.0.1", inside.loopback, REFUSED),
            _probe("::1", inside.loopback_ipv6, REFUSED),
            _probe("127.1.2.3", inside.loopback_other_address, REFUSED),
            _probe("::ffff:127.0.0.1", inside.loopback_mapped, REFUSED),
            _probe("by datagram", inside.loopback_datagram, REFUSED),
        ),
    ),
    Attack("N5", "past the list of hosts of the proxy", way_out.PAST_THE_LIST),
    Attack(
        "N6",
        "an abstract unix socket",
        (
            _probe("connected", inside.abstract, REFUSED),
            _probe("by datagram", inside.abstract_datagram, REFUSED),
        ),
    ),
    Attack(
        "N7",
        "a unix socket with a path",
        (
            _probe("ssh-agent's, in TMP", inside.socket_in_tmp, HIDDEN),
            _probe("gpg-agent's, in the home directory", inside.socket_in_home, HIDDEN),
            _probe("in a readable place", inside.socket_in_readable_place, REFUSED),
            _far("docker's", inside.docker, HIDDEN),
            _far("docker's, by /var/run", inside.docker_by_another_name, HIDDEN),
            _far("podman's", inside.podman, HIDDEN),
            _far("containerd's", inside.containerd, HIDDEN),
            _far("D-Bus, of the system", inside.system_bus, HIDDEN),
            _far("D-Bus, of the user", inside.user_bus, HIDDEN),
            _far("Wayland", inside.wayland, HIDDEN),
            Probe(
                "made later, in a readable place",
                made_later,
                bubblewrap="ok",
                landlock="EPERM",
                gap=_LATER,
            ),
        ),
    ),
    Attack("N8", "AF_VSOCK", (_probe("", inside.vsock, NO_FAMILY),)),
    Attack("N9", "sockets by io_uring", (_probe("set-up", inside.io_uring, NO_FAMILY),)),
    Attack(
        "N10",
        "inherited descriptors",
        (Probe("a file and a socket", inherited, bubblewrap="0 1 2", landlock="0 1 2"),),
    ),
    Attack(
        "N11",
        "other kinds of sockets",
        (
            _probe("AF_NETLINK", inside.netlink, NO_FAMILY),
            _far("AF_PACKET", inside.packet, NO_FAMILY),
            _far("raw", inside.raw, NO_FAMILY),
        ),
    ),
    Attack(
        "N12",
        "queues and memory of other programs",
        (
            Probe("message queue", inside.message_queue, bubblewrap="ENOENT", landlock="EPERM"),
            Probe(
                "message queue, by number",
                inside.message_queue_by_number,
                bubblewrap="EINVAL",
                landlock="EPERM",
            ),
            Probe("shared memory", inside.shared_memory, bubblewrap="ENOENT", landlock="EPERM"),
            Probe("semaphore", inside.semaphore, bubblewrap="ENOENT", landlock="EPERM"),
            Probe("POSIX queue", inside.posix_queue, bubblewrap="ENOENT", landlock="EPERM"),
            Probe("POSIX memory", inside.posix_memory, bubblewrap="ENOENT", landlock="EACCES"),
        ),
    ),
)
