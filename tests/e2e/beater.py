"""The program that jobs run in these tests: it says in a file, every 20 ms, that it lives.

    python -I -S beater.py LEDGER [beats=N | until=FILE] [exit=N] [fails=N] [stubborn] [child]
        [results=NAME:VALUE] [prints=TEXT]

Each line is one append: what, job, run, token, Unix time, attempt, agent. ``fails=N``: the first N
attempts exit with 1. ``stubborn`` ignores SIGTERM. ``child`` forks a process that leaves the
session, ignores SIGTERM, and beats for ever.
"""

import os
import signal
import sys
import time

BEAT_S = 0.02


def main() -> None:
    options = dict(argument.partition("=")[::2] for argument in sys.argv[2:])
    ledger = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    who = " ".join(os.environ[f"ETCSCHED_{name}"] for name in ("JOB", "RUN", "TOKEN"))

    where = " ".join(os.environ[f"ETCSCHED_{name}"] for name in ("ATTEMPT", "AGENT"))

    def tell(what: str) -> None:
        os.write(ledger, f"{what} {who} {time.time():.6f} {where}\n".encode())

    if "stubborn" in options:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    tell("start")
    if "child" in options and os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            tell("child")
            time.sleep(BEAT_S)
    beats_left = int(options.get("beats", -1))
    while beats_left and not os.path.exists(options.get("until", "/no/such/file")):
        time.sleep(BEAT_S)
        tell("beat")
        beats_left -= 1
    tell("end")
    if "prints" in options:
        print(options["prints"])
    if "results" in options:
        with open(os.environ["ETCSCHED_RESULTS"], "w", encoding="utf-8") as results:
            results.write(options["results"].replace(":", "=") + "\n")
    if int(os.environ["ETCSCHED_ATTEMPT"]) <= int(options.get("fails", 0)):
        sys.exit(1)
    sys.exit(int(options.get("exit", 0)))


if __name__ == "__main__":
    main()
