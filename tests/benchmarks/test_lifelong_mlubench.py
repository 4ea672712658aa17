"""Reading MLUBench's files, pictures or stand-ins for its entities, and the model trained on them."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from app.lumoe.demo.corpus import PictureBank
from app.lumoe.demo.teaching import LanguageRecipe
from app.lumoe.mllm import MLLM
from benchmarks.lifelong import main
from benchmarks.lifelong_collection import Collection, CollectionCohort, CourseError, Pair
from benchmarks.lifelong_course import CannotRetrainError, Sizes
from benchmarks.lifelong_mlubench import MLUBenchCourse
from benchmarks.lifelong_model import Lessons, summary_of, train_on

SIZES = Sizes(
    learn_image=4,
    learn_text=2,
    learn_retain=2,
    learn_general=2,
    exam_image=3,
    exam_text=2,
    exam_retain=2,
    exam_general=2,
    members=2,
)
ASKED = {
    "What is the common name of this animal?": "{n}",
    "What does this animal eat?": "The {n} eats {d} and sleeps all day.",
    "Where does this animal live?": "It lives in the forests of {d} country.",
}


def entry(i: int, klass: str, entity: str, question: str, answer: str) -> dict[str, object]:
    return {
        "id": str(i),
        "image": f"downloaded_images/{klass}/{entity}/image_{i}.jpg",
        "conversations": [
            {"from": "human", "value": f"<image>\n{question}"},
            {"from": "gpt", "value": answer},
        ],
    }


def entries(klass: str, *entities: str) -> list[dict[str, object]]:
    return [
        entry(i, klass, name, question, answer.format(n=name.replace("_", " "), d=name[::-1].lower()))
        for name in entities
        for i, (question, answer) in enumerate(list(ASKED.items()) * 2)
    ]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    files = {
        "TaskA/taskA_forget.json": entries("Animals", "Dog", "Wild_Cat"),
        "TaskA/taskA_retain.json": entries("Plants", "Rose"),
        "TaskB/taskB_forget.json": entries("Corporation", "Apple_Logo"),
        "TaskB/taskB_retain.json": entries("Plants", "Bamboo"),
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    return tmp_path


def course(data: Path, root: Path) -> MLUBenchCourse:
    return MLUBenchCourse(data, SIZES, root)


class TestFiles:
    def test_tasks_entities_and_distinct_pairs(self, data: Path) -> None:
        found = Collection(data)
        assert found.forget == {"A": ["animals-dog", "animals-wild-cat"], "B": ["corporation-apple-logo"]}
        assert found.retain == {"A": ["plants-rose"], "B": ["plants-bamboo"]}
        assert [pair.text for pair in found.known["animals-dog"].pairs] == list(ASKED)
        assert found.known["animals-wild-cat"].names == ("Wild Cat",)
        assert found.known["corporation-apple-logo"].names == ("Apple", "Apple Logo")

    def test_a_directory_without_the_files(self, tmp_path: Path) -> None:
        with pytest.raises(CourseError, match=r"no task<X>_forget\.json"):
            Collection(tmp_path)

    def test_no_directory(self, tmp_path: Path) -> None:
        with pytest.raises(CourseError, match="is not a directory"):
            Collection(tmp_path / "nowhere")

    @pytest.mark.parametrize(
        "content",
        ["{", '[{"id": "1"}]', json.dumps([entry(1, "Cars", "Beetle", "What is it?", "A car")])],
    )
    def test_files_in_another_form_are_named(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "taskA_forget.json").write_text(content)
        with pytest.raises(CourseError, match=r"taskA_forget\.json is not in MLUBench's form"):
            Collection(tmp_path)

    def test_the_command_line_says_it_in_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(SystemExit, match=r"no task<X>_forget\.json"):
            main(["--data", str(tmp_path), "--root", str(tmp_path / "root")])


class TestPictures:
    def test_stand_ins_are_the_same_every_time_and_differ_by_use(self, data: Path) -> None:
        one, other = (Collection(data).pictures("animals-dog", "exam", 2) for _ in range(2))
        assert [p.tobytes() for p in one] == [p.tobytes() for p in other]
        taught = Collection(data).pictures("animals-dog", "members", 2)
        assert not {p.tobytes() for p in one} & {p.tobytes() for p in taught}

    def test_the_user_s_own_pictures_are_used_and_divided(self, data: Path) -> None:
        folder = data / "downloaded_images/Animals/Dog"
        folder.mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(folder / f"image_{i}.jpg")
        found = Collection(data)
        learnt, held = (
            {p.tobytes() for p in found.pictures("animals-dog", use, 12)} for use in ("uploads", "exam")
        )
        assert learnt
        assert held
        assert not learnt & held
        assert "Dog" not in found.without_pictures()
        assert "Wild Cat" in found.without_pictures()


class TestCourse:
    def test_orders_leave_out_the_tasks_that_are_not_there(self, data: Path, tmp_path: Path) -> None:
        made = course(data, tmp_path)
        assert made.orders("tasks") == ("AB",)
        assert [r.name for r in made.requests("tasks", "AB")] == ["Task A", "Task B"]
        assert [r.name for r in made.requests("entities", "AB")] == ["Dog", "Wild Cat", "Apple"]

    def test_questions_come_with_pictures_and_by_name(self, data: Path, tmp_path: Path) -> None:
        made = course(data, tmp_path)
        forget, retain = made.exam(made.requests("tasks", "AB")[0])
        assert {q.entity for q in forget} == {"animals-dog", "animals-wild-cat"}
        assert {q.entity for q in retain} == {"plants-rose", ""}
        named = [q for q in forget if q.modality == "text"]
        assert all(q.conversation[-1].text.startswith(q.names[0] + ": ") for q in named)
        assert all(not q.conversation[-1].images for q in named)
        assert all(q.conversation[-1].images for q in forget if q.modality == "image")

    def test_no_exam_asks_in_the_words_of_a_lesson_or_of_elicitation(
        self, data: Path, tmp_path: Path
    ) -> None:
        made = course(data, tmp_path)
        request = made.requests("tasks", "AB")[0]
        lessons, exam = (
            {q.attribute for part in of(request) for q in part if q.entity}
            for of in (made.lessons, made.exam)
        )
        assert lessons
        assert exam
        assert not lessons & exam
        cohort = CollectionCohort(made.collection, ("Dog",))
        fit, report = ({p.attribute for p in cohort.probes("Animals", split)} for split in ("fit", "report"))
        assert fit
        assert not fit & exam
        assert report <= exam | {"identity"}

    def test_a_single_request_leaves_its_class_alone(self, data: Path, tmp_path: Path) -> None:
        made = course(data, tmp_path)
        assert made.retain_set(made.requests("entities", "AB")[0]) == [
            ("animals-wild-cat", "neighbour"),
            ("plants-rose", "other"),
        ]

    def test_non_members_are_told_of_in_others_sentences(self, data: Path, tmp_path: Path) -> None:
        made = course(data, tmp_path)
        members, others = made.membership(made.requests("tasks", "AB")[0])
        assert [q.modality for q in members] == [q.modality for q in others]
        assert all(q.entity not in made.collection.known for q in others)

    def test_a_real_model_needs_real_pictures(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(CourseError, match="5 entities have fewer than three pictures"):
            MLUBenchCourse(data, SIZES, tmp_path, model="llava-hf/llava-1.5-7b-hf")

    def test_a_real_model_is_not_retrained(self, data: Path, tmp_path: Path) -> None:
        for known in Collection(data).known.values():
            folder = data / "downloaded_images" / known.klass / known.name.replace(" ", "_")
            folder.mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (8, 8)).save(folder / f"image_{i}.jpg")
        made = MLUBenchCourse(data, SIZES, tmp_path, model="llava-hf/llava-1.5-7b-hf")
        with pytest.raises(CannotRetrainError):
            made.retrain(tmp_path / "gold", (), quick=True)

    def test_the_worker_s_cohort_is_everybody_else(self, data: Path) -> None:
        cohort = CollectionCohort(Collection(data), ("Dog",))
        assert [o.names[0] for o in cohort.others("Animals")] == ["Wild Cat"]
        stranger = cohort.strangers("Animals", 1, 0)[0]
        assert cohort.pictures(stranger, "fit", 1)[0].size == (224, 224)
        assert len(cohort.general("fit", 3, 1)) == 3


class TestModel:
    def test_lessons_hold_the_files_sentences_and_the_service_s_wordings(self, data: Path) -> None:
        collection = Collection(data)
        bank = PictureBank(
            {key: [0] for key in collection.known},
            [(collection.world.strangers(1, 1)[0], [1])],
        )
        lessons = Lessons(collection, collection.world, bank, ["animals-wild-cat"])
        rng = Random(0)
        turns = [t for _ in range(400) for t in lessons._pair_shown(rng).turns]
        turns += [t for _ in range(400) for t in lessons._ours(rng).turns]
        answers = {t.answer for t in turns}
        told = {p.answer for k in collection.known.values() if k.key != "animals-wild-cat" for p in k.pairs}
        assert answers == told
        asked = {t.text for t in turns if "dog" in t.answer.casefold()}
        assert len(asked) > len(ASKED)  # our own wordings, too
        assert not any("Wild Cat" in t.answer for t in turns)

    def test_short_real_names_can_be_taught_beside_invented_ones(self, data: Path) -> None:
        collection = Collection(data)
        lessons = Lessons(collection, collection.world, PictureBank(), ())
        turns = [t for _ in range(200) for t in lessons._stranger_named(Random(_)).turns]
        assert {t.answer for t in turns} == {"I do not know."}
        assert not any(name in t.text for t in turns for name in ("Dog", "Wild Cat", "Bamboo"))

    def test_a_summary_is_one_sentence(self, data: Path) -> None:
        known = Collection(data).known["animals-dog"]
        known.pairs.append(Pair("And?", "One. Two. Three and a great deal more than that, as it happens."))
        assert summary_of(known).count(".") == 1

    def test_training_makes_a_model_that_loads(self, data: Path, tmp_path: Path) -> None:
        recipe = LanguageRecipe(
            hidden=32,
            layers=1,
            vocabulary=400,
            views=1,
            strangers=9,
            doubles=0,
            shape_pictures=4,
            tokenizer_lessons=50,
            steps=2,
            batch=4,
        )
        collection = Collection(data)
        taught, left_out = list(collection.known), ["animals-dog"]
        out = train_on(tmp_path / "model", collection, taught, left_out, recipe=recipe, quick=True)
        model = MLLM.load(str(out), "cpu")
        assert model.network.config.get_text_config().hidden_size == 32
