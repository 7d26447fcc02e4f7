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
FASTER = (RESNET, LAST)
STEP, INFERENCE = 'time of training step', 'time of inference'
FORWARD, BOTH = 'time of forward', 'time of forward + backward'
WEIGHT = 'memory of training step'
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

    ``table`` has, by quantity, ``'time of MODE'``, and by reference, what is measured with the
    target of its ratio: ``'<= 1.5'``, or None.
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


def resnet(**more) -> dict:
    return dict(type='mmpretrain.ResNet', depth=50, **more)


def scale_resnet(form: str, num_scales: int, base=2.0, zero_scale=0.5, **more) -> dict:
    """Config of a ScaleResNet-50; ``form`` is one of ``LIFTS``."""
    grid = dict(base=base, num_scales=num_scales, zero_scale=zero_scale)
    lift = dict(type=LIFTS[form])
    return dict(type='mmscale.ScaleResNet', depth=50, scale_space=grid, lift=lift, **more)


def blur(**low_pass) -> dict:
    return dict(aa_layer=dict(type='mmscale.ScaleBlurPool2d', **low_pass))


def networks(configs: dict[str, dict], batch, side, threads=None, **more) -> dict[str, Subject]:
    more = dict(batch=batch, side=side, **more)
    return {name: Subject('network', dict(config=c, **more), threads) for name, c in configs.items()}


def references(*size: int, **more) -> dict[str, Subject]:
    """ResNet-50 in both memory formats."""
    last = networks({LAST: resnet()}, *size, channels_last=True, **more)
    return networks({RESNET: resnet()}, *size, **more) | last


NAMED = {
    'one level': scale_resnet('dense', 1),
    'blur': scale_resnet('pyramid', 1, **blur(kernel_size=5)),
    'economical': scale_resnet('pyramid', 3, **blur(kernel_size=5)),
    'balanced': scale_resnet('pyramid', 5, 2**0.5, 1.0, **blur(kernel_size=7)),
    'accurate': scale_resnet('pyramid', 9, 2**0.25, **blur(variance=3.0)),
}


