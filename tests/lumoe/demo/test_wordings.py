"""Training wordings keep away from the report split."""

import pytest

from app.lumoe.demo.seeds import seeded
from app.lumoe.demo.wordings import everyday, followup_wordings, image_wordings, plain, slip, text_wordings
from app.lumoe.probes import CLASSES, attributes, fact_probes, followup_probes, identity_probes


@pytest.mark.parametrize("klass", CLASSES)
class TestNoReportWording:
    def test_with_pictures(self, klass: str) -> None:
        report = {
            plain(p.text) for p in (*identity_probes(klass, "report"), *fact_probes(klass, "report", "image"))
        }
        for texts in image_wordings(klass).values():
            assert not any(r in plain(t) for t in texts for r in report)

    def test_with_names(self, klass: str) -> None:
        report = {plain(p.text) for p in fact_probes(klass, "report", "text")}
        for texts in text_wordings(klass).values():
            assert all("{name}" in t for t in texts)
            assert not any(r in plain(t) for t in texts for r in report)

    def test_in_later_turns(self, klass: str) -> None:
        for pronoun in ("she", "they") if klass == "Personage" else ("it",):
            report = {plain(p.text) for p in followup_probes(klass, "report", pronoun)}
            for texts in followup_wordings(klass, pronoun).values():
                assert not any(r in plain(t) for t in texts for r in report)

    def test_many_wordings_for_everything(self, klass: str) -> None:
        for wordings in (image_wordings(klass), text_wordings(klass)):
            assert set(wordings) >= {*attributes(klass), "summary"}
            assert min(map(len, wordings.values())) >= 15


def test_slips_spare_the_name() -> None:
    rng = seeded("slips")
    typed = [slip(rng, "Where was {name} born?") for _ in range(500)]
    assert all("{name}" in t for t in typed)
    assert 5 < sum(t != "Where was {name} born?" for t in typed) < 60


def test_everyday_typing_keeps_the_question() -> None:
    rng = seeded("everyday")
    typed = {everyday(rng, "Who is this?") for _ in range(300)}
    assert {"Who is this?", "who is this?", "Who is this"} <= typed
    assert all("who is this" in t.lower() for t in typed)
