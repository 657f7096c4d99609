"""The proxy of a policy with a list of hosts, for as long as a sandbox needs it."""

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tightloop.sandbox.policies import NamedPolicy
from tightloop.sandbox.proxy import AllowListProxy, Decision


@asynccontextmanager
async def way_out(
    policy: NamedPolicy, on_decision: Callable[[Decision], None]
) -> AsyncIterator[Path | None]:
    """The socket to give to ``NamedPolicy.policy``; None for a policy that needs none.

    It lies in a directory that nobody else can open. Raises OSError when it cannot be made.
    """
    if not policy.needs_proxy:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="tightloop-") as directory:
        socket = Path(directory, "proxy")
        proxy = AllowListProxy(policy.allow_list(), on_decision=on_decision)
        await proxy.start(socket)
        try:
            yield socket
        finally:
            await proxy.close()
