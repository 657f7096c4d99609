"""Runs a program inside a network namespace: ``python -m benchmarks.net.inside NAMESPACE ARGV...``.

The program replaces this process, and is killed when the one that started it ends.
"""

import os
import sys

from benchmarks.net import namespaces


def main() -> None:
    """Enter, then become the program."""
    path, *argv = sys.argv[1:]
    namespaces.end_with_parent()
    namespaces.enter(path)
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    main()
