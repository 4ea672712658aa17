from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.lumoe.bank import Slot, SlotBank
from app.lumoe.decoding import Decoding, Writing
from app.lumoe.errors import ConversationTooLongError
from app.lumoe.expert import read_adapter
from app.lumoe.mllm import MLLM, target_linears
from app.lumoe.types import ask, then
from tests.lumoe.experts import make_adapter
from tests.lumoe.tiny import picture

MIXED = [
    ask("Who is this?", picture(1)),
    ask("What is three plus four?"),
    then(ask("Who is this?", picture(2)), "I do not know.", "And where was she born?"),
    ask("Are these the same?", picture(1), picture(3)),
    ask("?"),
    ask("Tell me a long story. " * 8),
]


@pytest.fixture
def bank(tiny: MLLM) -> Iterator[SlotBank]:
    bank = SlotBank(target_linears(tiny.network))
    yield bank
    bank.close()


@pytest.fixture
def slots(tiny: MLLM, bank: SlotBank, tmp_path: Path) -> list[Slot | None]:
    adapters = [read_adapter(make_adapter(tiny, tmp_path / str(i), seed=i, rank=4)) for i in range(3)]
    return [None, *(bank.load(f"e{i}", *adapter) for i, adapter in enumerate(adapters))]


def finished(decoding: Decoding) -> None:
    while decoding.rows:
        decoding.step()


@pytest.mark.parametrize("seed", range(4))
def test_rows_that_come_and_go_get_what_they_get_alone(
    tiny: MLLM, bank: SlotBank, slots: list[Slot | None], seed: int
) -> None:
    drawn = random.Random(seed)
    asked = [(drawn.choice(MIXED), drawn.choice(slots), drawn.randint(1, 90)) for _ in range(14)]
    expected = []
    for conversation, slot, limit in asked:
        with bank.active([slot]):
            expected.append(tiny.generate([conversation], max_new_tokens=limit)[0])
    decoding, rows = Decoding(tiny, bank), []
    for conversation, slot, limit in asked:
        rows.append(Writing(tiny, conversation, slot, limit=limit))
        if drawn.random() < 0.5:
            assert decoding.join([row for row in rows if row.reason is None and not row.tokens]) == []
        for _ in range(drawn.randint(0, 12)):
            decoding.step()
    decoding.join([row for row in rows if row.reason is None and not row.tokens])
    finished(decoding)
    assert [row.generation(tiny) for row in rows] == expected
    assert {slot.pins for slot in slots if slot is not None} == {0}


def test_a_reader_ends_its_row_alone(tiny: MLLM, bank: SlotBank) -> None:
    seen: list[int] = []

    def three(token: int) -> bool:
        seen.append(token)
        return len(seen) < 3

    decoding = Decoding(tiny, bank)
    rows = [
        Writing(tiny, MIXED[0], None, limit=20, push=three),
        Writing(tiny, MIXED[1], None, limit=20, push=lambda _: 1 / 0 > 0),
        Writing(tiny, MIXED[2], None, limit=6, lookahead=4),
    ]
    decoding.join(rows)
    finished(decoding)
    assert (rows[0].reason, rows[0].tokens) == ("cancelled", seen)
    assert isinstance(rows[1].error, ZeroDivisionError)
    assert rows[2].tokens == list(tiny.generate([MIXED[2]], max_new_tokens=10)[0].token_ids)


def test_cancelled_beside_the_batch(tiny: MLLM, bank: SlotBank) -> None:
    decoding = Decoding(tiny, bank)
    row = Writing(tiny, MIXED[0], None, limit=200)
    decoding.join([row])
    row.cancel()
    decoding.step()
    assert (decoding.rows, row.generation(tiny).finish_reason, len(row.tokens)) == ([], "cancelled", 1)


def test_no_room_for_the_answer(tiny: MLLM) -> None:
    with pytest.raises(ConversationTooLongError):
        Writing(tiny, MIXED[0], None, limit=512)
    row = Writing(tiny, MIXED[0], None, limit=512 - tiny.count_tokens(MIXED[0]), lookahead=16)
    assert row.reason is None


def test_a_models_repetition_penalty(tiny: MLLM, bank: SlotBank, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tiny.generate([MIXED[1]], max_new_tokens=30)[0]
    monkeypatch.setattr(tiny.network.generation_config, "repetition_penalty", 1.7)
    expected = [tiny.generate([c], max_new_tokens=30)[0] for c in MIXED[:3]]
    assert expected[1] != plain
    decoding = Decoding(tiny, bank)
    rows = [Writing(tiny, c, None, limit=30) for c in MIXED[:3]]
    decoding.join(rows[:2])
    decoding.step()
    decoding.join(rows[2:])
    finished(decoding)
    assert [row.generation(tiny) for row in rows] == expected


class TestPossible:
    def test_a_plain_model(self, tiny: MLLM) -> None:
        assert Decoding.possible(tiny)

    @pytest.mark.parametrize(
        ("setting", "value"), [("no_repeat_ngram_size", 3), ("suppress_tokens", [5]), ("num_beams", 4)]
    )
    def test_not_with_settings_that_only_generate_knows(
        self, tiny: MLLM, setting: str, value: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tiny.network.generation_config, setting, value)
        assert not Decoding.possible(tiny)
