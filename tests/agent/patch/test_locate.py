"""Placing chunks: tiers, anchors, ambiguity, what was applied before, and repair data."""

import pytest

from tightloop.agent.patch.failure import Divergence, Failure, PatchError
from tightloop.agent.patch.locate import LocatePolicy, Locator
from tightloop.agent.patch.operations import Chunk, UpdateFile
from tightloop.agent.patch.parser import parse_patch
from tightloop.agent.patch.text import FileText, Tier


def _chunks(body: str) -> tuple[Chunk, ...]:
    (operation,) = parse_patch(
        f"*** Begin Patch\n*** Update File: f\n{body}*** End Patch"
    ).operations
    assert isinstance(operation, UpdateFile)
    return operation.chunks


def _locator(content: str, policy: LocatePolicy | None = None) -> Locator:
    return Locator(FileText(content.encode()), "f", policy)


def _refusal(content: str, body: str) -> Failure:
    locator = _locator(content)
    *earlier, last = _chunks(body)
    for chunk in earlier:
        locator.place(chunk)
    with pytest.raises(PatchError) as caught:
        locator.place(last)
    return caught.value.failure


@pytest.mark.parametrize(
    ("content", "tier"),
    [
        ("a\nb\n", Tier.EXACT),
        ("a  \nb\n", Tier.TRAILING),
        ("\ta\n    b\n", Tier.TRIMMED),
        ("\u00a0a\nb\n", Tier.TRIMMED),
        ("a\u2011\nb\n", None),
    ],
)
def test_tiers(content: str, tier: Tier | None) -> None:
    (chunk,) = _chunks(" a\n-b\n+c\n")
    if tier is None:
        with pytest.raises(PatchError):
            _locator(content).place(chunk)
    else:
        placement = _locator(content).place(chunk)
        assert (tier, 1, 1) == (placement.tier, placement.line, placement.num_matches)


def test_typographic_punctuation_is_the_last_tier() -> None:
    (chunk,) = _chunks(" say('x') - 1\n-b\n+c\n")
    placement = _locator("say(\u2018x\u2019)\u00a0\u2212 1\nb\n").place(chunk)
    assert placement.tier is Tier.UNICODE


def test_a_better_tier_wins_over_an_earlier_place() -> None:
    (chunk,) = _chunks("-  x\n+y\n")
    assert _locator("x\n  x\n").place(chunk).line == 2


def test_an_anchor_makes_the_first_place_after_it_the_right_one() -> None:
    (chunk,) = _chunks("@@ two\n-x\n+y\n")
    placement = _locator("one\nx\ntwo\nx\nx\n").place(chunk)
    assert (placement.line, placement.num_matches) == (4, 2)


def test_an_anchor_may_be_the_start_of_one_line() -> None:
    (chunk,) = _chunks("@@ def f\n-x\n+y\n")
    assert _locator("def fa():\nx\ndef f(a):\nx\n").place(chunk).line == 4
    with pytest.raises(PatchError):
        _locator("def f(a):\nx\ndef f(b):\nx\n").place(chunk)


def test_codex_policy_wants_whole_anchor_lines_and_appends() -> None:
    codex = LocatePolicy(codex=True)
    (chunk,) = _chunks("@@ def f\n+y\n")
    with pytest.raises(PatchError):
        _locator("def f(a):\nx\n", codex).place(chunk)
    assert _locator("def f\nx\n", codex).place(chunk).edits[0].start == 2
    assert _locator("def f\nx\n").place(chunk).edits[0].start == 1


def test_ambiguity_lists_every_place() -> None:
    failure = _refusal("x\nx\nz\nx\n", "@@\n-x\n+y\n")
    assert (failure.error, failure.candidates) == ("ambiguous", (1, 2, 4))


def test_repair_data_of_a_near_miss() -> None:
    content = "".join(f"line {n}\n" for n in range(1, 31))
    failure = _refusal(content, "@@\n line 19\n-line twenty\n+x\n line 21\n")
    assert failure.error == "context_not_found"
    assert (failure.best_line, failure.num_matched, failure.num_expected) == (19, 2, 3)
    assert failure.first_diverging == Divergence(20, "line twenty", "line 20")
    assert [number for number, _ in failure.nearby] == list(range(14, 27))
    text = failure.as_text()
    assert len(text.splitlines()) <= 20
    assert "No file was changed" in text
    assert "   20|line 20" in text
    assert failure.as_dict()["best"] == {"line": 19, "matched": 2, "of": 3}


def test_repair_data_when_only_one_line_is_similar() -> None:
    failure = _refusal("alpha = compute(1)\nother\n", "@@\n-alpha = compute(2)\n+b\n")
    assert failure.first_diverging == Divergence(1, "alpha = compute(2)", "alpha = compute(1)")


def test_repair_data_when_nothing_is_similar() -> None:
    failure = _refusal("alpha\n", "@@\n-zzzz qqqq\n+b\n")
    assert (failure.best_line, failure.nearby) == (None, ())


def test_missing_anchor_names_the_closest_line() -> None:
    failure = _refusal("def parse(x):\n  y\n", "@@ def parze(x):\n-  y\n+  z\n")
    assert "closest is line 1: 'def parse(x):'" in failure.message


def test_reversed_order_says_so() -> None:
    failure = _refusal("a\nb\n", "@@\n-b\n+B\n@@\n-a\n+A\n")
    assert (failure.chunk, failure.candidates) == (2, (1,))
    assert "file order" in failure.hint


def test_applied_before_needs_one_place() -> None:
    (chunk,) = _chunks("@@\n-old\n+new\n")
    assert _locator("x\nnew\n").place(chunk).is_already_applied
    with pytest.raises(PatchError):
        _locator("new\nnew\n").place(chunk)


def test_a_removal_alone_is_never_taken_for_applied() -> None:
    (chunk,) = _chunks("@@\n-old\n")
    with pytest.raises(PatchError):
        _locator("x\n").place(chunk)


def test_end_of_file_picks_the_tail_else_the_one_place() -> None:
    (chunk,) = _chunks("@@\n-x\n+y\n*** End of File\n")
    assert _locator("x\na\nx\n").place(chunk).line == 3
    assert _locator("a\nx\n\n").place(chunk).line == 2
    with pytest.raises(PatchError):
        _locator("x\nx\na\n").place(chunk)


def test_separating_empty_lines_are_dropped_when_needed() -> None:
    (chunk,) = _chunks("@@\n a\n-b\n+c\n\n\n")
    placement = _locator("a\nb\nnext\n").place(chunk)
    assert [(edit.start, edit.num_old, edit.new) for edit in placement.edits] == [(1, 1, ("c",))]


def test_only_changed_runs_become_edits() -> None:
    (chunk,) = _chunks("@@\n a\n-b\n+B\n c\n+d\n")
    placement = _locator("\ta\nb\nc\n").place(chunk)
    runs = [(edit.start, edit.num_old, edit.new) for edit in placement.edits]
    assert runs == [(1, 1, ("B",)), (3, 0, ("d",))]
