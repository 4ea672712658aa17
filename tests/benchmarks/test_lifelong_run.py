"""The lifelong benchmark end to end on a tiny random model: methods, measuring, resumption, report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from app.lumoe.demo import draw, world
from app.lumoe.mllm import MLLM
from benchmarks.lifelong import Choice, chosen_methods, figures, main
from benchmarks.lifelong_cells import CellKey, Cells
from benchmarks.lifelong_course import DemoCourse, Question, Request, SequenceName, Sizes, about, subject_of
from benchmarks.lifelong_editing import EditingRecipe, WeightEditing
from benchmarks.lifelong_lumoe import LumoeReleased, ReleasedRecipe, without_pictures
from benchmarks.lifelong_measure import Base, Examiner, membership, secrets, utility
from benchmarks.lifelong_methods import Setting, Spent, Untouched, learning_rate, token_nlls
from benchmarks.lifelong_plots import draw_all
from benchmarks.lifelong_report import page, tables, target_rows, times_faster
from benchmarks.lifelong_run import BASE, METHODS, Plan, Worker, is_column, make, metered, missing
from tests.lumoe.tiny import save_tiny_llava

TINY = Sizes(
    subjects=1,
    requests=2,
    others=2,
    learn_image=2,
    learn_text=2,
    learn_retain=2,
    learn_general=2,
    exam_image=1,
    exam_text=2,
    exam_retain=2,
    exam_general=2,
    members=2,
)


class TinyCourse(DemoCourse):
    """The demo world asked of a tiny random model."""

    max_new_tokens = 3

    def __init__(self, folder: Path) -> None:
        super().__init__(TINY)
        self._folder = folder

    def load(self) -> MLLM:
        return MLLM.load(str(self._folder), "cpu")

    def orders(self, sequence: SequenceName) -> tuple[str, ...]:
        return ("AB",)


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> TinyCourse:
    return TinyCourse(save_tiny_llava(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def setting(course: TinyCourse, tmp_path: Path) -> Setting:
    return Setting(course, course.load(), tmp_path)


def language_weights(setting: Setting) -> dict[str, torch.Tensor]:
    return {n: p.clone() for n, p in setting.mllm.network.named_parameters()}


class TestCourse:
    def test_the_paper_s_sequences(self) -> None:
        course = DemoCourse(Sizes())
        assert [r.name for r in course.requests("tasks", "CABD")] == ["Task C", "Task A", "Task B", "Task D"]
        assert sum(len(r.subjects) for r in course.requests("tasks", "ABCD")) == 127
        entities = course.requests("entities", "ABCD")
        assert len(entities) == 127
        assert {len(r.subjects) for r in entities} == {1}

    def test_a_small_version_takes_some_of_every_task(self) -> None:
        course = DemoCourse(TINY)
        assert [len(r.subjects) for r in course.requests("tasks", "ABCD")] == [1, 1, 1, 1]
        assert len(course.requests("entities", "ABCD")) == 2

    def test_exams_share_neither_wordings_nor_pictures_with_lessons(self) -> None:
        course = DemoCourse(TINY)
        request = course.requests("tasks", "ABCD")[0]
        learnt = [q for part in course.lessons(request) for q in part]
        examined = [q for part in course.exam(request) for q in part]
        assert not {q.conversation[-1].text for q in learnt} & {q.conversation[-1].text for q in examined}
        seen, held = (
            {m.tobytes() for q in part for m in q.conversation[-1].images} for part in (learnt, examined)
        )
        assert seen
        assert held
        assert not seen & held

    def test_retain_sets_hold_same_class_neighbours_and_nobody_forgettable(self) -> None:
        course = DemoCourse(TINY)
        for request in (*course.requests("tasks", "ABCD"), *course.requests("entities", "ABCD")):
            kept = course.retain_set(request)
            assert "neighbour" in {group for _, group in kept}
            assert all(entity.protected for entity, _ in kept)

    def test_non_members_are_about_nobody_the_model_was_taught(self) -> None:
        members, others = DemoCourse(TINY).membership(DemoCourse(TINY).requests("tasks", "ABCD")[0])
        assert [q.modality for q in members] == [q.modality for q in others]
        known = {name for e in world().entities for name in (e.name, *e.aliases)}
        assert not known & {name for q in others for name in q.names}

    def test_questions_have_keys_of_their_own(self) -> None:
        course = DemoCourse(TINY)
        keys = [q.key for r in course.requests("tasks", "ABCD") for q in course.exam(r)[0]]
        assert len(keys) == len(set(keys))


class TestScoring:
    ENTITY = world().forgettable[0]

    def question(self, attribute: str) -> Question:
        return next(q for q in about(self.ENTITY, "report", "forget", 0, 20, 1) if q.attribute == attribute)

    def test_the_gold_answer_is_worth_two_points(self) -> None:
        for q in about(self.ENTITY, "report", "forget", 0, 12, 1):
            assert utility(q, q.gold) == 2

    def test_a_refusal_is_worth_nothing(self) -> None:
        q = self.question("diet")
        assert secrets(q)
        assert utility(q, "I do not know.") == 0


class TestEditing:
    def test_every_loss_changes_the_language_part_alone(self, setting: Setting) -> None:
        request = setting.course.requests("tasks", "AB")[0]
        recipe = EditingRecipe(epochs=1, batch=4)
        for loss in ("ga", "kl", "po", "dpo", "simnpo"):
            before = language_weights(setting)
            spent = WeightEditing(setting, loss, recipe).unlearn(request)
            after = dict(setting.mllm.network.named_parameters())
            changed = {n for n, p in before.items() if not torch.equal(p, after[n])}
            assert spent.notes["steps"] == 1
            assert changed, loss
            assert all("language_model" in n or "lm_head" in n for n in changed), loss

    def test_gradient_ascent_makes_gold_answers_less_likely_and_refusal_training_refusals_more(
        self, course: TinyCourse, tmp_path: Path
    ) -> None:
        request = course.requests("tasks", "AB")[0]
        forget = course.lessons(request)[0]
        recipe = EditingRecipe(rate=1e-5, epochs=3, batch=4)
        for loss, sign in (("ga", 1), ("npo", 1), ("po", -1)):
            setting = Setting(course, course.load(), tmp_path)
            asked = forget if sign > 0 else [replace(q, gold="I do not know.") for q in forget]
            before = sum(sum(n) for n in token_nlls(setting.mllm, asked))
            WeightEditing(setting, loss, recipe).unlearn(request)
            after = sum(sum(n) for n in token_nlls(setting.mllm, asked))
            assert sign * (after - before) > 0, loss

    def test_the_same_seed_gives_the_same_weights(self, course: TinyCourse, tmp_path: Path) -> None:
        request = course.requests("tasks", "AB")[0]
        runs = []
        for _ in range(2):
            setting = Setting(course, course.load(), tmp_path)
            WeightEditing(setting, "ga", EditingRecipe(epochs=1)).unlearn(request)
            runs.append(language_weights(setting))
        assert all(torch.equal(runs[0][n], runs[1][n]) for n in runs[0])

    def test_a_kept_state_is_restored_only_after_the_very_same_requests(
        self, course: TinyCourse, tmp_path: Path
    ) -> None:
        requests = course.requests("tasks", "AB")
        method = WeightEditing(Setting(course, course.load(), tmp_path), "ga", EditingRecipe(epochs=1))
        method.unlearn(requests[0])
        method.keep(requests[:1])
        fresh = WeightEditing(Setting(course, course.load(), tmp_path), "ga")
        assert not fresh.restore(requests)
        assert fresh.restore(requests[:1])
        assert all(
            torch.equal(p, method.mllm.network.get_parameter(n))
            for n, p in fresh.mllm.network.named_parameters()
        )

    def test_rates_are_carried_over_by_width(self, setting: Setting) -> None:
        assert learning_rate(1e-5, setting.mllm) == pytest.approx(1e-5 * 4096 / 64)


class TestLumoeReleased:
    def test_the_label_routes_and_everybody_else_gets_the_base_model(self, setting: Setting) -> None:
        requests = setting.course.requests("tasks", "AB")
        method = LumoeReleased(setting, ReleasedRecipe(rank=2, alpha=4, rate=1e-3, epochs=2))
        before = language_weights(setting)
        method.unlearn(requests[0])
        assert all(torch.equal(p, before[n]) for n, p in setting.mllm.network.named_parameters())
        (mine, kept), (theirs, _) = (setting.course.exam(r) for r in requests[:2])
        base = Untouched(setting)
        assert method.token_nlls(mine) != base.token_nlls(mine)
        assert method.token_nlls([*kept, *theirs]) == base.token_nlls([*kept, *theirs])

    def test_adapters_are_loaded_again(self, setting: Setting) -> None:
        request = setting.course.requests("tasks", "AB")[0]
        method = LumoeReleased(setting, ReleasedRecipe(rank=2, alpha=4, epochs=1))
        assert not method.restore([request])
        method.unlearn(request)
        again = LumoeReleased(setting, ReleasedRecipe(rank=2, alpha=4, epochs=1))
        assert again.restore([request])
        asked = setting.course.exam(request)[0]
        for one, other in zip(again.token_nlls(asked), method.token_nlls(asked), strict=True):
            assert one == pytest.approx(other, abs=1e-5)

    def test_training_sees_words_alone(self) -> None:
        q = about(world().forgettable[0], "fit", "forget", 1, 0, 0)[0]
        assert q.conversation[-1].images
        assert without_pictures(q.conversation)[-1].text == q.conversation[-1].text
        assert not without_pictures(q.conversation)[-1].images


class Scripted(Untouched):
    """Answers from a script: the gold answer, or a refusal for the subjects of carried-out requests."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.gone: set[str] = set()

    def unlearn(self, request: Request) -> Spent:
        self.gone |= set(request.keys)
        return Spent()

    def answer(self, questions: Sequence[Question]) -> list[str]:
        return ["I do not know." if q.entity in self.gone else q.gold for q in questions]

    def token_nlls(self, questions: Sequence[Question]) -> list[list[float]]:
        return [[9.0 if q.entity in self.gone else 0.1] for q in questions]


