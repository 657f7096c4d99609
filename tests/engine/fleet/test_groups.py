"""What must hold of the models that are served together."""

import pytest

from tests.engine.fleet.members import Backend, group
from tightloop.engine.fleet.fleet import Fleet
from tightloop.engine.fleet.groups import describe, why_none_may_be_asked
from tightloop.engine.interface import EngineError


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([], "no model is configured"),
        (["m", "m"], "two models would be served as 'm': /x/m.gguf and /y/m.gguf"),
        (["m", "n"], "two backends are called 'a', one of 'm' and one of 'n'"),
    ],
)
def test_names_must_differ(groups: list[str], words: str) -> None:
    """The message says what has the same name."""
    files = ["/x/m.gguf", "/y/m.gguf"]
    made = [
        group(name, Backend("a", engine=file)) for name, file in zip(groups, files, strict=False)
    ]
    with pytest.raises(EngineError, match=words):
        Fleet(made)


def test_a_policy_names_members_that_there_are() -> None:
    with pytest.raises(
        EngineError, match="'c' is no backend of 'm'; choose from a, b, bulk, fast, "
    ):
        Fleet([group("m", Backend("a"), Backend("b", tier="bulk"), policy="split:a=1,c=1")])


def test_a_model_that_has_not_started_is_known_by_its_name() -> None:
    """Nothing else is known of it, and nobody can be asked."""
    alone = group("m", Backend("a"))
    assert describe(alone).name == "m"
    assert why_none_may_be_asked(alone, 0) == (
        "no backend of 'm' works: a: not started",
        "engine_unavailable",
    )


async def test_the_shortest_pause_is_told() -> None:
    """In whole seconds, at least one."""
    backends = Backend("a"), Backend("b")
    for backend, pause_s in zip(backends, (7.2, 20), strict=True):
        await backend.member.start()
        breaker = backend.member.breaker
        breaker.fail(breaker.force(0), 0, retry_after_s=pause_s)
    text, code = why_none_may_be_asked(group("m", *backends), 0)
    assert text == "every backend of 'm' asked for a pause. Please try again in 10s."
    assert code == "rate_limit_exceeded"
    for backend in backends:
        await backend.member.close()
