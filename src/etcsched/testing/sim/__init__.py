"""The simulator: the real cores of whole clusters against the model of etcd, in virtual time, from
one seed, under faults (docs/testing.md).

Everything that decides is the product's own. What is written here is physics: clocks, processes
that die or freeze, connections that lose things, disks that remember.
"""
