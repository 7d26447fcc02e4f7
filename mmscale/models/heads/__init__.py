# Copyright (c) mmscale contributors.
"""Heads, which need MMPretrain."""

from .scale_cls_head import ScaleClsHead

__all__ = ['ScaleClsHead']
