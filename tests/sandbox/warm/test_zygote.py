"""Warm pytest runs must say what cold ones say, or not be warm."""

import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.sandbox.conftest import plain_environment
from tightloop.sandbox.interface import Command, CommandResult, Policy
from tightloop.sandbox.isolation import open_sandbox
from tightloop.sandbox.session import PersistentSandbox
from tightloop.sandbox.verdicts import read_report

# The asyncio plugin warns about this unless a project decides it.
CONFIG = "[pytest]\nasyncio_default_fixture_loop_scope = function\n"
WARM = "python -m pytest -q"
# A prefix keeps the words but makes it no plain pytest command.
COLD = "env python -m pytest -q"


async def warm_sandbox(workspace: Path) -> PersistentSandbox:
    """A sandbox whose warm process is ready."""
    sandbox = await open_sandbox(Policy(workspace), kind="bubblewrap")
    if not await sandbox.warm_tests_ready():
        await sandbox.close()
        raise AssertionError(sandbox.warm_refusal)
    return sandbox


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PersistentSandbox]:
    """One sandbox with a plain pytest; the tests share its directory one after the other."""
    workspace = tmp_path_factory.mktemp("warm")
    plain_environment(workspace)
    sandbox = await warm_sandbox(workspace)
    yield sandbox
    await sandbox.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def with_plugins(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[PersistentSandbox]:
    """One sandbox with the plugins of the environment that runs these tests."""
    sandbox = await warm_sandbox(tmp_path_factory.mktemp("plugins"))
    yield sandbox
    await sandbox.close()


def emptied(sandbox: PersistentSandbox, config: str) -> Path:
    """The sandbox's directory as a project without files."""
    place = sandbox.workspace
    for path in place.iterdir():
        if path.name == ".venv":
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    (place / "pytest.ini").write_text(config)
    return place


@pytest.fixture
def project(shared: PersistentSandbox) -> Path:
    """An empty project."""
    return emptied(shared, "[pytest]\n")


def plain(result: CommandResult) -> tuple[int, str]:
    """Exit code and text without durations and addresses, which differ between any two runs."""
    text = re.sub(r"\d+\.\d+s", "TIME", result.output)
    text = re.sub(r"0x[0-9a-f]+", "ADDRESS", text)
    return result.exit_code, re.sub(r"pytest-\d+/", "pytest-N/", text)


def is_warm(result: CommandResult) -> bool:
    """Whether a resident interpreter ran it, at whatever level."""
    return result.how.startswith("warm-pytest")


async def compare(sandbox: PersistentSandbox, arguments: str = "") -> CommandResult:
    """Both ways give the same code and text; returns the warm result."""
    warm = await sandbox.run(Command(script=f"{WARM} {arguments}"))
    cold = await sandbox.run(Command(script=f"{COLD} {arguments}"))
    assert (is_warm(warm), cold.how) == (True, "spawn")
    assert plain(cold) == plain(warm)
    return warm


MODULE = "def value():\n    return 1\n"
TEST = "import subject as c\n\n\ndef test_value():\n    assert c.value() == 1\n"
EDITS = {
    "passing": ("subject.py", MODULE, 0),
    "failing": ("subject.py", MODULE.replace("1", "2"), 1),
    "syntax error": ("subject.py", "def value(:\n", 2),
    "import error": ("subject.py", "import not_there\n", 2),
    "exit on import": ("subject.py", "raise SystemExit(7)\n", 3),
    "prints": ("subject.py", MODULE.replace("return", "print('x'); return 3 #"), 1),
    "xfail": (
        "test_it.py",
        "import pytest\n\n\n@pytest.mark.xfail\ndef test_x():\n    assert 0\n",
        0,
    ),
    "skip": ("test_it.py", "import pytest\npytest.skip('no', allow_module_level=True)\n", 5),
    "no tests": ("test_it.py", "", 5),
    "warning": ("test_it.py", "import warnings\ndef test_w(): warnings.warn('w')\n", 0),
    "conftest": (
        "conftest.py",
        "import pytest, sys\n@pytest.fixture(autouse=True)\ndef f():\n    assert sys.argv[1:]==[]\n",
        1,
    ),
    "broken conftest": ("conftest.py", "1/0\n", 4),
    "search path": (
        "test_it.py",
        "import os, sys\ndef test_p():\n    assert (os.getcwd(), sys.argv, sys.path) == 0\n",
        1,
    ),
    "environment": (
        "test_it.py",
        "import os, sys\ndef test_e():\n    e = dict(os.environ)\n    e.pop('TIGHTLOOP_COMMAND')\n"
        "    e.pop('PYTEST_CURRENT_TEST')\n    e.pop('_')\n"
        "    assert (sorted(e.items()), sys.flags, sys.executable, sys.warnoptions) == 0\n",
        1,
    ),
    "descriptors": (
        "test_it.py",
        "import os\ndef test_d():\n    assert sorted(os.listdir('/proc/self/fd')) == 0\n",
        1,
    ),
    "main module": (
        "test_it.py",
        "import __main__\ndef test_m():\n    assert (__main__.__name__, __main__.__file__) == 0\n",
        1,
    ),
    "standard output at exit": (
        "test_it.py",
        "import atexit, threading\natexit.register(print, 'bye')\n"
        "def late(): threading.main_thread().join(); print('late')\n"
        "def test_t(): threading.Thread(target=late).start()\n",
        0,
    ),
}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("edit", EDITS)
async def test_the_same_code_and_text_as_a_cold_run(
    edit: str, shared: PersistentSandbox, project: Path
) -> None:
    """Over edits of code, tests and configuration, and what a test can see of its process."""
    (project / "subject.py").write_text(MODULE)
    (project / "test_it.py").write_text(TEST)
    name, text, code = EDITS[edit]
    (project / name).write_text(text)
    assert (await compare(shared)).exit_code == code


PLUGIN_EDITS = {
    "hypothesis": (
        "test_it.py",
        "from hypothesis import given, settings, strategies as st\n"
        "@settings(database=None)\n@given(st.integers())\ndef test_h(i): assert i < 100\n",
        1,
    ),
    "async": (
        "test_it.py",
        "import asyncio, pytest\n@pytest.mark.asyncio\nasync def test_a():\n"
        "    await asyncio.sleep(0)\n    assert [1, 2] == [1, 3]\n",
        1,
    ),
}


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("edit", PLUGIN_EDITS)
async def test_plugins_behave_as_in_a_cold_run(edit: str, with_plugins: PersistentSandbox) -> None:
    """Those that are installed here; the header names their settings."""
    project = emptied(with_plugins, CONFIG)
    name, text, code = PLUGIN_EDITS[edit]
    (project / name).write_text(text)
    assert (await compare(with_plugins, "-vv -p no:cacheprovider")).exit_code == code


@pytest.mark.asyncio(loop_scope="module")
async def test_edits_of_the_same_size_in_the_same_instant_are_seen(
    shared: PersistentSandbox, project: Path
) -> None:
    """Python alone would run the old code: size and time of the source do not change."""
    (project / "subject.py").write_text(MODULE)
    (project / "test_it.py").write_text(TEST)
    await shared.run(Command(script="env -u PYTHONDONTWRITEBYTECODE python -m pytest -q"))
    assert list((project / "__pycache__").iterdir())  # the trap is set
    for value, code in ((2, 1), (1, 0), (3, 1)):
        for name, text in (("subject.py", MODULE), ("test_it.py", TEST)):
            old = (project / name).stat()
            changed = text.replace("1", str(value)) if name.startswith("subject") else text
            (project / name).write_text(changed)
            os.utime(project / name, ns=(old.st_atime_ns, old.st_mtime_ns))
        result = await shared.run(Command(script=WARM))
        assert (is_warm(result), result.exit_code) == (True, code)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_changed_assertion_of_the_same_size_is_seen(
    shared: PersistentSandbox, project: Path
) -> None:
    """pytest keeps rewritten tests in a cache of its own, with the same trap."""
    test = project / "test_it.py"
    test.write_text("def test_a():\n    assert 1 == 1\n")
    await shared.run(Command(script="env -u PYTHONDONTWRITEBYTECODE python -m pytest -q"))
    old = test.stat()
    test.write_text("def test_a():\n    assert 1 == 2\n")
    os.utime(test, ns=(old.st_atime_ns, old.st_mtime_ns))
    result = await shared.run(Command(script=WARM))
    assert (is_warm(result), result.exit_code) == (True, 1)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_run_does_not_touch_the_next(shared: PersistentSandbox, project: Path) -> None:
    """W1: variables, paths, modules, directory and standard streams are the child's own."""
    (project / "test_it.py").write_text(
        "import os, sys, json\n"
        "def test_first():\n"
        "    assert 'MINE' not in os.environ and json.loads is not None and '/mine' not in sys.path\n"
        "    os.environ['MINE'] = '1'; json.loads = None; sys.path.insert(0, '/mine')\n"
        "    os.chdir('/'); sys.stdout = None\n"
    )
    for _ in range(2):
        result = await shared.run(Command(script=WARM))
        assert (is_warm(result), result.exit_code) == (True, 0), result.output


@pytest.mark.asyncio(loop_scope="module")
async def test_nothing_is_written_into_the_project(
    shared: PersistentSandbox, project: Path
) -> None:
    """No cached code that a later run could trust."""
    (project / "test_it.py").write_text("def test_a(): pass\n")
    await shared.run(Command(script=f"{WARM} -p no:cacheprovider"))
    assert set(os.listdir(project)) == {".venv", "pytest.ini", "test_it.py"}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "arguments",
    ["-x", "-k value", "test_it.py::test_value", "--tb=short -vv", "--nonsense", "gone.py"],
)
async def test_arguments_mean_the_same(
    arguments: str, shared: PersistentSandbox, project: Path
) -> None:
    """Selections, formats, and mistakes."""
    (project / "subject.py").write_text(MODULE)
    (project / "test_it.py").write_text(TEST)
    if arguments == "--nonsense":
        result = await shared.run(Command(script=f"{WARM} {arguments}"))
        assert (result.how, result.exit_code) == ("spawn", 4)
    else:
        await compare(shared, arguments)


