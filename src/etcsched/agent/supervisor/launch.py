"""What whoever starts a supervisor has to know of it, without importing it."""

from __future__ import annotations

EXIT_TAKEN = 3
"""Exit code: another supervisor, or the guardian of one that died, holds the directory."""
LOCK_FILE = "supervisor.lock"
"""Locked (flock) by supervisor and guardian, until the last process of an attempt is gone."""
LOG_FILE = "supervisor.log"
START_WITHIN_S = 10.0
"""A process that has neither become its command nor failed to after so long is given up."""
DIED_CLEANUP_MAX_S = 5.0
"""SIGKILL works within milliseconds; whoever is there after this can't die at present."""