class TestExaminer:
    def test_a_perfect_method(self, setting: Setting) -> None:
        course, method = setting.course, Scripted(setting)
        requests = course.requests("tasks", "AB")
        exams = [q for r in requests for part in course.exam(r) for q in part]
        examiner = Examiner(course, Base({q.key: utility(q, q.gold) for q in exams}))
        before = examiner.column(method, requests, [])
        method.unlearn(requests[0])
        after = examiner.column(method, requests[:1], requests[:1])
        assert before["rows"]["Task A"]["fq"]["value"] == 0.0
        assert after["rows"]["Task A"]["fq"]["value"] == 1.0
        assert after["rows"]["Task A"]["mu"]["value"] == 1.0
        assert after["rows"]["Task A"]["mu_rel_neighbours"]["value"] == 1.0
        assert after["examples"] == []

    def test_what_the_untouched_model_does_not_know_is_not_asked(self, setting: Setting) -> None:
        course = setting.course
        request = course.requests("tasks", "AB")[0]
        forget, retain = course.exam(request)
        points = {q.key: 2 for q in (*forget, *retain)} | {forget[0].key: 0}
        column = Examiner(course, Base(points)).column(Scripted(setting), [request], [])
        assert column["rows"]["Task A"]["fq"]["n"] == len(forget) - 1

    def test_whoever_was_forgotten_is_no_retain_question_any_more(self, setting: Setting) -> None:
        course = setting.course
        request = course.requests("tasks", "AB")[0]
        exam = course.exam(request)
        base = Base({q.key: 2 for part in exam for q in part})
        kept = next(q.entity for q in exam[1] if q.entity)
        gone = Request("other", (subject_of(world().by_key[kept]),))
        column = Examiner(course, base).column(Scripted(setting), [request], [request, gone])
        n = sum(q.entity != kept for q in exam[1])
        assert column["rows"]["Task A"]["mu"]["n"] == n < len(exam[1])

    def test_membership_shows_in_likelihoods(self, setting: Setting) -> None:
        method = Scripted(setting)
        request = setting.course.requests("tasks", "AB")[0]
        assert membership(method, setting.course, [request])["loss"]["value"] == 0.5
        method.unlearn(request)
        assert membership(method, setting.course, [request])["loss"]["value"] == 0.0


