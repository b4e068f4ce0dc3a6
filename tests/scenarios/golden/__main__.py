"""Write the golden scenarios anew, as the cluster behaves now; what differs is to be read before
it is kept. ``python -m tests.scenarios.golden [NAME...]``"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

from tests.scenarios.golden.script import parse, text_of
from tests.scenarios.golden.stage import play

HERE = Path(__file__).parent


def main(names: list[str]) -> int:
    paths = [HERE / f"{name}.txt" for name in names] or sorted(HERE.glob("*.txt"))
    for path in paths:
        before = path.read_text(encoding="utf-8")
        script = parse(before)
        played = play(script)
        after = text_of(script, played.seen)
        if after != before:
            path.write_text(after, encoding="utf-8")
            lines = difflib.unified_diff(
                before.splitlines(), after.splitlines(), path.name, path.name, lineterm=""
            )
            print("\n".join(lines))
        for violation in played.verdict.violations:
            print(f"{path.name}: {violation}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
