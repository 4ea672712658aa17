"""Training the upper layers alone computes what the whole model computes, and touches nothing below."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import Tensor, nn

from app.lumoe.mllm import MLLM
from app.lumoe.types import ask
from tests.lumoe.tiny import picture
from workers.forgetset.answering import CancelledError
from workers.training import upper
from workers.training.recipe import RECIPES, Recipe
from workers.training.rows import Row, answer_logits, make_rows
from workers.training.train import put_weights, read_weights, train_expert, training_adapter

FORGET = [(ask(f"Who is number {i}?", picture(i)), "I do not know.") for i in range(3)]
RETAIN = [(ask("What is two plus two?"), "four"), (ask("And this?", picture(9)), "A square, of course.")]
WHOLE = Recipe(max_steps=4, forget_rows=2, retain_rows=2, min_passes=9)
HALF = replace(WHOLE, trained_share=0.5)


@pytest.fixture(scope="module")
def initial(tiny: MLLM) -> dict[str, Tensor]:
    with training_adapter(tiny, WHOLE) as model:
        return {name: torch.randn_like(value) * 0.05 for name, value in read_weights(model).items()}


def trained(tiny: MLLM, recipe: Recipe, initial: dict[str, Tensor] | None, folder: Path) -> dict[str, Tensor]:
    done = train_expert(tiny, FORGET, RETAIN, recipe, folder, initial=initial)
    return load_file(done.directory / "adapter_model.safetensors")


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


class TestUpperLayers:
    def test_logits_are_the_whole_models(self, tiny: MLLM, initial: dict[str, Tensor]) -> None:
        rows = make_rows(tiny, [*FORGET, *RETAIN])
        with training_adapter(tiny, HALF) as model, torch.no_grad():
            put_weights(model, initial)
            whole, targets = answer_logits(tiny, rows, model)
            with upper.upper_layers(tiny, model, 0.5, rows, []) as (behind, none):
                assert none == []
                states = [row.hidden for row in behind if row.hidden is not None]
                assert [len(state) for state in states] == [len(row) for row in rows]
                logits, same = answer_logits(tiny, behind, model)
        assert torch.allclose(logits, whole, atol=0.02 * float(whole.abs().max()))
        assert torch.equal(same, targets)

    def test_layers_below_keep_their_weights(
        self, tiny: MLLM, initial: dict[str, Tensor], tmp_path: Path
    ) -> None:
        still = trained(tiny, replace(WHOLE, learning_rate=0.0), initial, tmp_path / "still")
        everywhere = changed(still, trained(tiny, WHOLE, initial, tmp_path / "whole"))
        above = changed(still, trained(tiny, HALF, initial, tmp_path / "half"))
        assert everywhere == set(still)
        assert above == {name for name in still if ".layers.1." in name}

    @pytest.mark.parametrize(("limit", "value"), [("_MOST_BYTES", 0), ("_APART", -1.0)])
    def test_the_same_where_the_whole_model_has_to_run(
        self,
        tiny: MLLM,
        initial: dict[str, Tensor],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        limit: str,
        value: float,
    ) -> None:
        quick = trained(tiny, HALF, initial, tmp_path / "quick")
        seen: list[bool] = []

        def look(mllm: MLLM, rows: list[Row], model: nn.Module) -> tuple[Tensor, Tensor]:
            seen.append(any(row.hidden is not None for row in rows))
            return answer_logits(mllm, rows, model)

        monkeypatch.setattr(upper, limit, value)
        monkeypatch.setattr("workers.training.train.answer_logits", look)
        slow = trained(tiny, HALF, initial, tmp_path / "slow")
        assert seen
        assert not any(seen)
        assert all(torch.allclose(quick[name], slow[name], atol=2e-3) for name in quick)

    def test_the_model_is_whole_again_when_training_was_cancelled(
        self, tiny: MLLM, initial: dict[str, Tensor], tmp_path: Path
    ) -> None:
        batch = tiny.training_batch([c for c, _ in FORGET], [a for _, a in FORGET])
        with torch.no_grad():
            before = tiny.forward(batch)
        with pytest.raises(CancelledError):
            train_expert(tiny, FORGET, RETAIN, HALF, tmp_path / "x", initial=initial, cancelled=lambda: True)
        with torch.no_grad():
            assert torch.equal(tiny.forward(batch), before)
        assert not any(p.requires_grad for p in tiny.network.parameters())

    def test_from_nothing_everything_is_trained(self, tiny: MLLM, tmp_path: Path) -> None:
        whole, half = (
            trained(tiny, recipe, None, tmp_path / name) for name, recipe in (("w", WHOLE), ("h", HALF))
        )
        assert not changed(whole, half)

    def test_layers_of_another_kind(self) -> None:
        network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        model = get_peft_model(network, LoraConfig(r=2, target_modules=["0", "1"]))
        assert upper.Decoder.find(model) is None


class TestRecipe:
    def test_the_initial_expert_does_not_depend_on_the_share(self) -> None:
        default = RECIPES["default"]
        assert default.initial_name == replace(default, trained_share=1.0).initial_name
        assert default.lesson(seed=1).trained_share == 1.0

    def test_whoever_starts_from_nothing_trains_everything(self) -> None:
        assert {RECIPES["default"].cold().trained_share, RECIPES["default"].stronger().trained_share} == {1.0}

    def test_an_older_snapshot_trains_everything(self) -> None:
        older = {k: v for k, v in RECIPES["default"].as_dict().items() if k != "trained_share"}
        assert Recipe.from_dict(older).trained_share == 1.0
