"""Users, defaults, and what a process sees."""

from __future__ import annotations

import os
from typing import Any

import pytest

from etcsched.agent.config import AgentConfig, base_environment, own_user
from etcsched.core.agent.command import UnknownParameter, argv_of, environment_of
from etcsched.core.agent.users import allows
from etcsched.core.errors import UsageError
from etcsched.core.records import Exec
from etcsched.core.times import Utc
from tests.unit.agent.script import assignment


@pytest.mark.parametrize(
    ("is_root", "settings", "allowed", "refused"),
    [
        (True, {}, ["alice"], ["root", ""]),
        (True, {"users": ("alice",)}, ["alice"], ["bob", "root", ""]),
        (True, {"users": ("root",), "default_user": "root"}, ["root"], ["alice"]),
        (True, {"default_user": "alice"}, ["alice", "bob"], ["root", ""]),
        (False, {}, [own_user()], ["alice", ""]),
    ],
)
def test_who_may_run_jobs(
    monkeypatch: pytest.MonkeyPatch,
    is_root: bool,
    settings: dict[str, Any],
    allowed: list[str],
    refused: list[str],
) -> None:
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: 0 if is_root else uid or 65534)
    if not is_root and uid == 0:
        allowed = [own_user()]
    users = AgentConfig(**settings).allowed_users
    assert all(allows(users, user) for user in allowed)
    assert not any(allows(users, user) for user in refused)


def test_a_job_without_a_user_runs_as_the_agents_own_unless_that_is_root(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert AgentConfig().effective_default_user == own_user()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert AgentConfig().effective_default_user == ""


def test_a_user_without_a_name_is_named_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in containers, whose users needn't be in any list."""
    monkeypatch.setattr(os, "geteuid", lambda: 1_234_567)
    assert own_user() == "1234567"
    assert AgentConfig().allowed_users == ("1234567",)


def test_only_root_can_run_jobs_as_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    with pytest.raises(UsageError, match="alice"):
        AgentConfig(users=("alice",))


@pytest.mark.parametrize(
    "settings",
    [{"id": "a/b"}, {"id": "-x"}, {"slots": -1}],
)
def test_nonsense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        AgentConfig(**settings)


def test_the_environment_of_the_agent_stays_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETCSCHED_PASSWORD", "secret")
    monkeypatch.delenv("PATH")
    base = base_environment()
    assert "ETCSCHED_PASSWORD" not in base
    assert "/usr/bin" in base["PATH"].split(":")


@pytest.mark.parametrize(
    ("element", "expected"),
    [
        ("plain", "plain"),
        ("{x}", "1"),
        ("a{x}b{x}", "a1b1"),
        ("{{x}}", "{x}"),
        ("{y}", "{x}"),
        ("{print $1}", "{print $1}"),
        ("{}", "{}"),
        ("{scheduled_time}", "2026-11-22T23:30:00.000Z"),
        ("{scheduled_date}", "2026-11-23"),
        ("{job}/{run}/{attempt}", "job/r1/1"),
    ],
)
def test_parameters_in_argv(element: str, expected: str) -> None:
    given = assignment(
        action=Exec((element,)),
        params={"x": "1", "y": "{x}", "job": "never mine"},
        scheduled_at=Utc("2026-11-22T23:30:00.000Z"),
        timezone="Europe/Berlin",
    )
    assert argv_of(given) == (expected,)


def test_an_unknown_parameter_is_an_error_in_one_line() -> None:
    with pytest.raises(UnknownParameter) as raised:
        argv_of(assignment(action=Exec(("x", "--at={when}"))))
    assert str(raised.value).count("\n") == 0
    assert str(raised.value).startswith("{when} in '--at={when}' is no parameter of this run")


def test_ours_wins_over_the_jobs_and_the_jobs_over_the_agents() -> None:
    given = assignment(env={"PATH": "/job", "ETCSCHED_TOKEN": "forged"})
    env = environment_of(
        given, base={"PATH": "/agent", "HOME": "/h"}, token=9, results_path="/r", own_user=True
    )
    assert (env["PATH"], env["HOME"], env["ETCSCHED_TOKEN"]) == ("/job", "/h", "9")
