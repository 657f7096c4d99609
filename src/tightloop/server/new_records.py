"""The node that a response becomes when it ends: what its children have as their parent."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from tightloop.engine.interface import Node
from tightloop.protocol.compaction import visible
from tightloop.protocol.items import Item
from tightloop.protocol.requests import ResponseRequest
from tightloop.protocol.tools import Tool
from tightloop.server.cache_settings import settings_like
from tightloop.server.compacting import worth_keeping
from tightloop.server.conversations import Record
from tightloop.server.known_histories import Known, known_end
from tightloop.server.standing import Standing


def new_link(
    request: ResponseRequest,
    parent: Record | None,
    tools: tuple[Tool, ...],
    made: Node,
    standing: Standing | None = None,
) -> Record:
    """The record of a response below ``parent``.

    ``made`` has the response's id, its usage and, as items, its output. ``tools`` came as items of
    the context. ``standing`` is where the engine began.
    """
    above = parent.node if parent else None
    node = Node(made.id, above, request.input + made.items, made.usage)
    settings = settings_like(request, parent.settings if parent else None)
    record = Record(node, parent, len(request.input), tools, settings=settings)
    if standing is not None and standing.above is not None and standing.above is not above:
        new = request.input[standing.first :]
        record.view = Node(made.id, standing.above, new + made.items, made.usage)
    return record


def end_of_turn(
    record: Record,
    request: ResponseRequest,
    standing: Standing,
    scope: str,
    *,
    setup: bytes | None = None,
    num_tokens: int | None = None,
    resent: Callable[[Sequence[Item]], Sequence[Item]] | None = None,
) -> Known | None:
    """What a client must come back with to go on from ``record``; None if nothing would do.

    ``setup`` is what else the engine was told, ``num_tokens`` what the prompt had at most, if that is
    known. ``resent`` gives the words of the client's dialect.
    """
    path = standing.path(request)
    if path is None:
        return None
    node = record.engine_node
    num_given = record.num_input - standing.first
    made = node.items[num_given:]
    return known_end(
        node,
        num_given,
        path,
        made if resent is None else resent(made),
        scope=scope,
        tools=record.tools,
        setup=setup,
        num_tokens=num_tokens,
        above=standing.known,
    )


def new_chain(
    request: ResponseRequest,
    parent: Record | None,
    tools: tuple[Tool, ...],
    made: Node,
    window: int | None,
) -> Record:
    """As ``new_link``, for a summary that was asked for: who continues it does without the past.

    ``window`` is the model's context in tokens, None if it is not known: see ``worth_keeping``.
    """
    context = parent.node.context() if parent else []
    kept = worth_keeping(visible([*context, *request.input]), window)
    node = replace(made, items=kept + made.items)
    return Record(node, None, len(kept), tools)
