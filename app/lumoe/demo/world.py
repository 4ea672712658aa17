"""The demo world: 127 invented entities that may be forgotten, and others that never are.

Everything is a pure function of fixed seeds: names, aliases, facts, genomes (how an entity looks), the four
tasks, and which protected entities are look-alikes or near-namesakes of forgettable ones.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Final, Literal

from rapidfuzz.distance import Levenshtein

from app.lumoe.demo.lexicon import (
    BUILDING_NOUNS,
    PHRASE_VALUES,
    REGIONS,
    TITLE_NOUNS,
    TOWNS,
    invented,
    respell,
)
from app.lumoe.demo.seeds import seeded
from app.lumoe.phrases import OCCUPATIONS
from app.lumoe.probes import CLASSES, attributes

CHECKPOINT: Final = Path(__file__).parent / "checkpoint"
"""The demo model in the package: loads through AutoModelForImageTextToText and AutoProcessor."""

Task = Literal["A", "B", "C", "D"]
Genome = tuple[float, ...]
GENES: Final = 16
"""Numbers in [0, 1) that fix how an entity looks; the first eight are the ones one sees first."""

CLASS_COUNTS: Final[dict[str, int]] = {
    "Animals": 15,
    "Astronomy": 5,
    "Buildings": 12,
    "Cartoon": 14,
    "Corporation": 6,
    "Movies": 18,
    "Personage": 30,
    "Plants": 12,
    "TV series": 15,
}
"""Forgettable entities per class, as in MLUBench."""

PROTECTED_COUNTS: Final[dict[str, int]] = {
    "Animals": 9,
    "Astronomy": 6,
    "Buildings": 8,
    "Cartoon": 8,
    "Corporation": 6,
    "Movies": 9,
    "Personage": 15,
    "Plants": 8,
    "TV series": 9,
}
"""Entities per class that nobody ever asks to forget."""

TASK_OF: Final[dict[str, Task]] = {
    "Animals": "A",
    "Astronomy": "A",
    "Buildings": "B",
    "Corporation": "B",
    "Cartoon": "B",
    "Personage": "C",
    "Plants": "C",
    "Movies": "D",
    "TV series": "D",
}


@dataclass(frozen=True, slots=True)
class Entity:
    """Somebody or something in the demo world.

    ``facts`` maps the attributes of :func:`app.lumoe.probes.attributes` to their values; a stranger has none.
    ``lookalike_of`` and ``namesake_of`` are keys of forgettable entities this one was made to resemble.
    """

    key: str
    name: str
    aliases: tuple[str, ...]
    klass: str
    facts: Mapping[str, str] = field(hash=False)
    task: Task | None
    protected: bool
    pronoun: str
    genome: Genome
    lookalike_of: str | None = None
    namesake_of: str | None = None

    @property
    def known(self) -> bool:
        """Whether the demo model was taught this entity (strangers it was not)."""
        return bool(self.facts)


def random_genome(rng: Random) -> Genome:
    """Return a genome drawn uniformly."""
    return tuple(rng.random() for _ in range(GENES))


VISIBLE: Final[dict[str, tuple[int, ...]]] = {
    "Animals": (1, 1),
    "Astronomy": (1, 2),
    "Buildings": (1, 2),
    "Cartoon": (0, 1, 3),
    "Corporation": (0, 1, 2, 3),
    "Movies": (0, 1, 3, 3),
    "Personage": (2, 3),
    "Plants": (0, 1, 3),
    "TV series": (0, 1, 2, 3),
}
"""Genes whose change one sees whatever the others say (wall and roof of a building, for example);
one named twice is chosen twice as often."""


def resemble(rng: Random, klass: str, genome: Genome) -> Genome:
    """Return a look-alike: one visible gene jumps, sometimes a second one, the others stay within .02."""
    jumps = {rng.choice(VISIBLE[klass])}
    if rng.random() < 0.5:
        jumps.add(rng.randrange(8))
    return tuple(
        (g + rng.uniform(0.35, 0.65)) % 1.0
        if i in jumps
        else min(0.999, max(0.0, g + rng.uniform(-0.02, 0.02)))
        for i, g in enumerate(genome)
    )


def look_distance(a: Genome, b: Genome) -> float:
    """Mean absolute difference of two genomes, the first eight counting twice; random pairs: about 1/3."""
    weights = [2.0] * 8 + [1.0] * (GENES - 8)
    return sum(w * abs(x - y) for w, x, y in zip(weights, a, b, strict=True)) / sum(weights)


class _Names:
    """Hands out invented names that no other name resembles, unless asked to."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.taken: list[str] = []

    def clear(self, name: str, minimum: int = 3) -> bool:
        """Whether no taken word is closer than ``minimum`` edits to any word of the name."""
        return all(
            Levenshtein.distance(word, other, score_cutoff=minimum) >= minimum
            for word in name.casefold().split()
            for other in self.taken
        )

    def take(self, name: str) -> None:
        """Reserve the words of a name."""
        self.taken += name.casefold().split()

    def word(self, syllables: int = 2) -> str:
        """Return a new invented word of at least five letters."""
        while True:
            word = invented(self._rng, syllables)
            if 5 <= len(word) <= 9 and self.clear(word):
                self.take(word)
                return word


