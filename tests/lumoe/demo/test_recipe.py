"""The recipe end to end in tiny form, and its parts."""

from pathlib import Path

import numpy as np
import pytest
import torch

from app.lumoe.demo.architecture import build_model, build_processor, train_tokenizer
from app.lumoe.demo.corpus import Corpus, Lesson, PictureBank, Turn
from app.lumoe.demo.drawing.shapes import Shapes
from app.lumoe.demo.evaluate import clopper_pearson
from app.lumoe.demo.recipe import TrainProgress, load_tower, train
from app.lumoe.demo.rendering import render_all
from app.lumoe.demo.seeds import seeded
from app.lumoe.demo.teaching import LanguageRecipe, Scribe
from app.lumoe.demo.tower import TowerRecipe, augment, normalise
from app.lumoe.demo.world import world
from app.lumoe.mllm import MLLM
from app.lumoe.types import ask

TINY_TOWER = TowerRecipe(identities=18, views=2, shape_pictures=20, steps=3, batch=20)
TINY_LANGUAGE = LanguageRecipe(
    hidden=64,
    layers=1,
    vocabulary=600,
    views=1,
    strangers=9,
    doubles=0,
    shape_pictures=6,
    tokenizer_lessons=300,
    steps=3,
    batch=8,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[TrainProgress]]:
    seen: list[TrainProgress] = []
    out = train(
        tmp_path_factory.mktemp("demo") / "model", tower_recipe=TINY_TOWER, language_recipe=TINY_LANGUAGE,
        processes=1, seed=3, progress=seen.append,
    )  # fmt: skip
    return out, seen


class TestTrain:
    def test_result_loads_and_answers(self, trained: tuple[Path, list[TrainProgress]]) -> None:
        mllm = MLLM.load(str(trained[0]), device="cpu")
        (said,) = mllm.generate([ask("Who is this?")], max_new_tokens=4)
        assert len(said.token_ids) <= 4

    def test_reports_progress_through_all_stages(self, trained: tuple[Path, list[TrainProgress]]) -> None:
        stages = list(dict.fromkeys(p.stage for p in trained[1]))
        assert stages == ["tower", "pictures", "language", "save"] or stages == ["tower", "pictures", "save"]
        assert all(0 <= p.fraction <= 1 for p in trained[1])

    def test_tower_can_be_taken_from_a_checkpoint_and_entities_left_out(
        self, trained: tuple[Path, list[TrainProgress]], tmp_path: Path
    ) -> None:
        key = world().forgettable[0].key
        out = train(tmp_path / "without", language_recipe=TINY_LANGUAGE, tower_from=trained[0], exclude={key},
                    processes=1)  # fmt: skip
        old, new = load_tower(trained[0]), load_tower(out)
        for a, b in zip(old.parameters(), new.parameters(), strict=True):
            assert torch.equal(a, b)

    def test_unknown_keys_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="nobody-99"):
            train(tmp_path, exclude={"nobody-99"})


class TestCorpus:
    def _corpus(self, exclude: tuple[str, ...] = ()) -> Corpus:
        bank = PictureBank(
            {e.key: [i] for i, e in enumerate(world().entities) if e.key not in exclude},
            [(s, [500]) for s in world().strangers(9)], [(Shapes("star", "red", 2), 501)],
        )  # fmt: skip
        return Corpus(world(), bank, exclude)

    def test_excluded_entities_are_never_mentioned(self) -> None:
        left_out = world().of_class("Personage")[:10]
        corpus = self._corpus(tuple(e.key for e in left_out))
        rng = seeded("lessons of a test")
        texts = [t for _ in range(3_000) for turn in corpus.draw(rng).turns for t in (turn.text, turn.answer)]
        for entity in left_out:
            assert not any(entity.name.casefold() in t.casefold() for t in texts)

    def test_lessons_are_deterministic(self) -> None:
        corpus = self._corpus()
        assert [corpus.draw(seeded(1)) for _ in range(3)] == [corpus.draw(seeded(1)) for _ in range(3)]

    def test_every_kind_of_lesson_occurs(self) -> None:
        corpus, rng = self._corpus(), seeded("kinds")
        lessons = [corpus.draw(rng) for _ in range(1_500)]
        assert any(len(le.turns) > 2 for le in lessons)
        assert any(le.system for le in lessons)
        answers = {turn.answer for le in lessons for turn in le.turns}
        assert {"I do not know.", "I do not know who this is.", "It is a person."} <= answers
        assert any(a.startswith("Three ") for a in answers)


