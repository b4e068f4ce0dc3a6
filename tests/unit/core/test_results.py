"""What becomes of the file that a process wrote its results to."""

from __future__ import annotations

import pytest

from etcsched.core.results import MAX_RESULTS_BYTES, Results, as_params, parse_results


@pytest.mark.parametrize(
    ("raw", "results", "problem"),
    [
        (b"", {}, ""),
        (b"rows=5\n", {"rows": ("5",)}, ""),
        (b"rows=5", {"rows": ("5",)}, ""),
        (b"\nrows=5\r\n\n  \n", {"rows": ("5",)}, ""),
        (b"file=a\nrows=1\nfile=b c \n", {"file": ("a", "b c "), "rows": ("1",)}, ""),
        (b"q=a=b&c=d\nempty=\n", {"q": ("a=b&c=d",), "empty": ("",)}, ""),
        ("n\u00e4me=1\nname=gr\u00fcn\n".encode(), {"name": ("gr\u00fcn",)},
         "line 1, 'n\u00e4me=1', is no NAME=VALUE"),
        (b"done\nrows=5\n 1\n", {"rows": ("5",)},
         "line 1, 'done', is no NAME=VALUE; 1 more lines are wrong"),
        (b"rows=\xff\n", {}, "line 1, 'rows=\ufffd', isn't UTF-8"),
        (b"rows=\x1b[0m\n", {}, "line 1, 'rows=\\x1b[0m', has a control character"),
        (b"tab=a\tb\n", {"tab": ("a\tb",)}, ""),
        (b"x" * 50 + b"\n", {}, f"line 1, '{'x' * 40}...', is no NAME=VALUE"),
    ],
)  # fmt: skip
def test_lines(raw: bytes, results: Results, problem: str) -> None:
    assert parse_results(raw) == (results, problem)


def test_what_does_not_fit_is_left_out_and_said() -> None:
    fits = b"a=" + b"x" * (MAX_RESULTS_BYTES - 1)
    assert parse_results(fits)[1] == ""
    results, problem = parse_results(b"first=1\n" + fits + b"\n")
    assert results == {"first": ("1",)}
    assert problem == f"only the first {MAX_RESULTS_BYTES} bytes are kept"
    assert parse_results(b"first=1\n", is_cut=True) == ({"first": ("1",)}, problem)
    assert parse_results(b"first=1\nsecond=2", is_cut=True) == ({"first": ("1",)}, problem)


def test_as_parameters() -> None:
    assert as_params({"rows": ("5",), "file": ("a", "b")}) == {"rows": "5", "file": "a\nb"}