@pytest.mark.asyncio(loop_scope="module")
async def test_the_pytest_script_finds_what_it_finds_cold(
    shared: PersistentSandbox, project: Path
) -> None:
    """Without -m the directory is not on the search path, so a module beside tests/ is missing."""
    (project / "tests").mkdir()
    (project / "subject.py").write_text(MODULE)
    (project / "tests" / "test_it.py").write_text(TEST)
    warm = await shared.run(Command(script="pytest -q"))
    cold = await shared.run(Command(script="env pytest -q"))
    assert (is_warm(warm), cold.how) == (True, "spawn")
    assert plain(cold) == plain(warm)
    assert warm.exit_code == 2


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pytest.ini", CONFIG + "addopts = -p some_plugin\n"),
        ("pytest.ini", CONFIG + "addopts = -n 4\n"),
        ("setup.cfg", "[tool:pytest]\naddopts = --cov=x\n"),
        ("pyproject.toml", '[tool.pytest.ini_options]\naddopts = ["-p", "plugin"]\n'),
        ("random.py", "x = 1\n"),
        ("pluggy/__init__.py", ""),
        ("tests/statistics.py", ""),
    ],
)
async def test_what_might_differ_runs_cold(
    name: str, text: str, shared: PersistentSandbox, project: Path
) -> None:
    """Plugins by configuration, and files that hide a resident module."""
    (project / name).parent.mkdir(exist_ok=True)
    (project / name).write_text(text)
    (project / "test_it.py").write_text("def test_a(): pass\n")
    assert (await shared.run(Command(script=WARM))).how == "spawn"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "script",
    [
        f"{WARM} | tail -1",
        f"cd . && {WARM}",
        f"A=1 {WARM}",
        f"{WARM} --cov",
        f"{WARM} -p xdist",
        f"{WARM} --pdb",
        f"{WARM} *.py",
        "/usr/bin/python3 -m pytest",
    ],
)
async def test_other_commands_run_cold(
    script: str, shared: PersistentSandbox, project: Path
) -> None:
    """Anything but a plain pytest command, and other interpreters."""
    assert (await shared.run(Command(script=script))).how == "spawn"


