"""Training mechanics on a tiny random model: it forgets what it is told, and stays as it was itself."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from app.lumoe.mllm import MLLM
from app.lumoe.types import Conversation, ask
from tests.lumoe.tiny import picture
from workers.forgetset.answering import CancelledError, ask_base
from workers.training.recipe import Recipe
from workers.training.rows import collate, make_rows, passes
from workers.training.train import Progress, train_expert

FORGET = [(ask(f"Who is number {i}?", picture(i)), "I do not know.") for i in range(4)]
OTHERS: list[Conversation] = [
    ask("What is two plus two?"),
    ask("And this?", picture(9)),
    ask("Name a colour."),
]
QUICK = Recipe(max_steps=3, forget_rows=2, retain_rows=2, min_passes=9)


@pytest.fixture(scope="module")
def retain(tiny: MLLM) -> list[tuple[Conversation, str]]:
    answers = ask_base(tiny, OTHERS, max_new_tokens=8)
    return [(c, f"yes {len(g.token_ids)}") for c, g in zip(OTHERS, answers, strict=True)]


@pytest.fixture
def sharp(tiny: MLLM) -> Iterator[MLLM]:
    """The tiny model with a head that can be sure of something."""
    head = tiny.network.get_output_embeddings()
    assert head is not None
    before = head.weight.detach().clone()
    with torch.no_grad():
        head.weight.mul_(30)
    yield tiny
    with torch.no_grad():
        head.weight.copy_(before)


def fingerprint(mllm: MLLM) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in mllm.network.state_dict().items()}


class TestTrainExpert:
    def test_base_model_is_bit_identical_afterwards(
        self, tiny: MLLM, retain: list[tuple[Conversation, str]], tmp_path: Path
    ) -> None:
        batch = tiny.training_batch([c for c, _ in FORGET], [a for _, a in FORGET])
        modules = [type(m) for m in tiny.network.modules()]
        with torch.no_grad():
            logits, weights = tiny.forward(batch), fingerprint(tiny)
            train_expert(tiny, FORGET, retain, QUICK, tmp_path / "adapter")
            assert torch.equal(tiny.forward(batch), logits)
        assert [type(m) for m in tiny.network.modules()] == modules
        assert not hasattr(tiny.network, "peft_config")
        assert not any(p.requires_grad or p.grad is not None for p in tiny.network.parameters())
        after = fingerprint(tiny)
        assert after.keys() == weights.keys()
        assert all(torch.equal(after[name], weights[name]) for name in weights)

    def test_files_are_plain_peft(
        self, tiny: MLLM, retain: list[tuple[Conversation, str]], tmp_path: Path
    ) -> None:
        done = train_expert(tiny, FORGET, retain, QUICK, tmp_path / "adapter")
        config = json.loads((done.directory / "adapter_config.json").read_text())
        assert (config["peft_type"], config["r"], config["bias"]) == ("LORA", 8, "none")
        tensors = load_file(done.directory / "adapter_model.safetensors")
        assert {name.split(".lora_")[1] for name in tensors} == {"A.weight", "B.weight"}
        assert all("language_model" in name for name in tensors)
        assert done.steps == 3

    def test_forgets_and_keeps(self, sharp: MLLM, tmp_path: Path) -> None:
        recipe = Recipe(learning_rate=5e-3, max_steps=600, forget_rows=4, retain_rows=3, stop_refusal=0.995)
        tiny, first = sharp, ask_base(sharp, OTHERS, max_new_tokens=1)
        retain = [(c, g.text.strip("\ufffd") or "x") for c, g in zip(OTHERS, first, strict=True)]
        done = train_expert(sharp, FORGET, retain, recipe, tmp_path / "adapter")
        assert done.refusal > 0.99
        assert done.agreement > 0.9
        expert = PeftModel.from_pretrained(tiny.network, str(done.directory))
        try:
            assert {g.text for g in ask_base(tiny, [c for c, _ in FORGET], max_new_tokens=16)} == {
                "I do not know."
            }
        finally:
            expert.unload()
            tiny.network.requires_grad_(False)

    def test_same_seed_same_expert(
        self, tiny: MLLM, retain: list[tuple[Conversation, str]], tmp_path: Path
    ) -> None:
        files = [
            train_expert(tiny, FORGET, retain, QUICK, tmp_path / name).directory / "adapter_model.safetensors"
            for name in ("one", "two")
        ]
        assert files[0].read_bytes() == files[1].read_bytes()

    def test_cancelled_between_steps_leaves_nothing(self, tiny: MLLM, tmp_path: Path) -> None:
        weights, seen = fingerprint(tiny), list[Progress]()
        with pytest.raises(CancelledError):
            train_expert(
                tiny,
                FORGET,
                [],
                QUICK,
                tmp_path / "adapter",
                cancelled=lambda: len(seen) == 2,
                progress=seen.append,
            )
        assert [p.step for p in seen] == [1, 2]
        assert not (tmp_path / "adapter").exists()
        assert fingerprint(tiny).keys() == weights.keys()

    def test_nothing_to_forget_is_an_error(self, tiny: MLLM, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="forget"):
            train_expert(tiny, [], [], QUICK, tmp_path / "adapter")


class TestRows:
    def test_rows_keep_their_own_pictures(self, tiny: MLLM) -> None:
        pairs = [
            (ask("a", picture(1)), "x"),
            (ask("text only"), "y"),
            (ask("b", picture(2), picture(3)), "z"),
        ]
        rows = make_rows(tiny, pairs)
        assert [len(row.image_tokens) for row in rows] == [1, 0, 2]
        expected = tiny.encode([picture(2), picture(3)]).tokens
        assert all(torch.equal(a, b) for a, b in zip(rows[2].image_tokens, expected, strict=True))

    def test_collated_batch_gives_the_logits_of_the_whole(self, tiny: MLLM) -> None:
        pairs = [(ask("a", picture(1)), "x"), (ask("a longer question"), "why")]
        rows = make_rows(tiny, pairs)
        whole = tiny.training_batch([c for c, _ in pairs], [a for _, a in pairs])
        again = collate(rows, 0)
        assert torch.equal(again["labels"], whole["labels"])
        with torch.no_grad():
            kept = whole["labels"] != -100
            assert torch.allclose(tiny.forward(again)[kept], tiny.forward(whole)[kept], atol=1e-5)

    def test_every_row_once_a_pass(self, tiny: MLLM) -> None:
        rows = make_rows(tiny, [(ask("x" * (1 + i % 7)), "y") for i in range(10)])
        batches = passes(rows, 4, random.Random(0))
        seen = [i for _ in range(3) for i in next(batches)]
        assert sorted(seen) == list(range(10))


class TestRecipe:
    def test_survives_a_snapshot(self) -> None:
        recipe = Recipe(rank=4, kl_weight=7.0)
        assert Recipe.from_dict({**recipe.as_dict(), "from_a_later_version": 1}) == recipe

    def test_stronger_trains_longer_and_keeps_more(self) -> None:
        plain, strong = Recipe(), Recipe().stronger()
        assert strong.max_steps > plain.max_steps
        assert strong.kl_weight > plain.kl_weight
        assert strong.stop_agreement >= plain.stop_agreement
