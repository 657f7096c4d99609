# ruff: noqa: TID252 - started as a script, without the package above
"""Watches imports: which text became which code, what ran, which files were read, what was done
that a forked process cannot share.

Standard library hooks only. The audit hook cannot be taken away again; it is idle afterwards.
"""

import _thread
import gc
import importlib.machinery
import os
import random
import sys
import threading
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import _bootstrap_external
from typing import Any

from .edits import Outline, Plan
from .looking import ASKING, Looks

_PLACES_WITHOUT_STAMPS = ("/proc", "/sys", "/dev")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_ACTS = (
    *("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostby"),
    *("subprocess.Popen", "os.system", "os.posix_spawn", "os.fork", "os.exec"),
    *("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link"),
    *("os.symlink", "os.truncate", "os.chmod", "os.chown", "os.utime", "shutil.", "tempfile."),
    *("sqlite3.connect", "mmap.", "signal.pthread_kill", "os.kill", "sys.addaudithook"),
    *("sys.setprofile", "sys.settrace"),
)
_HARMLESS_ACTS = ("shutil.which",)
_UNSWAPPABLE = frozenset(
    """
    numba torch tensorflow jax cupy triton grpc gevent eventlet cffi.verifier beartype.claw
    typeguard.importhook pyximport
    """.split()  # noqa: SIM905
)
# Asked by the project itself: the answer would be that of the resident process. Of a file that is
# asked about in this way (``os.stat``) it cannot be seen which one it is.
_CLOCKS = frozenset(
    """
    time time_ns monotonic monotonic_ns perf_counter perf_counter_ns process_time localtime gmtime
    now utcnow today getpid getppid strftime ctime asctime clock_gettime thread_time times
    stat lstat access readlink statvfs register_at_fork
    """.split()  # noqa: SIM905
)
# What a module names its files and tables by must be another thing in each run.
_CHANCE = frozenset(("urandom", "getrandom", "random", "getrandbits", "generate_time_safe"))
_ITS_LIBRARY = frozenset(("random", "uuid", "secrets", "tempfile"))
_SEED, _SET_STATE = random.Random.seed.__code__, random.Random.setstate.__code__
_BELOW = random.Random._randbelow_with_getrandbits.__code__  # type: ignore[attr-defined]
_MAX_SMALL_BITS = 32
# They look at the code of functions for arguments, names and lines, and keep none of it; other
# arguments go colder anyway, and so does every file of a test.
_ASK_FOR_ARGUMENTS = frozenset(("inspect", "functools", "typing", "_pytest", "pytest", "pluggy"))
_HAND_ON = frozenset(("getmembers", "_getmembers", "getattr_static"))
_FUNCTION_LIKE = (types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType)


class Refusal(Exception):
    """This process cannot serve as a warm one; the text says why."""


class ChangedMeanwhile(Refusal):
    """Another attempt may succeed."""


@dataclass(slots=True)
class Source:
    """One project file that was imported: its text, and the code import made of that very text.

    ``outline`` and ``planned``, the last text that it was compared with, save doing that again.
    """

    text: bytes
    code: types.CodeType
    num_loads: int = 1
    outline: Outline | None = None
    planned: tuple[bytes, Plan] | None = None