def cpu_groups() -> list[Group]:
    """Cost of the host, whole networks, growth, and single layers."""
    operators = {'one level': '<= 1.25', 'pyramid, S = 3': '<= 3.2', 'economical': '<= 4',
                 'balanced': '<= 5.5'}  # fmt: skip
    calls = dict(zip(operators, ('<= 2', '<= 4', '<= 4.5', '<= 6')))
    host = {RESNET: resnet(), 'pyramid, S = 3': scale_resnet('pyramid', 3), **NAMED}
    host = {name: dict(host[name], **NARROW) for name in (RESNET, *operators)}
    base_2 = {f'{form}, S = 4': scale_resnet(form, 4) for form in LIFTS}
    base_2['pyramid, S = 8'] = scale_resnet('pyramid', 8)
    named = {name: config for name, config in NAMED.items() if name != 'one level'}
    free_host, free_2, free = (dict.fromkeys(n) for n in (operators, [*base_2, LAST], [*named, LAST]))
    few = {'dense, S = 4': '<= 4.4', 'pyramid, S = 4': '<= 1.5'}
    many = {'pyramid, S = 4': {'pyramid, S = 8': '<= 1.05'}}
    judged = {'blur': '<= 1.1', 'balanced': '<= 2.6'}
    dense = {f'dense, S = {n}': scale_resnet('dense', n) for n in (1, 2, 4, 8)}
    below = {f'dense, S = {n}': f'<= {n}' for n in (2, 4, 8)}
    pyramids = {f'pyramid, S = {n}': scale_resnet('pyramid', n) for n in range(1, 9)}
    bases = {
        f'pyramid, base {name}, S = {2 * n + 1}': scale_resnet('pyramid', 2 * n + 1, 2 ** (1 / n))
        for n, name in enumerate(('2', '√2', '∛2', '∜2'), start=1)
    }
    seeing = [{f'{form}, S = 4, K = {k}': scale_resnet(form, 4, interaction=k) for k in (1, 2, 3)}
              for form in ('dense', 'pyramid')]  # fmt: skip
    long, growth = dict(seconds=40, rounds=(5, 20)), dict(seconds=20, rounds=(3, 15))
    return [
        Group('host', 'Cost of the host: 8 channels, 1 x 64x64, 1 thread',
              networks(host, 1, 64, threads=1, head=False), {
            'operators of inference': {RESNET: operators},
            'Python calls of inference': {RESNET: calls},
            INFERENCE: {RESNET: free_host},
            'operators of training step': {RESNET: free_host},
            'Python calls of training step': {RESNET: free_host},
            STEP: {RESNET: free_host},
        }, work=False),
        Group('networks', 'ScaleResNet-50, base 2, 8 x 224x224',
              references(8, 224) | networks(base_2, 8, 224), {
            WEIGHT: {RESNET: free_2 | few, **many},
            'memory of inference': {RESNET: free_2},
            STEP: {RESNET: free_2 | few, **many},
            INFERENCE: {RESNET: free_2},
        }, **long),
        Group('named', 'Blur and the three configurations, 8 x 224x224',
              references(8, 224) | networks(named, 8, 224), {
            WEIGHT: {RESNET: free},
            'memory of inference': {RESNET: free},
            STEP: {RESNET: free | judged, LAST: dict.fromkeys(named)},
            INFERENCE: {RESNET: free, LAST: dict.fromkeys(named)},
        }, **long),
        *(
            Group('levels', 'Growth over levels, base 2, training step, 4 x 224x224',
                  networks({RESNET: resnet()} | configs, 4, 224),
                  {STEP: {RESNET: dict.fromkeys(configs) | targets}}, **growth)
            for configs, targets in ((dense, below), (pyramids, {}))
        ),
        Group('bases', 'Growth over the base, two octaves, training step, 4 x 224x224',
              networks({RESNET: resnet()} | bases, 4, 224),
              {STEP: {RESNET: dict.fromkeys(bases)}}, **growth),
        *(
            Group('interactions', 'Growth over the interaction, training step, 4 x 112x112',
                  networks(configs, 4, 112),
                  {STEP: {[*configs][0]: dict.fromkeys([*configs][1:])}}, 8, (3, 15))
            for configs in seeing
        ),
        *layer_groups('<= 1.1'),
        *deformable_groups({'native': '>= 5'}),
        *(
            Group('lifts', 'Lifts, S = 4, 8 x 224x224', {
                lift: Subject('lift', dict(kind=lift, batch=8, side=224)),
                'network with it': networks({'': scale_resnet(form, 4)}, 8, 224)[''],
            }, {INFERENCE: {'network with it': {lift: '<= 0.02'}}}, 7, work=False, shared=True)
            for form, lift in LIFTS.items()
        ),
    ]  # fmt: skip


def layer_groups(limit: str) -> list[Group]:
    """Scale convolution against ordinary convolutions of equal work, and against the plain loop."""
    found, kinds = [], {
        'ordinary convolutions': dict(kind='ordinary'),
        'the same, channels last': dict(kind='ordinary', channels_last=True),
        'plain loop': dict(kind='loop'),
    }  # fmt: skip
    for sizes in ((3, 64, 56, 8), (7, 32, 28, 32)):
        for form in ('dense', 'pyramid'):
            for k in (1, 2):
                ours = f'{form}, K = {k}, {label(*sizes)}'
                given = dict(layer(*sizes), form=form, interaction=k)
                of_kind = {ours: dict(kind='scale'), **kinds}
                subjects = {n: Subject('layer', kind | given) for n, kind in of_kind.items()}
                targets = dict(zip(kinds, (limit, None, '<= 1')))
                found.append(Group('layers', 'Scale convolution', subjects, {
                    FORWARD: {reference: {ours: None} for reference in kinds},
                    BOTH: {reference: {ours: target} for reference, target in targets.items()},
                }, 3, (7, 40), shared=True))  # fmt: skip
    return found


