# Copyright (c) mmscale contributors.
"""What is measured, against what, and what is asked of the ratio: one table."""

from dataclasses import dataclass, replace
from typing import NamedTuple

LIFTS = {
    'dense': 'mmscale.GaussianLift',
    'pyramid': 'mmscale.GaussianPyramidLift',
    'bilinear pyramid': 'mmscale.BilinearPyramidLift',
}
RESNET, LAST, OTHER = 'ResNet-50', 'ResNet-50, channels last', 'the other checkout'
STEP, INFERENCE = 'time of training step', 'time of inference'
MEMORY = 'memory of training step'
FORWARD, BACKWARD = 'time of forward', 'time of forward + backward'
NARROW = dict(stem_channels=8, base_channels=8)


class Subject(NamedTuple):
    """A builder of ``steps.py``, its arguments, CPU threads if not all, and which checkout."""

    build: str
    arguments: dict
    threads: int | None = None
    checkout: int = 0


class Row(NamedTuple):
    """What against what: of several references the fastest counts."""

    quantity: str
    references: tuple[str, ...]
    measured: str
    target: str | None


@dataclass(frozen=True)
class Group:
    """What is measured in turn. No round begins after ``seconds`` a mode, once there are enough.

    ``table`` has, by quantity, such as ``'time of inference'``, and by reference, what is measured
    and the target of its ratio: ``'<= 1.5'``, or None.
    """

    name: str
    title: str
    subjects: dict[str, Subject]
    table: dict[str, dict[str | tuple, dict[str, str | None]]]
    seconds: float = 10
    rounds: tuple[int, int] = (5, 30)
    work: bool = True  # whether multiply-adds stand beside times
    shared: bool = False  # whether all are in one process: what takes milliseconds
    together: bool = False  # whether all may compute at once before they are timed: compilers

    @property
    def rows(self) -> list[Row]:
        return [
            Row(quantity, (reference,) if isinstance(reference, str) else reference, name, target)
            for quantity, references in self.table.items()
            for reference, targets in references.items()
            for name, target in targets.items()
        ]


def resnet() -> dict:
    return dict(type='mmpretrain.ResNet', depth=50)


def scaled(form: str, num_scales: int, base=2.0, zero_scale=0.5, **more) -> dict:
    """Config of a ScaleResNet-50; ``form`` is one of ``LIFTS``."""
    grid = dict(base=base, num_scales=num_scales, zero_scale=zero_scale)
    lift = dict(type=LIFTS[form])
    return dict(type='mmscale.ScaleResNet', depth=50, scale_space=grid, lift=lift, **more)


def blurred(*grid: float, **low_pass) -> dict:
    return scaled('pyramid', *grid, aa_layer=dict(type='mmscale.ScaleBlurPool2d', **low_pass))


NAMED = {
    'one level': scaled('dense', 1),
    'blur': blurred(1, kernel_size=5),
    'economical': blurred(3, kernel_size=5),
    'balanced': blurred(5, 2**0.5, 1.0, kernel_size=7),
    'accurate': blurred(9, 2**0.25, variance=3.0),
}


def networks(configs: dict[str, dict], batch, side, threads=None, **more) -> dict[str, Subject]:
    more = dict(batch=batch, side=side, **more)
    return {
        name: Subject('network', dict(config=c, **more), threads) for name, c in configs.items()
    }


def references(*size: int, **more) -> dict[str, Subject]:
    """ResNet-50 in both memory formats."""
    last = networks({LAST: resnet()}, *size, channels_last=True, **more)
    return networks({RESNET: resnet()}, *size, **more) | last


