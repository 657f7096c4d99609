"""Named policies: what commands may do, chosen by one word and set out in the user's configuration.

Four are built in; a table in the configuration changes one of them or makes another out of it.
The configuration is the user's own file. None is read from the repository: what the agent works
on must not decide what the agent may do.
"""

import ipaddress
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from tightloop.sandbox.host_rules import AllowList, HostRule, HostRuleError, Network, parse_rule
from tightloop.sandbox.interface import Policy

READ_ONLY, WORKSPACE_WRITE = "read-only", "workspace-write"
NETWORK, FULL_ACCESS = "network", "full-access"
BUILT_IN: Final = {
    READ_ONLY: "commands read the workspace and write to a private scratch directory",
    WORKSPACE_WRITE: "commands write to the workspace; no network",
    NETWORK: "as workspace-write, and the listed hosts through a proxy",
    FULL_ACCESS: "no isolation at all",
}
DEFAULT: Final = WORKSPACE_WRITE
ISOLATIONS: Final = ("bubblewrap", "landlock", "none")
"""Strongest first."""
_KEEPING: Final = {READ_ONLY: ISOLATIONS[:2], NETWORK: ISOLATIONS[:1]}
"""What can keep a level; the others can be had with any."""

_UNIX_SOCKETS: Final = {"allow": True, "deny": False}
MAX_FILE_BYTES: Final = 1 << 20
TABLES: Final = (
    "sandbox",
    "approval",
    "rules",
    "hooks",
    "mcp",
    "skills",
    "tools",
    "checks",
    "limits",
)
"""The tables of the configuration. Each is checked by who uses it; this module knows the first."""
_PositiveInt = Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)]


class PolicyError(ValueError):
    """The configuration cannot be used; the text names the file, the key and what would do."""


class PolicyTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table ``[sandbox.policies.NAME]``. What is left out is that of the policy it extends."""

    extends: str | None = None
    hosts: list[str] | None = None
    private_networks: list[str] | None = None
    environment: dict[str, str] | None = None
    protected: list[str] | None = None
    readable: list[str] | None = None
    hidden: list[str] | None = None
    max_memory_mb: _PositiveInt | None = None
    max_total_memory_mb: _PositiveInt | None = None
    max_file_mb: _PositiveInt | None = None
    max_output_kb: _PositiveInt | None = None
    max_processes: _PositiveInt | None = None
    warm_tests: bool | None = None
    unix_sockets: str | None = None


class SandboxTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table ``[sandbox]``. ``isolation`` is the weakest kind that will do."""

    policy: str = DEFAULT
    isolation: str | None = None
    policies: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class NamedPolicy:
    """One policy, resolved. ``level`` is the built-in one that it goes back to.

    ``isolation`` is the weakest kind that will do; None when the policy alone decides.
    """

    name: str
    level: str
    isolation: str | None = None
    hosts: tuple[HostRule, ...] = ()
    private_networks: tuple[Network, ...] = ()
    limits: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of ``Policy``, by name."""

    @property
    def is_read_only(self) -> bool:
        """Whether nothing may change the workspace."""
        return self.level == READ_ONLY

    @property
    def needs_proxy(self) -> bool:
        """Whether ``policy`` wants a proxy's socket."""
        return self.level == NETWORK

    def allow_list(self) -> AllowList:
        """For the proxy."""
        return AllowList(self.hosts, self.private_networks, self.name)

    def kind(self, asked: str | None = None) -> str | None:
        """The isolation to open: what was ``asked`` for by name, else what the policy needs.

        None for the strongest that works here. Raises PolicyError for an isolation that cannot keep
        the policy, or that is weaker than the configuration wants.
        """
        if asked is not None:
            self._check_kind(asked)
            return asked
        if self.level == FULL_ACCESS:
            return "none"
        if self.level == NETWORK:
            return "bubblewrap"
        return "bubblewrap" if self.isolation == "bubblewrap" else None

    def _check_kind(self, asked: str) -> None:
        keeping = _KEEPING.get(self.level, ISOLATIONS)
        if asked in ISOLATIONS and asked not in keeping:
            raise PolicyError(
                f"--sandbox {asked} cannot keep the policy {self.name!r}: it needs "
                f"{' or '.join(keeping)}"
            )
        least = self.isolation or asked
        if asked in ISOLATIONS and ISOLATIONS.index(asked) > ISOLATIONS.index(least):
            raise PolicyError(
                f"--sandbox {asked} is weaker than isolation = {self.isolation!r} in [sandbox]"
            )

    def policy(self, workspace: Path, proxy_socket: Path | None = None) -> Policy:
        """For a sandbox on this workspace."""
        limits = dict(self.limits)
        protected = tuple(workspace / name for name in limits.pop("protected", ()))
        return replace(
            Policy(workspace, protected=protected),
            allow_network=self.level == FULL_ACCESS,
            is_read_only=self.is_read_only,
            proxy_socket=proxy_socket if self.needs_proxy else None,
            **limits,
        )