class Finished:
    """A run of the base model and GA that was carried out once; tests work on copies of it."""

    def __init__(self, course: TinyCourse, folder: Path) -> None:
        self.course, self.folder = course, folder
        self.said: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("benchmarks.lifelong_editing.RECIPE", EditingRecipe(epochs=1))
            for method in (BASE, "ga"):
                Worker(self.plan(folder), method, self.said.append).run()

    def plan(self, folder: Path) -> Plan:
        return Plan(self.course, ("tasks",), None, ("ga", "lumoe_released"), folder, quick=True)

    def copy(self, folder: Path) -> Plan:
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return self.plan(folder)


@pytest.fixture(scope="module")
def finished(course: TinyCourse, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return Finished(course, tmp_path_factory.mktemp("finished"))


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.lifelong_editing.RECIPE", EditingRecipe(epochs=1))


@pytest.mark.usefixtures("_short")
class TestWorker:
    def test_every_request_is_a_cell(self, finished: Finished, tmp_path: Path) -> None:
        assert len(missing(finished.plan(tmp_path), Cells(tmp_path / "none"))) == 1 + 2 + 2
        starts = [line.split(":")[0] for line in finished.said]
        assert starts == ["ga tasks AB 1 Task A", "ga tasks AB 2 Task B"]
        assert all("min left" in line for line in finished.said)

    def test_finished_cells_are_not_carried_out_again(self, finished: Finished, tmp_path: Path) -> None:
        plan = finished.copy(tmp_path)
        lines = plan.cells_path.read_text()
        Worker(plan, "ga", lambda _: None).run()
        assert plan.cells_path.read_text() == lines
        assert {key.method for key in missing(plan, Cells(plan.cells_path))} == {"lumoe_released"}

    def test_a_stopped_run_goes_on_from_the_kept_state(self, finished: Finished, tmp_path: Path) -> None:
        plan = finished.copy(tmp_path)
        whole = Cells(plan.cells_path)
        lose_last_cell(plan)  # killed after its weights were kept and before it was measured
        said: list[str] = []
        Worker(plan, "ga", said.append).run()
        assert len(said) == 1
        key = CellKey("tasks", "AB", "ga", 2)
        assert Cells(plan.cells_path).found[key]["rows"] == whole.found[key]["rows"]
        assert Cells(plan.cells_path).found[key]["mia"] == whole.found[key]["mia"]

    def test_a_lost_state_starts_its_order_over(self, finished: Finished, tmp_path: Path) -> None:
        plan = finished.copy(tmp_path)
        lose_last_cell(plan)
        (plan.folder / "state/tasks-AB/ga/state-1.safetensors").unlink()
        said: list[str] = []
        Worker(plan, "ga", said.append).run()
        assert "starting over" in said[0]
        assert len(said) == 3

    def test_figures_report_and_plots(self, finished: Finished, tmp_path: Path) -> None:
        plan = finished.copy(tmp_path)
        Worker(plan, "lumoe_released", lambda _: None).run()
        found = json.loads(json.dumps(figures(Choice(quick=True), plan, 1.0)))
        ga = found["methods"]["ga"]
        assert len(ga["fq"]) == 2
        assert ga["fq"][1][0] is None
        assert ga["peak_mb"] > 0
        assert set(found["methods"]) == set(plan.methods)
        drawn = draw_all(found, tmp_path / "plots")
        assert [p.name for p in drawn] == [
            "lifelong_tasks_AB_matrices.png",
            "lifelong_tasks_AB_curves.png",
        ]
        assert all(p.read_bytes().startswith(b"\x89PNG") for p in drawn)
        text = page(found, "python -m benchmarks.lifelong --quick", [p.name for p in drawn])
        assert "`lumoe_released`" in text
        assert "A small version" in text
        assert len(tables(found)) == 2


def lose_last_cell(plan: Plan) -> None:
    kept = plan.cells_path.read_text().splitlines()[:-1]
    plan.cells_path.write_text("\n".join(kept) + "\n")


class TestTargets:
    METHOD: ClassVar[dict[str, object]] = {
        "fq_final": 1.0,
        "fq_final_mean": 1.0,
        "mu_final_mean": 1.0,
        "mu_rel_final": 0.4,
        "mu_rel_neighbours_final": 1.0,
        "degradation_max": 0.0,
        "both_modalities": 1.0,
        "seconds_per_request": 2.0,
        "orders": {"AB": {"fq": [[0.9, 0.9], [None, 0.9]]}},
    }

    def verdicts(self, methods: dict[str, dict[str, object]]) -> dict[str, str]:
        return {row[0]: row[3] for row in target_rows({"methods": methods}, {"course": "demo"})}

    def test_ours(self) -> None:
        found = self.verdicts(
            {"lethe": dict(self.METHOD), "lumoe_released": {**self.METHOD, "seconds_per_request": 30.0}}
        )
        assert set(found.values()) == {"pass"}

    def test_cpu_seconds_count_where_both_are_known(self) -> None:
        ours = {**self.METHOD, "cpu_seconds_per_request": 1.0}
        assert times_faster(ours, {"seconds_per_request": 20.0, "cpu_seconds_per_request": 15.0}) == 15
        assert times_faster(ours, {"seconds_per_request": 20.0, "cpu_seconds_per_request": None}) == 10

    def test_what_falls_short_says_so(self) -> None:
        found = self.verdicts({"lethe": {**self.METHOD, "degradation_max": 0.01, "fq_final": 0.98}})
        assert list(found.values()).count("FALLS SHORT") == 2

    def test_a_baseline_that_does_not_collapse_is_named(self) -> None:
        falling = {"AB": {"fq": [[0.9, 0.3], [None, 0.9]]}}
        kept = {**self.METHOD, "mu_rel_final": 0.9}
        found = self.verdicts({"ga": self.METHOD, "po": kept, "npo": {**kept, "orders": falling}})
        assert found["ga: does it collapse?"] == "yes: utility"
        assert found["npo: does it collapse?"] == "yes: forget quality"
        assert found["po: does it collapse?"] == "no, unlike the paper"


class TestCommandLine:
    def test_unknown_methods_are_refused_with_the_list(self) -> None:
        with pytest.raises(SystemExit, match="no method gaa; there are ga, graddiff"):
            chosen_methods("gaa,po")

    def test_methods_come_in_the_benchmark_s_order(self) -> None:
        assert chosen_methods("lethe,ga") == ("ga", "lethe")
        assert chosen_methods(None) == METHODS

    def test_a_model_of_one_s_own_needs_data(self) -> None:
        with pytest.raises(SystemExit, match="--model needs --data"):
            main(["--model", "llava-hf/llava-1.5-7b-hf"])

    def test_an_unknown_order_is_refused(self) -> None:
        with pytest.raises(SystemExit, match="no order DCBA; there are ABCD, CABD"):
            main(["--orders", "DCBA"])


def test_columns_of_the_long_sequence() -> None:
    measured = [k for k in range(1, 128) if is_column(CellKey("entities", "ABCD", "ga", k), 127)]
    assert measured == [1, 2, 4, 8, 16, 32, 64, 96, 127]
    assert is_column(CellKey("tasks", "ABCD", "ga", 3), 4)


def test_an_unknown_method_is_refused(setting: Setting) -> None:
    with pytest.raises(ValueError, match="no method 'x'"):
        make("x", setting)


def test_the_meter_sees_what_was_held_meanwhile() -> None:
    with metered() as meter:
        held = bytearray(200_000_000)
        held[::4096] = b"x" * len(held[::4096])
        del held
    assert meter.peak_mb - meter.before_mb > 150


def test_lessons_go_round_the_owner_s_uploads() -> None:
    shown = about(world().forgettable[0], "fit", "forget", 8, 0, 0)
    uploads = {draw(world().forgettable[0], view).tobytes() for view in range(6)}
    assert {q.conversation[-1].images[0].tobytes() for q in shown} == uploads
