from __future__ import annotations

import pytest

from app.lumoe.mllm import MLLM
from tests.lumoe.tiny import save_tiny_llava


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> MLLM:
    """A tiny random LLaVA: for mechanics, it knows nothing."""
    return MLLM.load(str(save_tiny_llava(tmp_path_factory.mktemp("tiny-llava"))), "cpu")
