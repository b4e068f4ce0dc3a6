"""The demonstration's jobs and its containers, before anything is started."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from etcsched.core.schedule import Cron
from etcsched.core.states import JobState
from etcsched.demo.compose import AGENTS, ENDPOINTS, MEMBERS, SCHEDULERS
from etcsched.demo.jobs import JOBS, SCHEDULED, job_file
from etcsched.jobfile.load import load

ROOT = Path(__file__).parents[3]


def compose() -> Any:
    return YAML(typ="safe").load((ROOT / "compose" / "compose.yaml").read_text())


def test_the_jobs_are_a_valid_file_that_ends_what_is_due_and_cancels_nothing() -> None:
    for is_over in (False, True):
        text = job_file("/s/witness.sh", "/s/ledger", is_over=is_over)
        wanted = load([("demo.yaml", text)], 0)
        jobs = {job.name: job.current for job in wanted.jobs}
        assert set(jobs) == set(JOBS)
        assert {jobs[name].state for name in SCHEDULED} == {JobState.ENABLED}
        crons = {pattern for name in SCHEDULED for pattern in jobs[name].patterns}
        assert (crons == {Cron("0 0 29 2 *")}) is is_over
        assert [group.jobs for group in wanted.conflicts] == [("close_books", "stocktake")]


def test_the_containers_are_those_that_the_demonstration_knows() -> None:
    services = compose()["services"]
    kinds = Counter(name.rsplit("-", 1)[0] for name in services)
    assert kinds == {"etcd": MEMBERS, "scheduler": SCHEDULERS, "agent": AGENTS}
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert [port.rsplit(":", 1)[0] for port in published] == list(ENDPOINTS)


def test_no_network_but_the_published_one_leads_out() -> None:
    file = compose()
    leads_out = {name for name, network in file["networks"].items() if not network.get("internal")}
    assert leads_out == {"edge"}
    for name, service in file["services"].items():
        assert name.startswith("etcd") or len(service["networks"]) == 1
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]