@dataclass(slots=True)
class Recorder:
    """Everything seen between ``start`` and ``stop``, or ``watch`` and ``rest``.

    ``on_act`` is called before something happens that children could not share; without it, that
    is kept in ``acts``.
    """

    is_project: Callable[[str], bool]
    on_act: Callable[[str], None] | None = None
    sources: dict[str, Source] = field(default_factory=dict)
    executed: dict[int, types.CodeType] = field(default_factory=dict)
    opened: dict[str, int] = field(default_factory=dict)
    acts: list[str] = field(default_factory=list)
    looks: Looks = field(default_factory=Looks)
    kept: dict[int, types.CodeType] = field(default_factory=dict)
    unseeded: dict[int, random.Random] = field(default_factory=dict)
    is_seeded: bool = False
    _is_asking: bool = False
    _is_on: bool = False
    _before: dict[str, Any] = field(default_factory=dict)
    _to_code: Any = None
    _start_thread: Any = None
    _output_fd: int = -1

    def start(self) -> None:
        """From here on everything is seen. Raises Refusal when somebody else is watching."""
        self._before = self._state()
        self._output_fd = os.memfd_create("output", os.MFD_CLOEXEC)
        for fd in (1, 2):
            os.dup2(self._output_fd, fd)
        self.watch()

    def watch(self) -> None:
        """The hooks of ``start`` alone, for a process that does what a run does, in its order."""
        if sys.getprofile() is not None or sys.gettrace() is not None:
            raise Refusal("a profiler or tracer is at work")
        self._hook_loader()
        self._hook_threads()
        sys.addaudithook(self._on_audit)
        threading.setprofile(self._on_call)
        sys.setprofile(self._on_call)
        self._is_on = True  # from here on, other profilers are refused

    def stop(self) -> None:
        """Nothing is seen any more. Raises Refusal for what children could not share."""
        self.rest()
        self._check()

    def rest(self) -> None:
        """Nothing is seen any more. Raises Refusal when somebody has kept things from being seen."""
        profile = sys.getprofile()
        self._is_on = False
        sys.setprofile(None)
        threading.setprofile(None)
        _thread.start_new_thread = self._start_thread
        vars(threading)["_start_new_thread"] = self._start_thread
        loader: Any = _bootstrap_external.SourceLoader
        loader.source_to_code = self._to_code
        if profile != self._on_call:
            raise Refusal("a module set a profiler on import")
        if self.acts:
            raise Refusal(f"importing does {self.acts[0]}")
        if len(os.listdir("/proc/self/task")) > 1:
            raise Refusal("importing starts a thread")
        with open("/proc/self/maps", "rb") as file:
            if any(line.split(maxsplit=2)[1] == b"rw-s" for line in file):
                raise Refusal("importing shares memory")
        found = sorted(_UNSWAPPABLE & sys.modules.keys())
        if found:
            raise Refusal(f"{found[0]} is imported")

    # -- hooks

    def _hook_loader(self) -> None:
        loader: Any = _bootstrap_external.SourceLoader
        original = self._to_code = loader.source_to_code
        recorder = self

        def source_to_code(self: Any, data: Any, path: Any, **options: Any) -> Any:
            code = original(self, data, path, **options)
            name = os.fspath(path)
            if recorder._is_on and isinstance(name, str) and recorder.is_project(name):
                is_plain = type(self) is importlib.machinery.SourceFileLoader
                recorder._note_source(name, data, code, is_plain=is_plain)
            return code

        loader.source_to_code = source_to_code

    def _hook_threads(self) -> None:
        """Started is enough: one that has ended may have run what no hook has seen."""
        original = self._start_thread = _thread.start_new_thread

        def start_new_thread(*arguments: Any) -> int:
            self._note_act("_thread.start_new_thread")
            return original(*arguments)

        _thread.start_new_thread = start_new_thread
        vars(threading)["_start_new_thread"] = start_new_thread

    def _note_source(self, path: str, data: bytes, code: types.CodeType, *, is_plain: bool) -> None:
        path = os.path.realpath(path)
        known = self.sources.get(path)
        if known is not None:
            known.num_loads += 1
        elif is_plain:
            self.sources[path] = Source(bytes(data), code)

    def _note_act(self, what: str) -> None:
        if self.on_act is not None:
            self.on_act(what)
        self.acts.append(what)

    def _on_call(self, frame: types.FrameType, event: str, called: Any) -> None:
        if event == "call":
            code = frame.f_code
            self.executed[id(code)] = code  # kept, so that the number stays its own
            if id(code) in ASKING:
                self.looks.on_call(frame)
            elif code is _SEED or code is _SET_STATE:
                self._on_seed(frame)
        elif event == "c_call" and called.__name__ in _CLOCKS and _is_clock(called):
            file = frame.f_code.co_filename
            if self.is_project(file):
                self._note_act(f"{called.__qualname__} in {file}")
        elif event == "c_call" and called.__name__ in _CHANCE and self._is_chance(called, frame):
            file = _asker_of_chance(frame)
            if self.is_project(file):
                self._note_act(f"{called.__qualname__} for {file}")

    def _is_chance(self, called: Any, frame: types.FrameType) -> bool:
        """Whether no two processes are meant to get the same from this.

        A number in a small range, of somebody's own generator, is one that the next cold process
        may get too: nothing can be named by it. It stays for as long as the process does.
        """
        owner = getattr(called, "__self__", None)
        if isinstance(owner, types.ModuleType):
            return owner.__name__ in ("posix", "_uuid")
        if id(owner) in self.unseeded:
            is_in_range = frame.f_code is _BELOW
            return not is_in_range or frame.f_locals.get("k", 64) > _MAX_SMALL_BITS
        return owner is _shared_numbers() and not self.is_seeded

    def _on_seed(self, frame: types.FrameType) -> None:
        """Numbers of one's own that nobody chose a seed for are to be seeded anew in each run."""
        given = frame.f_locals
        numbers = given.get("self")
        is_chosen = frame.f_code is _SET_STATE or given.get("a") is not None
        if numbers is _shared_numbers():
            self.is_seeded = self.is_seeded or is_chosen
            file = _asker_of_chance(frame)
            if not is_chosen and self.is_project(file):
                self._note_act(f"numbers without a seed for {file}")
        elif is_chosen:
            self.unseeded.pop(id(numbers), None)
        elif isinstance(numbers, random.Random):
            self.unseeded[id(numbers)] = numbers  # kept, so that the number stays its own

    def _on_code_asked(self, function: types.FunctionType) -> None:
        """Whoever asks may keep it, or something out of it. The libraries named do not."""
        if self._is_asking:
            return
        self._is_asking = True
        try:
            code = function.__code__  # asks again
        finally:
            self._is_asking = False
        frame = sys._getframe(2)
        asker = str(frame.f_globals.get("__name__")).partition(".")[0]
        keeps = asker not in _ASK_FOR_ARGUMENTS or frame.f_code.co_name in _HAND_ON
        if keeps and self.is_project(code.co_filename):
            self.kept[id(code)] = code

    def _on_audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._is_on:
            return
        if event == "object.__getattr__":
            if arguments[1] == "__code__" and type(arguments[0]) is types.FunctionType:
                self._on_code_asked(arguments[0])
        elif event == "open":
            self._on_open(*arguments)
        elif event in ("os.listdir", "os.scandir"):
            self.looks.on_listing(*arguments)
        elif event == "ctypes.dlopen" and isinstance(arguments[0], str):
            path = os.path.realpath(arguments[0])
            self.opened[path] = self.opened.get(path, 0) + 1
        elif event.startswith(_ACTS) and not event.startswith(_HARMLESS_ACTS):
            self._note_act(event)

    def _on_open(self, path: Any, mode: Any, flags: Any) -> None:
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not isinstance(path, str):
            return  # a descriptor: somebody opened it by name before
        path = os.path.abspath(path)
        if isinstance(flags, int) and flags & _WRITES and path != os.devnull:
            # in a process that pytest has started in, a file without a name: only that is written
            # by opening a directory
            if self.on_act is None or not os.path.isdir(path):
                self._note_act(f"open for writing: {path}")
        elif not path.startswith(_PLACES_WITHOUT_STAMPS) and not path.endswith(".pyc"):
            path = os.path.realpath(path)
            self.opened[path] = self.opened.get(path, 0) + 1

    # -- what may not have happened

    def _state(self) -> dict[str, Any]:
        import logging  # resident anyway; the module itself need not be in a bare process

        return {
            "the environment": dict(os.environ),
            "the working directory": os.getcwd(),
            "open descriptors": sorted(
                fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")
            ),
            "the handlers of the root logger": list(logging.root.handlers),
            "the search path": list(sys.path),
            "import hooks before pytest's": list(sys.meta_path[:1]),
            "holders of standard streams": [
                sys.getrefcount(getattr(sys, name)) for name in ("stdin", "stdout", "stderr")
            ],
            "excepthook": [sys.excepthook, sys.displayhook, sys.unraisablehook],
        }

    def _check(self) -> None:
        sys.stdout.flush()  # not in a loop: its variable would be one more holder
        sys.stderr.flush()
        if os.fstat(self._output_fd).st_size:
            raise Refusal("importing prints")
        null = os.open(os.devnull, os.O_WRONLY)
        for fd in (1, 2):
            os.dup2(null, fd)
        os.close(null)
        os.close(self._output_fd)
        for what, value in self._state().items():
            if value != self._before[what]:
                raise Refusal(f"importing changes {what}")