def config_path(environment: Mapping[str, str] | None = None) -> Path:
    """``$TIGHTLOOP_CONFIG``, else ``tightloop/config.toml`` in the XDG configuration directory."""
    known = os.environ if environment is None else environment
    own = known.get("TIGHTLOOP_CONFIG")
    if own:
        return Path(own)
    base = known.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "tightloop" / "config.toml"


def load_policy(name: str | None = None, path: Path | None = None) -> NamedPolicy:
    """The policy of that name, or the one that the configuration chooses.

    Without a ``path`` the usual file is read, if there is one. Raises PolicyError for whatever
    is wrong in any policy of the file, also one that is not used.
    """
    config = read_config(path)
    return config.find(name)


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """The checked table ``[sandbox]`` of one file; ``place`` is how errors call it."""

    place: str
    chosen: str
    policies: Mapping[str, NamedPolicy]

    def find(self, name: str | None = None) -> NamedPolicy:
        """The named policy, or the chosen one. Raises PolicyError when it cannot be used."""
        wanted = name or self.chosen
        policy = self.policies.get(wanted)
        if policy is None:
            asked = "--policy" if name else f"{self.place}: [sandbox] policy"
            raise PolicyError(
                f"{asked}: there is no policy {wanted!r}; known are {', '.join(self.policies)}"
            )
        if policy.needs_proxy and not policy.hosts:
            raise PolicyError(
                f'policy {wanted!r} allows no host yet: write hosts = ["pypi.org", ...] into '
                f"[sandbox.policies.{wanted}] of {self.place}"
            )
        if policy.level == FULL_ACCESS and policy.isolation is not None:
            raise PolicyError(
                f"policy {wanted!r} has no isolation, and {self.place} wants at least "
                f"{policy.isolation!r}: remove the line isolation in [sandbox], or choose another"
            )
        return policy


def read_config(path: Path | None = None) -> SandboxConfig:
    """The configuration in a file; a usual file that is missing is an empty one.

    Raises PolicyError naming the file and the key.
    """
    place = path or config_path()
    return config_of(read_tables(path), str(place))


