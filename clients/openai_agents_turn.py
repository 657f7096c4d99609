"""One turn of an agent made with openai-agents: ``python openai_agents_turn.py http|websocket``.

Runs in the environment of that library, not in ours. The server's address and key come from
``OPENAI_BASE_URL`` and ``OPENAI_API_KEY``. The agent has one tool, which writes a file into the
working directory; the last line written is the agent's answer as a JSON object.
"""

import asyncio
import json
import sys
from pathlib import Path

import agents


@agents.function_tool
def write_file(name: str, text: str) -> str:
    """Write a text file.

    Args:
        name: Where.
        text: What.
    """
    Path(name).write_text(text, "utf-8")
    return f"wrote {len(text)} characters"


async def main(transport: str) -> None:
    """Run the agent on one task."""
    agents.set_default_openai_responses_transport(transport)
    agent = agents.Agent(
        name="writer", instructions="Use the tool.", model="scripted", tools=[write_file]
    )
    deltas = 0
    if transport == "http":
        result = await agents.Runner.run(agent, "write it")
    else:
        result = agents.Runner.run_streamed(agent, "write it")
        async for event in result.stream_events():
            deltas += event.type == "raw_response_event"
    usage = result.context_wrapper.usage
    said = {"final": result.final_output, "requests": usage.requests, "events": deltas}
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
