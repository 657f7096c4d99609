# ruff: noqa: TID252 - started as a script, without the package above
"""A process in which pytest itself has started, for one command, up to before the first test.

Unlike one that only holds the project's modules it has done what a run does, in a run's order:
configuration, plugins, conftest, test modules, collection. So it need not guess what test files
do; but any change of a file that this has read, other than by an import that a swap can make
good, makes runs go colder. What children cannot share ends it before it happens.
"""

import fcntl
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Generator, Iterator
from typing import Any, NoReturn

from . import refreshing
from .building import Lesson, State, take_stock
from .child import HIGH_FD, become_cold, end_child, run_pytest, set_dumpable
from .deciding import Swaps
from .declining import CONFIG_FILES
from .recording import Recorder, Refusal
from .report import Lines, OutcomePlugin, hide, register
from .resident import Resident, die_with, refuse, say_built
from .stamps import Seen, Tree
from .standing_in import Descriptors, StandIn, raised


class Collected(Resident):
    """Its children return from ``serve`` and go on to the first test."""

    levels = ("l2", "swap-l2")
    keeps_spare = True

    def __init__(self, start: "Start", state: State, session: Any) -> None:
        self.descriptors = Descriptors.of_now(start.stand_in)
        self.said = start.stand_in.said()
        self.start = start
        self.session = session
        super().__init__(start.link, state)

    def begin(
        self, request: dict[str, Any], fds: list[int], swaps: Swaps, say: Callable[[], object]
    ) -> None:
        """In the child: what pytest has said is the run's, and so is what it will say."""
        os.setpgid(0, 0)
        self.prepared(swaps, say)
        output, wait_fd, *report = fds
        if not os.read(wait_fd, 1):
            os._exit(0)  # nobody could announce this run: it goes colder
        self.poll.close()
        self.link.detach()  # closed below, by their numbers; an object left over would warn
        if self.spare is not None:
            self.spare.link.detach()
        output = raised(output)
        kept = [output, *map(raised, report[:1])]
        self.descriptors.hand_over(output, kept)
        os.close(output)
        said = self.said
        while said:
            said = said[os.write(1, said) :]
        set_dumpable(True)
        os.environ.update(request["environment"])
        self.start.forget(self.session, kept[1] if len(kept) > 1 else -1)

    def prepare(self, swaps: Swaps) -> None:
        """In the child: also what pytest has noted of the time before."""
        super().prepare(swaps)
        refreshing.refresh(self.session, self.start.collection.reports)


class Start:
    """One start of pytest that ends where tests would begin."""

    def __init__(self, link: socket.socket, lesson: Lesson, workspace: str) -> None:
        self.link = link
        self.lesson = lesson
        self.stand_in = StandIn(lesson.shape)
        self.outcomes = OutcomePlugin(Lines(-1))
        self.collection = refreshing.CollectionReports()
        self.state = State(workspace, Tree(workspace))
        self.recorder = self.state.recorder = Recorder(self.state.is_project, self.refuse)
        self.before = set(sys.modules)
        self.hidden: list[Any] = []
        self.interrupts = interrupts()
        self.end = end_of_collection(self.on_collected)

    def run(self) -> int:
        """Exit code of the run, in a child; never returns in the process itself."""
        request = self.lesson.request
        rewriting = vars(sys.modules["_pytest.assertion.rewrite"])
        self.rewrite_test = rewriting["_rewrite_test"]
        self.lesson.codes.is_keeping = True
        self.hidden = hide()
        become_cold(request, self.state.workspace, self.lesson.codes)
        register([self.outcomes, self.collection, self.end])
        self.recorder.watch()
        return run_pytest("" if request["is_module"] else request["program"])

    def refuse(self, why: str) -> NoReturn:
        """There is no such process; nothing that pytest would do at its end is done."""
        refuse(self.link, self.lesson, Refusal(f"until the first test there is {why}"))

    def on_collected(self, session: Any, error: BaseException | None) -> None:
        """In the process itself: serve. Returns in children."""
        try:
            if error is not None:
                raise error
            self.recorder.rest()
            check_session(session, self.state)
            if interrupts() != self.interrupts:
                raise Refusal("a signal would run the project's code here")
            self.take_stock(session)
            collected = Collected(self, self.state, session)
            say_built(self.link, self.lesson, self.state)
        except BaseException as error:  # noqa: BLE001 - a project may raise anything
            refuse(self.link, self.lesson, error)
        collected.serve()

    def take_stock(self, session: Any) -> None:
        """What is here was made from these files."""
        state, recorder = self.state, self.recorder
        cached = refreshing.cached_files(session.config)
        for path in cached & recorder.opened.keys():
            del recorder.opened[path]
        state.random.note(is_set=recorder.is_seeded, unseeded=recorder.unseeded.values())
        new = {name: sys.modules[name] for name in sys.modules if name not in self.before}
        state.read |= {os.path.realpath(path) for path in defining_files(session)}
        take_stock(state, recorder, new)
        # a configuration may come to be where pytest has looked for one
        directory = os.path.dirname(state.workspace)
        while directory != os.path.dirname(directory):
            for name in (*CONFIG_FILES, "setup.py"):
                path = os.path.join(directory, name)
                state.outside.setdefault(path, Seen(path))
            directory = os.path.dirname(directory)
        frame: Any = sys._getframe()
        while frame is not None:
            state.suspended.add(os.path.realpath(frame.f_code.co_filename))
            frame = frame.f_back

    def forget(self, session: Any, report_fd: int) -> None:
        """In the child: nothing of this is left that a run would not have."""
        vars(sys.modules["_pytest.assertion.rewrite"])["_rewrite_test"] = self.rewrite_test
        manager = session.config.pluginmanager
        manager.unregister(self.end)
        manager.unregister(self.collection)
        if report_fd < 0:
            manager.unregister(self.outcomes)
        else:
            self.outcomes.lines.fd = report_fd


