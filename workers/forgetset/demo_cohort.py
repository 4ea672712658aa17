"""The demo world as a cohort: its entities are the neighbours, freshly drawn identities the strangers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from PIL.Image import Image

from app.lumoe.demo import Entity, draw, general, world
from app.lumoe.probes import Probe, Split
from workers.forgetset.cohort import Other
from workers.forgetset.names import Names
from workers.forgetset.prompts import Prompt

_FIRST_VIEW: dict[Split, int] = {"fit": 500, "calibrate": 200_000, "report": 300_000}
_PICTURE_SIZE = 224


class DemoCohort:
    """Others of the demo world. Whoever bears one of the subject's names is not in it, and is never drawn."""

    def __init__(self, subject_names: Sequence[str]) -> None:
        self._subject = Names(subject_names)
        self._entities: dict[str, Entity] = {}
        self._others = self._admit(world().entities)

    def _admit(self, entities: Iterable[Entity]) -> list[Other]:
        admitted = []
        for entity in entities:
            other = _other(entity)
            if not self._subject.borne_by(other.names):
                self._entities[entity.key] = entity
                admitted.append(other)
        return admitted

    def others(self, klass: str | None = None) -> Sequence[Other]:
        """See ``Cohort.others``."""
        return [other for other in self._others if klass is None or other.klass == klass]

    def practice(self) -> Sequence[Other]:
        """Return the protected entities; see ``Cohort.practice``."""
        return [other for other in self._others if self._entities[other.key].protected]

    def strangers(self, klass: str, n: int, seed: int) -> Sequence[Other]:
        """See ``Cohort.strangers``."""
        return self._admit(world().strangers(n, seed=seed, klass=klass))

    def pictures(self, other: Other, split: Split, n: int) -> list[Image]:
        """See ``Cohort.pictures``."""
        entity = self._entities[other.key]
        return [draw(entity, _FIRST_VIEW[split] + i, _PICTURE_SIZE) for i in range(n)]

    def probes(self, klass: str, split: Split) -> Sequence[Probe]:  # noqa: ARG002 - the protocol's
        """See ``Cohort.probes``: none, the demo world answers ours."""
        return ()

    def general(self, split: Split, n: int, seed: int) -> list[Prompt]:
        """See ``Cohort.general``."""
        return [
            Prompt(
                qa.conversation, "general", qa.attribute, "image" if qa.conversation[-1].images else "text"
            )
            for qa in general(split, n, seed)
        ]


def _other(entity: Entity) -> Other:
    return Other(entity.key, entity.klass, (entity.name, *entity.aliases), entity.pronoun)