@pytest.mark.asyncio(loop_scope="module")
async def test_variables_of_the_command_make_it_cold(
    shared: PersistentSandbox, project: Path
) -> None:
    """Resident modules may have looked at them already."""
    command = Command(script=WARM, environment={"PYTEST_ADDOPTS": "-x"})
    assert (await shared.run(command)).how == "spawn"


@pytest.mark.asyncio(loop_scope="module")
async def test_a_time_limit_ends_a_warm_run(shared: PersistentSandbox, project: Path) -> None:
    """The child, not the resident process: the next run is warm again."""
    (project / "test_it.py").write_text("import signal\ndef test_a(): signal.pause()\n")
    result = await shared.run(Command(script=WARM, timeout_s=1.0))
    assert (result.exit_code, result.timed_out) == (-signal.SIGKILL, True)
    (project / "test_it.py").write_text("def test_a(): pass\n")
    assert is_warm(await shared.run(Command(script=WARM)))


async def test_a_killed_zygote_costs_no_command(workspace: Path) -> None:
    """The run under way ends as its own process does; it is started once more, then no more."""
    plain_environment(workspace)
    (workspace / "pytest.ini").write_text("[pytest]\n")
    (workspace / "test_it.py").write_text(
        "import os, signal\ndef test_a():\n    parent = os.getppid()\n"
        "    if 'warm/__main__' in open(f'/proc/{parent}/cmdline').read():\n"
        "        os.kill(parent, signal.SIGKILL)\n"
    )
    sandbox = await warm_sandbox(workspace)
    try:
        said = [await sandbox.run(Command(script=WARM)) for _ in range(3)]
    finally:
        await sandbox.close()
    assert [result.exit_code for result in said] == [0, 0, 0]
    assert [is_warm(result) for result in said] == [True, True, False]