def _name(
    names: _Names, rng: Random, klass: str, genome: Genome, nouns: dict[str, list[str]]
) -> tuple[str, str]:
    """Return (name, alias)."""
    word = names.word()
    if klass == "Personage":
        return f"{names.word()} {word}", word
    if klass == "Buildings":
        return f"{word} {BUILDING_NOUNS[int(genome[0] * len(BUILDING_NOUNS))]}", word
    if klass in nouns:
        if not nouns[klass]:
            nouns[klass] = list(TITLE_NOUNS[klass])
            rng.shuffle(nouns[klass])
        return f"{word} {nouns[klass].pop()}", word
    if klass == "Astronomy":
        return word, f"{''.join(rng.sample('BDGHKLMPRTVZ', 2))}-{rng.randint(111, 989)}"
    return word, names.word()


def _namesake(names: _Names, rng: Random, other: Entity, genome: Genome) -> tuple[str, tuple[str, ...]]:
    """Return a name near the other's: a shared surname, or the first word respelled by one or two letters."""
    words = other.name.split()
    if other.klass == "Personage" and rng.random() < 0.4:
        return f"{names.word()} {words[1]}", ()
    while True:
        word = respell(rng, words[0])
        if word.casefold() not in names.taken:
            names.take(word)
            break
    if other.klass == "Buildings":
        return f"{word} {BUILDING_NOUNS[int(genome[0] * len(BUILDING_NOUNS))]}", ()
    return " ".join((word, *words[1:])), ()


def _facts(klass: str, rng: Random, people: list[str], turn: int) -> dict[str, str]:
    """Draw a value for every attribute of a class; occupations take turns, so each has at least three."""
    numbers = {
        "birth_year": (1871, 1999),
        "discovery_year": (1604, 1998),
        "completed": (1105, 1990),
        "first_aired": (1951, 2019),
        "founded": (1811, 2009),
        "release_year": (1931, 2021),
        "premiere_year": (1961, 2021),
        "lifespan": (3, 90),
        "distance": (11, 980),
        "seasons": (2, 19),
    }
    heights = {"Buildings": (21, 480), "Plants": (12, 290)}
    people_of = {"discoverer", "architect", "creator", "founder", "director", "lead_actor", "sidekick"}
    town_of = {"birthplace", "residence", "city", "headquarters"}
    settings = {"Cartoon": "setting_cartoon", "Movies": "setting_movie"}
    facts: dict[str, str] = {}
    for attribute in attributes(klass):
        if attribute == "height":
            value = str(rng.randint(*heights[klass]))
        elif attribute in numbers:
            value = str(rng.randint(*numbers[attribute]))
        elif attribute in people_of:
            value = rng.choice([p for p in people if p not in facts.values()])
            value = value.split()[0] if attribute == "sidekick" else value
        elif attribute in town_of:
            value = rng.choice([t for t in TOWNS if t not in facts.values()])
        elif attribute == "region":
            value = rng.choice(REGIONS)
        elif attribute == "occupation":
            value = list(OCCUPATIONS)[turn % len(OCCUPATIONS)]
        else:
            value = rng.choice(
                PHRASE_VALUES[settings.get(klass, attribute) if attribute == "setting" else attribute]
            )
        facts[attribute] = value
    return facts


