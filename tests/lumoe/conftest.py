from __future__ import annotations

from pathlib import Path

import pytest

from app.lumoe.mllm import MLLM
from tests.lumoe.tiny import save_tiny_llava


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llava(tmp_path_factory.mktemp("tiny-llava"))


@pytest.fixture(scope="session")
def tiny(tiny_path: Path) -> MLLM:
    return MLLM.load(str(tiny_path), "cpu")


@pytest.fixture(scope="session")
def demo() -> MLLM:
    return MLLM.load("demo", "cpu")