def project_objects(
    is_project: Callable[[str], bool],
) -> tuple[dict[str, list[types.FunctionType]], set[str]]:
    """Live functions by file, and files with live generators, or whose lines somebody remembers.

    To be called before ``gc.freeze``, which hides objects.
    """
    import logging  # as in ``_state``

    functions: dict[str, list[types.FunctionType]] = {}
    suspended = set()
    for thing in gc.get_objects():
        kind = type(thing)
        if kind is types.FunctionType:
            file = thing.__code__.co_filename
            if is_project(file):
                functions.setdefault(file, []).append(thing)
        elif kind in _FUNCTION_LIKE:
            suspended.add(_code_of(thing).co_filename)
        elif kind is types.TracebackType:  # somebody kept it, with its lines
            suspended.add(thing.tb_frame.f_code.co_filename)
        elif kind is types.FrameType:
            suspended.add(thing.f_code.co_filename)
        elif kind is logging.LogRecord:
            suspended.add(thing.pathname)
    return functions, suspended


def _asker_of_chance(frame: Any) -> str:
    """The file that wants something random, by whatever function of the library."""
    while frame is not None and frame.f_globals.get("__name__") in _ITS_LIBRARY:
        frame = frame.f_back
    return frame.f_code.co_filename if frame is not None else os.sep


