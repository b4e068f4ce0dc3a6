"""``make bench`` hands on what it is told."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.bench.__main__ import bench

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(("verb", "is_quick"), [("bench", False), ("bench-quick", True)])
def test_what_make_is_told_reaches_the_bench(verb: str, is_quick: bool) -> None:
    told = ["ONLY=lateness burst", "JSON=/tmp/bench.json"]
    # These tests may be run by make itself.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    made = subprocess.run(
        ["make", "-n", verb, *told], cwd=ROOT, capture_output=True, text=True, check=True, env=env
    )
    _, _, options = made.stdout.splitlines()[-1].partition("tests.bench")
    with bench.make_context("bench", shlex.split(options)) as context:
        assert context.params == {
            "quick": is_quick,
            "names": ("lateness", "burst"),
            "json_path": Path("/tmp/bench.json"),
        }
