"""From names or a file to a plan."""

import re
import string
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightloop.engine.fleet.breaker import BreakerSettings
from tightloop.engine.fleet.member import MemberSpec
from tightloop.engine.fleet.plan import plan_of, plan_of_names, read_plan
from tightloop.engine.fleet.policy import Parameters, Price
from tightloop.engine.fleet.settings_table import ConfigError, Table
from tightloop.engine.interface import EngineError
from tightloop.engine.registry import EngineOptions

WHOLE = """
[routing]
policy = "cheapest"
requests_may_choose = true
decision_log = "log/d.jsonl"
long_output_tokens = 100
usual_output_tokens = 50
usual_context_tokens = 10
spill_wait_s = 1
affinity_wait_s = 2.5

[breaker]
max_consecutive = 5
max_error_rate = 0.25
min_requests = 20
window_s = 60
pause_s = 0.5
max_pause_s = 30

[[model]]
name = "coder"
policy = "split:fast=1,bulk=1"
[[model.member]]
name = "c"
tier = "fast"
engine = "remote:gpt@https://host/v1"
key_env = "C_KEY"
price = { input = 0.35, cached = 0.1, output = 0.75 }
max_concurrency = 8
first_token_timeout_s = 1.5
[[model.member]]
name = "l"
tier = "bulk"
engine = "q.gguf"
context = 4096
threads = 2
sequences = 4
drafts = "off"
warm_memory_mb = 100
saved_memory_mb = 0
price = { input = 1 }

[[model]]
engine = "remote:https://host/v1"

[[model]]
engine = "scripted:s.json"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "f.toml"
    path.write_text(text, "utf-8")
    return path


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    """Each key has its effect; paths begin at the file."""
    plan = read_plan(written(tmp_path, WHOLE))
    assert plan.takes_policies
    assert plan.decision_log == tmp_path / "log/d.jsonl"
    assert plan.breaker == BreakerSettings(5, 0.25, 20, 60, 0.5, 30)
    coder, all_models, script = plan.models
    assert (coder.name, coder.policy.name) == ("coder", "split:fast=1,bulk=1")
    assert coder.policy.parameters == Parameters(100, 50, 10, 1, 2.5)
    remote, local = coder.members
    price = Price(Decimal("0.35"), Decimal("0.1"), Decimal("0.75"))
    assert remote.spec == MemberSpec("c", "remote:gpt@https://host/v1", "fast", price, 8, 1.5)
    assert remote.options == EngineOptions(api_key_env="C_KEY")
    assert local.spec.engine == str(tmp_path / "q.gguf")
    assert local.spec.price.cached_usd == 1  # as other input
    assert local.options == EngineOptions(
        num_context=4096,
        num_threads=2,
        num_sequences=4,
        has_drafts=False,
        warm_bytes=100_000_000,
        saved_bytes=0,
    )
    assert all_models.members[0].spec.keeps_names
    assert all_models.policy.name == "cheapest"
    assert (script.name, script.members[0].spec.engine) == (
        "scripted",
        f"scripted:{tmp_path / 's.json'}",
    )


def test_little_is_enough(tmp_path: Path) -> None:
    """One model, all else as it is."""
    plan = read_plan(written(tmp_path, '[[model]]\nengine = "scripted"'))
    assert plan == plan_of_names(["scripted"], EngineOptions())


MODEL = '[[model]]\nname = "m"\n'
MEMBER = '[[model.member]]\nname = "a"\nengine = "scripted"\n'
PLACE = "f.toml: model[1] 'm'"
MISTAKES = [
    ("x", "is not TOML"),
    ("", "f.toml: it names no model; write one below a line [[model]]"),
    ("models = 1", "there is no 'models' here; there are routing, breaker, model"),
    ("[[model]]\nengine = 'scripted'\n[server]", "there is no 'server' here; there are routing"),
    ("[routing]\npolicy = 'best'", "f.toml: routing: there is no policy 'best'; choose one of"),
    (
        "[routing]\npolices = 'x'",
        "f.toml: routing: there is no 'polices' here; there are long_output",
    ),
    ("[breaker]\nmax_error_rate = 2", "f.toml: breaker: max_error_rate must be above 0 and"),
    (MODEL, f"{PLACE}: it has no engine"),
    (f"{MODEL}engine = 'scripted'\n{MEMBER}", f"{PLACE}: it has an engine of its own and members"),
    (f"{MODEL}engine = 'gpt'", f"{PLACE}: there is no engine 'gpt'; choose one of"),
    (f"{MODEL}engine = 'remote:x'", f"{PLACE}: 'remote:x' does not name a remote model"),
    (f"{MODEL}engine = 'remote:*@https://h/v1'", f"{PLACE}: an engine that serves every model"),
    (f"{MODEL}[[model.member]]\nengine = 'scripted'", f"{PLACE}: member[1]: name is missing"),
    (
        f"{MODEL}[[model.member]]\nname = 'a'\nengine = 'remote:*@https://h/v1'",
        f"{PLACE}: member[1] 'a': a member serves one model",
    ),
    (f"{MODEL}{MEMBER}context = 1", f"{PLACE}: member[1] 'a': there is no 'context' here"),
    (f"{MODEL}{MEMBER}price = {{ in = 1 }}", f"{PLACE}: member[1] 'a': price: there is no 'in'"),
    (f"{MODEL}{MEMBER}first_token_timeout_s = 0", "first_token_timeout_s must be above 0"),
    (f"{MODEL}{MEMBER}max_concurrency = 0", "max_concurrency must be a whole number of 1 or more"),
    (f"{MODEL}{MEMBER}tier = 1", "tier must be a text, got 1"),
]


@pytest.mark.parametrize(("text", "words"), MISTAKES)
def test_mistakes_are_named(text: str, words: str, tmp_path: Path) -> None:
    """With their place, the value, and what would do."""
    with pytest.raises(ConfigError) as caught:
        read_plan(written(tmp_path, text))
    assert words in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """Missing, too large, or no text."""
    with pytest.raises(ConfigError, match="No such file"):
        read_plan(tmp_path / "none.toml")
    large = written(tmp_path, "#" * (1 << 20) + "\n")
    with pytest.raises(ConfigError, match="larger than"):
        read_plan(large)
    large.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not TOML"):
        read_plan(large)


def test_names_become_models() -> None:
    """Under the names that their engines have; one that there is not is refused with the choices."""
    names = ["patchling", "/x/coder.gguf", "hf:o/r/f.gguf@main", "remote:a/b@https://h/v1"]
    plan = plan_of_names(names, EngineOptions())
    assert [model.name for model in plan.models] == ["patchling", "coder", "f", "a/b"]
    with pytest.raises(EngineError, match="choose one of"):
        plan_of_names(["scripted", "gpt"], EngineOptions())


keys = st.sampled_from(["name", "engine", "member", "policy", "price", "tier", "model", "x"])
leaves = (
    st.integers(-2, 9)
    | st.booleans()
    | st.sampled_from(["scripted", "patchling", "fast", "cheapest", ""])
    | st.text(string.printable, max_size=3)
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)
files = st.dictionaries(st.sampled_from(["routing", "breaker", "model", "x"]), values, max_size=3)
models = st.fixed_dictionaries(
    {"model": st.lists(st.dictionaries(keys, values, max_size=4), max_size=2)}
)


@settings(max_examples=200, deadline=None)
@given(files | models)
def test_anything_is_a_plan_or_a_named_mistake(found: dict[str, object]) -> None:
    """Never another error."""
    table = Table("f.toml", found)
    plan, mistake = None, None
    try:
        plan = plan_of(table, Path("/x"))
    except ConfigError as error:
        mistake = str(error)
    assert (plan is None) == (mistake or "").startswith("f.toml: ")
    assert plan is None or plan.models


PLACES = [
    "zz = 1",
    "[routing]\nzz = 1",
    "[breaker]\nzz = 1",
    f"{MODEL}zz = 1\n{MEMBER}",
    f"{MODEL}{MEMBER}zz = 1",
    f"{MODEL}{MEMBER}price = {{ zz = 1 }}",
    f"{MODEL}engine = 'patchling'\nzz = 1",
]


@pytest.mark.parametrize("text", PLACES)
def test_every_key_is_documented(text: str, tmp_path: Path) -> None:
    """The choices that a mistake is answered with all have their place on the page."""
    with pytest.raises(ConfigError) as caught:
        read_plan(written(tmp_path, text))
    known = str(caught.value).rpartition("there are ")[2].split(", ")
    page = (Path(__file__).parents[3] / "docs/serving.md").read_text("utf-8")
    documented = set(re.findall(r"`\[*([a-z_.]+)\]*`", page))
    assert len(known) > 1
    assert set(known) - documented == set()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[breaker]\nwindow_s = 1e400", "window_s must be at most 1000000000, got 1E\\+400"),
        ("[breaker]\nmax_pause_s = 1e300", "max_pause_s must be at most"),
        ("[breaker]\nmin_requests = 10000000000", "min_requests must be at most"),
        ("[breaker]\nmax_error_rate = 0", "max_error_rate must be above 0 and at most 1"),
        ('[routing]\ndecision_log = "a\\u0000b"', "decision_log must have no control characters"),
        ('[[model]]\nengine = "scripted"\nname = "a\\nb"', "name must have no control characters"),
        ('[[model]]\nengine = "remote:m@https://[::1/v1"', "does not name a remote model"),
        (
            '[[model]]\nengine = "scripted"\nprice = { input = 1e999999 }',
            "input must be at most 1000000000, got 1E\\+999999",
        ),
    ],
)
def test_values_that_would_break_something_later_are_named(
    text: str, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "f.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words) as raised:
        read_plan(file)
    assert "\n" not in str(raised.value)


def test_a_key_in_the_place_of_its_variable_is_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_text('[[model]]\nengine = "remote:m@https://h/v1"\nkey_env = "sk-s3cret"\n')
    with pytest.raises(ConfigError, match="names the variable") as raised:
        read_plan(file)
    assert "s3cret" not in str(raised.value)


def test_a_home_that_there_is_not_is_a_path_like_any_other(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_text('[[model]]\nengine = "~nobody-of-this-name/a.gguf"\n')
    (model,) = read_plan(file).models
    assert model.members[0].spec.engine == str(tmp_path / "~nobody-of-this-name/a.gguf")
