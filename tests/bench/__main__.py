"""Every measure beside its limit: ``python -m tests.bench --help``."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import click
from rich.console import Console

from etcsched.core.errors import EtcschedError
from etcsched.etcd.binaries import EtcdBinary, provide_etcd
from tests.bench.bed import Bed, open_bed
from tests.bench.cost import cost
from tests.bench.effort import FULL, QUICK, Effort
from tests.bench.lateness import lateness
from tests.bench.results import Machine, Row, heading_of, json_of, table_of
from tests.bench.scale import agents, jobs
from tests.bench.takeover import agent_loss, takeover
from tests.bench.throughput import burst, control, processes

FILE_WIDTH = 130
"""Columns of the table where no terminal says how many there are."""

Measure = Callable[[Bed, Effort], Awaitable[list[Row]]]

MEASURES: dict[str, Measure] = {
    "processes": processes,
    "control": control,
    "lateness": lateness,
    "burst": burst,
    "cost": cost,
    "takeover": takeover,
    "agent-loss": agent_loss,
    "jobs": jobs,
    "agents": agents,
}


@click.command()
@click.option("--quick", is_flag=True, help="Coarser, in under two minutes.")
@click.option(
    "--only", "names", type=click.Choice(list(MEASURES)), multiple=True, help="Just this; repeat."
)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="Also write everything there."
)
def bench(quick: bool, names: tuple[str, ...], json_path: Path | None) -> None:
    """Measure the real daemons on a real etcd, each measure beside what is possible at best on
    this machine, measured in the same run. A fresh cluster for each measure, one after another.

    Nothing else should run on the machine. Exits 0 when all could be measured, whatever came out.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    console = Console()
    if not console.is_terminal:
        console.width = FILE_WIDTH
    try:
        rows, machine = asyncio.run(_measure(console, QUICK if quick else FULL, names))
    except (EtcschedError, RuntimeError) as error:
        console.print(str(error), style="red", markup=False, highlight=False)
        sys.exit(1)
    console.print(heading_of(machine), highlight=False)
    console.print(table_of(rows))
    if json_path is not None:
        json_path.write_bytes(json_of(rows, machine))


async def _measure(
    console: Console, effort: Effort, names: tuple[str, ...]
) -> tuple[list[Row], Machine]:
    binary = await provide_etcd(lambda text: console.print(text, markup=False))
    machine = _machine(binary, effort)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="etcsched-bench-") as directory:
        for name in names or MEASURES:
            with console.status(f"measuring {name}"):
                async with open_bed(Path(directory, name), binary) as bed:
                    rows += await MEASURES[name](bed, effort)
    return rows, machine


def _machine(binary: EtcdBinary, effort: Effort) -> Machine:
    return Machine(
        processors=len(os.sched_getaffinity(0)),
        python=platform.python_version(),
        etcd=".".join(map(str, binary.version_tuple)),
        load=os.getloadavg()[0],
        is_quick=effort.is_quick,
    )


if __name__ == "__main__":
    bench()
