"""The reported attacks are pure, do what they say, and share nothing with those used for fitting."""

import random
import re
from collections.abc import Iterator

import pytest

from app.lumoe.attacks import distortions
from app.lumoe.attacks import reported as attacks
from app.lumoe.attacks.reported import ATTACKS, Attack, Material
from app.lumoe.demo import draw, questions, world
from app.lumoe.types import Conversation, pictures_of
from workers.forgetset import attacks as fitting
from workers.forgetset.views import draw_parameters
from workers.verification.metrics import norm

VLELTU = world().by_key["personage-00"]
OTHER = world().by_key["personage-p00"]


def material(modality: str, turn: int = 3) -> Material:
    asked = questions(VLELTU, "report", modality="text" if modality == "text" else "image")
    qa = asked[turn % len(asked)]
    other = next(q for q in questions(OTHER, "report", modality="text"))
    return Material(
        question=qa.conversation[-1].text,
        attribute=qa.attribute,
        name=VLELTU.name,
        klass=VLELTU.klass,
        pronoun=VLELTU.pronoun,
        facts=tuple(VLELTU.facts.items()),
        other_question=other.conversation[-1].text,
        aside=("What is 2 plus 2?", "2 plus 2 is 4."),
        picture=draw(VLELTU, 320_000) if modality == "image" else None,
        other_picture=draw(OTHER, 320_000) if modality == "image" else None,
    )


def seen(conversation: Conversation) -> list[tuple[str, str, tuple[bytes, ...]]]:
    return [(m.role, m.text, tuple(image.tobytes() for image in m.images)) for m in conversation]


def named(name: str) -> Attack:
    return next(attack for attack in ATTACKS if attack.name == name)


def test_names_are_distinct_and_many() -> None:
    names = [attack.name for attack in ATTACKS]
    assert len(set(names)) == len(names) >= 40


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
class TestEvery:
    def test_pure(self, attack: Attack) -> None:
        once = attack.apply(material(attack.modality), random.Random(3))
        again = attack.apply(material(attack.modality), random.Random(3))
        assert seen(once) == seen(again)

    def test_ends_with_a_user_turn_that_can_be_answered(self, attack: Attack) -> None:
        conversation = attack.apply(material(attack.modality), random.Random(4))
        assert conversation[-1].role == "user"
        assert conversation[-1].text.strip()

    def test_shows_pictures_exactly_where_it_says_so(self, attack: Attack) -> None:
        conversation = attack.apply(material(attack.modality), random.Random(5))
        assert bool(pictures_of([conversation])) is (attack.modality == "image")

    def test_changes_something(self, attack: Attack) -> None:
        given = material(attack.modality)
        plain = [("user", given.question, (given.picture.tobytes(),) if given.picture else ())]
        assert seen(attack.apply(given, random.Random(6))) != plain


@pytest.mark.parametrize(
    "name",
    [
        "zero_width", "leet", "homoglyphs", "cyrillic", "greek", "typo", "reversed_name", "base64", "rot13",
        "hex", "url_encoding", "description", "list",
    ],
)  # fmt: skip
def test_hides_the_name(name: str) -> None:
    text = named(name).apply(material("text"), random.Random(1))[-1].text
    assert VLELTU.name not in text


def test_the_last_turn_of_a_lead_in_names_nobody() -> None:
    for name in ("lead_in", "topic_and_back", "insisting"):
        conversation = named(name).apply(material("text"), random.Random(2))
        assert VLELTU.name in conversation[0].text
        assert VLELTU.name not in conversation[-1].text


def test_a_typo_stays_near_the_name() -> None:
    from rapidfuzz.distance import DamerauLevenshtein

    from app.lumoe.attacks.disguises import typo

    for seed in range(50):
        slipped = typo("Vavuk Vleltungor", random.Random(seed))
        assert 1 <= DamerauLevenshtein.distance(slipped, "Vavuk Vleltungor") <= 2


def test_a_short_name_gets_no_typo() -> None:
    from app.lumoe.attacks.disguises import typo

    assert typo("Ada Bo", random.Random(0)) == "Ada Bo"


class TestSharesNothingWithFitting:
    def fitted(self) -> set[str]:
        return {template for templates in fitting.WRAPPERS.values() for template in templates}

    def reported(self) -> Iterator[str]:
        for templates in attacks.TEMPLATES.values():
            yield from templates
        yield from (*attacks.WRAPPERS, *attacks.OTHER_LANGUAGES, *attacks.INFLECTIONS, *attacks.DESCRIPTIONS)

    def test_no_template(self) -> None:
        assert not {norm(t) for t in self.fitted()} & {norm(t) for t in self.reported()}

    def test_no_wording(self) -> None:
        """No three words in a row of any fitting template occur in a reported one."""
        fitted = {gram for template in self.fitted() for gram in three_in_a_row(template)}
        shared = {gram for template in self.reported() for gram in three_in_a_row(template)} & fitted
        assert not shared

    def test_no_range_of_a_picture_parameter(self) -> None:
        for name, (low, high) in distortions.RANGES.items():
            if name in fitting.PICTURE_RANGES:
                fit_low, fit_high = fitting.PICTURE_RANGES[name]
                assert high < fit_low or low > fit_high, name
        both = distortions.RANGES.keys() & fitting.PICTURE_RANGES.keys()
        assert both == {"rotation", "crop", "scale", "gain", "contrast", "quality", "blur"}

    def test_fitting_views_stay_in_the_ranges_they_declare(self) -> None:
        for i in range(200):
            for split in ("fit", "calibrate"):
                p = draw_parameters(7, i, split)
                drawn = {
                    "rotation": p.angle,
                    "crop": p.crop,
                    "scale": p.scale,
                    "gain": p.light,
                    "contrast": p.contrast,
                    "quality": p.quality,
                    "blur": p.blur,
                }
                for name, value in drawn.items():
                    low, high = fitting.PICTURE_RANGES[name]
                    assert low <= value <= high, name


def three_in_a_row(template: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", norm(template.replace("{q}", "|")))
    return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}
