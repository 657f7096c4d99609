"""What a rule covers, and what it does not."""

import pytest

from tightloop.agent.approval.acts import acts_of_line
from tightloop.agent.approval.interface import Mode
from tightloop.agent.approval.judge import Line, Outcome, Situation, judge
from tightloop.agent.approval.rules import Pattern, Rule, RuleError, Rules, ToolRule

ASK, AUTO = Situation(Mode.ASK), Situation(Mode.AUTO)


def allowing(*texts: str) -> Rules:
    return Rules(allow=tuple(Rule(Pattern.parse(text, allows=True)) for text in texts))


def denying(*texts: str) -> Rules:
    return Rules(deny=tuple(Rule(Pattern.parse(text, allows=False), "not here") for text in texts))


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ("pytest", "pytest"),
        ("pytest *", "pytest"),
        ("pytest *", "pytest -q tests/test_a.py -k 'a or b'"),
        ("pytest *", "timeout 60 pytest -q 2>&1 | tail -20"),
        ("pytest *", "cd sub && CI=1 pytest"),
        ("pytest *", "bash -lc 'pytest -q'"),
        ("pytest *", "pytest $(cat list)"),
        ("CI=2 X=1 make test", "X=1 CI=2 make test"),
        ("npm run test:*", "npm run test:unit"),
        ("git commit *", "git commit -m 'a b'"),
        ("git *", "git push origin main"),
        ("python -m pytest *", "python -m pytest -q"),
        ("python -c *", "python -c 'print(1)'"),
        ("python *", "python tool.py --x"),
        ("./run.sh *", "./run.sh a"),
        ("rg --pre x *", "rg --pre x y"),
        ("sudo systemctl restart x", "sudo systemctl restart x"),
        ("echo '*'", "echo a"),
        ("sed -i *", "sed -i s/a/b/ f"),
        ("uv run pytest *", "uv run pytest -q"),
        ("bash ci/run.sh *", "bash ci/run.sh -x"),
    ],
)
def test_allowed(rule: str, line: str) -> None:
    judgement = judge(Line(line), allowing(rule), ASK)
    assert judgement.outcome is Outcome.RUN, judgement.reason


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ("pytest", "pytest -q"),
        ("git status", "git status -s x; rm x"),
        ("pytest *", "pytest > out"),
        ("pytest *", "pytest; rm x"),
        ("pytest *", "./pytest"),
        ("pytest *", "/tmp/pytest"),
        ("pytest *", "PYTHONPATH=x pytest"),
        ("pytest *", "PATH=. pytest"),
        ("pytest *", "X=1; pytest"),
        ("pytest *", "cd /tmp && pytest"),
        ("pytest *", "cd .. && pytest"),
        ("./run.sh *", "cd sub && ./run.sh"),
        ("git *", "git -c core.pager=x log"),
        ("git *", "git commit -m $x -c y"),
        ("git *", "git $x"),
        ("git *", "git difftool"),
        ("git *", "git fetch ext::sh"),
        ("rg *", "rg --pre=x y"),
        ("rg *", "rg --pr x y"),
        ("tar *", "tar xf a --to-com=x"),
        ("make *", "make -f other"),
        ("make *", "make SHELL=x"),
        ("python *", "python -c 1"),
        ("python *", "python -m x"),
        ("python *", "python"),
        ("python *", "python -"),
        ("python", "echo x | python"),
        ("find *", "find . -delete"),
        ("sed *", "sed -i s/a/b/ f"),
        ("awk *", "awk '{print > \"x\"}' f"),
        ("uv *", "uv run rm x"),
        ("npm run test:*", "npm run testing"),
        ("npm run test:*", "npm run test:a b"),
        ("pytest *", "\uff50ytest"),
        ("echo x", "echo 'x' && $(rm y)"),
    ],
)
def test_not_allowed(rule: str, line: str) -> None:
    assert judge(Line(line), allowing(rule), ASK).outcome is Outcome.ASK


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ("git push", "git push"),
        ("git push", "git push origin main"),
        ("git push *", "git push origin main"),
        ("git push", "/usr/bin/git push"),
        ("git push", "git -C x --no-pager push"),
        ("git push", "timeout 5 env X=1 git push"),
        ("git push", "sudo git push"),
        ("git push", "unknown --x git push"),
        ("git push", "bash -c 'cd x; git push'"),
        ("rm -rf", "rm -r -f x"),
        ("rm -rf", "rm x -fr"),
        ("git push --force", "git push origin --force"),
        ("git push --force", "git push origin --forc"),
        ("sudo *", "sudo ls"),
        ("npm run deploy*", "npm run deploy:all"),
        ("xargs", "ls | xargs cat"),
        ("curl", "c\\url x"),
    ],
)
def test_denied(rule: str, line: str) -> None:
    """Also when another rule allows it."""
    rules = Rules(deny=denying(rule).deny, allow=allowing("git *", "npm *", "rm *").allow)
    judgement = judge(Line(line), rules, AUTO)
    assert (judgement.outcome, "not here" in judgement.reason) == (Outcome.DECLINE, True)


