from __future__ import annotations

import pytest
import torch

from app.lumoe.mllm import MLLM
from app.lumoe.sampling import GREEDY, Draw, Drawing, Sampling
from app.lumoe.types import ask

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0])


class TestDraw:
    def test_zero_is_greedy(self) -> None:
        assert {Draw(Sampling(0.0, seed=i)).token(LOGITS) for i in range(20)} == {0}

    def test_frequencies_are_those_of_the_softmax(self) -> None:
        draw, n = Draw(Sampling(2.0, seed=1)), 20_000
        counts = torch.bincount(torch.tensor([draw.token(LOGITS) for _ in range(n)]), minlength=4) / n
        expected = torch.softmax(LOGITS / 2.0, -1)
        assert torch.allclose(counts, expected, atol=4 * (0.25 / n) ** 0.5)

    def test_top_p_keeps_the_likeliest_that_reach_it(self) -> None:
        chances = torch.softmax(LOGITS, -1)  # .64, .24, .09, .03
        for top_p, kept in ((0.5, {0}), (float(chances[0]) + 0.01, {0, 1}), (0.95, {0, 1, 2})):
            draw = Draw(Sampling(1.0, top_p, seed=3))
            assert {draw.token(LOGITS) for _ in range(500)} == kept

    def test_a_seed_repeats(self) -> None:
        first, second, other = (Draw(Sampling(5.0, seed=seed)) for seed in (4, 4, -4))
        drawn = [[draw.token(LOGITS) for _ in range(40)] for draw in (first, second, other)]
        assert drawn[0] == drawn[1] != drawn[2]

    def test_without_a_seed_others_each_time(self) -> None:
        drawn = {
            tuple(draw.token(LOGITS) for _ in range(40))
            for draw in (Draw(Sampling(5.0)), Draw(Sampling(5.0)))
        }
        assert len(drawn) == 2

    def test_seeded_keeps_what_it_draws(self) -> None:
        sampling = Sampling(5.0).seeded()
        assert sampling.seeded() is sampling
        assert GREEDY.seeded() is GREEDY


class TestDrawing:
    def test_a_drawn_row_leaves_the_others_as_they_were(self) -> None:
        scores = torch.stack([LOGITS, LOGITS])
        changed = Drawing([GREEDY, Sampling(1.0, seed=1)])(torch.zeros(2, 1, dtype=torch.long), scores)
        assert torch.equal(changed[0], LOGITS)
        assert int(torch.isfinite(changed[1]).sum()) == 1

    def test_in_a_batch_of_generate(self, tiny: MLLM) -> None:
        asked, drawn = [ask("Tell me everything.")] * 3, Sampling(1.5, seed=5)
        greedy = tiny.generate(asked[:1], max_new_tokens=12)[0].token_ids
        rows = [
            g.token_ids for g in tiny.generate(asked, max_new_tokens=12, samplings=[drawn, GREEDY, drawn])
        ]
        assert rows[1] == greedy
        assert rows[0] == rows[2] != greedy


@pytest.mark.parametrize("sampling", [Sampling(0.0), Sampling(1.0, 0.0)])
def test_greedy(sampling: Sampling) -> None:
    assert sampling.greedy
