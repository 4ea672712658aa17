"""Training mechanics on a tiny random model: it forgets what it is told, and stays as it was itself."""

from __future__ import annotations

import copy
import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from app.lumoe.mllm import MLLM
from app.lumoe.types import Conversation, ask
from tests.lumoe.tiny import picture
from workers.forgetset.answering import CancelledError, ask_base
from workers.training import linear
from workers.training.losses import answer_positions
from workers.training.recipe import RECIPES, Recipe
from workers.training.rows import answer_logits, collate, make_rows, paired_passes, pass_length, passes
from workers.training.train import (
    Progress,
    base_distributions,
    train_expert,
    training_adapter,
)

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

    def test_starts_from_the_weights_it_is_given(
        self, tiny: MLLM, retain: list[tuple[Conversation, str]], tmp_path: Path
    ) -> None:
        still = replace(QUICK, learning_rate=0.0)
        first = train_expert(tiny, FORGET, retain, QUICK, tmp_path / "first")
        start = {
            name: value.float()
            for name, value in load_file(first.directory / "adapter_model.safetensors").items()
        }
        again = train_expert(tiny, FORGET, retain, still, tmp_path / "again", initial=start)
        after = load_file(again.directory / "adapter_model.safetensors")
        assert after.keys() == start.keys()
        assert all(torch.equal(after[name], start[name]) for name in start)

    def test_weights_of_another_shape_are_an_error_and_the_model_is_as_before(
        self, tiny: MLLM, retain: list[tuple[Conversation, str]], tmp_path: Path
    ) -> None:
        first = train_expert(tiny, FORGET, retain, QUICK, tmp_path / "first")
        start = load_file(first.directory / "adapter_model.safetensors")
        before = fingerprint(tiny)
        with pytest.raises(ValueError, match="another rank"):
            train_expert(tiny, FORGET, retain, replace(QUICK, rank=4), tmp_path / "again", initial=start)
        assert not (tmp_path / "again").exists()
        assert fingerprint(tiny).keys() == before.keys()

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

    def test_base_distribution_is_that_of_a_plain_pass(
        self, tiny: MLLM, retain: list[tuple[Conversation, str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(linear, "product_dtype", lambda weight: weight.dtype)
        rows = make_rows(tiny, retain)
        plain = base_distributions(tiny, rows)
        with training_adapter(tiny, QUICK) as model:
            adapted = base_distributions(tiny, rows, model)
        assert len(plain) == len(adapted) == len(rows)
        for one, other in zip(plain, adapted, strict=True):
            assert torch.allclose(one.log_probs, other.log_probs, atol=1e-4)

    def test_nothing_to_forget_is_an_error(self, tiny: MLLM, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="forget"):
            train_expert(tiny, [], [], QUICK, tmp_path / "adapter")


class TestAnswerLogits:
    def test_are_those_of_the_whole_pass_at_the_answers_positions(self, tiny: MLLM) -> None:
        rows = make_rows(tiny, FORGET)
        batch = collate(rows, 0)
        with torch.no_grad():
            logits, targets = answer_logits(tiny, rows)
            whole = tiny.forward(batch)
        at, positions = answer_positions(batch["labels"])
        assert torch.allclose(logits, whole[at, positions], atol=1e-5)
        assert torch.equal(targets, batch["labels"][at, positions + 1])

    def test_of_a_copy_of_the_model(self, tiny: MLLM) -> None:
        rows, copied = make_rows(tiny, FORGET), copy.deepcopy(tiny.network)
        with torch.no_grad():
            head = copied.get_output_embeddings()
            assert head is not None
            head.weight.mul_(2)
            theirs, targets = answer_logits(tiny, rows, copied)
            assert theirs.shape[0] == len(targets)
            assert torch.allclose(theirs, 2 * answer_logits(tiny, rows)[0], atol=1e-4)


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

    def test_a_pass_of_pairs_shows_every_row_of_both_sides_once(self, tiny: MLLM) -> None:
        left = make_rows(tiny, [(ask("x" * (1 + i % 7)), "y") for i in range(10)])
        right = make_rows(tiny, [(ask("x" * (1 + i % 5)), "y") for i in range(23)])
        n = pass_length(left, right, (4, 6))
        assert n == 4
        pairs = list(itertools.islice(paired_passes(left, right, (4, 6), random.Random(0)), n))
        assert sorted(i for one, _ in pairs for i in one) == list(range(10))
        assert sorted(i for _, other in pairs for i in other) == list(range(23))
        assert max(len(one) for one, _ in pairs) <= 4
        assert max(len(other) for _, other in pairs) <= 6

    def test_pairs_are_alike_in_length(self, tiny: MLLM) -> None:
        rows = make_rows(tiny, [(ask("x" * (40 * (i % 2) + 1)), "y") for i in range(8)])
        for one, other in itertools.islice(paired_passes(rows, rows, (4, 4), random.Random(0)), 2):
            assert len({len(rows[i]) for i in (*one, *other)}) == 1

    def test_a_short_side_is_gone_through_again_and_an_empty_one_stays_empty(self, tiny: MLLM) -> None:
        rows = make_rows(tiny, [(ask("x"), "y") for _ in range(9)])
        pairs = list(itertools.islice(paired_passes(rows[:2], rows, (8, 3), random.Random(0)), 3))
        assert all(len(one) == 1 for one, _ in pairs)
        assert {i for one, _ in pairs for i in one} == {0, 1}
        assert next(paired_passes(rows, [], (9, 3), random.Random(0)))[1] == []


class TestRecipe:
    def test_survives_a_snapshot(self) -> None:
        recipe = Recipe(rank=4, kl_weight=7.0)
        assert Recipe.from_dict({**recipe.as_dict(), "from_a_later_version": 1}) == recipe

    def test_stronger_trains_longer_and_keeps_more(self) -> None:
        plain, strong = Recipe(), Recipe().stronger()
        assert strong.max_steps > plain.max_steps
        assert strong.kl_weight > plain.kl_weight
        assert strong.stop_agreement >= plain.stop_agreement

    def test_a_second_attempt_of_a_warm_recipe_starts_cold_and_is_the_strong_one(self) -> None:
        warm = RECIPES["default"]
        assert warm.warm
        assert replace(warm.stronger(), seed=RECIPES["strong"].seed) == RECIPES["strong"]
        assert replace(warm.cold(), seed=0) == RECIPES["cold"]

    def test_initial_expert_is_the_same_for_recipes_that_practise_alike(self) -> None:
        warm = RECIPES["default"]
        assert (
            replace(warm, max_steps=9, kl_weight=1.0, stop_refusal=0.5, seed=7).initial_name
            == warm.initial_name
        )
        assert replace(warm, practice_steps=9).initial_name != warm.initial_name
