"""What ``doctor`` makes of what it sees: the status, and the fix that helps."""

import os
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tightloop.sandbox.cgroup import Delegation
from tightloop.sandbox.interface import Policy
from tightloop.sandbox.isolation import Finding
from tightloop.sandbox.landlock import NO_SECOND_LAYER
from tightloop.sandbox.policies import config_of
from tightloop.sandbox.probes import (
    Check,
    Status,
    check_cgroup,
    check_fallback,
    check_gaps,
    check_layers,
    check_level,
    check_limits,
    check_namespace,
    check_overlay,
    examine,
)

REFUSED = {"ok": False, "step": "unshare", "error": "EPERM Operation not permitted"}
WORKS = {kind: Finding(kind, True, "entered") for kind in ("bubblewrap", "landlock")}


@pytest.mark.parametrize(
    ("setting", "value", "fix"),
    [
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "bwrap-userns-restrict"),
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
    ],
)
def test_a_refusal_is_explained_by_its_setting(
    tmp_path: Path, setting: str, value: str, fix: str
) -> None:
    (tmp_path / setting).parent.mkdir()
    (tmp_path / setting).write_text(f"{value}\n")
    check = check_namespace("user namespaces", REFUSED, tmp_path, is_filtered=True)
    assert check.status is Status.WEAKER
    assert check.seen.startswith("unshare: EPERM Operation not permitted (")
    assert fix in check.fix


@pytest.mark.parametrize(("is_filtered", "fix"), [(True, "seccomp=unconfined"), (False, "install")])
def test_a_refusal_without_a_setting(tmp_path: Path, is_filtered: bool, fix: str) -> None:
    """A container's filter, or nothing that could be seen."""
    check = check_namespace("n", REFUSED, tmp_path, is_filtered=is_filtered)
    assert fix in check.fix


def test_what_works_needs_no_fix(tmp_path: Path) -> None:
    said = {"ok": True, "seen": "made"}
    assert check_namespace("n", said, tmp_path) == Check("n", Status.OK, "made")
    assert check_overlay("o", Path("/x"), said) == Check("o", Status.OK, "/x: made")


def test_a_missing_second_layer_is_weaker() -> None:
    """bubblewrap works without Landlock; the line names what would bring it."""
    whole = check_layers(WORKS["bubblewrap"], "entered")
    assert (whole.status, whole.seen) == (Status.OK, "entered; Landlock beneath the mounts")
    lacking = replace(WORKS["bubblewrap"], lacks=NO_SECOND_LAYER)
    part = check_layers(lacking, "entered")
    assert part.status is Status.WEAKER
    assert "no Landlock beneath the mounts" in part.seen
    assert "Linux 5.19" in part.fix
    assert check_cgroup(Delegation(Path("/cg"))).status is Status.OK


def test_fallbacks_are_named() -> None:
    assert "workspaces are copies" in check_overlay("o", Path("/x"), REFUSED).seen
    check = check_cgroup(Delegation(None, "nothing mounted"))
    assert check.seen == "nothing mounted; limits hold per process only"
    assert "systemd-run" in check.fix


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hard limits below the policy's, and root, whom the number of processes does not bind."""
    policy = Policy(Path("/w"), max_processes=10)
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (0, resource.RLIM_INFINITY))
    assert check_limits(policy, 1000).status is Status.OK
    assert "ordinary user" in check_limits(policy, 0).fix
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (0, 5))
    assert "processes 5 instead of 10" in check_limits(policy, 1000).seen


@pytest.mark.parametrize(
    ("name", "sandbox", "working", "status"),
    [
        ("workspace-write", {}, {"bubblewrap", "landlock"}, Status.OK),
        ("workspace-write", {}, {"landlock"}, Status.OK),
        ("workspace-write", {}, set(), Status.FAIL),
        ("workspace-write", {"isolation": "bubblewrap"}, {"landlock"}, Status.FAIL),
        ("network", {"policies": {"network": {"hosts": ["a.test"]}}}, {"landlock"}, Status.FAIL),
        ("full-access", {}, set(), Status.OK),
    ],
)
def test_whether_a_policy_can_be_kept(
    name: str, sandbox: dict[str, Any], working: set[str], status: Status
) -> None:
    """A weaker kind will do unless the configuration or the policy says otherwise."""
    findings = {kind: Finding(kind, kind in working, "seen: remedy", "remedy") for kind in WORKS}
    check = check_level(config_of({"sandbox": sandbox}, "c").find(name), findings)
    assert check.status is status
    assert check.fix == ("remedy" if status is Status.FAIL else "")
    assert "remedy" not in check.seen


@pytest.mark.parametrize("name", ["reflink", "fuse-overlayfs"])
def test_what_stands_in_for_an_overlay(name: str) -> None:
    """It matters only where there is none; then what is used instead, and what would help."""
    works = {"ok": True, "seen": "fine"}
    assert check_fallback(name, Path("/x"), REFUSED, has_overlay=True).fix == ""
    assert check_fallback(name, Path("/x"), REFUSED, has_overlay=True).status is Status.OK
    missing = check_fallback(name, Path("/x"), REFUSED, has_overlay=False)
    assert (missing.status, bool(missing.fix)) == (Status.WEAKER, True)
    found = check_fallback(name, Path("/x"), works, has_overlay=False)
    assert found.status is (Status.OK if name == "reflink" else Status.WEAKER)


@pytest.mark.parametrize(
    ("sandbox", "working", "status", "said"),
    [
        ({}, {"bubblewrap"}, Status.WEAKER, "a unix socket that a host program makes later"),
        (
            {"policies": {"workspace-write": {"unix_sockets": "deny"}}},
            {"bubblewrap"},
            Status.OK,
            "none known",
        ),
        ({}, {"landlock"}, Status.WEAKER, "chmod, utime and extended attributes"),
        ({"policy": "full-access"}, set(), Status.WEAKER, "everything is open"),
    ],
)
def test_what_isolation_leaves_open(
    sandbox: dict[str, Any], working: set[str], status: Status, said: str
) -> None:
    """By its nature, so that nobody takes silence for safety."""
    findings = {kind: Finding(kind, kind in working, "seen") for kind in WORKS}
    check = check_gaps(config_of({"sandbox": sandbox}, "c").find(), findings)
    assert (check.status, said in check.seen) == (status, True)
    assert check.fix == "" or status is Status.WEAKER  # what is in order needs no fix


@pytest.mark.slow
async def test_this_machine_keeps_the_default_policy(tmp_path: Path) -> None:
    """Every probe runs for real; none may fail where this suite passes."""
    policy = config_of({}, "c").find()
    begun: list[str] = []
    place = tmp_path / "state" / "deep"
    checks = {check.name: check async for check in examine(policy, place, begun.append)}
    assert begun == ["isolation", "storage", "secrets and sockets", "warm tests"]
    failed = [check for check in checks.values() if check.status is Status.FAIL]
    assert failed == []
    assert {
        *("platform", "bubblewrap", "landlock", "seccomp", "user namespaces", "network namespace"),
        *("/proc mount", "reflink", "cgroup", "limits", "policy workspace-write"),
        *("secrets and sockets", "warm tests", "fuse-overlayfs", "gaps"),
    } <= set(checks)
    assert "CapEff=0" in checks["bubblewrap"].seen
    assert os.listdir(tmp_path) == []
