"""The node that a response becomes when it ends: what its children have as their parent."""

from dataclasses import replace

from tightloop.engine.interface import Node
from tightloop.protocol.compaction import visible
from tightloop.protocol.requests import ResponseRequest
from tightloop.protocol.tools import Tool
from tightloop.server.cache_settings import settings_like
from tightloop.server.compacting import worth_keeping
from tightloop.server.conversations import Record


def new_link(
    request: ResponseRequest, parent: Record | None, tools: tuple[Tool, ...], made: Node
) -> Record:
    """The record of a response below ``parent``.

    ``made`` has the response's id, its usage and, as items, its output. ``tools`` came as items of
    the context.
    """
    above = parent.node if parent else None
    node = Node(made.id, above, request.input + made.items, made.usage)
    settings = settings_like(request, parent.settings if parent else None)
    return Record(node, parent, len(request.input), tools, settings=settings)


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
