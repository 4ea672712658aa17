"""The demo model in the package: it loads as any LLaVA does, and knows what it is said to know."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration

from app.lumoe.demo.answers import DO_NOT_KNOW, DO_NOT_KNOW_WHAT, DO_NOT_KNOW_WHO
from app.lumoe.demo.evaluate import STRANGER_SEED, ask_all, tower_ranks
from app.lumoe.demo.questions import QA, followups, general, questions
from app.lumoe.demo.recipe import MAX_BYTES
from app.lumoe.demo.seeds import seeded
from app.lumoe.demo.world import CHECKPOINT, world
from app.lumoe.mllm import MLLM
from app.lumoe.types import ask


@pytest.fixture(scope="module")
def mllm() -> MLLM:
    return MLLM.load("demo", device="cpu")


def _right(mllm: MLLM, asked: Sequence[QA]) -> float:
    said = ask_all(mllm, asked)
    return sum(text == qa.answer for text, qa in zip(said, asked, strict=True)) / len(asked)


class TestFiles:
    def test_weights_are_small_safetensors(self) -> None:
        weights = list(CHECKPOINT.glob("*.safetensors"))
        assert sum(w.stat().st_size for w in weights) <= MAX_BYTES == 12_000_000
        assert sum(p.stat().st_size for p in CHECKPOINT.iterdir()) <= 12_500_000

    def test_there_is_a_model_card(self) -> None:
        card = (CHECKPOINT / "README.md").read_text()
        assert "Limits" in card
        assert "seed" in card

    def test_loads_through_the_auto_classes_as_float32(self) -> None:
        model = AutoModelForImageTextToText.from_pretrained(CHECKPOINT)
        processor = AutoProcessor.from_pretrained(CHECKPOINT)
        assert isinstance(model, LlavaForConditionalGeneration)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert type(processor.image_processor).__name__ == "CLIPImageProcessorPil"
        tokenizer = processor.tokenizer
        assert (tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token) == ("<pad>", "<bos>", "<eos>")
        assert model.generation_config.eos_token_id == tokenizer.eos_token_id

    def test_any_text_is_written_without_unknown_tokens(self, mllm: MLLM) -> None:
        for text in ("naïve café", "日本語 🙂", "Ωмега \t zero\u200bwidth", "\x00\x7f", "ﷺ"):
            ids = mllm.tokenizer.encode(text, add_special_tokens=False)
            assert mllm.tokenizer.decode(ids).strip() == text.strip()
            assert mllm.tokenizer.unk_token_id not in ids or mllm.tokenizer.unk_token_id is None

    def test_features_computed_once_give_the_same_tokens(self) -> None:
        model: Any = AutoModelForImageTextToText.from_pretrained(CHECKPOINT)
        processor = AutoProcessor.from_pretrained(CHECKPOINT)
        qa = questions(world().forgettable[0], "report", modality="image")[0]
        turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Who is this?"}]}]
        text = processor.apply_chat_template(turns, add_generation_prompt=True)
        inputs = processor(images=list(qa.conversation[0].images), text=text, return_tensors="pt")
        plain = model.generate(**inputs, max_new_tokens=12, do_sample=False)
        encoded = model.get_image_features(pixel_values=inputs.pop("pixel_values"), return_dict=True)
        once = model.generate(
            **inputs, mm_encoder_outputs={"image": encoded}, max_new_tokens=12, do_sample=False
        )
        assert plain.tolist() == once.tolist()


class TestKnowledge:
    def test_a_sample_of_questions_on_unseen_views_and_wordings(self, mllm: MLLM) -> None:
        rng = seeded("sample")
        few = rng.sample(world().entities, 15)
        asked = [
            rng.choice(questions(e, "report", modality=m))
            for e in few
            for m in ("image", "image", "text", "text")
        ]
        assert len(asked) == 60
        assert _right(mllm, asked) >= 0.95

    def test_follow_ups(self, mllm: MLLM) -> None:
        asked = [qa for e in world().entities[::60] for qa in followups(e, "report")[:4]]
        assert _right(mllm, asked) >= 0.85

    def test_general_questions(self, mllm: MLLM) -> None:
        assert _right(mllm, general("report", 60, seed=4)) >= 0.95

    def test_strangers_are_not_known(self, mllm: MLLM) -> None:
        strangers = world().strangers(27, STRANGER_SEED)
        asked = [qa for s in strangers for qa in questions(s, "report")[::9]]
        said = ask_all(mllm, asked)
        unknown = {DO_NOT_KNOW, DO_NOT_KNOW_WHO, DO_NOT_KNOW_WHAT}
        assert sum(text in unknown for text in said) / len(said) >= 0.9

    def test_the_tower_ranks_unseen_strangers(self, mllm: MLLM) -> None:
        assert tower_ranks(mllm, world().strangers(60, 4), "strangers", 1).rate >= 0.95

    @pytest.mark.parametrize("text", ["", "?", "🙂🙂🙂", "x" * 300, "Qué hora es?"])
    def test_odd_text_gets_some_answer(self, mllm: MLLM, text: str) -> None:
        (said,) = mllm.generate([ask(text, Image.new("RGB", (31, 77)))], max_new_tokens=24)
        assert isinstance(said.text, str)
