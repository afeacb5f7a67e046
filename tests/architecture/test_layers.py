from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from tuner.architecture.layers import PIECE, TWINS, BatchNorm2d, elu_, tanh_


def one_training_step(layer: nn.BatchNorm2d, images_NCHW: torch.Tensor) -> list[torch.Tensor]:
    """Output, gradients and buffers after one step, and the output in evaluation after it."""
    images_NCHW = images_NCHW.clone().requires_grad_()
    out_NCHW = layer.train()(images_NCHW)
    out_NCHW.square().sum().backward()
    assert images_NCHW.grad is not None
    gradients = [parameter.grad.clone() for parameter in layer.parameters() if parameter.grad is not None]
    return [out_NCHW.detach(), images_NCHW.grad, *gradients, *layer.buffers(), layer.eval()(images_NCHW).detach()]


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (1, 3, 1, 2), (1, 1, 2, 1), (5, 4, 3, 7)])
def test_batch_norm_is_torchs_wherever_torch_can_train(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    images_NCHW = torch.randn(shape)
    ours, theirs = (
        one_training_step(batch_norm(shape[1]), images_NCHW) for batch_norm in (BatchNorm2d, nn.BatchNorm2d)
    )
    assert len(ours) == len(theirs) == 8
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_batch_norm_trains_on_one_value_a_channel_where_torch_raises() -> None:
    image_NCHW = torch.tensor([1.0, -2.0]).view(1, 2, 1, 1)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        nn.BatchNorm2d(2).train()(image_NCHW)
    layer = BatchNorm2d(2).train()
    assert layer.running_mean is not None
    assert layer.running_var is not None
    layer.running_mean.copy_(torch.tensor([0.5, 1.0]))
    layer.running_var.copy_(torch.tensor([4.0, 9.0]))
    before = [buffer.clone() for buffer in layer.buffers()]
    out_NCHW = layer(image_NCHW)
    # (1-0.5)/2 and (-2-1)/3, as in evaluation.
    assert torch.allclose(out_NCHW.flatten(), torch.tensor([0.25, -1.0]), atol=1e-5)
    assert torch.equal(out_NCHW, layer.eval()(image_NCHW))
    assert all(torch.equal(one, other) for one, other in zip(before, layer.buffers(), strict=True))
    out_NCHW.sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize("name", TWINS)
def test_each_twin_holds_what_torchs_layer_of_its_name_holds(name: str) -> None:
    ours, theirs = TWINS[name](4), getattr(nn, name)(4)
    assert issubclass(TWINS[name], getattr(nn, name))
    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: value.shape for key, value in theirs.state_dict().items()
    }


@pytest.mark.parametrize(("ours", "theirs"), [(tanh_, torch.tanh), (elu_, functional.elu)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_own_activations_are_torchs_in_values_and_layout_however_many_pieces_they_take(
    ours: Callable[[torch.Tensor], torch.Tensor], theirs: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    images_NCHW = (4 * torch.randn(3, 5, 150, 151)).to(dtype=dtype, memory_format=torch.channels_last)
    assert images_NCHW.numel() > 2 * PIECE
    for x in (images_NCHW, images_NCHW[:1, :, :4, :4].contiguous()):
        values = x.clone()
        out = ours(values)
        assert out is values
        tolerance = 1e-6 if dtype is torch.float32 else 1e-2
        assert torch.allclose(out, theirs(x), atol=tolerance, rtol=tolerance)
        assert (out.dtype, out.stride()) == (x.dtype, x.stride())
