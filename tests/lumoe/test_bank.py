from __future__ import annotations

import gc
import threading
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from app.lumoe.bank import Slot, SlotBank, _Layer
from app.lumoe.errors import ExpertCorruptError
from app.lumoe.expert import read_adapter
from app.lumoe.mllm import MLLM, target_linears
from app.lumoe.types import ask
from tests.lumoe.experts import make_adapter
from tests.lumoe.tiny import picture

PROMPTS = [ask("Who is this?", picture(i)) for i in range(4)]


@pytest.fixture
def bank(tiny: MLLM) -> SlotBank:
    return SlotBank(target_linears(tiny.network))


def tokens(mllm: MLLM) -> list[tuple[int, ...]]:
    return [g.token_ids for g in mllm.generate(PROMPTS, max_new_tokens=10)]


class TestAgainstPeft:
    def test_mixed_batch_equals_one_peft_model_per_row(
        self, tiny: MLLM, bank: SlotBank, tmp_path: Path
    ) -> None:
        base = tokens(tiny)
        folders = [make_adapter(tiny, tmp_path / str(i), seed=i, rank=4 * i) for i in (1, 2, 3)]
        slots = [bank.load(folder.name, *read_adapter(folder)) for folder in folders]
        with bank.active([slots[0], None, slots[1], slots[2]]):
            mixed = tokens(tiny)
            logits = tiny.forward(tiny.training_batch(PROMPTS, ["yes"] * 4))
        assert mixed[1] == base[1]
        for row, folder in ((0, folders[0]), (2, folders[1]), (3, folders[2])):
            wrapped = PeftModel.from_pretrained(tiny.network, str(folder))
            alone = tokens(tiny)[row]
            expected = tiny.forward(tiny.training_batch(PROMPTS, ["yes"] * 4), wrapped)[row]
            wrapped.unload()
            assert mixed[row] == alone
            assert torch.allclose(logits[row], expected, atol=1e-4)
            assert alone != base[row]
        bank.close()

    @pytest.mark.parametrize(
        "experts",
        [
            [0, 0, 0, 0, 0, 0],
            [0, None, 0, 0, None, 0],
            [1, 0, 1, 0, 0, 1],
            [None, 1, 0, None, 1, 0],
            [0, 0, 0, 0, 1, None],
            [0, 0, 0, 0, 0, 1],
        ],
        ids=["one has all", "one and base", "interleaved", "two and base", "uneven and base", "too uneven"],
    )
    @pytest.mark.parametrize("kept", [True, False])
    def test_rows_that_share_experts_get_what_each_gets_alone(
        self,
        tiny: MLLM,
        bank: SlotBank,
        tmp_path: Path,
        experts: list[int | None],
        kept: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if not kept:
            monkeypatch.setattr("app.lumoe.bank._KEPT_GATHERED_BYTES", 0)
        folders = [make_adapter(tiny, tmp_path / str(i), seed=i, rank=(4, 16)[i]) for i in (0, 1)]
        loaded = [bank.load(folder.name, *read_adapter(folder)) for folder in folders]
        slots = [None if i is None else loaded[i] for i in experts]
        asked = [
            ask(f"Who is {word}?") for word in ("this", "he", "she, and where", "it", "that one", "there")
        ]
        answers = ["yes", "no", "not at all", "yes", "no", "yes"]
        with bank.active(slots):
            together = tiny.generate(asked, max_new_tokens=8)
            logits = tiny.forward(tiny.training_batch(asked, answers))
        for i, slot in enumerate(slots):
            with bank.active([slot]):
                alone = tiny.generate(asked[i : i + 1], max_new_tokens=8)[0]
            assert together[i].token_ids == alone.token_ids
            with bank.active([slot if j == i else None for j in range(6)]):  # nobody to share with
                plain = tiny.forward(tiny.training_batch(asked, answers))
            assert torch.allclose(logits[i], plain[i], atol=1e-4)

    def test_gathers_into_the_same_memory_until_an_expert_is_gone(
        self, tiny: MLLM, bank: SlotBank, tmp_path: Path
    ) -> None:
        adapter = read_adapter(make_adapter(tiny, tmp_path, seed=1))
        first, second = bank.load("a@1", *adapter), bank.load("b@1", *adapter)
        pieces = []
        for _ in range(2):
            with bank.active([first, second, None, None]):
                tokens(tiny)
            assert bank._spare is not None
            pieces.append(bank._spare.data_ptr())
        assert pieces[0] == pieces[1]
        del second
        gc.collect()
        bank.reserve(0)
        assert bank._spare is None

    def test_memory_of_an_answer_serves_a_pass_that_is_no_answer(
        self, tiny: MLLM, bank: SlotBank, tmp_path: Path
    ) -> None:
        slot = bank.load("one", *read_adapter(make_adapter(tiny, tmp_path / "one", seed=1)))
        batch = tiny.training_batch(PROMPTS[:1], ["yes"])
        with torch.inference_mode(), bank.active([slot]):
            answered = tiny.forward(batch).clone()
        with torch.no_grad(), bank.active([slot]):
            assert torch.allclose(tiny.forward(batch), answered, atol=1e-5)
        bank.close()

    def test_what_takes_too_much_memory_is_not_kept(
        self, tiny: MLLM, bank: SlotBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folders = [make_adapter(tiny, tmp_path / str(i), seed=i, rank=4 * i) for i in (1, 2)]
        slots = [None, *(bank.load(folder.name, *read_adapter(folder)) for folder in folders), None]
        with bank.active(slots):
            expected = tokens(tiny)
        monkeypatch.setattr("app.lumoe.bank._KEPT_GATHERED_BYTES", 0)
        with bank.active(slots):
            assert tokens(tiny) == expected

    def test_no_expert_leaves_the_model_alone(self, tiny: MLLM, bank: SlotBank) -> None:
        batch = tiny.training_batch(PROMPTS, ["yes"] * 4)
        before = tiny.forward(batch)
        with bank.active([None] * 4):
            assert torch.equal(tiny.forward(batch), before)
        bank.close()
        assert torch.equal(tiny.forward(batch), before)


class TestLoad:
    def test_same_key_same_slot(self, tiny: MLLM, bank: SlotBank, tmp_path: Path) -> None:
        adapter = read_adapter(make_adapter(tiny, tmp_path, seed=1))
        held = bank.load("e@1", *adapter)
        assert bank.load("e@1", *adapter) is held
        assert len(bank) == 1

    def test_slots_are_freed_with_their_last_handle(self, tiny: MLLM, bank: SlotBank, tmp_path: Path) -> None:
        adapter = read_adapter(make_adapter(tiny, tmp_path, seed=1))
        first = bank.load("a@1", *adapter)
        second = bank.load("b@1", *adapter)
        freed = first.index
        assert len(bank) == 2
        del first
        gc.collect()
        assert len(bank) == 1
        with bank.active([second]):
            pass
        assert bool((bank._stacks[next(iter(bank._stacks))].a[freed] == 0).all())
        assert second.index != freed
        assert bank.load("c@1", *adapter).index == freed

    def test_pages_the_longest_unused_out_and_in_again(self, tiny: MLLM, tmp_path: Path) -> None:
        bank = SlotBank(target_linears(tiny.network), max_slots=2)
        folders = [make_adapter(tiny, tmp_path / str(i), seed=i, rank=(4, 8, 16)[i]) for i in range(3)]
        slots = [bank.load(str(i), *read_adapter(folder)) for i, folder in enumerate(folders)]
        assert (bank.resident, len(bank)) == (2, 3)
        expected = []
        for slot in slots:
            with bank.active([slot] * 4):
                expected.append(tokens(tiny))
        assert [slot.index is None for slot in slots] == [True, False, False]
        assert slots[1].waiting is None
        with bank.active([slots[1], slots[0], None, slots[0]]):
            mixed = tokens(tiny)
        assert mixed == [expected[1][0], expected[0][1], mixed[2], expected[0][3]]
        assert slots[2].index is None
        assert bank.paged_in == 2
        with pytest.raises(ValueError, match="3 experts at once, but there are 2 slots"), bank.active(slots):
            pass
        del slot
        slots.clear()
        gc.collect()
        assert (bank.resident, len(bank)) == (0, 0)
        bank.close()

    def test_a_place_in_use_is_not_taken(self, tiny: MLLM, tmp_path: Path) -> None:
        bank = SlotBank(target_linears(tiny.network), max_slots=1)
        adapter = read_adapter(make_adapter(tiny, tmp_path, seed=1))
        first, second = bank.load("a", *adapter), bank.load("b", *adapter)
        held = bank.activation([first])
        assert bank.try_activation([second]) is None
        waiting = threading.Thread(target=lambda: bank.activation([second, None]).close())
        waiting.start()
        waiting.join(0.05)
        assert waiting.is_alive()
        held.close()
        waiting.join(20)
        assert not waiting.is_alive()
        assert (first.index, second.index) == (None, 1)
        bank.close()

    def test_the_limit_is_set_before_anything_is_loaded(
        self, tiny: MLLM, bank: SlotBank, tmp_path: Path
    ) -> None:
        bank.limit(3)
        assert bank.max_slots == 3
        slot = bank.load("a", *read_adapter(make_adapter(tiny, tmp_path, seed=1)))
        with pytest.raises(RuntimeError, match="holds experts"):
            bank.limit(4)
        assert slot.index == 1

    def test_grows_and_keeps_what_it_holds(self, tiny: MLLM, bank: SlotBank, tmp_path: Path) -> None:
        small = read_adapter(make_adapter(tiny, tmp_path / "s", seed=1))
        first = bank.load("first", *small)
        with bank.active([first] * 4):
            before = tokens(tiny)
        held = [bank.load(f"e{i}", *small) for i in range(20)]
        held.append(bank.load("wide", *read_adapter(make_adapter(tiny, tmp_path / "w", seed=2, rank=16))))
        assert len({slot.index for slot in held} | {first.index}) == 22
        with bank.active([first] * 4):
            assert tokens(tiny) == before

    def test_places_are_made_before_they_are_needed(
        self, tiny: MLLM, bank: SlotBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        adapter = read_adapter(make_adapter(tiny, tmp_path, seed=1))
        first = bank.load("first", *adapter)
        with bank.active([first] * 4):
            before = tokens(tiny)
        assert not bank.short
        held = [bank.load(f"e{i}", *adapter) for i in range(4)]
        assert bank.short
        bank.extend()
        assert not bank.short
        monkeypatch.setattr(_Layer, "grown", None)  # nothing is copied when they are taken
        held += [bank.load(f"f{i}", *adapter) for i in range(8)]
        assert len({slot.index for slot in held} | {first.index}) == 13
        with bank.active([first] * 4):
            assert tokens(tiny) == before

    def test_places_are_made_while_others_take_them(
        self, tiny: MLLM, bank: SlotBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        small = read_adapter(make_adapter(tiny, tmp_path / "s", seed=1))
        wide = read_adapter(make_adapter(tiny, tmp_path / "w", seed=2, rank=16))
        coming = iter([small] * 3 + [wide] + [small] * 20)
        held: list[Slot] = []

        def meanwhile(_: float) -> None:
            held.append(bank.load(f"e{len(held)}", *next(coming)))

        monkeypatch.setattr("app.lumoe.bank.time.sleep", meanwhile)
        bank.extend()
        assert len(held) == len(bank._modules)
        assert len({slot.index for slot in held}) == len(held)
        assert {(layer.a.shape[0], layer.a.shape[2]) for layer in bank._stacks.values()} == {
            (bank._capacity, bank._rank)
        }
        assert sorted([*bank._free, *(slot.index or 0 for slot in held)]) == list(range(1, bank._capacity))

    def test_no_more_places_than_there_may_be(self, tiny: MLLM, bank: SlotBank, tmp_path: Path) -> None:
        bank.limit(3)
        adapter = read_adapter(make_adapter(tiny, tmp_path, seed=1))
        held = [bank.load(f"e{i}", *adapter) for i in range(3)]
        assert len(held) == bank.max_slots
        assert not bank.short

    def test_foreign_layer(self, bank: SlotBank) -> None:
        with pytest.raises(ExpertCorruptError, match="no layer"):
            bank.load("x", {"elsewhere": (torch.zeros(2, 4), torch.zeros(4, 2))}, 1.0)

    def test_wrong_shape(self, bank: SlotBank) -> None:
        name = next(iter(bank._modules))
        with pytest.raises(ExpertCorruptError, match="shapes"):
            bank.load("x", {name: (torch.zeros(2, 5), torch.zeros(4, 2))}, 1.0)


class TestHooks:
    """They are there only while some batch has an expert."""

    @pytest.fixture
    def slot(self, tiny: MLLM, bank: SlotBank, tmp_path: Path) -> Slot:
        return bank.load("a", *read_adapter(make_adapter(tiny, tmp_path, seed=1)))

    def hooked(self, bank: SlotBank) -> set[bool]:
        return {bool(module._forward_hooks) for module in bank._modules.values()}

    def test_none_for_the_base_model(self, bank: SlotBank, slot: Slot) -> None:
        assert self.hooked(bank) == {False}
        with bank.active([None]):
            assert self.hooked(bank) == {False}
        held = bank.activation([None, None])
        assert self.hooked(bank) == {False}
        held.close()
        assert slot.pins == 0

    def test_until_the_last_batch_with_an_expert_ends(self, bank: SlotBank, slot: Slot) -> None:
        first = bank.activation([slot])
        with bank.active([slot, None]):
            assert self.hooked(bank) == {True}
        assert self.hooked(bank) == {True}
        first.close()
        first.close()
        assert self.hooked(bank) == {False}
        with bank.active([slot]):
            assert self.hooked(bank) == {True}
        assert self.hooked(bank) == {False}

    def test_another_threads_batch_is_left_alone(self, tiny: MLLM, bank: SlotBank, slot: Slot) -> None:
        base = tokens(tiny)
        found: list[list[tuple[int, ...]]] = []
        with bank.active([slot] * 4):
            beside = threading.Thread(target=lambda: found.append(tokens(tiny)))
            beside.start()
            mine = tokens(tiny)
            beside.join(20)
        assert found == [base]
        assert mine != base

    def test_batches_that_come_and_go_in_many_threads(self, tiny: MLLM, bank: SlotBank, slot: Slot) -> None:
        base = tokens(tiny)
        with bank.active([slot] * 4):
            adapted = tokens(tiny)
        found: list[bool] = []

        def go(held: Slot | None) -> None:
            for _ in range(4):
                with bank.active([held] * 4):
                    found.append(tokens(tiny) == (base if held is None else adapted))

        threads = [threading.Thread(target=go, args=(held,)) for held in (slot, None, slot, None)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert found == [True] * 16
        assert self.hooked(bank) == {False}
