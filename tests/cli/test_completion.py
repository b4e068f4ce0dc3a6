"""What a shell gets to complete a line with."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from etcsched.core.records import Kind, Run
from etcsched.core.states import RunState
from tests.cli.console import Console

SHELLS = ("bash", "zsh", "fish")


def completed(console: Console, *words: str, **env: Any) -> list[str]:
    """What stands for the last of these words, as bash asks."""
    result = console.run(
        _ETCSCHED_COMPLETE="bash_complete",
        COMP_WORDS=" ".join(["etcsched", *words]),
        COMP_CWORD=str(len(words)),
        **env,
    )
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return [line.partition(",")[2] for line in result.stdout.splitlines() if line]


def test_commands_and_options(cluster: Console) -> None:
    assert completed(cluster, "compl") == ["completion"]
    assert completed(cluster, "runs", "rel") == ["release"]
    assert completed(cluster, "runs", "logs", "--fol") == ["--follow"]
    assert completed(cluster, "runs", "list", "--state", "fai") == ["failed"]


def test_names_of_the_cluster(cluster: Console) -> None:
    assert completed(cluster, "jobs", "show", "") == ["close_books", "rotate_logs"]
    assert completed(cluster, "jobs", "show", "clo") == ["close_books"]
    assert completed(cluster, "jobs", "pause", "close_books", "ro") == ["rotate_logs"]
    assert completed(cluster, "agents", "drain", "host") == ["host-a", "host-b"]
    assert completed(cluster, "runs", "show", "rot") == ["rotate_logs/"]
    assert completed(cluster, "runs", "show", "rotate_logs/") == [
        "rotate_logs/20261122T185500Z",
        "rotate_logs/20261122T190000Z",
    ]
    assert completed(cluster, "runs", "logs", "close_books/202611") == [
        "close_books/20261122T023000Z",
        "close_books/20261121T023000Z",
    ]
    assert completed(cluster, "jobs", "show", "none") == []


def test_a_run_or_a_job(cluster: Console) -> None:
    assert completed(cluster, "explain", "clo") == ["close_books", "close_books/"]
    assert completed(cluster, "explain", "rotate_logs/20261122T19") == [
        "rotate_logs/20261122T190000Z"
    ]


def test_only_held_runs_are_released(cluster: Console) -> None:
    assert completed(cluster, "runs", "release", "") == []
    ids = ("rotate_logs", "20261122T185500Z")
    held = replace(cluster.get(Run, Kind.RUN, *ids), state=RunState.HELD)
    cluster.put(held, Kind.RUN, *ids)
    for begun in ("", "rot", "rotate_logs/2026"):
        assert completed(cluster, "runs", "release", begun) == ["/".join(ids)]
    assert completed(cluster, "runs", "release", "clo") == []


def test_contexts_of_the_configuration_file(console: Console) -> None:
    assert completed(console, "--context", "") == []
    file = console.home / "clusters.yaml"
    file.write_text("context: gone\ncontexts: {prod: {}, practice: {}, demo: {}}\n")
    assert completed(console, "--config", str(file), "--context", "") == [
        "prod", "practice", "demo"
    ]  # fmt: skip
    default = console.home / ".config" / "etcsched" / "config.yaml"
    default.parent.mkdir(parents=True)
    default.write_text("contexts: {prod: {}, practice: {}, demo: {}}\n")
    assert completed(console, "--context", "pr") == ["prod", "practice"]
    default.write_text("contexts: [nonsense]\n")
    assert completed(console, "--context", "pr") == []


def test_a_cluster_that_doesn_t_answer_says_nothing(cluster: Console) -> None:
    cluster.is_reachable = False
    assert completed(cluster, "jobs", "show", "") == []
    assert completed(cluster, "--user=anna", "jobs", "show", "") == []
    assert completed(cluster, "--endpoints=nonsense", "jobs", "show", "") == []


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_that_its_shell_understands(console: Console, tmp_path: Path, shell: str) -> None:
    script = console.ok("completion", shell)
    assert "_ETCSCHED_COMPLETE" in script
    if shutil.which(shell):
        file = tmp_path / "script"
        file.write_text(script)
        checked = subprocess.run([shell, "-n", str(file)], capture_output=True, check=False)
        assert checked.returncode == 0, checked.stderr
