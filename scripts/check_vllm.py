"""Runs the vLLM backend against vLLM itself, on a tiny random model that it makes: prints what holds.

For an environment that has vLLM (``make vllm`` makes one). Every line is a check that can fail; the
exit status is the number of failures.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIALS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
PROMPT = [72, 101, 108, 108, 111, 44, 32, 119, 111, 114, 108, 100] * 6

failures = 0


def check(name: str, expected: object, found: object) -> None:
    """Print whether they are equal."""
    global failures
    is_equal = expected == found
    failures += not is_equal
    print(
        f"{'ok  ' if is_equal else 'FAIL'} {name}" + ("" if is_equal else f": {expected} {found}")
    )


def make_model(directory: Path) -> None:
    """A Llama of two layers with byte tokens, weights random but far from ties."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    bare = Tokenizer(models.BPE({letter: n for n, letter in enumerate(letters)}, []))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    bare.add_special_tokens(SPECIALS)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="<|im_end|>")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(directory)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=2048,
        initializer_range=0.4,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).to(torch.float32).save_pretrained(directory)


def decode(backend: Any, sequence: int, token: int, num: int) -> list[int]:
    """``num`` greedy tokens, ``token`` first."""
    made = [token]
    while len(made) < num:
        made.append(int(backend.evaluate(sequence, [made[-1]]).argmax()))
    return made


def plain(backend: Any, held: Sequence[int], num: int) -> list[int]:
    """What vLLM generates for a request of the ordinary kind."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    sampling = SamplingParams(
        temperature=0.0,
        max_tokens=num,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )

    async def ask() -> list[int]:
        made: list[int] = []
        prompt = {"prompt_token_ids": list(held)}
        async for output in backend._host._llm.generate(prompt, sampling, f"plain-{len(held)}"):
            made = list(output.outputs[0].token_ids)
        return made

    return list(backend._loop.call(ask()))


def check_backend(backend: Any) -> None:
    """Tokens, run-ahead, continuation, divergence, forks, cancel."""
    from tightloop.engine.interface import Cancelled, Evaluate

    text = "<|im_start|>h\u00e9llo the \U0001f600<|im_end|>"
    tokens = backend.tokenize(text, special=True)
    check("text survives tokens", text.encode(), b"".join(map(backend.token_bytes, tokens)))
    check("control tokens are recognised", True, tokens[-1] in backend.eos_tokens)
    literal = backend.tokenize(text, special=False)
    check("or not, when they are text", text.encode(), b"".join(map(backend.token_bytes, literal)))
    check("then they are many tokens", True, len(literal) > len(tokens))

    sequence = backend.open()
    first = int(backend.evaluate(sequence, PROMPT).argmax())
    expected = plain(backend, PROMPT, 60)
    check("60 tokens as an ordinary request", expected, decode(backend, sequence, first, 60))
    check("in one request", 1, backend.num_requests)

    child = backend.fork(sequence, backend.num_tokens(sequence))
    more = [10, 20, 30]
    held = [*PROMPT, *expected[:59], *more]
    answer = int(backend.evaluate(child, more).argmax())
    check("a continuation by other tokens", plain(backend, held, 1), [answer])

    other = (expected[4] + 1) % 256
    again = backend.open()
    backend.evaluate(again, PROMPT)
    decode(backend, again, expected[0], 4)
    backend.evaluate(again, [expected[3]])
    answer = int(backend.evaluate(again, [other]).argmax())
    held = [*PROMPT, *expected[:4], other]
    check("a choice that vLLM did not make", plain(backend, held, 1), [answer])

    pieces = backend.open()
    for start in range(0, len(PROMPT), 7):
        row = backend.evaluate(pieces, PROMPT[start : start + 7])
    check("a prompt in pieces", expected[0], int(row.argmax()))

    pair = [backend.open(), backend.open()]
    rows = backend.evaluate_many([Evaluate(pair[0], PROMPT), Evaluate(pair[1], PROMPT[:50])])
    found = [int(row.argmax()) for row in rows]
    check("two in one step", [expected[0], *plain(backend, PROMPT[:50], 1)], found)

    backend.cancel()
    try:
        backend.evaluate(backend.open(), PROMPT)
        check("a cancel stops an evaluation", True, False)
    except Cancelled:
        check("a cancel stops an evaluation", True, True)
    saved = backend.save(pair[0])
    restored = backend.restore(saved)
    tail = int(backend.evaluate(restored, [expected[0]]).argmax())
    check("a saved sequence goes on", expected[1], tail)


async def check_engine(load: Any) -> None:
    """Two turns of a conversation, through the engine and the chat family."""
    from tightloop.engine.families.chat import ChatFamily
    from tightloop.engine.interface import GenerationRequest, Node
    from tightloop.engine.token_engine import TokenEngine
    from tightloop.protocol.deltas import Finished
    from tightloop.protocol.items import user_message

    engine = TokenEngine(load, ChatFamily, name="vllm")
    await engine.start()

    async def ask(name: str, parent: Node | None, text: str) -> Finished:
        done: asyncio.Future[Finished] = asyncio.get_running_loop().create_future()

        def sink(deltas: Sequence[Any]) -> None:
            if isinstance(deltas[-1], Finished):
                done.set_result(deltas[-1])

        engine.submit(
            GenerationRequest(name, "vllm", parent, (user_message(text),), max_output_tokens=40),
            sink,
        )
        return await done

    first = await ask("resp_1", None, "hello")
    check("an answer of 40 tokens, or to its end", True, 0 < first.usage.output_tokens <= 40)
    parent = Node("resp_1", None, (user_message("hello"),))
    second = await ask("resp_2", parent, "go on")
    check("the next turn finds the prompt warm", True, second.usage.cached_tokens > 10)
    await engine.close()


def main() -> int:
    """The number of checks that failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="use this directory instead of a made one")
    arguments = parser.parse_args()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    import vllm

    from tightloop.engine.vllm.backend import VllmBackend
    from tightloop.engine.vllm.vllm_host import VllmHost

    print(f"vLLM {vllm.__version__}")
    options = {
        "enforce_eager": True,
        "max_model_len": 1024,
        "dtype": "float32",
        "max_num_seqs": 8,
        "block_size": 32,
    }
    with tempfile.TemporaryDirectory() as made:
        directory = arguments.model or Path(made)
        if arguments.model is None:
            make_model(directory)

        def load() -> VllmBackend:
            return VllmBackend(VllmHost(str(directory), options=options))

        backend = load()
        check_backend(backend)
        backend.shutdown()
        asyncio.run(check_engine(load))
    print(f"{failures} failed")
    return failures


if __name__ == "__main__":
    sys.exit(main())
