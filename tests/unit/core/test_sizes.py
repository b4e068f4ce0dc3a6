from __future__ import annotations

import pytest

from etcsched.core.sizes import parse_size_bytes, size_text


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("0B", 0), ("4096B", 4096), ("16MiB", 16 << 20), ("1GiB", 1 << 30), ("10MB", 10_000_000)],
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert parse_size_bytes(text) == size_bytes


@pytest.mark.parametrize("text", ["", "16", "MiB", "1.5GiB", "-1B", "1 MiB", "1mib", "1K", "²B"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size; write a whole number with a unit"):
        parse_size_bytes(text)


@pytest.mark.parametrize("text", ["512MiB", "1GiB", "3TiB", "17KiB", "1500B", "0B", "1B"])
def test_written_as_read(text: str) -> None:
    assert size_text(parse_size_bytes(text)) == text


def test_written_in_the_largest_unit() -> None:
    assert size_text(2048 << 20) == "2GiB"
