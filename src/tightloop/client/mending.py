"""Tool calls that a host worded badly, made readable, so that the model hears of it and not the user.

=============================== =========================================================
the host sends                  the call is
=============================== =========================================================
no ``call_id``                  one named after the item's id, else after response and place
two calls with one ``call_id``  two calls with two
arguments that are no string    their JSON
no arguments, no name           empty ones: the tool, or who looks for it, says what is wrong
=============================== =========================================================

A host does not know the ids made here, so a conversation with one goes on as a new chain
(``has_new_ids``). Ids that come back in a later response are left alone: each call of one response is
answered before the next is asked for.
"""

from typing import Any, Final

import orjson

from tightloop.client.transport import Event

ITEM_TYPES: Final = frozenset({"response.output_item.added", "response.output_item.done"})
_BODIES: Final = {"function_call": "arguments", "custom_tool_call": "input"}


class CallMender:
    """For the events of one response."""

    def __init__(self) -> None:
        self.has_new_ids = False
        self._ids: dict[int, tuple[object, str]] = {}  # by place: what came, what it is called
        self._num_made = 0

    def mend(self, event: Event, event_type: str, response_id: str) -> None:
        """Change the item of ``event`` in place, if it is a call that needs it."""
        item = event.get("item")
        if isinstance(item, dict) and item.get("type") in _BODIES:
            is_done = event_type.endswith("done")
            self._mend(item, event.get("output_index"), response_id, is_done=is_done)

    def mend_output(self, event: Event, response_id: str) -> None:
        """The same for calls that come with the terminal event alone."""
        response = event.get("response")
        output = response.get("output") if isinstance(response, dict) else None
        for place, item in enumerate(output if isinstance(output, list) else ()):
            if isinstance(item, dict) and item.get("type") in _BODIES:
                self._mend(item, place, response_id, is_done=True)

    def _mend(
        self, item: dict[str, Any], place: object, response_id: str, *, is_done: bool
    ) -> None:
        body = _BODIES[item["type"]]
        given = item.get(body)
        if not isinstance(given, str):
            item[body] = "" if given is None else orjson.dumps(given).decode()
            self.has_new_ids |= given is not None and is_done
        if not isinstance(item.get("name"), str):
            item["name"] = ""
        if not isinstance(item.get("namespace"), str | None):
            del item["namespace"]
        given = item.get("call_id")
        if isinstance(place, int):
            item["call_id"] = self._id(item, place, response_id)
        elif is_done:
            item["call_id"] = self._id(item, -1 - len(self._ids), response_id)
        else:  # which call it will be cannot be told; nothing depends on it yet
            item["call_id"] = given if isinstance(given, str) else ""

    def _id(self, item: dict[str, Any], place: int, response_id: str) -> str:
        given = item.get("call_id")
        known = self._ids.get(place)
        if known is not None and known[0] in (given, None, ""):
            return known[1]
        taken = {name for other, (_, name) in self._ids.items() if other != place}
        is_named = isinstance(given, str) and given
        name = str(given) if is_named else _name_of(item, place, response_id)
        while name in taken:
            self._num_made += 1
            name = f"{name.partition('~')[0]}~{self._num_made}"
        self.has_new_ids |= name != given
        self._ids[place] = (given, name)
        return name


def _name_of(item: dict[str, Any], place: int, response_id: str) -> str:
    own = item.get("id")
    return f"call_{own}" if isinstance(own, str) and own else f"call_{response_id}_{abs(place)}"
