"""What an operator does and sees, as small functions over ``ports.Etcd``.

``apply``, ``pauses`` and ``drains`` write what operators want; ``requests`` ask the leader and wait
for its word; ``runs``, ``jobs``, ``cluster`` and ``doctor`` read. None lists history as a whole.
"""
