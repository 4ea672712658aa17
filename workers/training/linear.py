"""The arithmetic of one adapted linear layer, for training: y = W x + s B A x (Hu et al. 2021, LoRA).

W never changes, so nothing is computed for its gradient, and forward and backward are matrix products alone:
PEFT's own forward pass spends as long again on casting, scaling and adding. Where the processor multiplies
bfloat16 natively the products take bfloat16 operands (float32 sums inside); the adapter's weights, their
gradients and everything between the layers keep the model's type.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

from app.lumoe.onednn import OneDnnLinear

_PLAIN = (nn.Linear, OneDnnLinear)


def product_dtype(weight: Tensor) -> torch.dtype:
    """Return the type in which products with a frozen weight are taken: bfloat16 where that is quicker."""
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return weight.dtype
    native = torch.cpu.get_capabilities()
    return torch.bfloat16 if native.get("avx512_bf16") or native.get("amx_bf16") else torch.float32


class AdaptedLinear(torch.autograd.Function):
    """y = x W^T + s (x A^T) B^T for x (..., in), W (out, in) frozen, A (r, in), B (out, r)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
        """Multiply in ``weight``'s type; the result has x's."""
        kind = weight.dtype
        flat = x.reshape(-1, x.shape[-1]).to(kind)  # (n, in)
        a_, b_ = a.to(kind), (b * scale).to(kind)
        low = flat @ a_.T  # (n, r)
        y = torch.addmm(flat @ weight.T, low, b_.T)  # (n, out)
        ctx.save_for_backward(flat, low, weight, a_, b_)
        ctx.scale, ctx.shape, ctx.kinds = scale, x.shape, (a.dtype, b.dtype)
        return y.to(x.dtype).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, Tensor, Tensor, None]:
        """Return the gradients of x, A and B."""
        flat, low, weight, a, b = ctx.saved_tensors
        (y_,) = gradients
        y = y_.reshape(-1, y_.shape[-1]).to(weight.dtype)  # (n, out)
        through = y @ b  # (n, r)
        to_a, to_b = through.T @ flat, (y.T @ low) * ctx.scale
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = torch.addmm(y @ weight, through, a).to(y_.dtype).view(ctx.shape)
        return to_x, None, to_a.to(ctx.kinds[0]), to_b.to(ctx.kinds[1]), None


@contextmanager
def lean_products(model: PeftModel, adapter: str) -> Iterator[None]:
    """Within the block, the adapter's plain linear layers compute with ``AdaptedLinear``.

    Layers of another kind (quantised ones, variants of LoRA) and adapters that are switched off stay PEFT's.
    """
    changed: list[LoraLinear] = []
    try:
        for module in model.modules():
            base = module.get_base_layer() if type(module) is LoraLinear else None
            if type(module) is LoraLinear and isinstance(base, nn.Linear) and type(base) in _PLAIN:
                module.forward = _forward(module, base, adapter)  # type: ignore[method-assign]
                changed.append(module)
        yield
    finally:
        for module in changed:
            del module.forward


def _forward(layer: LoraLinear, base: nn.Linear, adapter: str) -> Any:  # Any: as torch types it
    weight = base.weight.detach().to(product_dtype(base.weight))
    bias, scale = base.bias, float(layer.scaling[adapter])
    a, b = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight

    def forward(x: Tensor) -> Tensor:
        y: Tensor = AdaptedLinear.apply(x, weight, a, b, scale)  # type: ignore[no-untyped-call]
        return y if bias is None else y + bias

    return forward