def deformable_groups(targets: dict[str, str | None]) -> list[Group]:
    """MMCV's op, called once a level, in times of ours; targets by backend."""
    found, theirs = [], "MMCV's op per level"
    for *sizes, n in ((3, 64, 28, 8, 4), (3, 256, 14, 4, 4), (7, 32, 14, 16, 3)):
        given = dict(layer(*sizes), num_scales=n)
        ours = {f"backend='{b}', {label(*sizes)}, S = {n}": b for b in targets}
        subjects = {
            name: Subject('layer', dict(given, kind='deformable', backend=backend))
            for name, backend in ours.items()
        }
        subjects[theirs] = Subject('layer', dict(given, kind='mmcv'))
        found.append(Group(
            'deformable', 'Deformable scale convolution', subjects,
            {BOTH: {name: {theirs: targets[b]} for name, b in ours.items()}}, 12, work=False, shared=True,
        ))  # fmt: skip
    return found


def layer(kernel: int, channels: int, side: int, batch: int) -> dict:
    return dict(kernel=kernel, channels=channels, side=side, batch=batch)


def label(kernel: int, channels: int, side: int, batch: int) -> str:
    return f'{kernel}x{kernel}, {channels} channels, {batch} x {side}x{side}'


def gpu_groups() -> list[Group]:
    """Against ResNet-50 in the faster memory format, the most important first."""
    free = {FASTER: dict.fromkeys(NAMED)}
    found = []
    for how, batch, amp in (
        ('eager', 16, False), ('eager', 16, True), ('CUDA graph', 16, False), ('eager', 128, True),
        ('compiled', 16, True), ('eager', 128, False), ('CUDA graph', 16, True),
        ('compiled', 16, False), ('compiled', 128, True),
    ):  # fmt: skip
        size, more = (batch, 224), dict(amp=amp, how=how)
        title = f'{how}, {"bfloat16" if amp else "TF32"}, {batch} x 224x224'
        found.append(Group(
            how.replace(' ', '-'), title, references(*size, **more) | networks(NAMED, *size, **more),
            {INFERENCE: free, STEP: free}, 8, (4, 20),
            work=how == 'eager', together=how == 'compiled',
        ))  # fmt: skip
    economical = networks({'economical': NAMED['economical']}, 16, 224)
    kernels = {f'kernels of {mode}': {'economical': {'economical': None}}
               for mode in ('inference', 'training step')}  # fmt: skip
    found.insert(1, Group('kernels', 'The costliest kernels, TF32, 16 x 224x224', economical, kernels, work=False))
    native = {'auto': '>= 0.87', 'native': None}
    return [*found, *layer_groups('<= 1.25'), *deformable_groups(native)]


def shrunk(group: Group) -> Group:
    """The same with small networks on small images, two rounds, and no target."""

    def shrink(subject: Subject) -> Subject:
        given = dict(subject.arguments)
        given.update(batch=min(given['batch'], 2), side=min(given['side'], 64))
        if 'config' in given:
            given['config'] = dict(given['config'], **NARROW)
        if 'channels' in given:
            given.update(channels=4, side=16)
        return subject._replace(arguments=given)

    table = {
        quantity: {reference: dict.fromkeys(names) for reference, names in rows.items()}
        for quantity, rows in group.table.items()
    }
    subjects = {name: shrink(subject) for name, subject in group.subjects.items()}
    return replace(group, subjects=subjects, table=table, seconds=0, rounds=(2, 2))


def paired(groups: list[Group], limit: str = '<= 1.05') -> list[Group]:
    """Each of ours against itself in the other checkout, once, in all that is measured of it."""
    found, seen = [], []
    for group in groups:
        for name, subject in group.subjects.items():
            ours = subject.arguments.get('config', subject.arguments).get('type') or subject.arguments['kind']
            quantities = dict.fromkeys(row.quantity for row in group.rows
                                       if name in (row.measured, *row.references))  # fmt: skip
            new = [one for one in quantities if (subject, one) not in seen]
            seen += [(subject, one) for one in new]
            if new and ours.startswith(('mmscale', 'scale', 'deformable')):
                subjects = {name: subject, OTHER: subject._replace(checkout=1)}
                table = {quantity: {OTHER: {name: limit}} for quantity in new}
                found.append(replace(group, subjects=subjects, table=table, work=False,
                                     seconds=8, rounds=(5, 40), shared=False))  # fmt: skip
    return found
