"""The table of what provably only reads."""

import pytest

from tightloop.agent.approval.interface import Mode
from tightloop.agent.approval.judge import Line, Outcome, Situation, judge
from tightloop.agent.approval.rules import Rules

READING = [
    "ls -la", "cat a b | head -5", "cat $x", "grep -rn 'x y' src/ || true", "rg -n --hidden x src",
    "rg 'a|b' -g '*.py' src", "find . -name '*.py' -not -path './x/*' | xargs grep -l x", "wc -l < f",
    "find . -type f -exec grep -l x {} +", "sed -n '1,20p' f", "sed -n '/a/,/b/p;5q' f", "sed 's/a/b/g' f",
    "sed -n -e '1p' -e '$p' f", "awk '{print $2}' f", "awk -F: 'NR==1 {print $1}' f", "sort -rnk2 f | uniq -c",
    "git status --short", "git diff --stat HEAD~1", "git log --oneline -5 -- src", "git show HEAD:f",
    "git --no-pager diff", "git blame -L 1,5 f", "git branch -a", "git stash list", "git ls-files '*.py'",
    "cd src && ls", "for f in a b; do cat \"$f\"; done", "if [ -f x ]; then cat x; fi", "x=1; echo $x",
    "cat <<E\nhello $x\nE", "echo a > /dev/null 2>&1", "env LANG=C ls", "timeout 5 cat f", "bash -lc 'ls -l'",
    "test -e f && echo yes", "printf '%s\\n' a", "command -v python", "jq -r .a f", "date +%s", "tree -L 2",
    "diff -u a b", "head -c 10 < f", "echo $(ls)", "nl -ba f | sed -n '3p'", "true", ": comment", "du -sh .",
    "stat -c %s f", "file f", "which python3 node", "cut -d, -f1 f", "tr a b < f", "fd -e py x",
]  # fmt: skip
NOT_READING = [
    "rm x", "touch x", "echo a > f", "cat a >> b", "ls > $x", "sed -i s/a/b/ f", "sed 'w out' f", "sed '1e ls' f",
    "sed 's/a/b/e' f", "sed 's/a/b/w out' f", "sed -f x f", "sed $x f", "sed -n \"$x\" f", "awk 'BEGIN{system(1)}'",
    "awk '{print > \"x\"}' f", "awk -f x f", "awk '{print | \"sh\"}' f", "gawk '@load \"x\"' f", "awk \"$x\" f",
    "find . -delete", "find . -fprint x", "find . -exec rm {} +", "find . $x", "find *", "sort -o f f",
    "sort --outp=f f", "sort --compress-program=x f", "sort *", "uniq a b", "rg --pre x y", "rg --pr=x y",
    "rg -z x", "rg x *", "rg $x", "rg \"$x\"", "git commit -m x", "git branch new", "git tag v1", "git config a b",
    "git diff --output=f", "git diff --outp=f", "git grep -Ols x", "git -c a=b status", "git -C x status",
    "git --exec-path=x status", "git log --ext-diff", "git log --format=%G?", "git show --textconv x",
    "cd sub && git status", "git remote add a b", "git stash", "git $x", "git status $x", "git reflog expire",
    "python -c 1", "python x.py", "pytest", "./ls", "/tmp/ls", "sh x", "tee f", "xargs rm", "env X=1 ls",
    "PATH=. ls", "LD_PRELOAD=x ls", "GIT_PAGER=x git log", "export A=1", "BASH_ENV=x bash -c ls", "printf -v a b",
    "printf 'x%n' a", "printf \"$x\"", "test -v x", "[ $x ]", "cat < /dev/tcp/a/1", "cat <> f", "ls &> f",
    "date -s x", "date 010100", "tree -o f", "file -C", "fd x -x rm", "jq -f x", "diff -l a b", "hostname x",
    "alias ls=rm", "trap x EXIT", "source f", "eval ls $x", "exec > f", "command ls $(rm x)", "[[ a ]]",
    "for PATH in .; do ls; done", "PATH=x; ls", "tar tf x", "less x", "curl x", "ls() { rm x; }; ls", "sudo ls",
]  # fmt: skip


@pytest.mark.parametrize("line", READING)
def test_reading(line: str) -> None:
    """Runs in the mode that takes nothing else."""
    judgement = judge(Line(line), Rules(), Situation(Mode.READ_ONLY))
    assert (judgement.outcome, judgement.by) == (Outcome.RUN, "reading"), judgement.reason


@pytest.mark.parametrize("line", NOT_READING)
def test_not_provably_reading(line: str) -> None:
    assert judge(Line(line), Rules(), Situation(Mode.READ_ONLY)).outcome is Outcome.DECLINE
    assert judge(Line(line), Rules(), Situation(Mode.ASK)).outcome is Outcome.ASK


@pytest.mark.parametrize(
    "line", ["cat /etc/passwd", "cat ~/.ssh/id", "cat ../x", "cat $x", "rg --file=/x y"]
)
def test_without_isolation_reading_ends_at_the_directory(line: str) -> None:
    """What the model reads goes to its provider."""
    assert judge(Line(line), Rules(), Situation(Mode.ASK)).outcome in (Outcome.RUN, Outcome.ASK)
    apart = Situation(Mode.ASK, is_isolated=False)
    assert judge(Line(line), Rules(), apart).outcome is Outcome.ASK
    assert judge(Line("cat src/x"), Rules(), apart).outcome is Outcome.RUN
    outside = Situation(Mode.ASK, is_isolated=False, directory="../other")
    assert judge(Line("cat x"), Rules(), outside).outcome is Outcome.ASK


def test_a_program_of_the_workspace_is_not_the_usual_one() -> None:
    situation = Situation(Mode.READ_ONLY, shadowed=lambda name: name in ("cat", "env"))
    assert judge(Line("cat f"), Rules(), situation).outcome is Outcome.DECLINE
    assert judge(Line("env LANG=C ls"), Rules(), situation).outcome is Outcome.DECLINE
    assert judge(Line("ls"), Rules(), situation).outcome is Outcome.RUN


def test_git_below_the_root_may_be_another_repository() -> None:
    below = Situation(Mode.READ_ONLY, directory="sub")
    assert judge(Line("git status"), Rules(), below).outcome is Outcome.DECLINE
    assert judge(Line("ls"), Rules(), below).outcome is Outcome.RUN
    found = Line("find . -execdir git status ';'")
    assert judge(found, Rules(), Situation(Mode.READ_ONLY)).outcome is Outcome.DECLINE