def _shared_numbers() -> Any:
    """What ``random.random`` and its kin take from."""
    return getattr(random.random, "__self__", None)


def _is_clock(called: Any) -> bool:
    """Whether a builtin of such a name tells the time or which process this is."""
    owner = getattr(called, "__self__", None)
    if isinstance(owner, types.ModuleType):
        return owner.__name__ in ("time", "posix")
    return isinstance(owner, type) and any(base.__module__ == "datetime" for base in owner.__mro__)


def _code_of(thing: Any) -> types.CodeType:
    for name in ("gi_code", "cr_code", "ag_code"):
        code = getattr(thing, name, None)
        if code is not None:
            return code  # type: ignore[no-any-return]
    raise TypeError(f"{type(thing).__name__} has no code")


class RandomState:
    """Python reseeds its random numbers in every forked child, a cold process that calls
    ``random.seed(n)`` on import has fixed ones: what importing touched is put back. Numbers of
    somebody's own that no seed was chosen for are seeded in every child as well."""

    def __init__(self) -> None:
        self._before = random.getstate()
        self.touched: tuple[Any, ...] | None = None
        self.unseeded: list[random.Random] = []

    def note(self, *, is_set: bool, unseeded: Iterable[random.Random] = ()) -> None:
        """To be called when everything is imported; ``is_set`` when somebody chose their state,
        ``unseeded`` are numbers for which nobody did.

        Who only took numbers would take others in a cold run, as in a fork.
        """
        after = random.getstate()
        self.touched = after if is_set and after != self._before else None
        self.unseeded = list(unseeded)

    def restore(self) -> None:
        """In the child."""
        if self.touched is not None:
            random.setstate(self.touched)
        for numbers in self.unseeded:
            random.Random.seed(numbers)
