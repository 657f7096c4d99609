"""The first candidate that passes wins, and nothing is left of the others."""

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.harness.audience import Listening
from tests.harness.racing.track import (
    GREEN,
    PROMPT,
    RED,
    TEST,
    Track,
    command,
    number_of,
    patch,
    runs_tests,
    track,
    words,
)
from tightloop.agent import events as said
from tightloop.agent.steering import ACCEPTED
from tightloop.agent.turn import Limits, Status, TurnResult
from tightloop.bench.bugs import MODULE, load_bugs, write_repository
from tightloop.engine.interface import GenerationRequest
from tightloop.engine.scripted import Answer, Hold
from tightloop.harness.racing.modes import Wanted, open_mode
from tightloop.harness.racing.result import RacedResult, summary
from tightloop.harness.settings import Settings
from tightloop.harness.thread import open_thread
from tightloop.protocol.items import Message
from tightloop.sandbox.processes import family

GOOD: Sequence[Answer] = [runs_tests(), patch(RED, GREEN), runs_tests(), words("Mended.")]
WRONG = "echo 2 failed; exit 2\n"
BAD: Sequence[Answer] = [runs_tests(), patch(RED, WRONG), runs_tests(), words("I give up.")]


def raced(result: TurnResult) -> said.RaceFigures:
    assert isinstance(result, RacedResult)
    assert result.race is not None
    return result.race


def stuck() -> tuple[list[Answer], Hold]:
    """Runs the tests, and then thinks for ever."""
    hold = Hold()
    return [runs_tests(), [*words("Hm. "), hold]], hold


async def test_the_first_that_passes_wins(tmp_path: Path) -> None:
    """Its work and its conversation are the thread's; the other one is stopped at once."""
    thinks, hold = stuck()
    async with track(tmp_path, {0: thinks, 1: GOOD}, Wanted("race", 2)) as on:
        result = await on.mode.run_turn(PROMPT)
        assert (result.status, result.text) == (Status.COMPLETED, "Mended.")
        assert on.file() == GREEN
        race = raced(result)
        assert (race.winner, race.taken, race.num_started, race.num_cancelled) == (1, 1, 2, 1)
        assert [one.outcome for one in race.candidates] == ["cancelled", "won"]
        assert race.command == TEST
        assert race.green_s is not None
        assert hold.reached.is_set() or len(on.engine.requests) < 6
        assert on.states(1) == ["started", "won"]
        assert on.states(0) == ["started", "cancelled"]
        kinds = [item for item in on.items() if not isinstance(item, said.ErrorItem)]
        assert [type(item).__name__ for item in kinds] == [
            "CommandExecution", "FileChange", "CommandExecution", "AgentMessage",
        ]  # fmt: skip
        assert [item.id for item in kinds] == [f"item_{n}" for n in range(4)]
        assert isinstance(on.heard.events[-1], said.TurnCompleted)
        said_by_user = [
            item.text
            for item in on.thread.agent.items
            if isinstance(item, Message) and item.role == "user"
        ]
        assert said_by_user == [PROMPT]
        assert summary(race).startswith("race: 2 candidates, #1 won after ")


async def test_a_conversation_goes_on_after_a_race(tmp_path: Path) -> None:
    """Only what is new is sent; the next race begins with what this one has made."""
    again = [patch(GREEN, "echo 2 passed\n"), runs_tests(), words("More.")]
    script = {0: [*BAD[:2], words("No.")], 1: GOOD}

    def answers(request: GenerationRequest) -> Answer:
        from tests.harness.racing.track import by_candidate

        asked = [i for i in request.context() if isinstance(i, Message) and i.text == PROMPT]
        parts = script if len(asked) == 1 else {0: again, 1: again}
        return by_candidate(parts)(request)

    async with track(tmp_path, answers, Wanted("race", 2)) as on:
        first = await on.mode.run_turn(PROMPT)
        num_requests = len(on.engine.requests)
        second = await on.mode.run_turn(PROMPT)
        assert [first.status, second.status] == [Status.COMPLETED, Status.COMPLETED]
        assert on.file() == "echo 2 passed\n"
        begun = list(on.engine.requests)[num_requests]
        assert len(begun.items) == 1
        ids = [item.id for item in on.items()]
        assert len(ids) == len(set(ids))


