"""etcsched runs tree: what followed what."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from etcsched.operator.runs import parse_run_name
from etcsched.operator.trees import MAX_RUNS, ChainTree, TreeNode, read_tree
from etcsched_cli.completion import complete_runs
from etcsched_cli.connect import run as run_connected
from etcsched_cli.output import Cell, Tree, output_options, show, styled, tree
from etcsched_cli.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from etcsched.keyspace.keys import Keys
    from etcsched.ports import Etcd


@click.command("tree")
@click.argument("run", shell_complete=complete_runs)
@output_options(watch=True)
@click.pass_obj
def show_tree(settings: Settings, run: str, as_json: bool, watch: bool) -> None:
    """Show the whole chain that RUN (JOB/ID) is of: what it came from, and what followed.

    \b
    etcsched runs tree close_books/20261122T190000Z
    """
    job, id_ = parse_run_name(run)

    async def work(etcd: Etcd, keys: Keys) -> Any:
        return await show(
            lambda: read_tree(etcd, keys, job, id_),
            lambda found: _render(found, run),
            as_json=as_json,
            watch=watch,
        )

    run_connected(settings, work)


def _render(found: ChainTree, asked: str) -> Iterable[RenderableType]:
    for root in found.roots:
        yield tree(_branch(root, asked))
    if found.is_cut:
        yield f"only the first {MAX_RUNS} runs are shown"


def _branch(node: TreeNode, asked: str) -> Tree:
    cells: list[Cell] = [(node.name, "bold" if node.name == asked else "")]
    if node.run is not None:
        cells.append(styled(node.run.state.value))
    if node.run is not None and node.run.agent:
        cells.append(f"on {node.run.agent}")
    if node.note:
        cells.append((f"({node.note})", "bright_black"))
    if node.is_repeated:
        cells.append(("(see above)", "bright_black"))
    return Tree(cells, [_branch(child, asked) for child in node.children])