def read_tables(path: Path | None = None) -> dict[str, Any]:
    """All tables of a configuration file as TOML holds them, by the rules of ``read_config``."""
    place = path or config_path()
    is_named = path is not None or bool(os.environ.get("TIGHTLOOP_CONFIG"))
    try:
        data = place.read_bytes()
    except FileNotFoundError as error:
        if is_named:
            raise PolicyError(f"cannot read {place}: {error.strerror}") from error
        data = b""
    except OSError as error:
        raise PolicyError(f"cannot read {place}: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise PolicyError(f"{place} is larger than {MAX_FILE_BYTES} bytes")
    try:
        values = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise PolicyError(f"{place} is not TOML: {error}") from error
    return values


def config_of(values: Mapping[str, Any], place: str) -> SandboxConfig:
    """The configuration in a decoded file. Raises PolicyError."""
    if unknown := sorted(set(values) - set(TABLES)):
        known = ", ".join(f"[{name}]" for name in TABLES)
        raise PolicyError(f"{place}: unknown table {unknown[0]!r}; known are {known}")
    table = convert_table(values.get("sandbox", {}), SandboxTable, f"{place}: [sandbox]")
    if table.isolation is not None and table.isolation not in ISOLATIONS[:2]:
        raise PolicyError(
            f"{place}: [sandbox] isolation must be {' or '.join(ISOLATIONS[:2])}, "
            f"got {table.isolation!r}"
        )
    tables = {
        name: convert_table(one, PolicyTable, f"{place}: [sandbox.policies.{name}]")
        for name, one in table.policies.items()
    }
    reader = _Reader(place, table.isolation, tables)
    names = dict.fromkeys((*BUILT_IN, *tables))
    return SandboxConfig(place, table.policy, {name: reader.resolve(name) for name in names})


def convert_table(value: Any, kind: type[Any], place: str) -> Any:
    """A decoded table as a struct. Raises PolicyError naming the place and the key."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise PolicyError(f"{place} {_in_words(str(error), kind)}") from error


def _in_words(message: str, kind: type[Any]) -> str:
    """msgspec's message with the key in front, as TOML writes it."""
    if unknown := re.search(r"unknown field `(.*?)`", message):
        return f"unknown key {unknown[1]!r}; known are {', '.join(kind.__struct_fields__)}"
    text, _, place = message.partition(" - at `$")
    key = place.rstrip("`").lstrip(".").replace("[...]", "")
    text = text[:1].lower() + text[1:].replace("`", "")
    return f"{key}: {text}" if key else f"must be a table: {text}"


class _Reader:
    """Resolves what extends what."""

    def __init__(
        self, place: str, isolation: str | None, tables: Mapping[str, PolicyTable]
    ) -> None:
        self._place = place
        self._isolation = isolation
        self._tables = tables

    def resolve(self, name: str, seen: tuple[str, ...] = ()) -> NamedPolicy:
        table = self._tables.get(name)
        if table is None:
            return NamedPolicy(name, name, self._isolation)
        if name in BUILT_IN:
            if table.extends is not None:
                raise self._error(name, "extends", "a built-in policy extends nothing")
            base = NamedPolicy(name, name, self._isolation)
        else:
            base = self._base(name, table, (*seen, name))
        return self._changed(replace(base, name=name), table)

    def _base(self, name: str, table: PolicyTable, seen: tuple[str, ...]) -> NamedPolicy:
        extended = table.extends or DEFAULT
        if extended in seen:
            raise self._error(name, "extends", f"goes round in a circle: {' -> '.join(seen)}")
        if extended not in BUILT_IN and extended not in self._tables:
            known = ", ".join(dict.fromkeys((*BUILT_IN, *self._tables)))
            raise self._error(name, "extends", f"no policy {extended!r}; known are {known}")
        return self.resolve(extended, seen)

    def _changed(self, base: NamedPolicy, table: PolicyTable) -> NamedPolicy:
        if base.level != NETWORK:
            for key in ("hosts", "private_networks"):
                if getattr(table, key) is not None:
                    raise self._error(
                        base.name, key, f"has no effect on {base.level}: extends = {NETWORK!r}"
                    )
        hosts, networks = base.hosts, base.private_networks
        if table.hosts is not None:
            hosts = tuple(self._each(base.name, "hosts", table.hosts, parse_rule))
        if table.private_networks is not None:
            parse: Callable[[str], Network] = ipaddress.ip_network
            networks = tuple(
                self._each(base.name, "private_networks", table.private_networks, parse)
            )
        limits = {**base.limits, **self._limits(base, table)}
        return replace(base, hosts=hosts, private_networks=networks, limits=limits)

    def _limits(self, base: NamedPolicy, table: PolicyTable) -> dict[str, Any]:
        name = base.name
        found: dict[str, Any] = {
            "max_memory_bytes": _scaled(table.max_memory_mb, 1_000_000),
            "max_total_memory_bytes": _scaled(table.max_total_memory_mb, 1_000_000),
            "max_file_bytes": _scaled(table.max_file_mb, 1_000_000),
            "max_output_bytes": _scaled(table.max_output_kb, 1000),
            "max_processes": table.max_processes,
            "warm_tests": table.warm_tests,
            "environment": self._environment(name, table.environment),
            "has_unix_sockets": self._unix_sockets(base, table.unix_sockets),
        }
        for key, target, parse in (
            ("readable", "read_only", _absolute),
            ("hidden", "hidden", _absolute),
            ("protected", "protected", _inside),
        ):
            values = getattr(table, key)
            if values is not None:
                found[target] = tuple(self._each(name, key, values, parse))
        return {key: value for key, value in found.items() if value is not None}

    def _environment(self, name: str, values: dict[str, str] | None) -> dict[str, str] | None:
        for variable, value in (values or {}).items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable) or "\0" in value:
                raise self._error(name, "environment", f"{variable!r} cannot be a variable")
        return values

    def _unix_sockets(self, base: NamedPolicy, value: str | None) -> bool | None:
        if value is None:
            return None
        if value not in _UNIX_SOCKETS:
            known = " or ".join(_UNIX_SOCKETS)
            raise self._error(base.name, "unix_sockets", f"must be {known}, got {value!r}")
        if base.level == FULL_ACCESS and not _UNIX_SOCKETS[value]:
            raise self._error(base.name, "unix_sockets", f"nothing keeps it under {FULL_ACCESS}")
        return _UNIX_SOCKETS[value]

    def _each(
        self, name: str, key: str, values: list[str], parse: Callable[[str], Any]
    ) -> list[Any]:
        parsed = []
        for number, value in enumerate(values):
            try:
                parsed.append(parse(value))
            except (HostRuleError, ValueError) as error:
                raise self._error(name, f"{key}[{number}]", str(error)) from error
        return parsed

    def _error(self, name: str, key: str, text: str) -> PolicyError:
        return PolicyError(f"{self._place}: [sandbox.policies.{name}] {key}: {text}")


def _scaled(value: int | None, unit: int) -> int | None:
    return None if value is None else value * unit


def _absolute(text: str) -> Path:
    path = Path(os.path.normpath(os.path.expanduser(text)))
    if not path.is_absolute() or path == Path("/") or "\0" in text:
        raise ValueError(f"{text!r} must be an absolute path below /, or begin with ~/")
    return path


def _inside(text: str) -> Path:
    path = Path(text)
    if not text or path.is_absolute() or ".." in path.parts or "\0" in text:
        raise ValueError(f"{text!r} must be a path below the workspace")
    return path
