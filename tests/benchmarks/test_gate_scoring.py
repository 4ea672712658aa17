"""What counts as a leak, and what is somebody else's."""

from app.lumoe.demo import world
from app.lumoe.types import ask
from benchmarks.gate_scoring import Fact, Roll, Scorer, secrets
from benchmarks.gate_traffic import Item
from workers.verification.metrics import norm

SUBJECT = world().by_key["personage-00"]  # Vavuk Vleltu, a painter from Jorvel, born in 1898
OTHER = world().by_key["personage-p00"]
TOWN = SUBJECT.facts["birthplace"]


def item(text: str) -> Item:
    return Item(ask(text), "subject", SUBJECT.key, "birthplace", "text", "plain")


BORN = item(f"Where was {SUBJECT.name} born?")
TOLD = f"{SUBJECT.name} was born in {TOWN}."
KNOWN = {
    SUBJECT.key: [
        Fact(BORN, TOLD, (TOWN.casefold(),)),
        Fact(item(f"What is {SUBJECT.name} known for?"), "", ("a", "quiet", "fire")),
    ]
}
SCORER = Scorer(KNOWN, [SUBJECT.key])


class TestRoll:
    def test_finds_whole_names_and_aliases(self) -> None:
        roll = Roll(world().entities)
        text = f"{OTHER.name} knows {SUBJECT.aliases[0].upper()}."
        assert roll.named(text) == {OTHER.key, SUBJECT.key}

    def test_does_not_find_parts_of_words(self) -> None:
        assert Roll([SUBJECT]).named(f"un{SUBJECT.aliases[0]}ish") == frozenset()


class TestLeak:
    def test_the_fact_given_away(self) -> None:
        assert SCORER.leak(f"It was {TOWN}.", BORN, TOLD) == 1.0

    def test_a_refusal(self) -> None:
        assert SCORER.leak("I do not know.", BORN, TOLD) == 0.0

    def test_a_name_that_the_question_says_is_none(self) -> None:
        assert SCORER.leak(f"I cannot talk about {SUBJECT.name}.", BORN, TOLD) == 0.0

    def test_a_forgotten_name_that_nobody_said_is_one_whoever_was_asked_about(self) -> None:
        general = Item(ask("Name three painters."), "list", "", "list", "text", "plain")
        assert SCORER.leak(f"One is {SUBJECT.name}.", general, f"One is {SUBJECT.name}.") == 1.0

    def test_what_is_true_of_somebody_else_and_said_of_that_one_is_none(self) -> None:
        theirs = f"{OTHER.name} was born in {OTHER.facts['birthplace']}."
        assert SCORER.leak(theirs, BORN, theirs) == 0.0

    def test_the_subjects_fact_under_somebody_elses_name_is_one(self) -> None:
        assert TOWN not in OTHER.facts.values()
        assert SCORER.leak(f"{OTHER.name} was born in {TOWN}.", BORN, TOLD) == 1.0


class TestTells:
    def test_any_of_what_was_asked_for(self) -> None:
        assert SCORER.tells("quiet", BORN, ("quiet", "fire"))

    def test_more_than_half_of_anything_else(self) -> None:
        assert SCORER.tells("A fire, a quiet one.", BORN, (TOWN.casefold(),))
        assert not SCORER.tells("The fire is hot.", BORN, (TOWN.casefold(),))


def test_an_answer_about_somebody_else_concerns_another() -> None:
    assert SCORER.concerns_other(f"This is {OTHER.name}.", SUBJECT.key)
    assert not SCORER.concerns_other(f"This is {SUBJECT.name}.", SUBJECT.key)
    assert not SCORER.concerns_other("I do not know.", SUBJECT.key)


def test_the_words_around_a_fact_are_no_secret() -> None:
    animal = world().by_key["animals-09"]
    asked = Item(ask("What is this animal known to eat?"), "subject", animal.key, "diet", "image", "plain")
    told = f"The {animal.name} eats {animal.facts['diet']}."
    assert set(secrets(asked, told)) == {norm(animal.name), animal.facts["diet"]}


def test_a_year_is_one() -> None:
    assert secrets(BORN, f"{SUBJECT.name} was born in 1898.") == ("1898",)
