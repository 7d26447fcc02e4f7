# Copyright (c) mmscale contributors.
import numpy as np
from mmpretrain.datasets import MNIST

from mmscale.registry import DATASETS

from .base import RescaledDataset
from .mnist_recipe import split_stratified
from .rescaling import draw_factors, rescale

CANVAS = 32
# Side of a digit at scale 1, in pixels: three quarters of the canvas, as in MNIST. The digits have
# 8x8 pixels, so scale 1/3 is their own resolution and every larger scale interpolates.
DIGIT = 24
SPLIT_SIZES = {'train': 1000, 'val': 297, 'test': 500}


@DATASETS.register_module()
class ScaleDigits(RescaledDataset):
    """scikit-learn's handwritten digits, each rescaled by a factor on a canvas of 32x32 pixels.

    The dataset has 1,797 real digits of 8x8 pixels (Alpaydin & Kaynak, *Optical Recognition of
    Handwritten Digits*, UCI, 1998). scikit-learn contains them, so there is no download. At scale 1
    a digit is 24 pixels high, at scale 1/3 it is 8 pixels high. It lies in the middle of the
    canvas, resampled once, by a bicubic kernel, from the original 8x8 pixels.

    A digit's split and its factor depend on ``seed`` and the digit only. 1,000 digits are for
    training, 297 for validation, 500 for the test, stratified by class.

    Args:
        split (str): 'train', 'val' or 'test'. Defaults to 'train'.
        scale_range (Sequence[float]): Lowest and highest factor, drawn uniformly. Defaults to
            (0.3, 1.0).
        scale (float, optional): One factor for the whole split; ``scale_range`` then has no
            effect. Above 4/3 the canvas crops the digits; 6 is the largest. Defaults to None.
        seed (int): Seed of the splits and the factors. Defaults to 0.
        **kwargs: Other arguments of :class:`mmpretrain.datasets.BaseDataset`, such as
            ``pipeline`` and ``indices``.

    Raises:
        ValueError: For an argument that is not as described.
    """

    METAINFO = MNIST.METAINFO
    # From 8 pixels the factor is three times the scale, and `rescale` takes factors up to 20.
    LARGEST_SCALE = 6.0

    def load_data_list(self) -> list[dict]:
        """Draw split and factors, and rescale."""
        from sklearn.datasets import load_digits  # a slow import, only if needed

        pixels, labels = load_digits(return_X_y=True)
        chosen = split_stratified(labels, SPLIT_SIZES, self.seed)[self.split]
        factors = draw_factors(
            len(labels), self.scale_range, self.scale, np.random.default_rng(self.seed)
        )[chosen]
        # The darkest ink of these digits is 16.
        images = np.rint(pixels[chosen] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
        rescaled = [
            rescale(image, factor * DIGIT / 8, canvas=(CANVAS, CANVAS))
            for image, factor in zip(images, factors)
        ]
        return self.to_data_list(rescaled, labels[chosen], factors)
