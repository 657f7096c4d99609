"""``python -m tightloop`` is the same program as ``tightloop``."""

from tightloop.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