async def test_a_pass_means_something_once_the_tests_were_seen_to_fail(tmp_path: Path) -> None:
    """Else a candidate has to say that it is done: who knows what is still missing."""
    hold = Hold()
    early = [patch(RED, GREEN), runs_tests(), [hold, *words("Now.")]]
    async with track(tmp_path, {0: early}, Wanted("race", 1)) as on:
        turn = asyncio.create_task(on.mode.run_turn(PROMPT))
        await hold.reached.wait()
        assert on.contest._turn is not None
        assert on.contest._turn._winner is None
        hold.release.set()
        assert raced(await turn).winner == 0


async def test_the_last_word_needs_the_command_to_pass(tmp_path: Path) -> None:
    """Whoever never ran it is told how it ends, and may go on."""
    lazy = [patch(RED, WRONG), words("Done!"), patch(WRONG, GREEN), words("Now really.")]
    async with track(tmp_path, {0: lazy}, Wanted("race", 1)) as on:
        result = await on.mode.run_turn(PROMPT)
        assert (result.status, result.text) == (Status.COMPLETED, "Now really.")
        (told,) = [item.message for item in on.items() if isinstance(item, said.ErrorItem)]
        assert "echo 2 failed" not in told
        assert "2 failed" in told
        assert "exited with 2" in told


async def test_what_comes_after_the_pass_is_left_out_if_it_breaks_it(tmp_path: Path) -> None:
    """The tree that was confirmed is the one that is taken."""
    hold = Hold()
    over_eager = [*GOOD[:3], [hold, *patch(GREEN, WRONG)], words("Even better.")]
    async with track(tmp_path, {0: over_eager, 1: stuck()[0]}, Wanted("race", 2)) as on:
        turn = asyncio.create_task(on.mode.run_turn(PROMPT))
        await hold.reached.wait()
        contest = on.contest._turn
        assert contest is not None
        await on.until(lambda: contest._winner is not None)
        hold.release.set()
        result = await turn
        assert result.status is Status.COMPLETED
        assert on.file() == GREEN


async def test_a_retry_begins_again_from_the_beginning(tmp_path: Path) -> None:
    """One after the other, each with the tree and the conversation of the start."""
    async with track(tmp_path, {0: BAD, 1: GOOD, 2: GOOD}, Wanted("retry", 3)) as on:
        result = await on.mode.run_turn(PROMPT)
        race = raced(result)
        assert [one.outcome for one in race.candidates] == ["red", "won"]
        assert (race.mode, race.num_wanted, race.winner) == ("retry", 3, 1)
        assert on.file() == GREEN
        assert [number_of(request) for request in on.engine.requests] == [0] * 4 + [1] * 4
        assert summary(race).startswith("retry: 2 candidates, #1 won after")


async def test_none_passes(tmp_path: Path) -> None:
    """The one with the fewest failing tests is kept, and the turn has failed; its cost is told."""
    fewer = [runs_tests(), patch(RED, "echo 1 failed; exit 3\n"), runs_tests(), words("Nearly.")]
    async with track(tmp_path, {0: BAD, 1: fewer}, Wanted("race", 2)) as on:
        result = await on.mode.run_turn(PROMPT)
        assert result.status is Status.FAILED
        race = raced(result)
        assert (race.winner, race.taken, race.green_s) == (None, 1, None)
        assert on.file() == "echo 1 failed; exit 3\n"
        assert "none of 2 passes `./pytest`" in result.message
        assert "#1 is kept" in result.message
        failed = on.heard.events[-1]
        assert isinstance(failed, said.TurnFailed)
        assert failed.tightloop is not None
        assert failed.tightloop.race == race
        assert summary(race).startswith("race: 2 candidates, none passed, #1 is kept")


async def test_without_a_command_their_own_last_run_counts(tmp_path: Path) -> None:
    """Who has run none cannot win."""
    none = [patch(RED, GREEN), words("Should work.")]
    async with track(tmp_path, {0: none, 1: GOOD}, Wanted("retry", 2), config=None) as on:
        race = raced(await on.mode.run_turn(PROMPT))
        assert [one.outcome for one in race.candidates] == ["untested", "won"]
        assert race.command is None


