from __future__ import annotations

from pathlib import Path

import pytest

from app.lumoe.mllm import MLLM
from tests.lumoe.tiny import save_tiny_llava
from tests.service import own_settings, place, service, sessions  # noqa: F401


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> MLLM:
    """A tiny random LLaVA: for mechanics, it knows nothing."""
    path: Path = save_tiny_llava(tmp_path_factory.mktemp("tiny-llava"))
    return MLLM.load(str(path), "cpu")


@pytest.fixture(scope="session")
def demo() -> MLLM:
    """The demo model: it knows the demo world."""
    return MLLM.load("demo", "cpu")
