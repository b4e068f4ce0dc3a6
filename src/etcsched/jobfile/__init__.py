"""Job files: YAML in, jobs out, or every problem of every file at once; and jobs back to YAML.

``reading`` finds the files, ``nodes`` is YAML with its places, ``fields`` and ``schedules`` read
single values, ``chains`` and ``notify`` what follows a run, ``jobs`` puts a job together,
``calendars``, ``windows``, ``conflicts`` and ``settings`` read what they are named after, ``load``
is the whole. ``writing`` has jobs in the words of files, ``exporting`` whole files.
``crontab`` and ``from_crontab`` make jobs of crontabs, ``lint`` says what is odd about schedules.
"""

from etcsched.jobfile.load import Draft, JobFiles, Known, load
from etcsched.jobfile.reading import read_files

__all__ = ["Draft", "JobFiles", "Known", "load", "read_files"]
