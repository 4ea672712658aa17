"""The lean linear layer computes what PEFT's does, forward and backward, and leaves nothing behind."""

from __future__ import annotations

import re
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from app.lumoe.mllm import MLLM
from app.lumoe.types import ask
from tests.lumoe.tiny import picture
from workers.training import linear
from workers.training.linear import AdaptedLinear, lean_products, product_dtype
from workers.training.recipe import Recipe
from workers.training.train import ADAPTER, adapter, put_weights, read_weights


def case(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return x (2, 5, 6), W (7, 6), A (3, 6), B (7, 3) in double precision."""
    generator = torch.Generator().manual_seed(seed)
    x, a, b = (
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 5, 6), (3, 6), (7, 3))
    )
    return x, torch.randn(7, 6, generator=generator, dtype=torch.float64), a, b


def apply(x: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Return the layer's output."""
    y: Tensor = AdaptedLinear.apply(x, weight, a, b, scale)  # type: ignore[no-untyped-call]
    return y


class TestAdaptedLinear:
    def test_is_the_formula(self) -> None:
        x, weight, a, b = case()
        y = apply(x, weight, a, b, 2.0)
        assert torch.allclose(y, x @ weight.T + 2.0 * (x @ a.T) @ b.T)

    def test_gradients_are_those_of_finite_differences(self) -> None:
        x, weight, a, b = case(1)
        assert torch.autograd.gradcheck(lambda x, a, b: apply(x, weight, a, b, 2.0), (x, a, b))

    def test_no_gradient_for_an_input_that_needs_none(self) -> None:
        x, weight, a, b = case(2)
        fixed = x.detach()
        torch.autograd.backward(apply(fixed, weight, a, b, 2.0).sum())
        assert fixed.grad is None
        assert a.grad is not None

    def test_bfloat16_products_are_near_and_the_result_keeps_the_inputs_type(self) -> None:
        x, weight, a, b = (v.detach().float() for v in case(3))
        exact = apply(x, weight, a, b, 2.0)
        rough = apply(x, weight.bfloat16(), a, b, 2.0)
        assert rough.dtype == torch.float32
        assert float((rough - exact).norm() / exact.norm()) < 2e-2

    def test_gradients_have_the_adapters_own_type(self) -> None:
        x, weight, a, b = (v.detach().bfloat16() for v in case(5))
        a, b = a.float().requires_grad_(), b.float().requires_grad_()
        y = apply(x.requires_grad_(), weight, a, b, 2.0)
        torch.autograd.backward(y.float().sum())
        assert (y.dtype, x.grad.dtype if x.grad is not None else None) == (torch.bfloat16, torch.bfloat16)
        for p in (a, b):
            assert p.grad is not None
            assert p.grad.dtype == torch.float32


class TestProductDtype:
    @pytest.mark.parametrize("native", [True, False])
    def test_bfloat16_only_where_the_processor_has_it(
        self, monkeypatch: pytest.MonkeyPatch, native: bool
    ) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native})
        assert product_dtype(torch.zeros(1)) == (torch.bfloat16 if native else torch.float32)

    def test_another_type_is_kept(self) -> None:
        assert product_dtype(torch.zeros(1, dtype=torch.float16)) == torch.float16


def gradients(mllm: MLLM, *, lean: bool) -> dict[str, Tensor]:
    """Return the adapter's gradients of one batch, from weights that are not PEFT's start."""
    batch = mllm.training_batch([ask("a", picture(1)), ask("a longer one")], ["x", "why"])
    with adapter(mllm, Recipe()) as model, lean_products(model, ADAPTER) if lean else nullcontext():
        generator = torch.Generator().manual_seed(4)
        drawn = {n: torch.randn(w.shape, generator=generator) / 8 for n, w in read_weights(model).items()}
        put_weights(model, drawn)
        with torch.enable_grad():
            torch.autograd.backward(mllm.forward(batch, model)[batch["labels"] != -100].square().mean())
        return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


class TestLeanProducts:
    def test_same_gradients_as_peft(self, tiny: MLLM, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(linear, "product_dtype", lambda weight: weight.dtype)
        ours, theirs = gradients(tiny, lean=True), gradients(tiny, lean=False)
        assert ours.keys() == theirs.keys() != set()
        for name, value in theirs.items():
            assert torch.allclose(ours[name], value, rtol=1e-3, atol=1e-7), name

    def test_peft_computes_again_after_the_block(self, tiny: MLLM) -> None:
        with adapter(tiny, Recipe()) as model:
            with lean_products(model, ADAPTER):
                changed = [m for m in model.modules() if "forward" in vars(m)]
            assert len(changed) == len(tiny_targets(tiny))
            assert not any("forward" in vars(m) for m in model.modules())


def tiny_targets(mllm: MLLM) -> list[str]:
    """Return the names of the layers that an adapter is put into."""
    return [name for name, _ in mllm.network.named_modules() if re.fullmatch(mllm.lora_targets, name)]
