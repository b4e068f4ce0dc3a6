"""A whole cluster on one machine, as child processes: for `etcsched up`, the demo, tests."""
