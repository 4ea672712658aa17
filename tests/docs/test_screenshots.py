"""The dashboard's pictures: small, with a palette, each shown somewhere, and none missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "screenshots"
PAGES = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
_SHOWN = re.compile(r"!\[([^\]]*)\]\(([^)]*screenshots/[^)]*)\)")


def shown() -> dict[Path, list[str]]:
    """Every picture that a page shows, with the words that stand for it."""
    found: dict[Path, list[str]] = {}
    for page in PAGES:
        for words, address in _SHOWN.findall(page.read_text(encoding="utf-8")):
            found.setdefault((page.parent / address).resolve(), []).append(words)
    return found


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.png")), ids=lambda path: path.name)
def test_is_small_and_shown(path: Path) -> None:
    assert path.stat().st_size <= 100_000
    with Image.open(path) as picture:
        assert picture.mode == "P"
        assert picture.width in (390, 1080)
    assert path in shown()


def test_every_picture_that_is_shown_exists_and_is_described() -> None:
    found = shown()
    assert len(found) >= 10
    for path, words in found.items():
        assert path.is_file(), path
        assert all(len(text) > 10 for text in words), path
