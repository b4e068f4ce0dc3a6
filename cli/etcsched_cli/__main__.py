"""``python -m etcsched_cli``: the same as the ``etcsched`` command."""

from etcsched_cli.main import main

main()
