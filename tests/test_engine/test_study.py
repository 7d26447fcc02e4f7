# Copyright (c) mmscale contributors.
import os

import numpy as np
from mmengine.config import Config

from mmscale.engine.models import Model
from mmscale.engine.study import digest_data


class Samples:
    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def get_data_info(self, place):
        return self.samples[place]


def test_a_digest_knows_every_sample(tmp_path):
    """With its values and files, as they are before the pipeline."""
    cfg = Config(dict(test_dataloader=dict(dataset=dict(type='A'))))
    model = Model('a.py', cfg, None, None)
    (tmp_path / 'a.png').write_bytes(b'one image')

    def made(**changed):
        samples = [
            dict(img=np.full((2, 2), i, np.uint16), gt_label=i % 3, instances=[dict(bbox=[0, i])])
            for i in range(300)
        ]
        samples[298].update(img_path=str(tmp_path / 'a.png'), **changed)
        return digest_data(model, Samples(samples))

    before = made()
    assert made() == before
    assert made(img=np.zeros((4, 1), np.uint16)) != before
    assert made(gt_label=7) != before
    assert made(instances=[dict(bbox=[1, 298])]) != before
    assert made(seg_map_path='elsewhere.png') != before
    status = os.stat(tmp_path / 'a.png')
    (tmp_path / 'a.png').write_bytes(b'two image')
    os.utime(tmp_path / 'a.png', ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert made() != before


def test_what_tells_no_samples_is_never_taken_for_known():
    data = [np.zeros(3)] * 2
    assert digest_data(None, data) != digest_data(None, data)


def test_files_that_the_config_names_count(tmp_path):
    path = tmp_path / 'annotations.json'
    path.write_text('{}', encoding='utf-8')
    evaluator = dict(type='CocoMetric', ann_file=str(path))
    cfg = Config(dict(test_dataloader=dict(dataset=dict(type='A')), test_evaluator=evaluator))
    model, data = Model('a.py', cfg, None, None), Samples([dict(gt_label=0)])
    before = digest_data(model, data)
    assert digest_data(model, data) == before
    path.write_text('{"annotations": []}', encoding='utf-8')
    assert digest_data(model, data) != before