def cpu_groups() -> list[Group]:
    """Cost of the host, whole networks, growth, and single layers."""
    operators = {'one level': '<= 1.25', 'pyramid, S = 3': '<= 3.2', 'economical': '<= 4',
                 'balanced': '<= 5.5'}  # fmt: skip
    calls = dict(zip(operators, ('<= 2', '<= 4', '<= 4.5', '<= 6')))
    host = NAMED | {RESNET: resnet(), 'pyramid, S = 3': scaled('pyramid', 3)}
    host = {name: dict(host[name], **NARROW) for name in (RESNET, *operators)}
    of_host = {f'{what} of {mode}': {RESNET: dict.fromkeys(operators)}
               for mode in ('inference', 'training step')
               for what in ('operators', 'Python calls', 'time')}  # fmt: skip
    of_host['operators of inference'][RESNET] = operators
    of_host['Python calls of inference'][RESNET] = calls

    base_2 = {f'{form}, S = 4': scaled(form, 4) for form in LIFTS}
    base_2['pyramid, S = 8'] = scaled('pyramid', 8)
    any_2 = {RESNET: dict.fromkeys([*base_2, LAST])}
    few_2 = {RESNET: any_2[RESNET] | {'dense, S = 4': '<= 4.4', 'pyramid, S = 4': '<= 1.5'},
             'pyramid, S = 4': {'pyramid, S = 8': '<= 1.05'}}  # fmt: skip
    named = {name: NAMED[name] for name in ('blur', 'economical', 'balanced', 'accurate')}
    any_named = dict.fromkeys([*named, LAST])
    both = {RESNET: any_named, LAST: dict.fromkeys(named)}
    judged = both | {RESNET: any_named | {'blur': '<= 1.1', 'balanced': '<= 2.6'}}
    found = [
        Group('host', 'Cost of the host: 8 channels, 1 x 64x64, 1 thread',
              networks(host, 1, 64, threads=1, head=False), of_host, work=False),
        Group('networks', 'ScaleResNet-50, base 2, 8 x 224x224',
              references(8, 224) | networks(base_2, 8, 224),
              {MEMORY: few_2, 'memory of inference': any_2, STEP: few_2, INFERENCE: any_2},
              40, (5, 20)),
        Group('named', 'Blur and the three configurations, 8 x 224x224',
              references(8, 224) | networks(named, 8, 224),
              {MEMORY: {RESNET: any_named}, 'memory of inference': {RESNET: any_named},
               STEP: judged, INFERENCE: both}, 40, (5, 20)),
    ]  # fmt: skip
    dense = {f'dense, S = {n}': scaled('dense', n) for n in (1, 2, 4, 8)}
    pyramids = {f'pyramid, S = {n}': scaled('pyramid', n) for n in range(1, 9)}
    bases = {f'pyramid, base {name}, S = {2 * n + 1}': scaled('pyramid', 2 * n + 1, 2 ** (1 / n))
             for name, n in {'2': 1, '√2': 2, '∛2': 3, '∜2': 4}.items()}  # fmt: skip
    limits = {f'dense, S = {n}': f'<= {n}' for n in (2, 4, 8)}
    for name, growth, configs, targets in (
        ('levels', 'levels, base 2', dense, limits), ('levels', 'levels, base 2', pyramids, {}),
        ('bases', 'the base, two octaves', bases, {}),
    ):  # fmt: skip
        title = f'Growth over {growth}, training step, 4 x 224x224'
        subjects = networks({RESNET: resnet()} | configs, 4, 224)
        asked = {STEP: {RESNET: dict.fromkeys(configs) | targets}}
        found.append(Group(name, title, subjects, asked, 20, (3, 15)))
    for form in ('dense', 'pyramid'):
        configs = {f'{form}, S = 4, K = {k}': scaled(form, 4, interaction=k) for k in (1, 2, 3)}
        first, *others = configs
        title = 'Growth over the interaction, training step, 4 x 112x112'
        asked = {STEP: {first: dict.fromkeys(others)}}
        found.append(Group('interactions', title, networks(configs, 4, 112), asked, 8, (3, 15)))
    for form, lift in LIFTS.items():
        whole = f'network with {lift}'
        subjects = networks({whole: scaled(form, 4)}, 8, 224)
        subjects[lift] = Subject('lift', dict(kind=lift, batch=8, side=224))
        found.append(Group('lifts', 'Lifts, S = 4, 8 x 224x224', subjects,
                           {INFERENCE: {whole: {lift: '<= 0.02'}}}, 7, work=False,
                           shared=True))  # fmt: skip
    return found + layer_groups('<= 1.1') + deformable_groups({'native': '>= 5'})


def sizes(kernel: int, channels: int, side: int, batch: int) -> tuple[str, dict]:
    """Label and arguments of a layer."""
    text = f'{kernel}x{kernel}, {channels} channels, {batch} x {side}x{side}'
    return text, dict(kernel=kernel, channels=channels, side=side, batch=batch)


def layer_groups(limit: str) -> list[Group]:
    """Scale convolution against ordinary convolutions of equal work, and against the plain loop."""
    found = []
    kinds = {
        'ordinary convolutions': dict(kind='ordinary'),
        'the same, channels last': dict(kind='ordinary', channels_last=True),
        'plain loop': dict(kind='loop'),
    }
    for text, given in (sizes(3, 64, 56, 8), sizes(7, 32, 28, 32)):
        for form, k in (('dense', 1), ('dense', 2), ('pyramid', 1), ('pyramid', 2)):
            ours = f'{form}, K = {k}, {text}'
            given = dict(given, form=form, interaction=k)
            subjects = {name: Subject('layer', dict(given, **more))
                        for name, more in ({ours: dict(kind='scale')} | kinds).items()}  # fmt: skip
            asked = {FORWARD: {reference: {ours: None} for reference in kinds}}
            asked[BACKWARD] = dict(zip(kinds, ({ours: target} for target in (limit, None, '<= 1'))))
            found.append(
                Group('layers', 'Scale convolution', subjects, asked, 3, (7, 40), shared=True)
            )
    for name, basis in {
        'Hermite functions': dict(type='mmscale.HermiteBasis', size=15),
        'discrete kernels': dict(type='mmscale.DiscreteBasis'),
        'Gaussian derivatives': dict(type='mmscale.GaussianDerivativeBasis'),
    }.items():
        text, given = sizes(7, 32, 28, 32)
        ours, given['basis'] = f'{name}, {text}, S = 4', basis
        del given['kernel']
        kinds = {'convolutions of these sizes': dict(kind='sizes'),
                 'the same, channels last': dict(kind='sizes', channels_last=True)}  # fmt: skip
        subjects = {label: Subject('layer', given | more)
                    for label, more in ({ours: dict(kind='basis')} | kinds).items()}  # fmt: skip
        asked = {FORWARD: {tuple(kinds): {ours: None}}, BACKWARD: {tuple(kinds): {ours: '<= 1.15'}}}
        found.append(Group('kernels of a basis', 'Kernels made of a basis', subjects, asked, 3,
                           (5, 40), shared=True))  # fmt: skip
    return found


