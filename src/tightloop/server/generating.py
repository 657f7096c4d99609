"""From a request of the API to one for the engine, for every endpoint that needs the model's view."""

from tightloop.engine.interface import (
    Engine,
    Generation,
    GenerationRequest,
    Node,
    Sampling,
    Sink,
)
from tightloop.protocol.compaction import check_compactions
from tightloop.protocol.errors import ApiError
from tightloop.protocol.requests import CustomTool, FunctionTool, ResponseRequest
from tightloop.server.compacting import Compactor, asks_for_compaction
from tightloop.server.conversations import Record, check_call_ids
from tightloop.server.fitting import Length, context_window, fitting, input_limit
from tightloop.server.prepared import PreparedGeneration

TIER_POLICY = "tightloop.tier_policy"
"""Key of a request's metadata: how one of several backends is picked, where the server allows it."""


def check_request(
    engine: Engine, request: ResponseRequest, above: Node | None, first: int = 0
) -> None:
    """What can be told without the model. Raises ``ApiError`` naming the field at fault.

    The items before number ``first`` are the context of ``above``, and were found good there.
    """
    models = engine.models()
    if all(model.name != request.model for model in models):
        names = (model.name for model in models)
        raise ApiError(
            f"unknown model {request.model[:200]!r}; this server has {', '.join(names)}",
            code="model_not_found",
            param="model",
        )
    check_call_ids(request.input, above, first)
    check_compactions(request.input, first)


def check_tool_choice(request: ResponseRequest) -> None:
    """A call that is demanded can be made. ``request.tools`` are all there are. Raises ``ApiError``."""
    choice = request.tool_choice
    if choice in ("auto", "none"):
        return
    names = {tool.name for tool in request.tools if isinstance(tool, FunctionTool | CustomTool)}
    if choice == "required" and not names:
        reason = "demands a call, but no function or custom tool is offered"
    elif choice != "required" and choice not in names:
        reason = f"names {choice[:100]!r}, which is not among the tools"
    else:
        return
    raise ApiError(f"tool_choice {reason}", code="invalid_value", param="tool_choice")


def generation_request(
    response_id: str, request: ResponseRequest, above: Node | Record | None, first: int = 0
) -> GenerationRequest:
    """``request``, whose tools are complete, below ``above``: ``first`` as in ``check_request``."""
    return GenerationRequest(
        response_id=response_id,
        model=request.model,
        parent=above.engine_node if isinstance(above, Record) else above,
        items=request.input[first:] if first else request.input,
        instructions=request.instructions,
        tools=request.tools,
        tool_choice=request.tool_choice,
        sampling=Sampling(request.temperature, request.top_p, request.seed, request.stop),
        max_output_tokens=request.max_output_tokens,
        generate=request.generate,
        output_format=request.output_format,
        parallel_tool_calls=request.parallel_tool_calls,
        reasoning_effort=request.reasoning_effort,
        prediction=request.prediction,
        service_tier=request.service_tier,
        cache_key=request.prompt_cache_key,
        is_background=request.background,
        tier_policy=request.metadata.get(TIER_POLICY) if request.metadata else None,
    )


def generate(
    engine: Engine,
    asked: ResponseRequest,
    request: GenerationRequest,
    sink: Sink,
    length: Length | None = None,
) -> Generation:
    """The engine at work for ``asked``: on ``request``, or first on a summary or a shorter context.

    ``length`` is what is known of the tokens of ``request``; if they are counted it says so then.
    """
    compactor = Compactor(engine, sink)
    if asks_for_compaction(asked):
        return PreparedGeneration(engine, request, sink, compactor.only)
    if asked.compact_threshold is not None:
        above = compactor.above(asked.compact_threshold, length)
        return PreparedGeneration(engine, request, compactor.pass_on, above)
    window = context_window(engine, asked.model) if asked.truncates else None
    if window is not None:
        limit = input_limit(window, asked.max_output_tokens)
        return PreparedGeneration(engine, request, sink, fitting(engine, limit, length))
    return engine.submit(request, sink)
