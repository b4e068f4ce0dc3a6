"""etcsched: a job scheduler for work that must happen.

Reading order: docs/architecture.md, then ``core`` (decisions), ``keyspace`` (keys and
transactions), ``scheduler`` and ``agent`` (the processes), ``etcd`` (the wire).
"""

__version__ = "0.1.0"
