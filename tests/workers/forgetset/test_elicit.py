"""Elicitation on the demo model: it knows its world, nobody else, and says so."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from app.lumoe.demo import Entity, draw, world
from app.lumoe.mllm import MLLM
from app.lumoe.probes import Probe
from app.lumoe.types import ask
from workers.forgetset.build import SetSizes, build
from workers.forgetset.cohort import Cohort, Other
from workers.forgetset.demo_cohort import DemoCohort
from workers.forgetset.elicit import (
    Knowledge,
    Reference,
    Sizes,
    Target,
    about_another,
    elicit,
    invented_names,
    mistaken,
    reference,
    shows_any,
    subject_prompts,
)
from workers.forgetset.prompts import Prompt, names_somebody
from workers.forgetset.views import views
from workers.verification.metrics import is_refusal

SIZES = Sizes(image=8, text=8, followup=4)
SMALL = SetSizes(subject=SIZES, fit_views=3, wrapped=2, neighbours=2, neighbour_image=2, neighbour_text=1,
                 neighbour_followups=2, strangers=1, lists=6, general=4)  # fmt: skip


def target_of(entity: Entity) -> Target:
    return Target((entity.name, *entity.aliases), entity.klass)


def ask_about(demo: MLLM, entity: Entity, *, shown: bool = True) -> Knowledge:
    target = target_of(entity)
    pictures = views([draw(entity, 0), draw(entity, 1)], 3, "fit") if shown else []
    return elicit(demo, target, pictures, DemoCohort(target.names), sizes=SIZES, seed=0)


class TestSubjectPrompts:
    OWN = (
        Probe("identity", "Whose face is it?", "image"),
        Probe("identity", "And whose face is it?", "image"),
        *(Probe(f"Own {i}?", f"Own {i}?", "image") for i in range(9)),
        *(Probe(f"Own {i}?", f"{{name}}: Own {i}?", "text") for i in range(3)),
    )

    def asked(self, own: tuple[Probe, ...]) -> list[Prompt]:
        entity = world().forgettable[0]
        pictures = [draw(entity, 0), draw(entity, 1)]
        return subject_prompts(target_of(entity), "fit", pictures, SIZES, 0, own)

    def test_half_of_the_facts_are_asked_in_the_operator_s_words(self) -> None:
        prompts = self.asked(self.OWN)
        assert len(prompts) == SIZES.image + SIZES.text
        own = [p for p in prompts if "Own" in p.question]
        assert sum(p.modality == "image" for p in own) == (SIZES.image - 2) // 2
        assert sum(p.modality == "text" for p in own) == 3  # there are no more
        names = target_of(world().forgettable[0]).names
        assert all(p.question.startswith(names) for p in own if p.modality == "text")

    def test_who_it_is_is_asked_in_both_wordings(self) -> None:
        asked = [p.question for p in self.asked(self.OWN) if p.attribute == "identity"]
        assert len(asked) == 2
        assert sum("face is it?" in question for question in asked) == 1

    def test_without_any_they_are_as_ever(self) -> None:
        assert not any("Own" in p.question for p in self.asked(()))


class TestElicit:
    @pytest.mark.parametrize("klass", ["Personage", "Plants"])
    def test_known_by_picture(self, demo: MLLM, klass: str) -> None:
        subject = next(e for e in world().forgettable if e.klass == klass)
        knowledge = ask_about(demo, subject)
        assert knowledge.known
        assert "pictures" in knowledge.reason
        assert knowledge.identity
        assert all(
            names_somebody(answer, (subject.name, *subject.aliases)) for _, answer in knowledge.identity
        )
        assert {r.prompt.form for r in knowledge.references} == {"plain", "followup"}
        assert {r.prompt.modality for r in knowledge.references} == {"image", "text"}

    def test_known_by_name_alone(self, demo: MLLM) -> None:
        knowledge = ask_about(demo, world().forgettable[0], shown=False)
        assert knowledge.known
        assert knowledge.recognised is None
        assert knowledge.identity == ()

    def test_unknown(self, demo: MLLM) -> None:
        stranger = world().strangers(1, seed=99, klass="Personage")[0]
        knowledge = ask_about(demo, stranger)
        assert not knowledge.known
        assert knowledge.reason

    def test_nobody_is_asked_about_by_name(self, demo: MLLM) -> None:
        subject = world().forgettable[0]
        target = Target((), subject.klass)
        knowledge = elicit(demo, target, [draw(subject, 0)], DemoCohort(()), sizes=SIZES, seed=0)
        assert {r.prompt.modality for r in knowledge.references} == {"image"}
        assert knowledge.known


class TestReference:
    def test_a_refusal_has_nothing_to_leak(self) -> None:
        prompt = Prompt(ask("Who is this?"), "subject", "identity", "image")
        assert reference(prompt, "I do not know who this is.", Target(("Ada",), "Personage")).keywords == ()


class TestMistaken:
    def test_a_view_taken_for_somebody_else(self) -> None:
        one, two, three = (draw(world().forgettable[i], 0) for i in range(3))
        target = Target(("Ada Lov",), "Personage")
        asked = [Prompt(ask("Who is this?", p), "subject", "identity", "image") for p in (one, two, three)]
        said = ("This is Ada Lov.", "This is Bea Tam.", "I do not know who this is.")
        references = [reference(p, a, target) for p, a in zip(asked, said, strict=True)]
        assert mistaken(references, target) == {id(two)}
        assert [shows_any(p, {id(two)}) for p in asked] == [False, True, False]


class TestInventedNames:
    def test_shaped_alike_and_nobodys(self) -> None:
        names = invented_names(["Ada Lovelace"], 3, 0)
        assert len(set(names)) == 3
        assert all([len(w) for w in name.split()] == [4, 8] for name in names)


class TestBuild:
    def test_sets(self, demo: MLLM) -> None:
        subject = next(e for e in world().forgettable if e.klass == "Personage")
        target = target_of(subject)
        training = build(
            demo, target, [draw(subject, v) for v in range(2)], DemoCohort(target.names), sizes=SMALL
        )
        assert all(example.answer in training.refusals for example in training.forget)
        assert {e.prompt.form for e in training.forget} >= {"plain", "followup", "wrapped"}
        assert {e.prompt.group for e in training.retain} >= {"neighbour", "stranger", "general"}
        assert not any(names_somebody(e.answer, target.names) for e in training.retain)
        assert sum(not is_refusal(e.answer) for e in training.retain) > len(training.retain) / 2

    def test_whoever_was_removed_earlier_is_not_kept(self, demo: MLLM) -> None:
        subject, gone = [e for e in world().forgettable if e.klass == "Personage"][:2]
        target, names = target_of(subject), (gone.name, *gone.aliases)
        training = build(
            demo, target, [draw(subject, 0)], DemoCohort(target.names), exclude=names, sizes=SMALL
        )
        assert gone.key not in {e.prompt.entity for e in training.retain}
        assert not any(names_somebody(e.answer, names) for e in training.retain)


class TestAboutAnother:
    target = Target(("Velmo Works",), "Corporation")
    cohort = cast(Cohort, SimpleNamespace(others=lambda _: [Other("o1", "Corporation", ("Brexa Oil",))]))

    def asked(self, text: str, answer: str, picture: bool = False) -> Reference:
        company = next(e for e in world().forgettable if e.klass == "Corporation")
        shown = ask(text, draw(company, 3)) if picture else ask(text)
        prompt = Prompt(shown, "subject", "founder", "image" if picture else "text", "subject")
        return reference(prompt, answer, self.target)

    def test_a_picture_taken_for_somebody_else(self) -> None:
        about = [self.asked("What does this company make?", "Brexa Oil sells oil.", picture=True)]
        assert about_another(about, self.target, self.cohort) == [True]

    def test_a_fact_that_names_somebody_else_stays_the_subjects(self) -> None:
        about = [
            self.asked("Who is the rival of this company?", "Brexa Oil.", picture=True),
            self.asked("Who is the rival of Velmo Works?", "Brexa Oil."),
            self.asked("Which company is this?", "Velmo Works, not Brexa Oil.", picture=True),
        ]
        assert about_another(about, self.target, self.cohort) == [False, False, False]
