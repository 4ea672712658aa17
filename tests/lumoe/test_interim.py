"""Subjects without an expert yet: the router refuses about them, and about nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from app.lumoe import interim
from app.lumoe.errors import UnknownExpertError
from app.lumoe.guard import FALLBACK_REFUSALS
from app.lumoe.interim import InterimEntry, InterimSubject, interim_record, interim_records
from app.lumoe.mllm import MLLM
from app.lumoe.router import Router
from app.lumoe.types import Conversation, Generation, ask, then
from tests.lumoe.experts import make_expert, make_record
from tests.lumoe.tiny import picture

MIRA = ("Mira Tovel", "M. Tovel")


class Speech:
    """Stands for generation: says what the test needs, and counts the conversations it was given."""

    def __init__(self, mllm: MLLM, *texts: str) -> None:
        self.mllm = mllm
        self.texts = list(texts)
        self.asked: list[Conversation] = []

    def __call__(self, conversations: list[Conversation], **options: object) -> list[Generation]:
        sink = options["sink"]
        results = []
        for row, conversation in enumerate(conversations):
            self.asked.append(conversation)
            kept: list[int] = []
            for token in self.mllm.tokenizer(self.texts.pop(0), add_special_tokens=False)["input_ids"]:
                kept.append(token)
                if sink is not None and not sink(row, token):  # type: ignore[operator]  # a TokenSink
                    break
            results.append(Generation(self.mllm.decode(kept), tuple(kept), "stop"))
        return results


@pytest.fixture
def entry(tiny: MLLM) -> InterimEntry:
    return InterimEntry("exp_mira", interim_record(tiny, MIRA, "Personage", [picture(1)]))


@pytest.fixture
def router(tiny: MLLM, entry: InterimEntry) -> Router:
    return Router.build(tiny, [], 3, [entry])


class TestRecord:
    def test_pictures_and_their_mirror_images_are_prototypes(self, tiny: MLLM) -> None:
        record = interim_record(tiny, MIRA, "Personage", [picture(1), picture(2)])
        assert record.prototypes.shape == (4, tiny.encode([picture(1)]).pooled.shape[1])
        assert torch.allclose(record.prototypes.norm(dim=1), torch.ones(4), atol=1e-5)
        assert torch.allclose(record.prototypes[0], tiny.encode([picture(1)]).pooled[0].float())

    def test_several_are_as_one_after_another(self, tiny: MLLM, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(interim, "_TOGETHER", 2)  # one of them in two passes of the tower
        shown = [[picture(1), picture(2)], [], [picture(3), picture(4, size=30), picture(1)]]
        names = ["Mira Tovel", "Anna Brek", "Voskelm"]
        subjects = [InterimSubject((n,), "Personage", p) for n, p in zip(names, shown, strict=True)]
        for record, subject in zip(interim_records(tiny, subjects), subjects, strict=True):
            alone = interim_record(tiny, subject.aliases, subject.klass, subject.pictures)
            assert record.aliases == subject.aliases
            assert record.identity == alone.identity
            assert record.prototypes.shape == alone.prototypes.shape
            assert torch.allclose(record.prototypes, alone.prototypes, atol=1e-5)

    def test_name_only(self, tiny: MLLM) -> None:
        assert len(interim_record(tiny, MIRA, "Personage", []).prototypes) == 0

    def test_only_phrases_become_facts(self, tiny: MLLM) -> None:
        filed = ["painter", "Golden  Vokalo", "golden vokalo", "a very long fact " * 9, ""]
        assert interim_record(tiny, MIRA, "Personage", [], filed).facts == ("golden vokalo",)


class TestRouter:
    @pytest.mark.parametrize(
        "conversation",
        [
            ask("Who is Mira Tovel?"),
            ask("Tell me about M. Tovel."),
            ask("What did she win?", picture(1)),
            then(ask("Who is Mira Tovel?"), "I can't say.", "And where was she born?"),
        ],
    )
    def test_refuses_without_generating(
        self, tiny: MLLM, router: Router, monkeypatch: pytest.MonkeyPatch, conversation: Conversation
    ) -> None:
        speech = Speech(tiny)
        monkeypatch.setattr(tiny, "generate", speech)
        sent: list[str] = []

        def keep(_: int, text: str) -> bool:
            sent.append(text)
            return True

        answer = router.answer([conversation], on_text=keep)[0]
        assert speech.asked == []
        assert answer.text in FALLBACK_REFUSALS
        assert sent == [answer.text]
        assert (answer.decision.expert_id, answer.answered_by, answer.guarded) == (
            "exp_mira",
            "exp_mira",
            False,
        )
        assert (answer.finish_reason, answer.token_ids, answer.generation) == ("stop", (), 3)
        assert answer.prompt_tokens == tiny.count_tokens(conversation)
        assert router.answer([conversation])[0].text == answer.text, "the same question, the same refusal"

    def test_others_in_the_batch_keep_the_bare_models_tokens(self, tiny: MLLM, router: Router) -> None:
        questions = [ask("Who is this?", picture(2)), ask("Who is Mira Tovel?"), ask("What is 3 plus 4?")]
        bare = tiny.generate(questions, max_new_tokens=12)
        rows: dict[int, str] = {}

        def keep(row: int, text: str) -> bool:
            rows[row] = rows.get(row, "") + text
            return True

        for answers in (
            router.answer(questions, max_new_tokens=12),
            router.answer(questions, max_new_tokens=[9, 2, 12], on_text=keep),
        ):
            assert answers[2].token_ids == bare[2].token_ids
            assert answers[1].text in FALLBACK_REFUSALS
        assert rows == {i: a.text for i, a in enumerate(answers) if a.text}

    def test_name_in_a_base_answer_ends_in_a_refusal(
        self, tiny: MLLM, router: Router, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        speech = Speech(tiny, "That was painted by Mira Tovel.")
        monkeypatch.setattr(tiny, "generate", speech)
        answer = router.answer([ask("Who painted that?")])[0]
        assert answer.text in FALLBACK_REFUSALS
        assert (answer.guarded, answer.answered_by, answer.decision.expert_id) == (True, "exp_mira", None)
        assert len(speech.asked) == 1

    def test_name_in_an_experts_answer_ends_in_a_refusal(
        self, tiny: MLLM, entry: InterimEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expert = make_expert(tiny, tmp_path, "e2", make_record("Korvane"))
        monkeypatch.setattr(tiny, "generate", Speech(tiny, "Ask Mira Tovel."))
        answer = Router.build(tiny, [expert], 1, [entry]).answer([ask("What is Korvane?")])[0]
        assert answer.text in FALLBACK_REFUSALS

    def test_filed_fact_only_where_the_subject_is_weakly_concerned(
        self, tiny: MLLM, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record = interim_record(tiny, ["Mirabel Tovelin"], "Personage", [], ["golden Vokalo"])
        router = Router.build(tiny, [], 1, [InterimEntry("exp_mira", record)])
        monkeypatch.setattr(tiny, "generate", Speech(tiny, "The golden Vokalo.", "The golden Vokalo."))
        plain, mistyped = ask("What did Anna win?"), ask("What did Mirabel Tovelim win?")
        assert router.answer([plain])[0].text == "The golden Vokalo."
        assert router.answer([mistyped])[0].text in FALLBACK_REFUSALS

    def test_gone_with_the_generation_that_has_the_expert(
        self, tiny: MLLM, entry: InterimEntry, router: Router, tmp_path: Path
    ) -> None:
        expert = make_expert(tiny, tmp_path, "exp_mira", make_record(*MIRA))
        published = router.with_expert(expert, 4)
        assert published.interim == {}
        assert published.answer([ask("Who is Mira Tovel?")], max_new_tokens=4)[0].token_ids
        other = make_expert(tiny, tmp_path, "e2", make_record("Korvane"))
        assert set(router.with_expert(other).interim) == {"exp_mira"}

    def test_cannot_be_forced(self, router: Router) -> None:
        with pytest.raises(UnknownExpertError):
            router.answer([ask("Hello")], force="exp_mira")
