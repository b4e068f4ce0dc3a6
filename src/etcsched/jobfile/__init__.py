"""Job files: YAML in, jobs out, or every problem of every file at once.

``reading`` finds the files, ``nodes`` is YAML with its places, ``fields`` and ``schedules`` read
single values, ``chains`` and ``notify`` what follows a run, ``jobs`` puts a job together,
``calendars``, ``windows``, ``conflicts`` and ``settings`` read what they are named after, ``load``
is the whole.
"""

from etcsched.jobfile.load import JobFiles, load, mentions_chains
from etcsched.jobfile.reading import read_files

__all__ = ["JobFiles", "load", "mentions_chains", "read_files"]
