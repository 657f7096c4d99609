"""Named policies: what each means, and that no mistake in the configuration goes unnoticed."""

import ipaddress
from pathlib import Path
from typing import Any

import pytest

from tightloop.sandbox.host_rules import parse_rule
from tightloop.sandbox.interface import Policy
from tightloop.sandbox.policies import (
    BUILT_IN,
    PolicyError,
    PolicyTable,
    SandboxTable,
    config_of,
    config_path,
    load_policy,
    read_config,
)

WORKSPACE = Path("/w")


def find(name: str | None = None, **sandbox: Any) -> Any:
    return config_of({"sandbox": sandbox}, "c.toml").find(name)


def test_without_a_configuration_the_workspace_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A usual file that is not there is no mistake."""
    monkeypatch.delenv("TIGHTLOOP_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    policy = load_policy()
    assert policy.name == "workspace-write"
    assert policy.policy(WORKSPACE) == Policy(WORKSPACE)
    assert policy.kind() is None


def test_what_the_built_in_ones_mean() -> None:
    hosts = {"network": {"hosts": ["a.test"]}}
    socket = Path("/s")
    made = {name: find(name, policies=hosts).policy(WORKSPACE, socket) for name in BUILT_IN}
    assert made == {
        "read-only": Policy(WORKSPACE, is_read_only=True),
        "workspace-write": Policy(WORKSPACE),
        "network": Policy(WORKSPACE, proxy_socket=socket),
        "full-access": Policy(WORKSPACE, allow_network=True),
    }
    kinds = {name: find(name, policies=hosts).kind() for name in BUILT_IN}
    assert kinds == {
        "read-only": None,
        "workspace-write": None,
        "network": "bubblewrap",
        "full-access": "none",
    }


def test_a_policy_of_ones_own() -> None:
    """What it leaves out is that of the one it extends, along the whole chain."""
    policy = find(
        policy="ci",
        policies={
            "network": {"hosts": ["pypi.org"], "max_processes": 100},
            "base": {"extends": "network", "max_memory_mb": 1000, "hidden": ["/opt/x/"]},
            "ci": {
                "extends": "base",
                "private_networks": ["10.1.0.0/16"],
                "protected": ["pyproject.toml"],
                "readable": ["/opt/tools"],
                "environment": {"CI": "1"},
                "max_total_memory_mb": 2000,
                "max_file_mb": 1,
                "max_output_kb": 64,
                "warm_tests": False,
                "unix_sockets": "deny",
            },
        },
    )
    assert (policy.name, policy.level) == ("ci", "network")
    assert policy.hosts == (parse_rule("pypi.org"),)
    assert policy.allow_list().policy == "ci"
    assert policy.private_networks == (ipaddress.ip_network("10.1.0.0/16"),)
    assert policy.policy(WORKSPACE) == Policy(
        WORKSPACE,
        protected=(WORKSPACE / "pyproject.toml",),
        read_only=(Path("/opt/tools"),),
        hidden=(Path("/opt/x"),),
        environment={"CI": "1"},
        max_processes=100,
        max_memory_bytes=10**9,
        max_total_memory_bytes=2 * 10**9,
        max_file_bytes=10**6,
        max_output_bytes=64_000,
        warm_tests=False,
        has_unix_sockets=False,
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sandbx": {}}, "c.toml: unknown table 'sandbx'; known are [sandbox], [approval]"),
        ({"sandbox": 1}, "[sandbox] must be a table: expected"),
        ({"sandbox": {"rule": "x"}}, "[sandbox] unknown key 'rule'; known are policy, isolation"),
        ({"sandbox": {"policy": 1}}, "[sandbox] policy: expected str, got int"),
        (
            {"sandbox": {"isolation": "moat"}},
            "isolation must be bubblewrap or landlock, got 'moat'",
        ),
        ({"sandbox": {"policies": {"x": 1}}}, "[sandbox.policies.x] must be a table"),
        (
            {"sandbox": {"policies": {"x": {"host": []}}}},
            "x] unknown key 'host'; known are extends",
        ),
        (
            {"sandbox": {"policies": {"x": {"max_processes": 0}}}},
            "[sandbox.policies.x] max_processes: expected int >= 1",
        ),
        (
            {"sandbox": {"policies": {"x": {"hidden": ["/a", 3]}}}},
            "[sandbox.policies.x] hidden[1]: expected str, got int",
        ),
        (
            {"sandbox": {"policies": {"x": {"hidden": ["a"]}}}},
            "hidden[0]: 'a' must be an absolute path below /",
        ),
        ({"sandbox": {"policies": {"x": {"readable": ["/"]}}}}, "readable[0]: '/' must be"),
        ({"sandbox": {"policies": {"x": {"protected": ["../a"]}}}}, "protected[0]: '../a' must be"),
        (
            {"sandbox": {"policies": {"x": {"environment": {"A=B": "x"}}}}},
            "environment: 'A=B' cannot be a variable",
        ),
        (
            {"sandbox": {"policies": {"x": {"extends": "y"}}}},
            "x] extends: no policy 'y'; known are read-only",
        ),
        (
            {"sandbox": {"policies": {"x": {"extends": "y"}, "y": {"extends": "x"}}}},
            "goes round in a circle",
        ),
        (
            {"sandbox": {"policies": {"network": {"extends": "read-only"}}}},
            "a built-in policy extends nothing",
        ),
        (
            {"sandbox": {"policies": {"x": {"hosts": ["pypi.org"]}}}},
            "x] hosts: has no effect on workspace-write: extends = 'network'",
        ),
        (
            {"sandbox": {"policies": {"network": {"hosts": ["pypi.org", "10.0.0.1"]}}}},
            "network] hosts[1]: '10.0.0.1': '10.0.0.1' is an address",
        ),
        (
            {"sandbox": {"policies": {"x": {"unix_sockets": "no"}}}},
            "x] unix_sockets: must be allow or deny, got 'no'",
        ),
        (
            {"sandbox": {"policies": {"full-access": {"unix_sockets": "deny"}}}},
            "full-access] unix_sockets: nothing keeps it under full-access",
        ),
        (
            {"sandbox": {"policies": {"network": {"private_networks": ["x"]}}}},
            "private_networks[0]: 'x' does not appear to be",
        ),
    ],
)
def test_mistakes_are_named_with_their_key(values: dict[str, Any], said: str) -> None:
    """Also in a policy that nobody asks for."""
    with pytest.raises(PolicyError) as error:
        config_of(values, "c.toml")
    assert said in str(error.value)
    assert str(error.value).startswith("c.toml: ")


@pytest.mark.parametrize(
    ("name", "sandbox", "said"),
    [
        ("moat", {}, "--policy: there is no policy 'moat'; known are read-only"),
        (None, {"policy": "moat"}, "c.toml: [sandbox] policy: there is no policy 'moat'"),
        ("network", {}, "policy 'network' allows no host yet: write hosts"),
        ("full-access", {"isolation": "landlock"}, "wants at least 'landlock'"),
    ],
)
def test_policies_that_cannot_be_used(name: str | None, sandbox: dict[str, Any], said: str) -> None:
    with pytest.raises(PolicyError) as error:
        find(name, **sandbox)
    assert said in str(error.value)


def test_isolation_that_is_asked_for_by_name() -> None:
    """It may be weaker than the strongest, not weaker than the policy or the configuration."""
    assert find().kind("landlock") == "landlock"
    assert find().kind("none") == "none"
    assert find().kind("docker") == "docker"  # whoever opens it says that there is no such kind
    assert find("full-access").kind("bubblewrap") == "bubblewrap"
    assert find(isolation="bubblewrap").kind() == "bubblewrap"
    assert find(isolation="landlock").kind() is None
    with pytest.raises(PolicyError, match="is weaker than isolation = 'bubblewrap'"):
        find(isolation="bubblewrap").kind("landlock")
    with pytest.raises(
        PolicyError, match=r"cannot keep the policy 'read-only'.* bubblewrap or land"
    ):
        find("read-only").kind("none")
    with pytest.raises(PolicyError, match="cannot keep the policy 'network': it needs bubblewrap"):
        find("network", policies={"network": {"hosts": ["a.test"]}}).kind("landlock")


def test_where_the_configuration_is() -> None:
    assert config_path({"TIGHTLOOP_CONFIG": "/x/y"}) == Path("/x/y")
    assert config_path({"XDG_CONFIG_HOME": "/c"}) == Path("/c/tightloop/config.toml")
    assert config_path({}) == Path.home() / ".config/tightloop/config.toml"


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was named must be there, whichever way it was named."""
    with pytest.raises(PolicyError, match=r"cannot read .*missing"):
        read_config(tmp_path / "missing")
    monkeypatch.setenv("TIGHTLOOP_CONFIG", str(tmp_path / "missing"))
    with pytest.raises(PolicyError, match=r"cannot read .*missing"):
        read_config()
    with pytest.raises(PolicyError, match="cannot read"):
        read_config(tmp_path)
    (tmp_path / "c").write_text("[sandbox")
    with pytest.raises(PolicyError, match="is not TOML"):
        read_config(tmp_path / "c")
    (tmp_path / "c").write_text("#" * (1 << 20) + "#")
    with pytest.raises(PolicyError, match="larger than"):
        read_config(tmp_path / "c")
    (tmp_path / "c").write_text('[sandbox]\npolicy = "read-only"\n')
    assert load_policy(path=tmp_path / "c").is_read_only


def test_every_key_has_its_heading_in_the_documentation() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "sandbox.md").read_text("utf-8")
    keys = {*SandboxTable.__struct_fields__, *PolicyTable.__struct_fields__} - {"policies"}
    headings = {line[5:-1] for line in page.splitlines() if line.startswith("### `")}
    assert headings == keys
