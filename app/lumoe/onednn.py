"""A CPU's linear layers through oneDNN, which uses AVX-512 on every processor that has it.

torch hands float32 products to MKL, which on processors that are not its maker's stays with AVX2: half as
many multiply-adds in an instruction. The operator is the one that torch's own compiler puts in their place
(`mkldnn::_linear_pointwise`); it reads the very same weights, so that nothing is copied and nothing changed.
`ATEN_CPU_CAPABILITY=avx2` in the environment leaves every layer to torch.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

_Model = TypeVar("_Model", bound=nn.Module)
_LEAST_MULTIPLY_ADDS = 2**20
_LEAST_WEIGHTS = 2**19
"""Calls with fewer of both are quicker through MKL: finding oneDNN's kernel takes about 10 microseconds."""

_TURNED = frozenset({12, 13, 14, 15, 16, 29, 30, 31, 32})
"""With so many rows W x^T is quicker than x W^T: what oneDNN lays out anew for each call is then x, not W.
Measured 0.82 times at 16 rows, 0.87 at 32; from 17 to 28 it is slower, beyond 32 there is nothing in it."""


class OneDnnLinear(nn.Linear):
    """A linear layer that goes through oneDNN where no gradients are wanted and that is quicker."""

    def forward(self, input: Tensor) -> Tensor:
        """Return x W^T + b for x (..., in), as `nn.Linear` does but for rounding."""
        weights = self.in_features * self.out_features
        if (
            torch.is_grad_enabled()
            or (input.numel() * self.out_features < _LEAST_MULTIPLY_ADDS and weights < _LEAST_WEIGHTS)
            or not input.is_cpu
            or input.dtype != torch.float32
        ):
            return nn.functional.linear(input, self.weight, self.bias)
        rows = input.numel() // self.in_features
        if self.bias is None and rows in _TURNED:
            x = input.reshape(rows, -1).contiguous()  # or oneDNN takes its reference code, for half a second
            turned: Tensor = _operator()(self.weight, x, None, "none", [], "")
            return turned.t().contiguous().view(*input.shape[:-1], self.out_features)
        output: Tensor = _operator()(input, self.weight, self.bias, "none", [], "")
        return output


def use_onednn(model: nn.Module) -> int:
    """Have the plain float32 layers of a model on the CPU go through oneDNN; return how many do.

    None do where torch has no such operator, or where it would not be quicker. Names, parameters and hooks
    stay as they are; `leave_to_torch` is the way back.
    """
    if not _available():
        return 0
    changed = 0
    for module in model.modules():
        if type(module) is nn.Linear and _suits(module.weight):
            module.__class__ = OneDnnLinear
            changed += 1
    return changed


def leave_to_torch(model: _Model) -> _Model:
    """Undo `use_onednn`, in place; return the model."""
    for module in model.modules():
        if type(module) is OneDnnLinear:
            module.__class__ = nn.Linear  # type: ignore[assignment]  # each has its superclass's attributes
    return model


def _suits(weight: Tensor) -> bool:
    return weight.is_cpu and weight.dtype == torch.float32 and weight.is_contiguous()


@cache
def _operator() -> Any:  # Any: torch types its operators so
    return torch.ops.mkldnn._linear_pointwise.default


@cache
def _available() -> bool:
    """Whether torch has MKL (which is to be outdone), oneDNN, AVX-512, and the operator as we call it."""
    backends: Any = torch.backends
    if not (backends.mkl.is_available() and backends.mkldnn.is_available()):
        return False
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    x, weight = torch.ones(2, 3), torch.ones(4, 3)
    try:
        with torch.inference_mode():
            return bool((_operator()(x, weight, None, "none", [], "") == 3).all())
    except (AttributeError, RuntimeError, TypeError):  # it is not part of torch's public interface
        return False
