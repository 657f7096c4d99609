"""llama.cpp's own HTTP server, as xllamacpp ships it: prints its URL, ends with standard input.

One slot, one thread (more wait for each other on a small model), its prompt cache as it is by default.
"""

import json
import sys

import xllamacpp

from benchmarks.lab.processes import free_port


def main(path: str, num_context: int) -> None:
    """Serve ``path`` until standard input ends."""
    settings = xllamacpp.CommonParams()
    settings.model.path = path
    settings.n_ctx = num_context
    settings.n_parallel = 1
    settings.cpuparams.n_threads = 1
    settings.cpuparams_batch.n_threads = 1
    settings.port = free_port()
    settings.verbosity = -1
    settings.warmup = False
    server = xllamacpp.Server(settings)
    print(json.dumps({"url": server.listening_address}), flush=True)
    sys.stdin.read()
    del server


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
