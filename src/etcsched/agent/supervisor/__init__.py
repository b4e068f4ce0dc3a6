"""The agent's supervisor: a process of its own that spawns, watches and kills attempts.

It is one of a pair. ``python -m etcsched.agent.supervisor`` starts both, in a session of their
own, and returns when they are ready:

    guardian ── supervisor ══ Unix socket ══ agent
                  ├─ attempt (session of its own) ─ ...
                  └─ attempt ─ ...

Who answers for what when something dies or freezes:

- The agent dies, freezes or loses its session: the supervisor stops each attempt by its deadline.
- The agent restarts: it connects, gets the inventory, and the attempts never notice.
- The supervisor dies: the guardian kills every attempt at once; the agent reports them died. One
  that can't start another ends, and its lease runs out.
- The supervisor freezes, or hangs on a dead disk: the agent kills it when it leaves a message
  unanswered; without an agent the guardian does, at the first deadline.
- A start hangs on a file system that doesn't answer: only that attempt fails, after 10 s (ADR 32).
- The guardian dies: the supervisor kills every attempt and exits.
- Both die at once: the agent kills what is left; without an agent the next supervisor does. With
  a control group that reaches every process; without one, those that kept our marker in their
  environment and what descends from them.
- All three die at once: what runs stays until an agent starts on this host. That is the stated
  residual; ``--isolate`` removes it: in a PID namespace the kernel kills all.

``--isolate`` needs root, and isn't the default since jobs in a PID namespace can't signal the
host's daemons (``kill -HUP $(cat /run/...pid)``).

Where to read: ``messages`` (the protocol), ``attempt`` (when to signal), ``forest`` (whom),
``spawn`` (a start), ``attempts`` (all of them), ``server`` (the loop), ``guardian``.
"""
