"""The verify stage on the demo model: a good expert passes, an empty one is found out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from app.kit.clock import utcnow
from app.lumoe.demo import draw, world
from app.lumoe.expert import LoadedExpert, load_expert
from app.lumoe.mllm import MLLM
from app.lumoe.router import Router
from app.lumoe.types import ask
from app.removal.records import Policy, Subject
from app.settings import Settings, load_settings
from workers import stages
from workers.forgetset.cohort import Cohort, Other
from workers.forgetset.elicit import Reference, Sizes, Target, reference
from workers.forgetset.prompts import Prompt
from workers.runtime import Runtime
from workers.training.recipe import Recipe
from workers.verification.metrics import REGISTRY, rate
from workers.verification.suite import Suite, SuiteSizes, about_another, build_suite, confirmed
from workers.verification.verify import earlier_references, judged_score, verify

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
    ref = stages.write_candidate(runtime, case, calibration, trained.directory, root, utcnow())
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
    return Made(Router.build(demo, [expert]), expert, suite, case.policy)


class TestVerify:
    def test_a_good_expert_passes(self, made: Made) -> None:
        verdict = verify(made.router, made.expert.expert_id, made.suite, made.policy)
        scores = {score.metric: score for score in verdict.scores}
        assert verdict.passed, (verdict.failed_metrics, verdict.failures)
        assert scores["forget_quality"].value == 1.0
        assert scores["leak"].value == 0.0
        assert scores["base_identity"].value == 1.0
        assert scores["changed_answers"].value == 0.0

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
        empty = {name: (a, torch.zeros_like(b)) for name, (a, b) in made.expert.adapter.items()}
        gate = dataclasses.replace(made.expert.gate, facts=(), aliases=())  # nor does a guard help it
        idle = dataclasses.replace(made.expert, adapter=empty, gate=gate, version=9)
        verdict = verify(Router.build(demo, [idle]), idle.expert_id, made.suite, made.policy)
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


class TestAboutAnother:
    def others(self) -> Cohort:
        return cast(Cohort, SimpleNamespace(others=lambda _: [Other("o1", "Corporation", ("Brexa Oil",))]))

    def test_a_picture_taken_for_somebody_else(self) -> None:
        asked = TestConfirmed().asked
        about = [asked("What does this company make?", "Brexa Oil sells oil.", picture=True)]
        assert about_another(about, TARGET, self.others()) == [True]

    def test_a_fact_that_names_somebody_else_stays_the_subjects(self) -> None:
        asked = TestConfirmed().asked
        about = [
            asked("Who is the rival of this company?", "Brexa Oil.", picture=True),
            asked("Who is the rival of Velmo Works?", "Brexa Oil."),
            asked("Which company is this?", "Velmo Works, not Brexa Oil.", picture=True),
        ]
        assert about_another(about, TARGET, self.others()) == [False, False, False]


class TestScore:
    def test_false_routes_stop_a_request_only_when_the_interval_says_so(self, policy: Policy) -> None:
        assert judged_score("gate_fpr", rate(2, 140), policy).passed is True
        assert judged_score("gate_fpr", rate(6, 140), policy).passed is False

    def test_changed_answers_have_a_limit(self, policy: Policy) -> None:
        assert judged_score("changed_answers", rate(2, 140), policy).passed is True
        assert judged_score("changed_answers", rate(3, 140), policy).passed is False

    def test_leak_is_judged_by_what_was_found(self, policy: Policy) -> None:
        assert judged_score("leak", rate(1, 64), policy).passed is False


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