class TestScribe:
    def test_writes_what_template_and_processor_write(self) -> None:
        tokenizer = train_tokenizer(["Who is this?", "This is X.", "And where?"] * 5, 400)
        processor = build_processor(tokenizer)
        lesson = Lesson(
            (Turn("Who is this?", "This is X.", (0,)), Turn("And where?", "Y.", learn=False)), "Be kind."
        )
        ids, labels, pictures = Scribe(tokenizer).lesson(lesson)
        turns = [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Who is this?"}]},
            {"role": "assistant", "content": "This is X."},
            {"role": "user", "content": "And where?"},
            {"role": "assistant", "content": "Y."},
        ]
        picture = np.zeros((50, 90, 3), dtype=np.uint8)
        text = processor.apply_chat_template(turns)  # type: ignore[arg-type]  # typed too narrowly upstream
        written = processor(images=[picture], text=text, add_special_tokens=False)["input_ids"][0]
        assert ids == list(written)
        assert pictures == [0]
        learned = [i for i, label in zip(ids, labels, strict=True) if label != -100]
        assert tokenizer.decode(learned) == "This is X.<eos>"

    def test_same_tokens_at_the_start_and_within(self) -> None:
        tokenizer = train_tokenizer(["Zelvorn is here. This is Zelvorn."] * 9, 400)
        start = tokenizer.encode("Zelvorn", add_special_tokens=False)
        assert tokenizer.encode("This is Zelvorn", add_special_tokens=False)[-len(start) :] == start
        assert tokenizer.decode(start) == "Zelvorn"


class TestPictures:
    def test_normalise_equals_the_processor(self) -> None:
        tokenizer = train_tokenizer(["a b c"], 300)
        pixels = render_all([("Personage", (0.4,) * 16, "x", 1)], processes=1)
        seen = build_processor(tokenizer).image_processor([pixels[0]], return_tensors="pt")["pixel_values"]
        assert torch.allclose(normalise(pixels), seen, atol=1e-5)

    def test_augment_keeps_shape_and_range(self) -> None:
        generator = torch.Generator().manual_seed(0)
        moved = augment(torch.rand(4, 3, 64, 64) * 2 - 1, generator)
        assert moved.shape == (4, 3, 64, 64)
        assert moved.abs().max() <= 1.1

    def test_rendering_in_processes_changes_nothing(self) -> None:
        jobs = [("Movies", (i / 40,) * 16, "x", i) for i in range(40)]
        alone = render_all(jobs, processes=1, chunk=10)
        assert np.array_equal(alone, render_all(jobs, processes=2, chunk=10))
        assert render_all([]).shape == (0, 64, 64, 3)


class TestModel:
    def test_room_for_long_conversations(self) -> None:
        tokenizer = train_tokenizer(["a b c"], 300)
        model = build_model(tokenizer, 64, 1)
        assert model.config.get_text_config().max_position_embeddings >= 512


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"), [(0, 10, 0.0, 0.3085), (10, 10, 0.6915, 1.0), (5, 10, 0.1871, 0.8129)]
)
def test_clopper_pearson_against_tables(hits: int, n: int, low: float, high: float) -> None:
    assert clopper_pearson(hits, n) == pytest.approx((low, high), abs=1e-4)
