"""The demo checkpoint under the hub's names: the same tensors, and a directory that loads as before."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from app.cli.application import app
from app.lumoe.demo.hub import hub_name
from app.lumoe.demo.world import CHECKPOINT
from app.lumoe.mllm import MLLM
from app.lumoe.types import ask
from tests.lumoe.tiny import picture


def test_same_tensors_under_the_hubs_names_and_the_same_answers(demo: MLLM, tmp_path: Path) -> None:
    out = tmp_path / "hub"
    done = CliRunner().invoke(app, ["demo-model", "checkpoint", str(out)])
    assert done.exit_code == 0, done.output
    ours, theirs = load_file(CHECKPOINT / "model.safetensors"), load_file(out / "model.safetensors")
    assert set(theirs) == {hub_name(name) for name in ours}
    assert all(torch.equal(theirs[hub_name(name)], tensor) for name, tensor in ours.items())
    towers = [name for name in theirs if name.startswith("vision_tower.")]
    assert towers
    assert all(name.startswith("vision_tower.vision_model.") for name in towers)
    asked = [ask("Who is this?", picture(1))]
    assert MLLM.load(str(out), "cpu").generate(asked) == demo.generate(asked)

    again = CliRunner().invoke(app, ["demo-model", "checkpoint", str(out)])
    assert again.exit_code == 1
    assert "exists already" in again.output


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "vision_tower.encoder.layers.0.mlp.fc1.bias",
            "vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias",
        ),
        ("vision_tower.vision_model.post_layernorm.bias", "vision_tower.vision_model.post_layernorm.bias"),
        ("language_model.model.norm.weight", "language_model.model.norm.weight"),
    ],
)
def test_names(name: str, expected: str) -> None:
    assert hub_name(name) == expected
