"""The real way out in attacks: the policy of a configuration, its proxy, a forwarder inside.

What the attacker wants is a connection to 192.0.2.66, whose services count who comes. A probe says
the status of the proxy's answer, or how the connection ended; that the policy's own host can be
reached was seen before.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.attacks.attack import Probe
from tests.attacks.far_network import HEARD
from tests.attacks.ground import PYTHON, TESTS, Ground
from tests.attacks.inside import network as inside
from tests.attacks.inside import program
from tests.sandbox.test_client_hello import hello_of
from tightloop.sandbox.interface import Command, Sandbox, SandboxError
from tightloop.sandbox.policies import config_of
from tightloop.sandbox.proxy import Decision
from tightloop.sandbox.way_out import way_out

FAR = ("root", "mapped")
NO_SUCH_POLICY = "no such policy"
POLICY = config_of(
    {
        "sandbox": {
            "policies": {
                "network": {
                    "hosts": ["allowed.test", "*.wild.test", "inner.test", "metadata.test"],
                    "private_networks": ["192.0.2.0/24", "169.254.0.0/16"],
                }
            }
        }
    },
    "attacks",
).find("network")


async def run_inside(
    sandbox: Sandbox, function: Callable[..., str | None], values: Mapping[str, Any]
) -> str:
    """The outcome of one probe function as a command in a sandbox."""
    plan = [["it", function.__module__, function.__name__]]
    argv = [PYTHON, "-I", "-S", "-B", program.__file__, str(TESTS.parent)]
    command = Command(argv=argv, stdin=json.dumps([values, plan]).encode(), timeout_s=30.0)
    result = await sandbox.run(command)
    try:
        return str(json.loads(result.output)["it"])
    except ValueError:
        return f"exit {result.exit_code}: {result.output[-300:]}"


@dataclass(frozen=True, slots=True)
class Case:
    """One way to try it: a function of ``inside`` and its values."""

    function: Callable[..., str | None]
    values: Mapping[str, Any]
    is_unseen: bool = False
    """Whether the proxy can hear nothing of it."""


async def _all(ground: Ground) -> dict[str, str]:
    """What came of every case, in one sandbox; kept with the ground."""
    kept: dict[str, str] | None = ground.values.get("way out")
    if kept is None:
        kept = ground.values["way out"] = await _try_all(ground)
    return kept


async def _try_all(ground: Ground) -> dict[str, str]:
    decisions: list[Decision] = []
    heard = ground.root / HEARD
    outcomes = {}
    async with way_out(POLICY, decisions.append) as socket:
        try:
            sandbox = await ground.open(proxy_socket=socket)
        except SandboxError as error:
            said = NO_SUCH_POLICY if "list of hosts" in str(error) else str(error)
            return dict.fromkeys(_CASES, said)
        control = await run_inside(sandbox, inside.proxied_control, {})
        if control != "ok":
            return dict.fromkeys(_CASES, f"the way out does not work: {control}")
        for name, case in _CASES.items():
            decisions.clear()
            before = heard.read_text()
            values = {"then": "", **case.values, "socket": str(socket)}
            outcome = await run_inside(sandbox, case.function, values)
            if heard.read_text() != before:
                outcome = f"reached, after {outcome}"
            is_told = case.is_unseen or not all(one.is_allowed for one in decisions)
            outcomes[name] = outcome if is_told else f"{outcome}, and nobody was told"
        await sandbox.close()
    return outcomes


_CASES: dict[str, Case] = {}


def _probe(
    name: str,
    expected: str,
    function: Callable[..., str | None] = inside.proxied,
    *,
    target: str = "http://192.0.2.66/",
    is_unseen: bool = False,
    **values: Any,
) -> Probe:
    _CASES[name] = Case(function, values, is_unseen)

    async def run(ground: Ground) -> str:
        if ground.backend == "none":  # a direct connection, as nothing is in the way
            return await run_inside(ground.sandbox, inside.curl_words, {"words": [target]})
        return (await _all(ground))[name]

    return Probe(name, run, bubblewrap=expected, landlock=NO_SUCH_POLICY, users=FAR, program="curl")


def _get(url: str, host: str) -> str:
    return f"GET {url} HTTP/1.1\r\nHost: {host}\r\n\r\n"


def _tunnel(target: str) -> str:
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"


PAST_THE_LIST = (
    _probe("another host", "403", head=_get("http://evil.test/", "evil.test")),
    _probe("a name that begins alike", "403", head=_tunnel("allowed.test.evil.test:443")),
    _probe("a name that ends alike", "403", head=_tunnel("xallowed.test:443")),
    _probe("a name below", "403", head=_tunnel("other.allowed.test:443")),
    _probe("the base of a wildcard", "403", head=_tunnel("wild.test:443")),
    _probe("another port", "403", head=_tunnel("allowed.test:22")),
    _probe("an address", "403", head=_tunnel("192.0.2.66:443")),
    _probe("an address as a number", "403", head=_tunnel("3221226050:443")),
    _probe("an IPv6 address", "403", head=_tunnel("[::ffff:192.0.2.66]:443")),
    _probe("a user before the host", "400", head=_get("http://allowed.test@evil.test/", "x")),
    _probe("another Host line", "403", head=_get("http://allowed.test/", "evil.test")),
    _probe(
        "two Host lines",
        "400",
        head="GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\nHost: evil.test\r\n\r\n",
    ),
    _probe(
        "another server name in TLS",
        "cut",
        head=_tunnel("allowed.test:443"),
        then=hello_of("evil.test").hex(),
    ),
    _probe(
        "no server name in TLS",
        "cut",
        head=_tunnel("allowed.test:443"),
        then=hello_of(None).hex(),
    ),
    _probe(
        "no TLS in a tunnel",
        "cut",
        head=_tunnel("allowed.test:443"),
        then=_get("/", "evil.test").encode().hex(),
    ),
    _probe("a name of a private address", "403", head=_get("http://inner.test/", "inner.test")),
    _probe("SOCKS 5", "400", head="\x05\x01\x00"),
    _probe("SOCKS 4", "400", head="\x04\x01\x01\xbb\xc0\x00\x02\x42\x00"),
    _probe(
        "a redirect, followed by curl",
        "exit 22",
        inside.proxied_by_curl,
        words=["-L", "http://allowed.test/redirect"],
    ),
    _probe(
        "curl without the proxy",
        "exit 7",
        inside.proxied_by_curl,
        words=["--noproxy", "*", "http://192.0.2.66/"],
        is_unseen=True,
    ),
    _probe("the proxy's own socket", "403", inside.proxy_socket),
)

METADATA = (
    _probe(
        "through the proxy, by address",
        "403",
        head=_get("http://169.254.169.254/", "169.254.169.254"),
        target="http://169.254.169.254/",
    ),
    _probe(
        "through the proxy, by a listed name",
        "403",
        head=_get("http://metadata.test/", "metadata.test"),
        target="http://169.254.169.254/",
    ),
)
