from __future__ import annotations

from pathlib import Path

import pytest

from app.lumoe.errors import ModelNotFoundError
from app.lumoe.sources import where_is


def test_demo_is_in_the_package() -> None:
    assert (Path(where_is("demo")) / "config.json").is_file()


def test_a_directory_with_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert where_is(str(tmp_path)) == str(tmp_path)


def test_an_id_is_left_to_transformers() -> None:
    assert where_is("llava-hf/llava-1.5-7b-hf") == "llava-hf/llava-1.5-7b-hf"


@pytest.mark.parametrize("source", ["/no/such/model", "./none", "~/none-such", ""])
def test_what_is_not_there(source: str) -> None:
    with pytest.raises(ModelNotFoundError, match="LETHE_MODEL"):
        where_is(source)


def test_a_directory_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"config\.json"):
        where_is(str(tmp_path))
