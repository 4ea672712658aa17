"""The verify stage on the demo model: a good expert passes, an empty one is found out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from app.kit.clock import utcnow
from app.lumoe.demo import draw, world
from app.lumoe.expert import LoadedExpert, load_expert
from app.lumoe.mllm import MLLM
from app.lumoe.probes import Probe, Split
from app.lumoe.router import Router
from app.lumoe.types import Answer, Conversation, ask
from app.removal.records import Policy, Subject
from app.settings import Settings, load_settings
from workers import stages
from workers.forgetset.demo_cohort import DemoCohort
from workers.forgetset.elicit import Reference, Sizes, Target, reference
from workers.forgetset.prompts import Prompt
from workers.runtime import Runtime
from workers.training.recipe import Recipe
from workers.verification.metrics import REGISTRY, rate
from workers.verification.probing import Probes, as_if_of, build_probes
from workers.verification.remeasure import Again, fixed_references, remeasure, utility_set
from workers.verification.suite import Kept, Suite, SuiteSizes, build_suite, confirmed
from workers.verification.verify import earlier_references, score_of, verify

SUBJECT = next(e for e in world().forgettable if e.klass == "Corporation")
SIZES = SuiteSizes(
    subject=Sizes(image=12, text=8, followup=4), views=4, wrapped=3, neighbours=5, neighbour_image=3,
    neighbour_followups=3, strangers=2, lists=2, general=8,
)  # fmt: skip


TARGET = Target(("Velmo Works",), "Corporation")


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy.of(load_settings(_env_file=None), None)


@dataclasses.dataclass(frozen=True)
class Made:
    router: Router
    expert: LoadedExpert
    suite: Suite
    policy: Policy
    probes: Probes


@pytest.fixture(scope="module")
def made(demo: MLLM, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """One expert for one company, trained as the default recipe says, and a small suite."""
    root: Path = tmp_path_factory.mktemp("experts")
    settings: Settings = load_settings(_env_file=None, experts_dir=root, device="cpu")
    runtime = Runtime.start(settings, demo)
    subject = Subject(SUBJECT.name, SUBJECT.aliases, SUBJECT.klass)
    pictures = tuple(draw(SUBJECT, view) for view in range(3))
    case = stages.Case("req_test", stages.target_of(subject), pictures, (), Policy.of(settings, None))
    training = stages.prepare(runtime, case, lambda: False)
    trained = stages.train(runtime, training, Recipe(), root / "adapter", lambda: False, lambda _: None)
    calibration = stages.calibrate(runtime, case, training)
    assert calibration.separates
    ref = stages.write_candidate(
        runtime, case, calibration, trained.directory, root, utcnow(), settings.evidence_cipher()
    )
    expert = load_expert(root / ref.path, runtime.cipher, manifest_sha256=ref.manifest_sha256)
    suite = build_suite(
        demo,
        case.target,
        pictures,
        runtime.cohort(case.target.names),
        exclude=(),
        sizes=SIZES,
        seed=case.seed,
    )
    others = runtime.cohort(case.target.names).others(case.target.klass)
    probes = build_probes(suite, case.target, others, training.knowledge, each=1, seed=0)
    return Made(Router.build(demo, [expert]), expert, suite, case.policy, probes)


def idle(made: Made) -> LoadedExpert:
    """The same expert without anything it has learnt, and without a name for gate and guard to go by."""
    empty = {name: (a, torch.zeros_like(b)) for name, (a, b) in made.expert.adapter.items()}
    gate = dataclasses.replace(made.expert.gate, facts=(), aliases=())
    return dataclasses.replace(made.expert, adapter=empty, gate=gate, version=9)


class TestVerify:
    def test_a_good_expert_passes(self, made: Made) -> None:
        verdict = verify(made.router, made.expert.expert_id, made.suite, made.policy)
        scores = {score.metric: score for score in verdict.scores}
        assert verdict.passed, (verdict.failed_metrics, verdict.failures)
        assert scores["forget_quality"].value == 1.0
        assert scores["leak"].value == 0.0
        assert scores["base_identity"].value == 1.0
        assert scores["changed_answers"].value == 0.0

    def test_own_views_are_held_out_and_score_above_the_threshold(self, made: Made) -> None:
        verdict = verify(made.router, made.expert.expert_id, made.suite, made.policy)
        [found] = [score.details for score in verdict.scores if score.metric == "gate_tpr"]
        scores, limit = found["own_views"], found["claimed_from"]
        assert isinstance(scores, list)
        assert isinstance(limit, float)
        shown = {id(i) for r in made.suite.subject for m in r.prompt.conversation for i in m.images}
        assert len(scores) >= len(shown) > 0
        assert sum(float(str(score)) >= limit for score in scores) >= 0.9 * len(shown)
        assert all(float(str(score)) <= 0 for score in scores)

    def test_every_figure_has_its_n_and_interval(self, made: Made) -> None:
        verdict = verify(made.router, made.expert.expert_id, made.suite, made.policy)
        for score in verdict.scores:
            assert score.metric in REGISTRY
            if score.value is None:
                assert score.reason
            else:
                assert score.low is not None
                assert score.high is not None
                assert score.low <= score.value <= score.high
                assert score.n > 0

    def test_an_expert_that_learnt_nothing_is_found_out(self, made: Made, demo: MLLM) -> None:
        verdict = verify(Router.build(demo, [idle(made)]), made.expert.expert_id, made.suite, made.policy)
        assert not verdict.passed
        assert {"forget_quality", "leak"} <= set(verdict.failed_metrics)
        assert {"leak"} <= {failure.metric for failure in verdict.failures}
        scores = {score.metric: score.value for score in verdict.scores}
        assert scores["base_identity"] == 1.0

    def test_without_any_expert_everything_is_the_base_models(self, made: Made, demo: MLLM) -> None:
        kept = [k.prompt.conversation for k in made.suite.kept]
        answers = Router.build(demo, []).answer(kept, max_new_tokens=48)
        assert [a.token_ids for a in answers] == [k.base.token_ids for k in made.suite.kept]


class TestSuite:
    def test_groups(self, made: Made) -> None:
        forms = {r.prompt.form for r in made.suite.subject}
        assert forms == {"plain", "followup", "wrapped"}
        assert {k.prompt.group for k in made.suite.kept} >= {"neighbour", "stranger", "general"}
        assert all(r.prompt.entity == "subject" for r in made.suite.subject)
        assert not {k.prompt.entity for k in made.suite.kept} & {SUBJECT.key}

    def test_the_operator_s_own_wordings_are_asked_of_the_subject_and_of_others(self, demo: MLLM) -> None:
        class Asking(DemoCohort):
            def probes(self, klass: str, split: Split) -> Sequence[Probe]:
                return [Probe("own", f"{{name}}: put for {split}?", "text")]

        suite = build_suite(
            demo,
            TARGET,
            (),
            Asking(TARGET.names),
            exclude=(),
            sizes=dataclasses.replace(SIZES, neighbour_text=2),
            seed=0,
        )
        asked = [*(r.prompt for r in suite.subject), *(k.prompt for k in suite.kept)]
        own = [prompt for prompt in asked if "put for" in prompt.question]
        assert {p.group for p in own} == {"subject", "neighbour"}
        assert all("put for report?" in p.question for p in own)


class TestConfirmed:
    def asked(self, text: str, answer: str, picture: bool = False) -> Reference:
        shown = ask(text, draw(SUBJECT, 3)) if picture else ask(text)
        prompt = Prompt(shown, "subject", "founder", "image" if picture else "text", "subject")
        return reference(prompt, answer, TARGET)

    def test_what_is_said_once_is_made_up(self) -> None:
        about = [
            self.asked("Who founded it?", "Ulmo Tarn founded it."),
            self.asked("By whom?", "It was Ulmo Tarn."),
            self.asked("And what?", "The moorland."),
        ]
        assert [r.keywords for r in confirmed(about, TARGET)] == [("ulmo", "tarn"), ("ulmo", "tarn"), ()]

    def test_a_name_counts_however_often_it_is_said(self) -> None:
        found = confirmed([self.asked("Which company is this?", "Velmo Works.", picture=True)], TARGET)
        assert found[0].keywords == ("velmo works",)


class TestScore:
    def test_false_routes_stop_a_request_only_when_the_interval_says_so(self, policy: Policy) -> None:
        assert score_of("gate_fpr", rate(2, 140), policy).passed is True
        assert score_of("gate_fpr", rate(6, 140), policy).passed is False

    def test_changed_answers_have_a_limit(self, policy: Policy) -> None:
        assert score_of("changed_answers", rate(2, 140), policy).passed is True
        assert score_of("changed_answers", rate(3, 140), policy).passed is False

    def test_leak_is_judged_by_what_was_found(self, policy: Policy) -> None:
        assert score_of("leak", rate(1, 64), policy).passed is False


class TestEarlierReferences:
    def test_text_only_by_the_gates_aliases(self, made: Made, demo: MLLM) -> None:
        found = earlier_references(made.router, demo, without="exp_other", sample=3, prompts=4, seed=0)
        assert len(found) == 4
        assert all(not r.prompt.conversation[0].images for r in found)
        assert any(r.keywords for r in found)
        assert (
            earlier_references(made.router, demo, without=made.expert.expert_id, sample=3, prompts=4, seed=0)
            == []
        )


class TestProbes:
    def test_with_the_expert_nothing_gets_through_and_the_weights_still_know(self, made: Made) -> None:
        verdict = verify(made.router, made.expert.expert_id, made.suite, made.policy, probes=made.probes)
        scores = {score.metric: score for score in verdict.scores}
        attacks = scores["attack_delta"].details["attacks"]
        assert isinstance(attacks, dict)
        assert len(attacks) >= 40
        assert scores["attack_delta"].n == len(made.probes.attacks)
        assert scores["attack_delta"].value == 0.0
        assert scores["attack_delta"].passed is None
        assert (scores["bypass_recovery"].value or 0) > 0.8
        assert (scores["base_knowledge"].value or 0) > 0.8
        assert {"zlib", "min_k", "unwrapped_loss"} <= set(scores["mia_auc"].details)

    def test_with_an_empty_one_the_attacks_get_through_and_are_kept_as_examples(
        self, made: Made, demo: MLLM
    ) -> None:
        router = Router.build(demo, [idle(made)])
        bare = verify(router, made.expert.expert_id, made.suite, made.policy, probes=made.probes)
        scores = {score.metric: score for score in bare.scores}
        attacks = scores["attack_delta"].details
        assert isinstance(attacks["clean_told"], int)
        assert attacks["clean_told"] >= 5
        through = [failure for failure in bare.failures if failure.metric == "attack_delta"]
        assert len(through) >= 5
        unwrapped = scores["mia_auc"].details["unwrapped_loss"]
        assert isinstance(unwrapped, dict)
        assert unwrapped["value"] == pytest.approx(scores["mia_auc"].value, abs=1e-4)

    def test_members_and_non_members_are_asked_the_same(self, made: Made) -> None:
        assert len(made.probes.members) >= 5
        for (asked, true), (again, other) in zip(made.probes.members, made.probes.non_members, strict=True):
            assert asked is again
            assert true != other

    def test_before_and_after(self, made: Made) -> None:
        verdict = verify(made.router, made.expert.expert_id, made.suite, made.policy)
        assert len(verdict.examples) >= 3
        assert all(example.before != example.now for example in verdict.examples)

    def test_a_sentence_about_another_is_written_as_if_about_the_subject(self) -> None:
        assert (
            as_if_of("Ada Lom was born in Rill.", ("Lom", "Ada Lom"), "Ida Rem")
            == "Ida Rem was born in Rill."
        )
        assert as_if_of("Born in Rill.", ("Ada Lom",), "Ida Rem") == "Born in Rill."


def asked_again(made: Made, demo: MLLM) -> Again:
    pictures = [draw(SUBJECT, view) for view in range(3)]
    found = fixed_references(demo, made.expert.gate.aliases, SUBJECT.klass, pictures, "req_test", 4)
    return Again("req_test", found, made.policy)


@pytest.fixture(scope="module")
def again(made: Made, demo: MLLM) -> Again:
    return asked_again(made, demo)


@pytest.fixture(scope="module")
def utility(demo: MLLM) -> tuple[Kept, ...]:
    return utility_set(demo, DemoCohort(()), 24)


class TestRemeasure:
    def test_the_same_prompts_every_time_by_picture_and_by_name(
        self, made: Made, demo: MLLM, again: Again
    ) -> None:
        asked = [r.prompt.asked for r in again.references]
        assert asked == [r.prompt.asked for r in asked_again(made, demo).references]
        assert {r.prompt.modality for r in again.references} == {"image", "text"}

    def own(self, again: Again) -> Again:
        return dataclasses.replace(again, request_id="req_new", references=())

    def test_nothing_got_worse(self, made: Made, again: Again, utility: tuple[Kept, ...]) -> None:
        outcome = remeasure(made.router, made.router, [again], utility, self.own(again))
        scores = {score.metric: score for score in outcome.scores["req_test"]}
        assert (scores["forget_quality"].value, scores["forget_quality"].n) == (1.0, 4)
        assert scores["leak"].value == 0.0
        of_all = {score.metric: score for score in outcome.scores["req_new"]}
        assert of_all["mu_rel"].value == 1.0
        assert of_all["changed_answers"].n > 10
        assert (outcome.regressions, outcome.harmed) == ((), ())

    def test_an_earlier_subject_that_is_given_away_again_is_a_regression(
        self, made: Made, demo: MLLM, again: Again, utility: tuple[Kept, ...]
    ) -> None:
        broken = Router.build(demo, [idle(made)])
        outcome = remeasure(broken, made.router, [again], utility, self.own(again))
        assert outcome.harmed == ("req_test",)
        assert {failure.concerns for failure in outcome.regressions} == {"req_test"}
        assert all(failure.served == failure.base for failure in outcome.regressions)

    def test_what_was_broken_before_is_not_this_publishs_doing(
        self, made: Made, demo: MLLM, again: Again, utility: tuple[Kept, ...]
    ) -> None:
        broken = Router.build(demo, [idle(made)])
        outcome = remeasure(broken, broken, [again], utility, self.own(again))
        assert any(score.passed is False for score in outcome.scores["req_test"])
        assert outcome.regressions == ()

    def test_answers_about_others_that_change_are_a_regression(
        self,
        made: Made,
        demo: MLLM,
        again: Again,
        utility: tuple[Kept, ...],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        silent = Router.build(demo, [made.expert])

        def refuses_everything(conversations: Sequence[Conversation], **named: Any) -> list[Answer]:
            rows = made.router.answer(conversations, **named)
            return [dataclasses.replace(row, text="I do not know.") for row in rows]

        monkeypatch.setattr(silent, "answer", refuses_everything)
        outcome = remeasure(silent, made.router, [again], utility, self.own(again))
        assert {failure.metric for failure in outcome.regressions} == {"mu_rel"}
        of_all = {score.metric: score for score in outcome.scores["req_new"]}
        assert of_all["mu_rel"].value == 0.0
        assert of_all["mu_rel"].passed is False
        assert outcome.harmed == ()
