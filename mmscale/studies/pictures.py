# Copyright (c) mmscale contributors.
def accuracy(entry):
    return entry['accuracy']['mean'][0] if entry.get('accuracy') else entry['test']['accuracy/top1']


def in_short(entry):
    return str(accuracy(entry))


def write(study, entries, out, name):
    pass
