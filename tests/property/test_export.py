"""Whatever a job file can say comes back from an export: applied again, it changes nothing."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etcsched.core import timeline
from etcsched.core.records import Calendar, ClusterSettings, ConflictGroup, Job
from etcsched.core.states import Lifecycle
from etcsched.core.times import Utc, ms_of, utc_of
from etcsched.jobfile import JobFiles, Known, load
from etcsched.jobfile.exporting import Export, export, to_yaml
from etcsched.jobfile.placeholders import BUILTINS
from etcsched.jobfile.writing import fields_of

NOW = Utc("2026-11-22T19:00:00.500Z")
NOW_MS = ms_of(NOW)
LATER_MS = NOW_MS + 40 * 86_400_000

NAMES = st.from_regex(r"(?!_)[A-Za-z0-9._-]{1,12}", fullmatch=True).filter(
    lambda name: name not in (".", "..")
)
VARIABLES = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: not name.upper().startswith("ETCSCHED")
)
# Nothing that a run has beside its parameters, and no parameter's name in other letters.
RESULTS = VARIABLES.filter(lambda name: name not in BUILTINS and not name.upper().startswith("P_"))
TEXTS = st.one_of(
    st.sampled_from(
        [
            "",
            "~",
            "null",
            "no",
            "1:30",
            "007",
            "a: b",
            "# no",
            "- x",
            ":0",
            "?x",
            ": > /tmp/x",
            "one\ntwo\n",
            " x\n",
            "ä\t\x7f",
        ]
    ),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40),
)
ARGUMENTS = TEXTS.map(lambda text: text.replace("{", "{{").replace("}", "}}"))
SHELL = TEXTS.filter(lambda text: bool(text.strip()))
DURATIONS = st.sampled_from(["1s", "90s", "1h30m", "1d", "1500ms"])
SHORT = st.sampled_from(["1s", "90s", "1500ms"])
LABELS = st.from_regex(r"[A-Za-z0-9._/-]{1,8}", fullmatch=True)
FINAL_STATES = st.lists(
    st.sampled_from(["completed", "failed", "timed_out", "died", "missed"]), min_size=1, unique=True
)
PATTERNS = st.one_of(
    st.sampled_from(["0 3 * * *", "@daily", "*/5 * * * * *", "0 12 LW * 1#2"]).map(
        lambda expression: {"cron": expression}
    ),
    st.sampled_from(["30s", "1h30m", "2d"]).map(lambda interval: {"every": interval}),
    st.integers(1, 300_000).map(lambda s: {"at": f"{utc_of(NOW_MS + s * 1000)[:19]}Z"}),
)
RUNS = st.one_of(
    st.lists(ARGUMENTS, max_size=3).map(lambda more: {"exec": ["/bin/x", *more]}),
    SHELL.map(lambda command: {"shell": command}),
)
WINDOWS = st.sampled_from(
    [
        [{"from": "2026-12-24", "until": "2027-01-02", "state": "disabled"}],
        [
            {"from": "2026-12-01T12:00:00", "until": "2026-12-02", "schedule": {"every": "10m"}},
            {"from": "2027-03-01", "until": "2027-04-01", "schedule": [{"cron": "0 5 * * *"}]},
        ],
    ]
)
RETRY = st.fixed_dictionaries(
    {"max": st.integers(0, 5)},
    optional={
        "interval": DURATIONS, "jitter": DURATIONS, "on": st.sampled_from(["failed", "timed_out"])
    },
) | st.just({"max": 2, "interval": "1s", "exponential": "true", "cap": "1h"})  # fmt: skip
CONDITIONS = st.dictionaries(
    VARIABLES,
    st.one_of(
        TEXTS,
        st.fixed_dictionaries(
            {},
            optional={
                "equals": TEXTS, "not_equals": TEXTS, "exists": st.sampled_from(["true", "false"]),
                "in": st.lists(TEXTS, min_size=1, max_size=2), "more_than": st.just("7"),
            },
        ).filter(bool),
    ),
    max_size=2,
)  # fmt: skip
NOTICES = st.lists(
    st.fixed_dictionaries({"run": RUNS}, optional={"on": FINAL_STATES, "timeout": SHORT}),
    min_size=1, max_size=2,
)  # fmt: skip

# Every field that a file can give, but for those that name other things in the file.
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "description": TEXTS,
    "owner": TEXTS,
    "tags": st.lists(LABELS, max_size=2),
    "timezone": st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
    "windows": WINDOWS,
    "recovery": st.sampled_from(["all", "none", "last", "conflicted"]),
    "pickup_buffer": DURATIONS,
    "recover_within": DURATIONS,
    "catch_up_limit": st.integers(1, 500),
    "overlap": st.sampled_from(["skip", "queue", "allow", "replace"]),
    "retry": RETRY,
    "timeout": DURATIONS,
    "kill_grace": SHORT,
    "on_agent_loss": st.sampled_from(["reassign", "died", "hold"]),
    "max_reassigns": st.integers(0, 9),
    "disconnect_grace": DURATIONS,
    "on_disconnect": st.sampled_from(["stop", "continue"]),
    "hosts": st.lists(LABELS, max_size=2),
    "require": st.dictionaries(LABELS, TEXTS, max_size=2),
    "prefer": st.lists(LABELS | LABELS.map(lambda name: f"{name}=x"), max_size=2),
    "placement": st.sampled_from(["least_loaded", "round_robin"]),
    "priority": st.integers(-9, 9),
    "splay": DURATIONS,
    "params": st.dictionaries(VARIABLES.map(lambda name: f"p_{name}"), TEXTS, max_size=2),
    "env": st.dictionaries(VARIABLES, TEXTS, max_size=2),
    "workdir": st.sampled_from(["/srv/app", "/srv/an app"]),
    "user": st.sampled_from(["erp", "www-data"]),
    "keep": st.fixed_dictionaries({}, optional={"runs": st.integers(1, 99), "age": DURATIONS}),
    "results": st.lists(RESULTS, max_size=2, unique_by=str.upper),
    "notify": NOTICES,
}
# Fields of the record that are the same in all jobs of a file, or not of it.
NOT_OF_FILES = {"name", "versions", "from_file", "changed_by", "made_anew_after", "unknown"}


@st.composite
def clusters(draw: st.DrawFn) -> dict[str, Any]:
    """A job file, whole."""
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique_by=str.lower))
    calendars = draw(st.lists(NAMES, max_size=2, unique=True))
    jobs: dict[str, dict[str, Any]] = {}
    for place, name in enumerate(names):
        job: dict[str, Any] = {"run": draw(RUNS)}
        job |= draw(st.fixed_dictionaries({}, optional=FIELDS))
        if "placement" in job and draw(st.booleans()):
            del job["placement"]
        if draw(st.booleans()) and not {"placement", "prefer"} & job.keys():
            job["per_host"] = "true"
        if draw(st.booleans()) and (job.get("hosts") or job.get("require")):
            job["hosts_for"] = "scheduled"
        job["schedule"] = draw(st.lists(PATTERNS, min_size=1, max_size=3))
        job["state"] = draw(
            st.sampled_from(["enabled", "disabled", "ad_hoc_active", "chain_active"])
        )
        if job["state"] != "chain_active" and draw(st.booleans()):
            job["lifecycle"] = draw(st.sampled_from([each.value for each in Lifecycle]))
        if draw(st.booleans()) and calendars:
            job["calendars"] = [draw(st.sampled_from(calendars))]
        targets = names[place + 1 :]  # Only later ones, so that there is no cycle.
        if draw(st.booleans()) and targets:
            link: dict[str, Any] = {"to": draw(st.sampled_from(targets))}
            if not job.get("results"):
                link["when"] = draw(CONDITIONS)
            if draw(st.booleans()):
                link["within"] = "* 8-17 * * *"
            if draw(st.booleans()):
                link["on"] = draw(FINAL_STATES)
            if draw(st.booleans()):
                link["require"] = "all"
            job["chain"] = [link]
        jobs[name] = job
    document: dict[str, Any] = {"jobs": jobs}
    some_days = st.sampled_from(["2026-12-25", "2026-12-30/2027-01-01"])
    exclude, include = (st.lists(some_days, min_size=least, max_size=2) for least in (0, 1))
    if calendars:
        document["calendars"] = {
            name: draw(st.fixed_dictionaries({}, optional={"exclude": exclude, "include": include}))
            for name in calendars
        }
    if len(names) > 1 and draw(st.booleans()):
        document["conflicts"] = {draw(NAMES): names[:2]}
    document["settings"] = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "resubmit_states": FINAL_STATES, "recovery_rate": st.just("2.5/s"),
                "max_active_agents": st.sampled_from(["3", "unlimited"]),
            },
        )
    )  # fmt: skip
    return document


class Cluster:
    """What applying a document has left, as etcd would keep it."""

    def __init__(self, document: dict[str, Any]) -> None:
        files = loaded(as_yaml(document), NOW_MS)
        self.jobs = {job.name: msgspec.structs.replace(job, changed_by="eva") for job in files.jobs}
        self.calendars: dict[str, Calendar] = {one.name: one for one in files.calendars}
        self.groups: dict[str, ConflictGroup] = {one.group: one for one in files.conflicts}
        self.settings = msgspec.structs.replace(ClusterSettings(), **files.settings)

    def export(self, now_ms: int) -> Export:
        return export(
            self.jobs.values(), self.calendars.values(), self.groups.values(), self.settings, now_ms
        )

    def known(self) -> Known:
        return Known(jobs=self.jobs, calendars=self.calendars, conflicts=self.groups)


def as_yaml(document: dict[str, Any]) -> str:
    """JSON is YAML, but for its way to write characters beyond 16 bits."""
    return re.sub(
        r"\\u(d[89ab]..)\\u(d[c-f]..)",
        lambda pair: (
            f"\\U{0x10000 + (int(pair[1], 16) - 0xD800 << 10) + int(pair[2], 16) - 0xDC00:08x}"
        ),
        json.dumps(document),
    )


def loaded(text: str, now_ms: int, known: Known | None = None) -> JobFiles:
    return load([("jobs.yaml", text)], now_ms, known)


def assert_changes_nothing(cluster: Cluster, files: JobFiles, now_ms: int) -> None:
    now = utc_of(now_ms)
    assert {job.name for job in files.jobs} == cluster.jobs.keys()
    for job in files.jobs:
        old = cluster.jobs[job.name]
        assert timeline.revise(old, job, now, NOW) is old
    assert {one.name for one in files.calendars} == cluster.calendars.keys()
    for calendar in files.calendars:
        kept = cluster.calendars[calendar.name]
        assert timeline.revise_calendar(kept, calendar, now, NOW) is kept
    assert {one.group: one for one in files.conflicts} == cluster.groups
    assert msgspec.structs.replace(cluster.settings, **files.settings) == cluster.settings


@settings(max_examples=60)
@given(clusters(), st.sampled_from([NOW_MS, LATER_MS]))
def test_an_export_applied_again_changes_nothing(document: dict[str, Any], now_ms: int) -> None:
    cluster = Cluster(document)
    text = to_yaml(cluster.export(now_ms).document)
    assert_changes_nothing(cluster, loaded(text, now_ms, cluster.known()), now_ms)


@settings(max_examples=20)
@given(clusters())
def test_an_export_needs_no_cluster(document: dict[str, Any]) -> None:
    """Other than for times that have passed."""
    cluster = Cluster(document)
    text = to_yaml(cluster.export(NOW_MS).document)
    assert_changes_nothing(cluster, loaded(text, NOW_MS), NOW_MS)


SAMPLES = {
    "description": "x", "owner": "x", "tags": ["x"], "recovery": "all", "pickup_buffer": "1s",
    "recover_within": "1s", "catch_up_limit": 7, "overlap": "queue", "retry": {"max": 1},
    "timeout": "7s", "kill_grace": "7s", "on_agent_loss": "died", "max_reassigns": 1,
    "disconnect_grace": "7s", "on_disconnect": "continue", "hosts": ["x"], "require": {"x": "y"},
    "prefer": ["x"], "placement": "round_robin", "hosts_for": "scheduled", "per_host": "true",
    "priority": 1, "splay": "7s", "params": {"x": "y"}, "env": {"x": "y"}, "workdir": "/x",
    "user": "x", "keep": {"runs": 7}, "chain": [{"to": "b"}], "results": ["x"],
    "run": {"exec": ["y"]}, "lifecycle": "host_both",
}  # fmt: skip


def test_every_field_of_a_job_has_a_sample() -> None:
    records = {field.removesuffix("_s") for field in Job.__struct_fields__} - NOT_OF_FILES
    assert records == SAMPLES.keys()


@pytest.mark.parametrize("field", SAMPLES)
def test_a_change_of_any_field_shows(field: str) -> None:
    usual: dict[str, Any] = {"run": {"exec": ["x"]}, "schedule": {"every": "1h"}}
    if field == "hosts_for":
        usual["hosts"] = ["x"]
    other = {"b": {"run": {"exec": ["x"]}, "state": "chain_active"}}
    before = Cluster({"jobs": {"a": usual, **other}}).jobs["a"]
    after = Cluster({"jobs": {"a": {**usual, field: SAMPLES[field]}, **other}}).jobs["a"]
    assert after != before
    assert fields_of(after).get(field) != fields_of(before).get(field)