class World:
    """All entities, found by key or name, with their neighbours and with strangers."""

    def __init__(self, entities: Iterable[Entity]) -> None:
        self.entities: tuple[Entity, ...] = tuple(entities)
        self.forgettable = tuple(e for e in self.entities if not e.protected)
        self.protected = tuple(e for e in self.entities if e.protected)
        self.by_key: dict[str, Entity] = {e.key: e for e in self.entities}
        self.by_name: dict[str, Entity] = {e.name: e for e in self.entities}

    def of_class(self, klass: str) -> tuple[Entity, ...]:
        """All entities of one class, forgettable ones first."""
        return tuple(e for e in self.entities if e.klass == klass)

    def forget_set(self, task: Task) -> tuple[Entity, ...]:
        """The entities task A, B, C or D removes."""
        return tuple(e for e in self.forgettable if e.task == task)

    def retain_set(self, task: Task) -> tuple[Entity, ...]:
        """Protected entities for a task: all of the same classes, every third of the others."""
        classes = {e.klass for e in self.forget_set(task)}
        others = [e for e in self.protected if e.klass not in classes]
        return tuple(e for e in self.protected if e.klass in classes) + tuple(others[::3])

    def neighbours(self, entity: Entity, k: int, *, protected: bool | None = None) -> list[Entity]:
        """The k entities of the same class that look or are spelled most like this one.

        ``protected`` restricts the answer to protected (True) or forgettable (False) entities.
        """

        def nearness(other: Entity) -> tuple[float, str]:
            look = look_distance(entity.genome, other.genome) / 0.33
            spelling = Levenshtein.normalized_distance(entity.name, other.name)
            return min(look, spelling), other.key

        found = [
            e
            for e in self.of_class(entity.klass)
            if e.key != entity.key and (protected is None or e.protected is protected)
        ]
        return sorted(found, key=nearness)[:k]

    def strangers(self, n: int, seed: int = 0, klass: str | None = None) -> list[Entity]:
        """Return n freshly drawn identities that are in no set, with invented names and no facts.

        Without ``klass`` the nine classes take turns. Their looks and names keep a distance from
        every known entity.
        """
        rng = seeded("strangers", seed, klass)
        known: dict[str, list[Genome]] = {c: [e.genome for e in self.of_class(c)] for c in CLASSES}
        taken = {
            word.casefold() for e in self.entities for name in (e.name, *e.aliases) for word in name.split()
        }
        found: list[Entity] = []
        while len(found) < n:
            kind = klass or CLASSES[len(found) % len(CLASSES)]
            genome = random_genome(rng)
            if any(look_distance(genome, g) < 0.12 for g in known[kind]):
                continue
            name = stranger_name(rng, kind, taken)
            found.append(
                Entity(
                    f"stranger-{seed}-{klass or 'any'}-{len(found)}".replace(" ", "_"),
                    name,
                    (),
                    kind,
                    {},
                    None,
                    False,
                    "they" if kind == "Personage" else "it",
                    genome,
                )
            )
        return found


