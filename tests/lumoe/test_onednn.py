from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from app.lumoe import onednn
from app.lumoe.mllm import MLLM, target_linears
from app.lumoe.onednn import OneDnnLinear, leave_to_torch, use_onednn
from app.lumoe.types import ask
from tests.lumoe.tiny import picture

available = pytest.mark.skipif(
    not onednn._available(), reason="a processor without AVX-512, or a torch without oneDNN"
)


def a_layer(width: int = 800, out: int = 900, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(width, out, bias=bias).requires_grad_(False)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """What oneDNN is asked for: the inputs' shapes."""
    operator, seen = onednn._operator(), list[tuple[int, ...]]()

    def counted(x: Tensor, *more: object) -> Tensor:
        seen.append(tuple(x.shape))
        found: Tensor = operator(x, *more)
        return found

    monkeypatch.setattr(onednn, "_operator", lambda: counted)
    return seen


@available
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "shape", [(800,), (1, 800), (3, 5, 800), (16, 800), (30, 1, 800), (0, 800), (70, 1, 800)]
)
def test_the_product_is_torch_s_but_for_rounding(
    shape: tuple[int, ...], bias: bool, calls: list[tuple[int, ...]]
) -> None:
    layer = a_layer(bias=bias)
    assert use_onednn(layer) == 1
    x = torch.randn(shape)
    with torch.inference_mode():
        y = layer(x)
    torch.testing.assert_close(y, nn.functional.linear(x, layer.weight, layer.bias), atol=1e-5, rtol=1e-5)
    assert y.shape == (*shape[:-1], 900)
    assert len(calls) == 1


@available
def test_inputs_of_any_layout(calls: list[tuple[int, ...]]) -> None:
    layer = a_layer()
    use_onednn(layer)
    x = torch.randn(800, 6).T
    spread = torch.randn(4, 9, 1600)[:, ::3, 800:]
    with torch.inference_mode():
        for each in (x, spread):
            torch.testing.assert_close(
                layer(each), nn.functional.linear(each, layer.weight, layer.bias), atol=1e-5, rtol=1e-5
            )
    assert len(calls) == 2


@available
@pytest.mark.parametrize("rows", [6, 16, 32])
def test_the_last_of_several_positions_lies_in_one_piece_where_it_must(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second matrix that does not takes oneDNN half a second."""
    layer, operator, seconds = a_layer(bias=False), onednn._operator(), list[Tensor]()
    use_onednn(layer)

    def seen(x: Tensor, weight: Tensor, *more: object) -> Tensor:
        seconds.append(weight)
        found: Tensor = operator(x, weight, *more)
        return found

    monkeypatch.setattr(onednn, "_operator", lambda: seen)
    x = torch.randn(rows, 3, 800)[:, -1:]
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight), atol=1e-5, rtol=1e-5)
    assert [second.is_contiguous() for second in seconds] == [True]


@available
def test_weights_that_do_not_lie_in_one_piece_are_left_to_torch() -> None:
    layer = a_layer()
    layer.weight = nn.Parameter(torch.randn(800, 900).T, requires_grad=False)
    assert use_onednn(layer) == 0


@available
def test_where_it_is_slower_or_impossible_torch_multiplies(calls: list[tuple[int, ...]]) -> None:
    small, large = a_layer(64, 64), a_layer()
    assert use_onednn(nn.Sequential(small, large)) == 2
    with torch.inference_mode():
        small(torch.randn(8, 64))
    x = torch.randn(8, 800, requires_grad=True)
    y = large(x)
    y.sum().backward()
    assert x.grad is not None
    large.to(torch.bfloat16)
    with torch.inference_mode():
        large(torch.randn(8, 800).to(torch.bfloat16))
    assert calls == []
    with torch.inference_mode():
        small(torch.randn(300, 64))
    assert calls == [(300, 64)]


@available
@pytest.mark.parametrize(
    ("rows", "first"), [(16, (900, 800)), (17, (17, 800)), (32, (900, 800)), (48, (48, 800))]
)
def test_the_smaller_matrix_is_laid_out_anew(
    rows: int, first: tuple[int, ...], calls: list[tuple[int, ...]]
) -> None:
    layer = a_layer(bias=False)
    use_onednn(layer)
    with torch.inference_mode():
        layer(torch.randn(rows, 800))
    assert calls == [first]


@available
def test_names_parameters_and_hooks_stay_and_there_is_a_way_back() -> None:
    model = nn.Sequential(a_layer(), nn.ReLU(), a_layer(900, 800))
    names, seen = [name for name, _ in model.named_modules()], []
    weights = {name: (p.data_ptr(), p.clone()) for name, p in model.named_parameters()}
    model[0].register_forward_hook(lambda *_: seen.append(1))
    assert use_onednn(model) == 2
    assert use_onednn(model) == 0
    assert isinstance(model[0], nn.Linear)
    twin, again = copy.deepcopy(model), pickle.loads(pickle.dumps(model[2]))
    next(twin.parameters()).zero_()
    assert type(again) is OneDnnLinear
    with torch.inference_mode():
        model(torch.randn(2, 800))
    assert seen == [1]
    assert leave_to_torch(model) is model
    assert [type(m) for m in model] == [nn.Linear, nn.ReLU, nn.Linear]
    assert [name for name, _ in model.named_modules()] == names
    for name, p in model.named_parameters():
        assert p.data_ptr() == weights[name][0]
        assert torch.equal(p, weights[name][1])


@available
def test_layers_of_another_kind_or_type_are_left_alone() -> None:
    class Own(nn.Linear):
        pass

    model = nn.Sequential(Own(800, 900), a_layer().to(torch.bfloat16), nn.Embedding(4, 4))
    assert use_onednn(model) == 0
    assert type(model[0]) is Own


@pytest.mark.parametrize("missing", ["capability", "operator"])
def test_without_what_it_needs_nothing_is_changed(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    onednn._available.cache_clear()
    if missing == "capability":
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    else:

        def gone() -> object:
            raise AttributeError("no such operator")

        monkeypatch.setattr(onednn, "_operator", gone)
    try:
        layer = a_layer()
        assert use_onednn(layer) == 0
        assert type(layer) is nn.Linear
    finally:
        onednn._available.cache_clear()


@available
def test_a_loaded_model_writes_what_transformers_writes_and_is_otherwise_as_loaded(demo: MLLM) -> None:
    assert all(type(layer) is OneDnnLinear for layer in target_linears(demo.network).values())
    asked = [ask("Who is this?", picture(1)), ask("What is three plus four?"), ask("Tell me about the moon.")]
    ours = demo.generate(asked, max_new_tokens=24)
    leave_to_torch(demo.network)
    try:
        assert demo.generate(asked, max_new_tokens=24) == ours
    finally:
        use_onednn(demo.network)
