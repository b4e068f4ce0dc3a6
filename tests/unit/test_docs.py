"""The job files in the documents are what `validate` takes, and their commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from etcsched.jobfile.jobs import KNOWN
from etcsched.jobfile.load import load
from etcsched_cli.main import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "compose" / "README.md"]
NOW_MS = 1_790_000_000_000
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(
    r"^ *(?:\$ )?(?:.*\| xargs (?:-\S+ )*)?(etcsched .*?)(?:\s+#.*)?$", re.MULTILINE
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text())


FILES = [
    pytest.param(text, id=f"{page.name}-{number}")
    for page in PAGES
    for number, (kind, text) in enumerate(blocks(page))
    if kind == "yaml" and re.search(r"^jobs:", text, re.MULTILINE)
]
COMMANDS = [
    pytest.param(line, id=f"{page.name}: {line[:60]}")
    for page in PAGES
    for _, text in blocks(page)
    for line in COMMAND.findall(text)
]
LINKS = [
    pytest.param(page, target, id=f"{page.name}: {target}")
    for page in PAGES
    for target in LINK.findall(BLOCK.sub("", page.read_text()))
    if "://" not in target
]


def anchors(page: Path) -> set[str]:
    """As they are made of headings where these pages are read."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_there_are_some() -> None:
    assert len(FILES) > 3
    assert len(COMMANDS) > 10
    assert len(LINKS) > 10


@pytest.mark.parametrize(("page", "target"), LINKS)
def test_a_link_leads_somewhere(page: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    file = page.parent / path if path else page
    assert file.exists()
    assert not anchor or anchor in anchors(file)


@pytest.mark.parametrize(
    "chapter",
    [
        "The quorum is lost for good",
        "Restoring etcd from a backup",
        "All schedulers are lost",
        "An agent's disk is lost",
        "An agent's disk is full",
    ],
)
def test_each_recovery_strategy_is_a_chapter(chapter: str) -> None:
    """It is found from the table at the top, and says how one sees that it worked."""
    page = (ROOT / "docs" / "operations.md").read_text()
    top, _, _ = page.partition("\n## ")
    anchor = chapter.lower().replace("'", "").replace(" ", "-")
    assert f"(#{anchor})" in top
    (text,) = re.findall(rf"^## {chapter}\n(.*?)(?=^## )", page, re.MULTILINE | re.DOTALL)
    assert "It worked if" in text


@pytest.mark.parametrize("text", FILES)
def test_a_job_file_is_valid(text: str) -> None:
    assert load([("page.yaml", text)], NOW_MS).jobs


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_has_its_options(line: str) -> None:
    words = shlex.split(re.split(r"[|>&]", line)[0])[1:]
    command: click.Command = cli
    context = click.Context(cli)
    takes_value = False
    for word in words:
        name, _, _ = word.partition("=")
        if name.startswith("-"):
            found = [p for p in command.params if name in (*p.opts, *p.secondary_opts)]
            assert found or name == "--help", f"{command.name} has no {name}"
            option = found[0] if found else None
            takes_value = isinstance(option, click.Option) and not (
                option.is_flag or option.count or "=" in word
            )
        elif takes_value:
            takes_value = False
        elif isinstance(command, click.Group):
            inner = command.get_command(context, word)
            assert inner is not None, f"no command {word}"
            command = inner
    assert not isinstance(command, click.Group) or command.invoke_without_command or not words


def test_what_holds_without_a_word() -> None:
    """The page's job with all defaults spelled out is the one that has none."""
    page = (ROOT / "docs" / "job-files.md").read_text()
    section = page.partition("## What holds without a word")[2]
    (_, spelled_out), *_ = BLOCK.findall(section)
    bare = "jobs: {example: {run: {exec: [/bin/true]}, schedule: {every: 1h}}}"
    explicit, implicit = (load([("x.yaml", text)], NOW_MS).jobs for text in (spelled_out, bare))
    assert explicit == implicit
    without_default = {
        "run", "schedule", "calendars", "windows", "notify", "description", "owner", "tags",
        "timeout", "hosts", "require", "prefer", "params", "env", "workdir", "user", "chain",
        "results",
    }  # fmt: skip
    fields = set(re.findall(r"^    (\w+):", spelled_out, re.MULTILINE))
    assert fields | without_default == set(KNOWN)
    described = set(re.findall(r"`(\w+)`", section.partition("## All together")[0]))
    assert set(KNOWN) - described == set()
