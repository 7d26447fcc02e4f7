# Copyright (c) mmscale contributors.
"""Runs all benchmarks: one table, one JSON file and one figure, written after each part."""

import backbones
import data_loading
import deformable
import growth
import layers
import lifts
import precisions
from running import parse_args, run_sections

SECTIONS = dict(
    backbones=backbones.measure,
    named=backbones.measure_named,
    **growth.SECTIONS,
    layers=layers.measure,
    deformable=deformable.measure,
    lifts=lifts.measure,
    data_loading=data_loading.measure,
)

if __name__ == '__main__':
    args = parse_args(__doc__)
    on_gpu = dict(precisions=precisions.measure) if args.device == 'cuda' else {}
    run_sections(args, {**SECTIONS, **on_gpu}, 'benchmark')