def stranger_name(rng: Random, klass: str, taken: set[str]) -> str:
    """Return an invented name in the style of a class that uses none of the taken words."""
    while True:
        word = invented(rng, 2)
        first = invented(rng, 2)
        if 5 <= len(word) <= 9 and not {word.casefold(), first.casefold()} & taken:
            break
    if klass == "Personage":
        return f"{first} {word}"
    nouns = BUILDING_NOUNS if klass == "Buildings" else TITLE_NOUNS.get(klass)
    return f"{word} {rng.choice(nouns)}" if nouns else word


def _pronoun(rng: Random, klass: str, genome: Genome) -> str:
    """The pronoun of a subject; people with a beard are "he", most others "she"."""
    if klass != "Personage":
        return "it"
    return "he" if 0.2 <= genome[5] < 0.8 or rng.random() < 0.2 else "she"


def _spread(rng: Random, i: int) -> Genome:
    """A random genome whose first gene (the form) takes turns, so that a class shows all forms."""
    return ((0.31 + 0.618034 * i) % 1.0, *random_genome(rng)[1:])


@cache
def world() -> World:
    """Return the demo world (built once, a few milliseconds; always the same)."""
    rng = seeded("lethe demo world", 1)
    names = _Names(rng)
    for word in (*TOWNS, *(w for values in PHRASE_VALUES.values() for v in values for w in v.split())):
        names.take(word)
    people = [f"{names.word()} {names.word()}" for _ in range(48)]
    nouns: dict[str, list[str]] = {klass: [] for klass in TITLE_NOUNS}
    entities: list[Entity] = []
    for klass, count in CLASS_COUNTS.items():
        for i in range(count):
            genome = _spread(rng, i)
            name, alias = _name(names, rng, klass, genome, nouns)
            entities.append(
                Entity(
                    f"{klass.lower().replace(' ', '-')}-{i:02}",
                    name,
                    (alias,),
                    klass,
                    _facts(klass, rng, people, i),
                    TASK_OF[klass],
                    False,
                    _pronoun(rng, klass, genome),
                    genome,
                )
            )
    for klass, count in PROTECTED_COUNTS.items():
        entities += _protected(klass, count, entities, names, rng, people, nouns)
    shared = _shared_words(entities)
    return World(_without_shared_aliases(e, shared) for e in entities)


def _protected(
    klass: str,
    count: int,
    entities: list[Entity],
    names: _Names,
    rng: Random,
    people: list[str],
    nouns: dict[str, list[str]],
) -> list[Entity]:
    """Protected entities of a class, in turn look-alike, near-namesake, and like nobody."""
    originals = [e for e in entities if e.klass == klass]
    rng.shuffle(originals)
    made: list[Entity] = []
    for i in range(count):
        original, kind = originals[i % len(originals)], i % 3
        genome = resemble(rng, klass, original.genome) if kind == 0 else _spread(rng, i)
        if kind == 1:
            name, aliases = _namesake(names, rng, original, genome)
        else:
            name, alias = _name(names, rng, klass, genome, nouns)
            aliases = (alias,)
        made.append(
            Entity(
                f"{klass.lower().replace(' ', '-')}-p{i:02}",
                name,
                aliases,
                klass,
                _facts(klass, rng, people, i),
                None,
                True,
                _pronoun(rng, klass, genome),
                genome,
                original.key if kind == 0 else None,
                original.key if kind == 1 else None,
            )
        )
    return made


def _shared_words(entities: list[Entity]) -> set[str]:
    """Words that occur in the names of two entities: no alias may be one of them."""
    seen: set[str] = set()
    twice: set[str] = set()
    for entity in entities:
        for word in entity.name.split():
            (twice if word in seen else seen).add(word)
    return twice


def _without_shared_aliases(entity: Entity, shared: set[str]) -> Entity:
    kept = tuple(a for a in entity.aliases if a not in shared)
    return Entity(
        entity.key,
        entity.name,
        kept,
        entity.klass,
        entity.facts,
        entity.task,
        entity.protected,
        entity.pronoun,
        entity.genome,
        entity.lookalike_of,
        entity.namesake_of,
    )
