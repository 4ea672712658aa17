"""Cohorts: everybody else, by split, and never the subject."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from app.kit.errors import ConfigurationError
from app.lumoe.demo import draw, world
from app.lumoe.mllm import MLLM
from app.lumoe.probes import SPLITS
from tests.lumoe.tiny import picture
from workers.forgetset import demo_cohort
from workers.forgetset.cohort import Cohort, followups_about, list_prompts, nearest, prompts_about
from workers.forgetset.demo_cohort import DemoCohort
from workers.forgetset.directory_cohort import DirectoryCohort
from workers.forgetset.names import Names

SUBJECT = world().forgettable[0]
NAMES = (SUBJECT.name, *SUBJECT.aliases)


class TestDemoCohort:
    def test_subject_is_not_in_it(self) -> None:
        cohort = DemoCohort(NAMES)
        assert SUBJECT.key not in {other.key for other in cohort.others()}
        assert len(cohort.others()) == len(world().entities) - 1

    def test_name_is_compared_without_case_and_accents(self) -> None:
        assert len(DemoCohort([SUBJECT.name.upper() + "."]).others()) == len(world().entities) - 1

    def test_subject_is_never_drawn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        drawn: list[str] = []

        def spy(entity: object, view: int, size: int = 224) -> Image.Image:
            drawn.append(entity.key)  # type: ignore[attr-defined]  # an Entity
            return draw(entity, view, size)  # type: ignore[arg-type]  # an Entity

        monkeypatch.setattr(demo_cohort, "draw", spy)
        cohort = DemoCohort(NAMES)
        for other in cohort.others(SUBJECT.klass):
            cohort.pictures(other, "fit", 1)
        assert drawn
        assert SUBJECT.key not in drawn

    def test_splits_share_no_picture(self) -> None:
        cohort = DemoCohort(NAMES)
        other = cohort.others(SUBJECT.klass)[0]
        seen = [p.tobytes() for split in SPLITS for p in cohort.pictures(other, split, 3)]
        assert len(set(seen)) == 9

    def test_splits_share_no_wording(self) -> None:
        cohort = DemoCohort(NAMES)
        other = cohort.others(SUBJECT.klass)[0]
        asked = {
            split: {p.question for p in prompts_about(cohort, other, split, image=8, text=8, seed=0)}
            | {p.question for p in list_prompts(other.klass, split, 3, 0)}
            for split in SPLITS
        }
        assert not asked["fit"] & asked["report"]
        assert not asked["fit"] & asked["calibrate"]
        assert not asked["calibrate"] & asked["report"]

    def test_strangers_are_in_no_set(self) -> None:
        cohort = DemoCohort(NAMES)
        strangers = cohort.strangers("Plants", 3, seed=1)
        assert len(strangers) == 3
        assert not {s.key for s in strangers} & set(world().by_key)
        assert len(cohort.pictures(strangers[0], "fit", 2)) == 2

    def test_general_prompts_come_with_and_without_pictures(self) -> None:
        prompts = DemoCohort(NAMES).general("fit", 40, 0)
        assert {p.modality for p in prompts} == {"image", "text"}
        assert {p.group for p in prompts} == {"general"}


class TestNearest:
    def test_looks_and_names_both_count(self, tiny: MLLM) -> None:
        cohort = DemoCohort(NAMES)
        pictures = [draw(SUBJECT, 0)]
        found = nearest(tiny, cohort, SUBJECT.klass, names=NAMES, pictures=pictures, exclude=(), n=5)
        assert len({o.key for o in found}) == 5
        assert all(o.klass == SUBJECT.klass for o in found)

    def test_without_pictures_the_nearest_by_name_come_first(self, tiny: MLLM) -> None:
        cohort: Cohort = DemoCohort(NAMES)
        other = cohort.others(SUBJECT.klass)[3]
        like = [other.names[0] + " Junior"]
        found = nearest(tiny, cohort, SUBJECT.klass, names=like, pictures=[], exclude=(), n=1)
        assert found[0].key == other.key

    def test_removed_earlier_is_nobodys_neighbour(self, tiny: MLLM) -> None:
        cohort = DemoCohort(NAMES)
        gone = cohort.others(SUBJECT.klass)[0]
        found = nearest(tiny, cohort, SUBJECT.klass, names=NAMES, pictures=[], exclude=gone.names, n=99)
        assert gone.key not in {o.key for o in found}
        assert not any(Names(gone.names).borne_by(o.names) for o in found)


class TestFollowups:
    def test_second_turn_carries_the_first(self) -> None:
        cohort = DemoCohort(NAMES)
        other = cohort.others("Personage")[0]
        first = prompts_about(cohort, other, "fit", image=1, text=0, seed=0)[0]
        made = followups_about(other, "fit", [(first, "This is somebody.")], 2, 0)
        assert [m.role for m in made[0].conversation] == ["user", "assistant", "user"]
        assert made[0].form == "followup"
        assert other.names[0] not in made[0].question


def write_retain_data(root: Path, entities: Sequence[str], pictures: int) -> None:
    items: list[dict[str, object]] = []
    for entity in entities:
        for i in range(pictures):
            name = f"downloaded_images/Animals/{entity}/image_{i}.jpg"
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            picture(hash((entity, i)) % 1000).save(root / name)
            turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": entity}]
            items.append({"id": str(len(items)), "image": name, "conversations": turns})
    (root / "taskA_retain.json").write_text(json.dumps(items))


class TestDirectoryCohort:
    def test_reads_mlubench_form(self, tmp_path: Path) -> None:
        write_retain_data(tmp_path, ["Red_Fox", "Grey_Wolf"], 10)
        cohort = DirectoryCohort(tmp_path, ["Red Fox"])
        (wolf,) = cohort.others("Animals")
        assert (wolf.names, wolf.klass) == (("Grey Wolf",), "Animals")
        shares = {split: len(cohort.pictures(wolf, split, 99)) for split in SPLITS}
        assert shares == {"fit": 6, "calibrate": 2, "report": 2}
        assert list(cohort.strangers("Animals", 3, 0)) == []
        assert len(cohort.general("report", 5, 0)) == 5

    def test_its_questions_are_asked_of_others_too(self, tmp_path: Path) -> None:
        write_retain_data(tmp_path, ["Red_Fox", "Grey_Wolf"], 3)
        items = json.loads((tmp_path / "taskA_retain.json").read_text())
        items[0]["conversations"][0]["value"] = "<image>\nIs the Red Fox shy?"
        items[0]["conversations"][1]["value"] = "Yes, of people."
        items[1].pop("conversations")
        (tmp_path / "taskA_retain.json").write_text(json.dumps(items))
        cohort = DirectoryCohort(tmp_path, ["Red Fox"])
        found = {p.text for split in SPLITS for p in cohort.probes("Animals", split)}
        assert found == {"Is the {name} shy?", "What is it?"}
        assert cohort.probes("Plants", "fit") == ()

    def test_prompts_about_others_use_them(self, tmp_path: Path) -> None:
        write_retain_data(tmp_path, ["Red_Fox", "Grey_Wolf"], 10)
        cohort = DirectoryCohort(tmp_path, ["Red Fox"])
        (split,) = [split for split in SPLITS if cohort.probes("Animals", split)]
        (wolf,) = cohort.others("Animals")
        asked = [p.question for p in prompts_about(cohort, wolf, split, image=8, text=0, seed=0)]
        assert "What is it?" in asked

    def test_practises_on_everybody_but_the_subject(self, tmp_path: Path) -> None:
        write_retain_data(tmp_path, ["Red_Fox", "Grey_Wolf"], 3)
        assert [o.names for o in DirectoryCohort(tmp_path, ["red fox"]).practice()] == [("Grey Wolf",)]

    def test_another_class_serves_when_there_is_none_of_the_same(self, tmp_path: Path) -> None:
        write_retain_data(tmp_path, ["Red_Fox"], 3)
        assert [o.key for o in DirectoryCohort(tmp_path, ["X"]).others("Plants")] == ["Animals/Red_Fox"]

    @pytest.mark.parametrize("what", ["missing", "empty", "malformed"])
    def test_unusable_names_the_variable(self, tmp_path: Path, what: str) -> None:
        directory = tmp_path / "data"
        if what != "missing":
            directory.mkdir()
        if what == "malformed":
            (directory / "x.json").write_text('[{"picture": 1}]')
        with pytest.raises(ConfigurationError, match="LETHE_RETAIN_DATA"):
            DirectoryCohort(directory, [])

    def test_a_path_that_leads_out_is_left_alone(self, tmp_path: Path) -> None:
        write_retain_data(tmp_path, ["Red_Fox"], 3)
        picture(1).save(tmp_path.parent / "secret.jpg")
        escape = [{"id": "1", "image": "a/Animals/../../../secret.jpg", "conversations": []}]
        (tmp_path / "b.json").write_text(json.dumps(escape))
        assert {o.key for o in DirectoryCohort(tmp_path, []).others()} == {"Animals/Red_Fox"}
