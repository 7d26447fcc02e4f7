# Copyright (c) mmscale contributors.
"""A rotation-equivariant version of the three-layer network of the MNIST-Scale literature."""

from collections.abc import Sequence

from torch import Tensor, nn

from mmscale.checks import check_count
from mmscale.models.layers.so2 import SO2BatchNorm, SO2Conv, SO2NormReLU, blur_pool, so2_magnitudes
from mmscale.registry import MODELS

from .arguments import check_channels, check_out_indices
from .base import Backbone


@MODELS.register_module()
class SO2ConvNet(Backbone):
    """A network of SO(2) convolutions, norm nonlinearities, blur pooling and norm batch norms.

    It corresponds to :class:`ScaleConvNet`; the last stage does not pool. Fields hold orders 0 to
    ``max_order``. The outputs are ordinary feature maps, which rotation only moves: order 0 and
    the lengths of the pairs. Equivariance to quarter turns is exact for every size of image. The
    error at other angles decreases with the smoothness of the image on its pixels.
    Sources: Worrall et al., Harmonic Networks, CVPR 2017; Weiler & Cesa, General E(2)-Equivariant
    Steerable CNNs, NeurIPS 2019.

    Args:
        in_channels (int): Channels of the image.
        channels (Sequence[int]): Channels of each order, an integer per stage.
        kernel_size (int): Taps of every convolution, odd.
        max_order (int): The largest order of the fields.
        out_indices, init_cfg, partial_pretrained: See :class:`ScaleConvNet`.

    Shape:
        - Input: ``(N, in_channels, H, W)``.
        - Output: a tuple, for each of ``out_indices`` a map ``(N, C * (1 + max_order), H', W')``,
          C being the channels of the stage; sides are halved, rounded up, by each stage that pools.
    """

    def __init__(
        self,
        in_channels: int = 1,
        channels: Sequence[int] = (22, 44, 66),
        kernel_size: int = 7,
        max_order: int = 2,
        out_indices: Sequence[int] | None = None,
        init_cfg: dict | list[dict] | None = None,
        partial_pretrained: bool = False,
    ):
        super().__init__(init_cfg, partial_pretrained)
        check_channels(channels)
        check_count('max_order', max_order, 0)
        num_stages = len(channels)
        self.max_order = max_order
        self.out_indices = check_out_indices(
            (num_stages - 1,) if out_indices is None else out_indices, num_stages
        )
        self.convs, self.acts, self.norms = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        in_order = 0
        for out_channels in channels:
            self.convs.append(SO2Conv(in_channels, out_channels, kernel_size, in_order, max_order))
            self.acts.append(SO2NormReLU(out_channels, max_order))
            self.norms.append(SO2BatchNorm(out_channels, max_order))
            in_channels, in_order = out_channels, max_order
        self.feat_dim = in_channels * (1 + max_order)

    def fields(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the fields ``(N, C * (1 + 2 * max_order), H', W')`` of ``out_indices``."""
        x, outputs = image, []
        for i, (conv, act, norm) in enumerate(zip(self.convs, self.acts, self.norms, strict=True)):
            x = act(conv(x))
            if i < len(self.convs) - 1:
                x = blur_pool(x)
            x = norm(x)
            if i in self.out_indices:
                outputs.append(x)
        return tuple(outputs)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(so2_magnitudes(x, self.max_order) for x in self.fields(image))