@pytest.mark.asyncio(loop_scope="module")
async def test_an_installation_makes_a_new_zygote(shared: PersistentSandbox, project: Path) -> None:
    """The run that finds it out goes cold, those after it are warm again."""
    (project / "test_it.py").write_text("import fresh\ndef test_a(): assert fresh.x == 1\n")
    packages = next((project / ".venv" / "lib").glob("*/site-packages"))
    (packages / "fresh.py").write_text("x = 1\n")
    said = [await shared.run(Command(script=WARM)) for _ in range(2)]
    assert [(is_warm(result), result.exit_code) for result in said] == [(False, 0), (True, 0)]


@pytest.mark.asyncio(loop_scope="module")
async def test_another_directory_runs_cold(shared: PersistentSandbox, project: Path) -> None:
    """Resident modules may have remembered the directory they were loaded in."""
    (project / "sub").mkdir()
    (project / "sub" / "test_it.py").write_text("def test_a(): pass\n")
    assert (await shared.run(Command(script=WARM, cwd="sub"))).how == "spawn"


async def test_runs_before_everything_is_learnt_are_warm_already(tmp_path: Path) -> None:
    """The first run does not wait for what later ones gain from, and says the same."""
    plain_environment(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_a.py").write_text("def test_a():\n    assert [1] == [2]\n")
    sandbox = await open_sandbox(Policy(tmp_path), kind="bubblewrap")
    try:
        early = [await sandbox.run(Command(script=WARM)) for _ in range(3)]
        assert await sandbox.warm_tests_ready(), sandbox.warm_refusal
        late = await sandbox.run(Command(script=WARM))
        cold = await sandbox.run(Command(script=COLD))
    finally:
        await sandbox.close()
    assert [is_warm(result) for result in (*early, late, cold)] == [True] * 4 + [False]
    assert {plain(result) for result in (*early, late)} == {plain(cold)}


@pytest.mark.slow
async def test_a_run_says_its_level_and_how_each_test_ended(tmp_path: Path) -> None:
    """Through the sandbox: bare, with the project's modules, with an edited body swapped in."""
    plain_environment(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "subject.py").write_text(MODULE)
    (tmp_path / "test_it.py").write_text(TEST)
    command = Command(script=WARM, is_reporting=True)
    said: list[CommandResult] = []
    sandbox = await warm_sandbox(tmp_path)
    try:
        while len(said) < 10 and (not said or said[-1].how == "warm-pytest-l0"):
            said.append(await sandbox.run(command))  # the modules are imported between two runs
        (tmp_path / "subject.py").write_text("# edited\n" + MODULE.replace("1", "2"))
        swapped = await sandbox.run(command)
        cold = await sandbox.run(Command(script=COLD))
    finally:
        await sandbox.close()
    assert (said[0].how, said[-1].how) == ("warm-pytest-l0", "warm-pytest-l1")
    assert {plain(result) for result in said} == {plain(said[0])}
    assert read_report(said[-1].report) == {"test_it.py::test_value": "passed"}
    assert (swapped.how, plain(swapped)) == ("warm-pytest-swap", plain(cold))
    assert read_report(swapped.report) == {"test_it.py::test_value": "failed"}