def deformable_groups(targets: dict[str, str | None]) -> list[Group]:
    """MMCV's op, called once a level, in times of ours; targets by backend."""
    found, theirs = [], "MMCV's op per level"
    for (text, given), levels in ((sizes(3, 64, 28, 8), 4), (sizes(3, 256, 14, 4), 4),
                                  (sizes(7, 32, 14, 16), 3)):  # fmt: skip
        given['num_scales'] = levels
        subjects, asked = {theirs: Subject('layer', dict(given, kind='mmcv'))}, {}
        for backend, target in targets.items():
            ours = f"backend='{backend}', {text}, S = {levels}"
            subjects[ours] = Subject('layer', dict(given, kind='deformable', backend=backend))
            asked[ours] = {theirs: target}
        found.append(Group('deformable', 'Deformable scale convolution', subjects,
                           {BACKWARD: asked}, 12, work=False, shared=True))  # fmt: skip
    return found


def gpu_groups() -> list[Group]:
    """Against ResNet-50 in the faster memory format, the most important first."""
    found, asked = [], {(RESNET, LAST): dict.fromkeys(NAMED)}
    for how, batch, amp in (
        ('eager', 16, False), ('eager', 16, True), ('CUDA graph', 16, False), ('eager', 128, True),
        ('compiled', 16, True), ('eager', 128, False), ('CUDA graph', 16, True),
        ('compiled', 16, False), ('compiled', 128, True),
    ):  # fmt: skip
        given = dict(batch=batch, side=224, amp=amp, how=how)
        found.append(Group(
            how, f'{how}, {"bfloat16" if amp else "TF32"}, {batch} x 224x224',
            references(**given) | networks(NAMED, **given), {INFERENCE: asked, STEP: asked}, 6,
            (4, 20), work=not found, together=how == 'compiled',
        ))  # fmt: skip
    one = {'economical': NAMED['economical']}
    asked = {f'kernels of {mode}': {'economical': {'economical': None}}
             for mode in ('inference', 'training step')}  # fmt: skip
    title = 'The costliest kernels, TF32, 16 x 224x224'
    found.insert(1, Group('kernels', title, networks(one, 16, 224), asked, work=False))
    return found + layer_groups('<= 1.25') + deformable_groups({'auto': '>= 0.87', 'native': None})


def shrunk(group: Group) -> Group:
    """The same with small networks on small images, two rounds, and no target."""
    subjects = {}
    for name, subject in group.subjects.items():
        given = dict(subject.arguments)
        given.update(batch=min(given['batch'], 2), side=min(given['side'], 64))
        if 'config' in given:
            given['config'] = dict(given['config'], **NARROW)
        if 'channels' in given:
            given.update(channels=4, side=16)
        subjects[name] = subject._replace(arguments=given)
    table = {
        quantity: {reference: dict.fromkeys(names) for reference, names in rows.items()}
        for quantity, rows in group.table.items()
    }
    return replace(group, subjects=subjects, table=table, seconds=0, rounds=(2, 2))


def paired(groups: list[Group], limit: str = '<= 1.05') -> list[Group]:
    """Each of ours against itself in the other checkout, once, in all that is measured of it."""
    found, seen = [], []
    for group in groups:
        for name, subject in group.subjects.items():
            asked = dict.fromkeys(row.quantity for row in group.rows
                                  if name in (row.measured, *row.references))  # fmt: skip
            new = [quantity for quantity in asked if (subject, quantity) not in seen]
            seen += [(subject, quantity) for quantity in new]
            given = subject.arguments
            kind = given['config']['type'] if 'config' in given else given['kind']
            if new and kind.startswith(('mmscale', 'scale', 'deformable')):
                subjects = {name: subject, OTHER: subject._replace(checkout=1)}
                table = {quantity: {OTHER: {name: limit}} for quantity in new}
                found.append(replace(group, subjects=subjects, table=table, seconds=8,
                                     rounds=(5, 40), work=False, shared=False))  # fmt: skip
    return found
