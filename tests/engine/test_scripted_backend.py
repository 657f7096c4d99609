"""What is the fake's own; the contract is in test_token_backend.py."""

from tightloop.engine.interface import Evaluate
from tightloop.engine.scripted_backend import ScriptedBackend, replying


def test_a_scripted_reply_follows_the_last_marker() -> None:
    scripted = ScriptedBackend(replying(b"ok"))
    sequence = scripted.open()
    prompt = scripted.tokenize(
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", special=True
    )
    assert scripted.evaluate(sequence, prompt).argmax() == ord("o")
    assert scripted.evaluate(sequence, b"o").argmax() == ord("k")
    assert scripted.evaluate(sequence, b"k").argmax() in scripted.eos_tokens
    assert scripted.evaluated == [(sequence, len(prompt)), (sequence, 1), (sequence, 1)]


def test_it_notes_what_was_evaluated_together() -> None:
    scripted = ScriptedBackend(replying(b"ok"))
    first, second = scripted.open(), scripted.open()
    scripted.evaluate_many([Evaluate(first, [1]), Evaluate(second, [1, 2])])
    scripted.evaluate_many([Evaluate(second, [3])])
    assert scripted.joined == [2, 1]
    assert scripted.evaluated == [(first, 1), (second, 2), (second, 1)]


def test_step_costs_are_those_given() -> None:
    assert ScriptedBackend(replying(b""), step_costs={1: 1.0, 4: 2.5}).step_costs()[4] == 2.5
    assert set(ScriptedBackend(replying(b"")).step_costs().values()) == {1.0}