def interrupts() -> list[Any]:
    """What the end of a child, a pause or a timer would run in a process that only waits."""
    numbers = (signal.SIGCHLD, signal.SIGCONT, signal.SIGALRM, signal.SIGPROF, signal.SIGVTALRM)
    timers = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
    return [*map(signal.getsignal, numbers), *(signal.getitimer(timer) for timer in timers)]


def check_session(session: Any, state: State) -> None:
    """Raises Refusal when it is not known that tests may begin at any later time."""
    if session.testsfailed or not session.items:
        raise Refusal("nothing is collected")
    plugin = refreshing.unknown_plugin(session.config, state.is_project)
    if plugin:
        raise Refusal(f"the plugin {plugin} is not known")
    option = refreshing.option_of_the_past(session.config)
    if option:
        raise Refusal(f"earlier runs decide what is collected: {option}")
    if not refreshing.has_start(session.config):
        raise Refusal("this version of pytest notes its start in an unknown way")


def defining_files(session: Any) -> Iterator[str]:
    """Where collected tests are written: their lines have been noted."""
    for item in session.items:
        yield str(item.path)
        yield os.path.join(session.config.rootpath, item.location[0])
        function = getattr(item, "obj", None)
        while function is not None:
            code = getattr(function, "__code__", None)
            if code is not None:
                yield code.co_filename
            wrapped = getattr(function, "__wrapped__", None)
            function = wrapped or getattr(function, "func", None)  # of a partial


def end_of_collection(on_collected: Any) -> Any:
    """A plugin that calls when collection is over."""
    import pluggy

    class EndOfCollection:
        @pluggy.HookimplMarker("pytest")(hookwrapper=True, tryfirst=True)
        def pytest_collection(self, session: Any) -> Generator[None, Any, None]:
            outcome = yield
            error = outcome.excinfo and outcome.excinfo[1]
            on_collected(session, error)

    return EndOfCollection()


def run_collected(link: socket.socket, parent: int, lesson: Lesson, workspace: str) -> NoReturn:
    """In the forked process: start pytest, say so, serve. It dies with its parent."""
    die_with(parent)
    fd = fcntl.fcntl(link.detach(), fcntl.F_DUPFD_CLOEXEC, HIGH_FD)
    os.closerange(3, fd)
    os.closerange(fd + 1, 4096)
    link = socket.socket(fileno=fd)
    try:
        if not hasattr(run_collected.__code__, "co_qualname"):
            raise Refusal("project modules stay resident from Python 3.11 on")
        start = Start(link, lesson, workspace)
    except BaseException as error:  # noqa: BLE001 - whatever it is, there is no such process
        refuse(link, lesson, error)
    own, code = os.getpid(), 1
    try:
        code = start.run()
    except BaseException:  # noqa: BLE001 - the last frame of the process
        traceback.print_exc()
    finally:
        if os.getpid() == own:
            start.refuse("an end")
        end_child(code)
