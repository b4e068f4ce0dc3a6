"""The ``etcsched`` command, also as ``python -m etcsched_cli``."""

from __future__ import annotations

import sys

from etcsched_cli import INTERRUPTED

__all__ = ["main"]


def main() -> None:
    try:
        # Inside, so that a Ctrl-C while modules are read ends it as a later one does.
        from etcsched_cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
