# Copyright (c) mmscale contributors.
import ast
import sys
from pathlib import Path

import digests
import pytest

from mmscale.engine.models import load_config

ROOT = Path(__file__).resolve().parents[2]
DIGITS = 'configs/resnet/resnet18-w8_1xb50-10e_scaledigits.py'
SO2 = 'configs/so2/so2convnet_1xb128-20e_scalemnist.py'


@pytest.mark.parametrize(
    ('config', 'module', 'used'),
    [
        (DIGITS, 'mmscale.datasets.scale_digits', True),
        (DIGITS, 'mmscale.datasets.scale_mnist', False),
        (SO2, 'mmscale.models.layers.so2', True),
        (SO2, 'mmscale.scale_space.resample', True),  # by what its layers import
    ],
)
def test_the_digest_of_code_is_of_what_a_config_uses(config, module, used, monkeypatch):
    cfg = load_config(str(ROOT / config))
    before, read = digests.of_code(cfg), digests._statements
    path = Path(sys.modules[module].__file__)
    monkeypatch.setattr(digests, '_statements', lambda p: read(p) + 'other' * (p == path))
    assert (digests.of_code(cfg) != before) == used


def test_what_a_package_passes_on_is_found_where_it_is_defined():
    used = digests.modules_used(['mmscale.evaluation.breakdown'])
    assert 'mmscale.evaluation.equivariance' in used
    assert 'mmscale.scale_space.grid' in used and 'mmscale.scale_space' not in used
    assert 'mmscale.models.backbones.scale_resnet' not in used


def test_comments_and_docstrings_are_no_code(tmp_path):
    plain, said, other = (tmp_path / f'{name}.py' for name in ('plain', 'said', 'other'))
    plain.write_text('def f(x):\n    return x + 1\n')
    said.write_text('"""Module."""\n# why\n\ndef f(x):\n    """Doc."""\n    return x + 1  # one\n')
    other.write_text('def f(x):\n    return x + 2\n')
    assert digests._statements(plain) == digests._statements(said) != digests._statements(other)


@pytest.mark.parametrize('ending', [[], [ast.Constant('')]], ids=['3.11', '3.12'])
def test_the_digest_of_code_is_the_same_in_every_python(ending, tmp_path, monkeypatch):
    """3.12 shows type parameters that there are none, 3.13 no empty lists.

    3.12.1 ends the format of f'{x:<{y}}' with an empty string.
    """
    path = tmp_path / 'code.py'
    path.write_text("def f():\n    f'{x:<{y}}'\n")
    tree = ast.parse(path.read_text())
    values = tree.body[0].body[0].value.values[0].format_spec.values
    values[:] = values[:2] + ending
    monkeypatch.setattr(ast, 'parse', lambda *args, **kwargs: tree)
    x, y = (f"FormattedValue(value=Name(id='{n}', ctx=Load()), conversion=-1" for n in 'xy')
    spec = f"JoinedStr(values=[Constant(value='<'), {y})])"
    body = f'Expr(value=JoinedStr(values=[{x}, format_spec={spec})]))'
    arguments = 'arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])'
    found = f"FunctionDef(name='f', args={arguments}, body=[{body}], decorator_list=[])"
    assert digests._statements(path) == f'Module(body=[{found}], type_ignores=[])'


def test_the_digest_of_data_is_of_its_samples():
    cfg = load_config(str(ROOT / DIGITS))
    before = digests.of_data(cfg)
    cfg.train_dataloader.batch_size = 7
    assert digests.of_data(cfg) == before
    cfg.test_dataloader.dataset.scale = 0.5
    assert digests.of_data(cfg) != before


def test_data_that_are_not_there_are_looked_for_once(monkeypatch):
    tried = []

    def build(config):
        tried.append(config)
        raise FileNotFoundError('no folder data')

    monkeypatch.setattr(digests.DATASETS, 'build', build)
    cfg = load_config(str(ROOT / DIGITS))
    cfg.train_dataloader.dataset.seed = 12345  # not one of another test
    cfg = type(cfg)(dict(train_dataloader=cfg.train_dataloader))
    for _ in range(2):
        with pytest.raises(ValueError, match='no folder data'):
            digests.of_data(cfg)
    assert len(tried) == 1
