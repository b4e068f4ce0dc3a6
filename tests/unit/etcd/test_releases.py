from __future__ import annotations

import pytest

from etcsched.core.errors import UnsupportedEtcd
from etcsched.etcd.releases import check_version


def check(version: str, *, embedded: bool = False, auth: bool = False, allow: bool = False) -> None:
    check_version(version, "a:1", embedded=embedded, auth_enabled=auth, allow_unfenced_auth=allow)


@pytest.mark.parametrize("version", ["3.4.0", "3.4.23", "3.5.3", "3.5.30", "3.6.0", "3.10.1"])
def test_trusted(version: str) -> None:
    check(version)


@pytest.mark.parametrize("version", ["2.3.8", "3.3.27", "3.5.0", "3.5.1", "3.5.2", "", "new"])
def test_untrusted(version: str) -> None:
    with pytest.raises(UnsupportedEtcd, match=r"^etcd at a:1 ") as refusal:
        check(version)
    assert "\n" not in str(refusal.value)


def test_a_demo_may_lose_data() -> None:
    check("3.5.1", embedded=True)
    with pytest.raises(UnsupportedEtcd):
        check("3.3.27", embedded=True)


@pytest.mark.parametrize("version", ["3.4.23", "3.4.43", "3.5.16", "3.5.29", "3.6.10"])
def test_authentication_that_fences_nothing_is_refused_unless_told(version: str) -> None:
    with pytest.raises(UnsupportedEtcd, match="doesn't enforce roles"):
        check(version, auth=True)
    check(version, auth=True, allow=True)


@pytest.mark.parametrize("version", ["3.4.44", "3.5.30", "3.6.11", "3.7.0"])
def test_authentication_that_fences_is_fine(version: str) -> None:
    check(version, auth=True)