async def test_who_changes_nothing_cannot_win(tmp_path: Path) -> None:
    async with track(
        tmp_path, {0: [runs_tests(), words("All is well.")]}, Wanted("race", 1), files={"m": GREEN}
    ) as on:
        result = await on.mode.run_turn(PROMPT)
        assert result.status is Status.FAILED
        assert raced(result).candidates[0].outcome == "red"


async def test_without_an_isolation_of_its_own_a_candidate_has_another_path(tmp_path: Path) -> None:
    """It is told where it is, and afterwards where the work is."""
    async with track(tmp_path, {0: BAD, 1: GOOD}, Wanted("race", 2), sandbox="none") as on:
        result = await on.mode.run_turn(PROMPT)
        assert raced(result).winner == 1
        assert on.file() == GREEN
        told = [
            item.text
            for item in on.thread.agent.items
            if isinstance(item, Message) and item.role == "developer"
        ]
        assert told[-1] == f"The workspace is {on.thread.workspace.path} again."


async def test_an_interrupted_race_leaves_nothing(tmp_path: Path) -> None:
    """The conversation and the workspace are as before, no process is left; the next turn works."""
    (one, hold), (two, other) = stuck(), stuck()
    running = [*GOOD[:2], command("sleep 600")]
    script = {0: one, 1: two, 2: running}
    async with track(tmp_path, script, Wanted("race", 3, at_once=3)) as on:
        before = len(family(os.getpid()))
        turn = asyncio.create_task(on.mode.run_turn(PROMPT))
        await hold.reached.wait()
        await other.reached.wait()
        on.contest.steer("look at m")
        turn.cancel()
        await asyncio.wait([turn])
        assert turn.cancelled()
        assert on.file() == RED
        assert on.thread.agent.items == [on.thread.agent.items[0]]
        result = on.thread.agent.last_result
        assert result is not None
        assert result.status is Status.CANCELLED
        assert isinstance(on.heard.events[-2], said.TurnFailed)
        last = on.heard.events[-1]
        assert isinstance(last, said.Steered)
        assert (last.text, last.state) == ("look at m", ACCEPTED)
        script[0] = script[1] = script[2] = list(GOOD)
        assert (await on.mode.run_turn(PROMPT)).status is Status.COMPLETED
        assert before > 0


async def test_a_sandbox_that_dies_costs_its_candidate(tmp_path: Path) -> None:
    """The others go on, and one more takes its place if there may be one."""
    hold = Hold()
    victim = [runs_tests(), [hold, *runs_tests()], words("?")]
    async with track(tmp_path, {0: victim, 1: GOOD}, Wanted("race", 2, at_once=1)) as on:
        turn = asyncio.create_task(on.mode.run_turn(PROMPT))
        await hold.reached.wait()
        kill_sandbox(on, 0)
        hold.release.set()
        race = raced(await turn)
        assert [one.outcome for one in race.candidates] == ["failed", "won"]
        assert "its sandbox ended" in race.candidates[0].note


def kill_sandbox(on: Track, number: int) -> None:
    turn = on.contest._turn
    assert turn is not None
    bench = turn._candidates[number].bench
    assert bench is not None
    pid = bench.place.sandbox.pid
    assert pid is not None
    for member in family(pid):
        os.kill(member, signal.SIGKILL)


async def test_lanes_that_drop_are_picked_up_again(tmp_path: Path) -> None:
    """All candidates lose their socket in the middle of a response."""
    hold = Hold()
    slow = [runs_tests(), [hold, *patch(RED, GREEN)], runs_tests(), words("Mended.")]
    async with track(tmp_path, {0: slow, 1: BAD}, Wanted("race", 2)) as on:
        turn = asyncio.create_task(on.mode.run_turn(PROMPT))
        await hold.reached.wait()
        on.server.abort_connections()
        hold.release.set()
        result = await turn
        assert result.status is Status.COMPLETED, result.message
        assert raced(result).winner == 0
        assert on.file() == GREEN


