"""Starts the resident interpreter: ``python warm/__main__.py [unconfined] WORKSPACE DESCRIPTOR``.

Outside of a sandbox it refuses, unless ``unconfined`` says that this is meant.

``python warm/__main__.py cold REPORT WORKSPACE PROGRAM ARGUMENT...`` is a cold run with outcomes.
"""

import os
import sys
import types

PACKAGE = "_tightloop_warm"


def start() -> None:
    """Nothing of ours is on the path of what runs."""
    here = os.path.dirname(os.path.abspath(__file__))
    if sys.path and os.path.realpath(sys.path[0]) == os.path.realpath(here):
        del sys.path[0]  # names of our files must not shadow anything
    package = types.ModuleType(PACKAGE)
    package.__path__ = [here]
    sys.modules[PACKAGE] = package
    module = f"{PACKAGE}.cold"
    if sys.argv[1:2] != ["cold"]:
        module = f"{PACKAGE}.confinement"
        __import__(module)
        sys.modules[module].refuse_outside()
        module = f"{PACKAGE}.zygote"
    __import__(module)
    sys.modules[module].main()


if __name__ == "__main__":
    start()
