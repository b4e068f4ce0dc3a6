"""Several clusters in one configuration file."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from click.testing import CliRunner, Result

from etcsched.core.errors import ClusterUnreachable
from etcsched.etcd.config import EtcdConfig
from etcsched_cli.main import cli
from etcsched_cli.settings import Environment

FILE = """
context: prod
timeout: 7s
user: anna
contexts:
  prod: {endpoints: [etcd-1:2379, etcd-2:2379], prefix: /prod/, user: "ops:secret-1"}
  demo: {endpoints: "127.0.0.1:2400"}
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    file = tmp_path / ".config/etcsched/config.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(FILE)
    return tmp_path


def run(home: Path, *args: str, columns: int = 200, **env: str) -> tuple[Result, list[EtcdConfig]]:
    """How it ended, and with which clusters it spoke."""
    asked: list[EtcdConfig] = []

    def open_etcd(config: EtcdConfig, _: float) -> Any:
        asked.append(config)
        raise ClusterUnreachable("as expected")

    environment = Environment(open_etcd=open_etcd)
    result = CliRunner().invoke(
        cli,
        list(args),
        obj=environment,
        env={
            "HOME": str(home),
            "COLUMNS": str(columns),
            "ETCSCHED_PASSWORD": None,
            "ETCSCHED_CONTEXT": None,
            "ETCSCHED_ENDPOINTS": None,
            **env,
        },
    )
    return result, asked


def cluster(home: Path, *args: str, **env: Any) -> EtcdConfig:
    _, (config,) = run(home, *args, "jobs", "list", **env)
    return config


def test_the_current_one_unless_another_is_named(home: Path) -> None:
    prod = cluster(home)
    assert prod.endpoints == ("etcd-1:2379", "etcd-2:2379")
    assert (prod.user, prod.password) == ("ops", "secret-1")
    for demo in (
        cluster(home, "--context=demo", ETCSCHED_PASSWORD="x"),
        cluster(home, ETCSCHED_CONTEXT="demo", ETCSCHED_PASSWORD="x"),
    ):
        assert demo.endpoints == ("127.0.0.1:2400",)
        assert (demo.user, demo.password) == ("anna", "x")


def test_what_is_said_on_the_line_counts_most(home: Path) -> None:
    assert cluster(home, "--endpoints=h:1").endpoints == ("h:1",)
    assert cluster(home, ETCSCHED_ENDPOINTS="h:2").endpoints == ("h:2",)
    assert cluster(home, "--endpoints=h:1", ETCSCHED_ENDPOINTS="h:2").endpoints == ("h:1",)


def test_the_order_of_options_doesn_t_matter(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("contexts: {far: {endpoints: far:2379}, near: {endpoints: near:2379}}\n")
    for args in (
        ("--context=far", f"--config={other}"),
        (f"--config={other}", "--context=far"),
    ):
        assert cluster(home, *args).endpoints == ("far:2379",)


@pytest.mark.parametrize(
    ("text", "args", "words"),
    [
        (FILE, ["--context=prd"], "no context 'prd'; did you mean prod?"),
        (FILE, ["--context=x"], "no context 'x'; it has prod, demo"),
        ("context: gone\n", [], "no context 'gone'; it has none"),
        ("contexts: [a]\n", [], "contexts must be a map like prod:"),
        ("contexts: {a: text}\n", [], "contexts must be a map like prod:"),
        ("contexts: {a: {endpoint: x}}\n", [], "unknown endpoint; known are endpoints, prefix"),
        ("contexts: {a: {contexts: {}}}\n", [], "unknown contexts; known are"),
    ],
)
def test_files_that_make_no_sense(home: Path, text: str, args: list[str], words: str) -> None:
    (home / ".config/etcsched/config.yaml").write_text(text)
    result, asked = run(home, *args, "status")
    assert (result.exit_code, asked) == (2, [])
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("columns", [200, 80])
def test_the_list(home: Path, columns: int) -> None:
    result, asked = run(home, "contexts", columns=columns)
    assert (result.exit_code, asked) == (0, [])
    assert result.stdout == dedent(
        """\
        CONTEXT  CURRENT  ENDPOINTS                PREFIX  USER
        prod     *        etcd-1:2379,etcd-2:2379  /prod/  ops
        demo              127.0.0.1:2400                   anna
        """
    )
    result, _ = run(home, "--context=demo", "contexts", "--json")
    assert '"is_current": true' in result.stdout.partition('"demo"')[2]
    assert "secret" not in result.stdout
    (home / ".config/etcsched/config.yaml").unlink()
    result, _ = run(home, "contexts")
    assert result.stdout.startswith("no contexts; ")
