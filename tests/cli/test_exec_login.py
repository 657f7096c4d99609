"""``tightloop exec`` knows what the login shell exports."""

import os
from pathlib import Path

from tests.cli.test_exec import _script, _tightloop, _words


def test_commands_find_what_the_login_shell_adds(tmp_path: Path) -> None:
    """A directory of the profile is on their search path; nothing else of it is known."""
    home, repo = tmp_path / "home", tmp_path / "repo"
    home.mkdir()
    repo.mkdir()
    (home / ".bash_profile").write_text('export PATH="$PATH:/opt/own/bin" SECRET_TOKEN=hush\n')
    command = 'case "$PATH:$SECRET_TOKEN" in */opt/own/bin:) echo so-it-is;; esac'
    call = {"call": {"name": "exec_command", "arguments": {"cmd": command}}}
    model = _script(repo, [[call], [{"text": "Done."}]])
    known = {**os.environ, "HOME": str(home), "SHELL": "/bin/bash"}
    known.pop("TIGHTLOOP_LOGIN_SHELL", None)
    done = _tightloop(*_words(repo, model=model), env=known)
    assert done.returncode == 0, done.stderr
    assert any(line.endswith(" s, so-it-is") for line in done.stderr.splitlines()), done.stderr
