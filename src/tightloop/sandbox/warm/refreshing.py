"""What pytest noted at its start and what may be otherwise by the time a run begins.

Each is made anew in the child by pytest's own code. A plugin that is not known to keep nothing
of the kind rules the process out that started early.
"""

import os
import sys
import types
from collections.abc import Callable
from typing import Any

_KNOWN_PLUGINS = frozenset(
    """
    _pytest pytest pluggy anyio hypothesis _hypothesis_pytestplugin _hypothesis_ftz_detector
    pytest_asyncio pytest_mock pytest_timeout
    """.split()  # noqa: SIM905
)
_STARTS = ("_session_start", "suite_start", "_sessionstarttime", "suite_start_time")
_PAST = ("lf", "failedfirst", "newfirst", "stepwise", "stepwise_skip", "cacheclear")
_CACHED = ("lastfailed", "nodeids", "stepwise")


class CollectionReports:
    """Registered from the start: collection is told to the plugin of last failures once more."""

    def __init__(self) -> None:
        self.reports: list[Any] = []

    def pytest_collectreport(self, report: Any) -> None:
        """Each module, class and directory."""
        self.reports.append(report)


def unknown_plugin(config: Any, is_project: Callable[[str], bool]) -> str:
    """The first plugin that is neither pytest's, known, nor from a file of the project."""
    ours = __name__.partition(".")[0]
    for registered, plugin in config.pluginmanager.list_name_plugin():
        if plugin is None:
            continue  # named to be kept out
        is_module = isinstance(plugin, types.ModuleType)
        kind = plugin if isinstance(plugin, type) else type(plugin)
        name = plugin.__name__ if is_module else kind.__module__
        if name.partition(".")[0] in _KNOWN_PLUGINS | {ours}:
            continue
        module = plugin if is_module else sys.modules.get(name)
        if not is_project(str(getattr(module, "__file__", "") or os.sep)):
            return f"{registered} of {name}"
    return ""


def option_of_the_past(config: Any) -> str:
    """An option, from wherever, that makes earlier runs decide what is collected."""
    return next((name for name in _PAST if config.getoption(name, False)), "")


def has_start(config: Any) -> bool:
    """Whether this version of pytest notes when it began where it is looked for."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return any(name in vars(reporter) for name in _STARTS) if reporter else True


def cached_files(config: Any) -> set[str]:
    """What pytest reads of earlier runs and ``refresh`` reads anew."""
    cache = getattr(config, "cache", None)
    if cache is None:
        return set()
    place = os.path.join(os.path.realpath(cache._cachedir), "v", "cache")
    return {os.path.join(place, name) for name in _CACHED}


def refresh(session: Any, reports: list[Any]) -> None:
    """In the child: as if pytest had started now."""
    from _pytest import timing

    config = session.config
    for plugin in config.pluginmanager.get_plugins():
        known = getattr(plugin, "__dict__", {})
        for name in _STARTS:
            if name in known:
                now = timing.time() if isinstance(known[name], float) else type(known[name])()
                setattr(plugin, name, now)
    if getattr(config, "cache", None) is None:
        return
    # what these two keep differs from version to version; so do they themselves make it
    failed = config.pluginmanager.get_plugin("lfplugin")
    if failed is not None:
        failed.lastfailed = type(failed)(config).lastfailed
        for report in reports:
            failed.pytest_collectreport(report)
    new = config.pluginmanager.get_plugin("nfplugin")
    if new is not None:
        new.cached_nodeids = type(new)(config).cached_nodeids
        for _ in new.pytest_collection_modifyitems(items=session.items):
            pass  # a wrapper: it waits for the others once
