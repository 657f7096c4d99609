"""116: which shell commands are patches, and which only contain one."""

import pytest

from tightloop.agent.patch.shell_form import (
    ShellPatch,
    is_bare_patch,
    patch_in_argv,
    patch_in_command,
)

BODY = "*** Begin Patch\n*** Delete File: f\n*** End Patch"


@pytest.mark.parametrize(
    ("command", "workdir"),
    [
        (f"apply_patch <<'EOF'\n{BODY}\nEOF", "."),
        (f'apply_patch <<"PATCH"\n{BODY}\nPATCH\n', "."),
        (f"  applypatch << X\n{BODY}\nX", "."),
        (f"cd sub && apply_patch <<'EOF'\n{BODY}\nEOF", "sub"),
        (f"cd 'a dir' && apply_patch <<'EOF'\n{BODY}\nEOF", "a dir"),
        (f"apply_patch '{BODY}'", "."),
        (f"bash -lc \"apply_patch <<'EOF'\n{BODY}\nEOF\"", "."),
    ],
)
def test_patches(command: str, workdir: str) -> None:
    assert patch_in_command(command) == ShellPatch(BODY, workdir)


@pytest.mark.parametrize(
    "command",
    [
        f"apply_patch <<'EOF'\n{BODY}\nEOF\n&& ls",
        f"apply_patch <<'EOF' && ls\n{BODY}\nEOF",
        f"ls; apply_patch <<'EOF'\n{BODY}\nEOF",
        f"cd $(pwd) && apply_patch <<'EOF'\n{BODY}\nEOF",
        f"cd a b && apply_patch <<'EOF'\n{BODY}\nEOF",
        f"apply_patch <<'EOF'\n{BODY}\nEOF\nrm -rf x\nEOF",
        "apply_patch --help",
        "apply_patch 'unclosed",
        "ls",
    ],
)
def test_ordinary_commands(command: str) -> None:
    found = patch_in_command(command)
    assert found is None or not found.text.startswith("*** Begin")


def test_bare_patch() -> None:
    assert is_bare_patch(f"\n{BODY}")
    assert not is_bare_patch("echo '*** Begin Patch'")


@pytest.mark.parametrize(
    "argv",
    [
        ["apply_patch", BODY],
        ["applypatch", BODY],
        ["/usr/bin/zsh", "-lc", f"apply_patch <<'EOF'\n{BODY}\nEOF"],
        ["pwsh", "-NoProfile", "-Command", f"apply_patch <<'EOF'\n{BODY}\nEOF"],
        ["powershell.exe", "-Command", f"apply_patch <<'EOF'\n{BODY}\nEOF"],
        ["cmd", "/c", f"apply_patch <<'EOF'\n{BODY}\nEOF"],
    ],
)
def test_argument_vectors(argv: list[str]) -> None:
    assert patch_in_argv(argv) == ShellPatch(BODY)


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["apply_patch"],
        ["apply_patch", BODY, "more"],
        ["bash", "-c", f"apply_patch <<'EOF'\n{BODY}\nEOF", "arg0"],
        ["bash", "-x", "-c", f"apply_patch <<'EOF'\n{BODY}\nEOF"],
        ["python", "-c", f"apply_patch <<'EOF'\n{BODY}\nEOF"],
        ["bash", "-c", f"apply_patch <<'EOF'\n{BODY}\nEOF\nls"],
    ],
)
def test_other_argument_vectors(argv: list[str]) -> None:
    assert patch_in_argv(argv) is None
