import subprocess
from pathlib import Path

from benchmarks.workshop.trees import NUM_CHANGED, change, make_tree


def test_a_tree_has_its_files_committed_and_a_change_touches_few(tmp_path: Path) -> None:
    def git(*arguments: str) -> list[str]:
        done = subprocess.run(["git", *arguments], cwd=tmp_path, capture_output=True, check=True)
        return done.stdout.decode().splitlines()

    make_tree(tmp_path, 200)
    assert len(git("ls-files")) == 200
    assert git("status", "--porcelain") == []
    change(tmp_path, "once")
    assert len(git("status", "--porcelain")) == NUM_CHANGED
