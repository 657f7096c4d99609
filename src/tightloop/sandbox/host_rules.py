"""Which hosts a sandbox may talk to: rules about names, and about the addresses behind them.

A name is judged as text, then resolved outside, and what it resolves to is judged again: a listed
name must not lead into the network that the machine stands in. Facts: RFC 6761, 6890, 6598 and
6052; the metadata services of the large clouds.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

DEFAULT_PORTS: Final = frozenset({80, 443})
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_METADATA_NAMES: Final = frozenset(
    {"metadata", "metadata.google.internal", "metadata.goog", "instance-data", "metadata.azure.com"}
)
_METADATA_ADDRESSES: Final = frozenset(
    map(
        ipaddress.ip_address,
        (
            *("169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254"),
            *("fd00:ec2::23", "fd20:ce::254", "100.100.100.200", "192.0.0.192", "168.63.129.16"),
        ),
    )
)
_NAT64: Final = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48")))


class HostRuleError(ValueError):
    """A rule that cannot be meant; the text says why."""


class Refused(Exception):
    """A destination that the rules do not allow; the text says why."""


@dataclass(frozen=True, slots=True)
class HostRule:
    """``name`` in lower case without a dot at the end; ``has_subdomains`` for ``*.name`` only."""

    name: str
    has_subdomains: bool
    ports: frozenset[int]

    def matches(self, host: str, port: int) -> bool:
        """Whether a destination in ``plain_host`` form is meant. ``*.name`` is not ``name``."""
        if port not in self.ports:
            return False
        return host.endswith("." + self.name) if self.has_subdomains else host == self.name

    def __str__(self) -> str:
        name = f"*.{self.name}" if self.has_subdomains else self.name
        return name if self.ports == DEFAULT_PORTS else f"{name}:{min(self.ports)}"


def parse_rule(text: str) -> HostRule:
    """A rule such as ``pypi.org``, ``*.pythonhosted.org`` or ``git.example.org:22``.

    Without a port 80 and 443 are meant. Raises HostRuleError for an address, a whole top-level
    domain, and anything that is not a host name in ASCII.
    """
    name, colon, port = text.partition(":")
    ports = DEFAULT_PORTS
    if colon:
        if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
            raise HostRuleError(f"{text!r} has no port from 1 to 65535 after the colon")
        ports = frozenset({int(port)})
    has_subdomains = name.startswith("*.")
    try:
        plain = plain_host(name[2:] if has_subdomains else name)
    except Refused as refused:
        raise HostRuleError(f"{text!r}: {refused}") from refused
    if has_subdomains and "." not in plain:
        raise HostRuleError(f"{text!r} is too wide: name a domain below {plain!r}")
    return HostRule(plain, has_subdomains, ports)


def plain_host(text: str) -> str:
    """The host name in lower case, without the dot at its end.

    Raises Refused for addresses in any spelling that some program resolves, and for what is not
    a host name in ASCII (names in other scripts have a form that begins with ``xn--``).
    """
    host = text.lower().removesuffix(".")
    labels = host.split(".")
    if _is_number(labels[-1]) or "[" in host or ":" in host:
        raise Refused(f"{text!r} is an address, and only names can be allowed")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise Refused(f"{text!r} is not a host name")
    if host in _METADATA_NAMES:
        raise Refused(f"{text!r} is a metadata service")
    return host


def _is_number(label: str) -> bool:
    """As the URL standard's "ends in a number" checker: such hosts are IPv4 addresses."""
    return label.isdecimal() or re.fullmatch(r"0x[0-9a-f]*", label) is not None


@dataclass(frozen=True, slots=True)
class AllowList:
    """The rules of one policy. ``private_networks`` may be reached although they are private."""

    rules: Sequence[HostRule]
    private_networks: Sequence[Network] = ()
    policy: str = "network"

    def check_name(self, host: str, port: int) -> str:
        """The host in plain form. Raises Refused when no rule allows it at that port."""
        plain = plain_host(host)
        if any(rule.matches(plain, port) for rule in self.rules):
            return plain
        raise Refused(
            f"{plain}:{port} is not among the hosts of policy {self.policy!r}; if it should be, "
            f"the user adds it to 'hosts' in [sandbox.policies.{self.policy}]"
        )

    def check_addresses(self, host: str, found: Iterable[Address]) -> list[Address]:
        """The addresses to connect to. Raises Refused when one of them may not be reached."""
        addresses = list(dict.fromkeys(found))
        if not addresses:
            raise Refused(f"{host} has no address")
        for address in addresses:
            self._check_address(host, address)
        return addresses

    def _check_address(self, host: str, address: Address) -> None:
        for one in (address, *_embedded(address)):
            if one in _METADATA_ADDRESSES:
                raise Refused(f"{host} leads to the metadata service {address}")
            is_listed = any(one in network for network in self.private_networks)
            if not is_listed and not _is_public(one):
                raise Refused(f"{host} leads to the private address {address}")


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and _embedded(address):
        return True  # judged by the addresses inside it
    return address.is_global and not address.is_multicast and not address.is_reserved


def _embedded(address: Address) -> list[Address]:
    """IPv4 addresses that an IPv6 one leads to: mapped, compatible, 6to4, Teredo, NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    if address.ipv4_mapped:
        return [address.ipv4_mapped]
    if address.sixtofour:
        return [address.sixtofour]
    if address.teredo:
        return list(address.teredo)
    last = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if any(address in network for network in _NAT64):
        return [last]
    is_compatible = int(address) >> 32 == 0 and int(address) > 1
    return [last] if is_compatible else []