@pytest.mark.parametrize(
    "line",
    ["git $x", "$x push", "x=push; git $x", "eval \"$x\"", "echo git push | sh", "python -c 'run()'",
     "ssh host 'git push'", "sh <(cat x)", "git {push,x}", "case x in x) git push;; esac"],
)  # fmt: skip
def test_what_may_be_denied_is_asked_for(line: str) -> None:
    """Also in the mode that asks nothing, and where a rule allows the program."""
    rules = Rules(deny=denying("git push").deny, allow=allowing("git *").allow)
    assert judge(Line(line), rules, AUTO).outcome is Outcome.ASK


@pytest.mark.parametrize(
    "line",
    ["git stash push", "git commit -m 'push it'", "echo git push", "grep -rn 'git push' .", "git log",
     "pytest -k push", "python x.py", "make", "ls $x"],
)  # fmt: skip
def test_what_is_something_else_goes_on(line: str) -> None:
    assert judge(Line(line), denying("git push"), AUTO).outcome is Outcome.RUN


def test_an_asking_rule_asks_in_every_mode() -> None:
    rules = Rules(ask=(Rule(Pattern.parse("npm publish", allows=False)),))
    for mode in (Mode.ASK, Mode.AUTO, Mode.FULL):
        assert judge(Line("npm publish"), rules, Situation(mode)).outcome is Outcome.ASK
    assert judge(Line("npm test"), rules, AUTO).outcome is Outcome.RUN


def test_rules_do_not_widen_the_reading_mode() -> None:
    reading = Situation(Mode.READ_ONLY)
    assert judge(Line("pytest"), allowing("pytest"), reading).outcome is Outcome.DECLINE
    asking = Rules(ask=(Rule(Pattern.parse("npm publish", allows=False)),))
    assert judge(Line("npm publish"), asking, reading).outcome is Outcome.DECLINE


def test_rules_are_about_the_workspace() -> None:
    outside = Situation(Mode.ASK, directory="../other")
    assert judge(Line("pytest"), allowing("pytest"), outside).outcome is Outcome.ASK
    below = Situation(Mode.ASK, directory="sub")
    assert judge(Line("pytest"), allowing("pytest"), below).outcome is Outcome.RUN
    assert judge(Line("./run"), allowing("./run"), below).outcome is Outcome.ASK
    found = Line("find . -execdir ./run ';'")
    assert judge(found, allowing("./run"), ASK).outcome is Outcome.ASK


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "begins with the name"),
        ("* x", "begins with the name"),
        ("a; b", "without ';'"),
        ("a $x", r"without '\$'"),
        ("a 'b", "No closing quotation"),
        ("env pytest", "is judged by itself"),
        ("xargs *", "is judged by itself"),
        ("bash -c x", "is judged by itself"),
        ("eval x", "is judged by itself"),
        ("sudo *", "every program"),
        ("uv run *", "every program"),
        ("bash *", "every program"),
    ],
)
def test_rules_that_cannot_be_used(text: str, wrong: str) -> None:
    with pytest.raises(RuleError, match=wrong):
        Pattern.parse(text, allows=True)


def test_a_denying_rule_takes_no_variables() -> None:
    with pytest.raises(RuleError, match="leave 'A=1' out"):
        Pattern.parse("A=1 git push", allows=False)


def test_the_exact_pattern_of_an_act() -> None:
    """Its stars are characters."""
    (act,) = acts_of_line("echo '*' 'a b'")
    pattern = Pattern.exactly(act)
    assert pattern is not None
    assert (pattern.text, pattern.allows(act)) == ("echo '*' 'a b'", True)
    (other,) = acts_of_line("echo x 'a b'")
    assert not pattern.allows(other)
    assert [Pattern.exactly(one) for one in acts_of_line("echo $x")] == [None]


def test_tools_by_name() -> None:
    assert ToolRule("docs_*").is_about("docs_search")
    assert not ToolRule("docs_*").is_about("mail_send")
