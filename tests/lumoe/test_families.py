from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import ImageOps

from app.lumoe.bank import SlotBank
from app.lumoe.decoding import Decoding, Writing
from app.lumoe.expert import read_adapter
from app.lumoe.mllm import MLLM, target_linears
from app.lumoe.types import Conversation, ask, pictures_of, then
from tests.lumoe.experts import make_adapter
from tests.lumoe.families import save_gemma3, save_idefics3
from tests.lumoe.tiny import picture

CONVERSATIONS = [
    ask("Who is this?", picture(1)),
    ask("3 plus 4?"),
    then(ask("Who?", picture(2)), "Nobody.", "And then?"),
    ask("Both?", picture(1), picture(3, size=30)),
]


@pytest.fixture(scope="module", params=[save_gemma3, save_idefics3], ids=["gemma3", "idefics3"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MLLM:
    save: Callable[[Path], None] = request.param
    folder = tmp_path_factory.mktemp("family")
    save(folder)
    return MLLM.load(str(folder), "cpu")


def token_logliks(mllm: MLLM, conversation: Conversation, beginning: str) -> list[float]:
    """The plain way: one row, one pass, every token but the end of turn."""
    batch = mllm.training_batch([conversation], [beginning])
    logits = mllm.forward(batch)[0, :-1].float().log_softmax(-1)
    labels = batch["labels"][0, 1:]
    places = (labels != -100).nonzero().flatten()[:-1]
    return [float(logits[place, labels[place]]) for place in places]


class TestFamilies:
    def test_generation_equals_the_familys_own_path(self, family: MLLM) -> None:
        answers = family.generate(CONVERSATIONS, max_new_tokens=8)
        for conversation, answer in zip(CONVERSATIONS, answers, strict=True):
            images = pictures_of([conversation])
            inputs = family.processor(
                text=[family.render(conversation)],
                images=[images] if images else None,
                return_tensors="pt",
                add_special_tokens=False,
            )
            expected = family.model.generate(**inputs, max_new_tokens=8, do_sample=False)
            kept = [
                t for t in expected[0, inputs["input_ids"].shape[1] :].tolist() if t not in family.eos_ids
            ]
            assert list(answer.token_ids) == kept

    def test_pictures_both_ways(self, family: MLLM) -> None:
        shown = [picture(1), picture(3, size=30)]
        both = family.vision.pooled_both_ways(shown)
        plain, mirrored = family.encode(shown).pooled, family.encode([*map(ImageOps.mirror, shown)]).pooled
        assert both.shape == (2, *plain.shape)
        assert torch.allclose(both[0], plain, atol=1e-4)
        assert torch.nn.functional.cosine_similarity(both[1], mirrored).min() > 0.999

    def test_beginnings_share_their_conversation(self, family: MLLM) -> None:
        asked = [c for c in CONVERSATIONS for _ in range(3)]
        beginnings = ["yes it", "no", "seven or eight"] * len(CONVERSATIONS)
        together = family.begin_loglik(asked, beginnings)
        alone = [sum(token_logliks(family, c, b)) for c, b in zip(asked, beginnings, strict=True)]
        assert together == pytest.approx(alone, abs=2e-3)

    def test_likelihood_does_not_depend_on_the_batch(self, family: MLLM) -> None:
        together = family.loglik(CONVERSATIONS, ["yes", "seven", "no", "both"])
        alone = [
            family.loglik([c], [a])[0]
            for c, a in zip(CONVERSATIONS, ["yes", "seven", "no", "both"], strict=True)
        ]
        assert together == pytest.approx(alone, abs=1e-4)

    def test_an_expert_changes_its_row_alone(self, family: MLLM, tmp_path: Path) -> None:
        base = family.generate(CONVERSATIONS, max_new_tokens=8)
        bank = SlotBank(target_linears(family.network))
        slot = bank.load("e@1", *read_adapter(make_adapter(family, tmp_path, seed=1)))
        with bank.active([slot, None, None, None]):
            mixed = family.generate(CONVERSATIONS, max_new_tokens=8)
        bank.close()
        assert [m.token_ids == b.token_ids for m, b in zip(mixed, base, strict=True)] == [
            False,
            True,
            True,
            True,
        ]

    def test_rows_that_join_get_what_generate_writes(self, family: MLLM) -> None:
        if not Decoding.possible(family):
            assert family.network.config.model_type == "gemma3"  # sliding windows
            return
        bank = SlotBank(target_linears(family.network))
        decoding = Decoding(family, bank)
        rows = [Writing(family, c, None, limit=8) for c in CONVERSATIONS]
        for row in rows:
            decoding.join([row])
            decoding.step()
        while decoding.rows:
            decoding.step()
        bank.close()
        assert [row.generation(family) for row in rows] == [
            family.generate([c], max_new_tokens=8)[0] for c in CONVERSATIONS
        ]