async def test_options_that_a_server_refuses_are_left_out(tmp_path: Path) -> None:
    """Some models take no temperature: then only the seed is different."""
    wanted = Wanted("retry", 3, temperature=9.0)
    async with track(tmp_path, {0: BAD, 1: BAD, 2: GOOD}, wanted) as on:
        race = raced(await on.mode.run_turn(PROMPT))
        assert [one.outcome for one in race.candidates] == ["red", "red", "won"]
        temperatures = {request.sampling.temperature for request in on.engine.requests}
        assert temperatures == {None}


async def test_the_budget_is_that_of_all_together(tmp_path: Path) -> None:
    """The first has used most of it, so the second cannot come to its end."""
    async with track(tmp_path / "a", {0: BAD}, Wanted("retry", 1)) as on:
        usage = (await on.mode.run_turn(PROMPT)).usage
    tokens = (usage.input_tokens + usage.output_tokens) * 3 // 2
    limits = Limits(total_tokens=tokens)
    script = {0: BAD, 1: GOOD}
    async with track(tmp_path / "b", script, Wanted("retry", 2), limits=limits) as on:
        result = await on.mode.run_turn(PROMPT)
        assert result.status is Status.FAILED
        assert [one.outcome for one in raced(result).candidates] == ["red", "stopped"]
        assert "budget of tokens" in raced(result).candidates[1].note


async def test_all_tokens_are_counted(tmp_path: Path) -> None:
    """Of the turn: those of all; in the ledger: who used and who wasted them."""
    async with track(tmp_path, {0: BAD, 1: GOOD}, Wanted("retry", 2)) as on:
        result = await on.mode.run_turn(PROMPT)
        race = raced(result)
        assert result.usage.output_tokens == sum(one.output_tokens for one in race.candidates)
        assert race.used_tokens == race.candidates[1].new_tokens > 0
        assert race.wasted_tokens == race.candidates[0].new_tokens > 0
        assert [one.num_responses for one in race.candidates] == [4, 4]
        completed = on.heard.events[-1]
        assert isinstance(completed, said.TurnCompleted)
        assert completed.tightloop is not None
        assert completed.tightloop.race == race
        assert completed.usage.output_tokens == result.usage.output_tokens


async def test_a_steer_reaches_all(tmp_path: Path) -> None:
    """Also those that begin later; what nobody has told the model waits for the next turn."""
    hold = Hold()
    first = [runs_tests(), [hold, *patch(RED, WRONG)], words("No."), words("No!")]
    async with track(tmp_path, {0: first, 1: GOOD}, Wanted("retry", 2)) as on:
        turn = asyncio.create_task(on.mode.run_turn(PROMPT))
        await hold.reached.wait()
        on.contest.steer("be quick")
        hold.release.set()
        assert (await turn).status is Status.COMPLETED
        texts = [item.text for item in on.thread.agent.items if isinstance(item, Message)]
        assert texts.count("be quick") == 1


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"mode": "relay"}, "unknown mode 'relay'"),
        ({"mode": "race", "num": 0}, "got 0"),
        ({"mode": "race", "num": 99}, "got 99"),
        ({"mode": "race", "num": 2, "at_once": 0}, "got 0"),
    ],
)
def test_what_cannot_be_wanted(wanted: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Wanted(**wanted)  # type: ignore[arg-type]


@pytest.mark.slow
async def test_the_bundled_model_races_on_a_real_bug(tmp_path: Path) -> None:
    """With real tests, warm ones; what wins passes them in a fresh process."""
    bug = load_bugs()[3]
    prompt = "The tests fail. Fix the code. Run them with `python -m pytest -q`."
    repo = tmp_path / "repo"
    write_repository(bug, repo)
    settings = Settings(
        repo=repo, state_dir=tmp_path / "state", sandbox="bubblewrap", speculates=False
    )
    async with (
        open_thread(settings, Listening()) as thread,
        open_mode(thread, Wanted("race", 2)) as mode,
    ):
        result = await mode.run_turn(prompt)
        race = raced(result)
        assert race.command == "python -m pytest -q"
        assert (result.status, race.winner is None) == (Status.COMPLETED, False), result.message
        assert (await thread.workspace.changed_files()) == [MODULE]
    assert (repo / MODULE).read_text() == bug.buggy_module
