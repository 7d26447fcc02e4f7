# Copyright (c) mmscale contributors.
"""Downloads, of files of this machine, by several processes, broken off and killed."""

import hashlib
import multiprocessing
import os
import signal
import stat
import tarfile
import time

import numpy as np
import pytest
from mmpretrain.datasets import CIFAR10, MNIST

from mmscale.datasets import ScaleCIFAR10, ScaleMNIST, download, scratch

from .synthetic import SIZES, expect_synthetic_mnist, write_cifar10, write_mnist

ARCHIVE = 'cifar-10-python.tar.gz'
FORK = multiprocessing.get_context('fork')


@pytest.fixture
def served(tmp_path):
    """The folder that stands for the servers."""
    (tmp_path / 'served').mkdir()
    return tmp_path / 'served'


@pytest.fixture
def cifar10(served, tmp_path, monkeypatch):
    """Has the folder stand for CIFAR-10's server, with a small archive; returns a constructor."""
    write_cifar10(tmp_path)
    folder = tmp_path / CIFAR10.base_folder
    with tarfile.open(served / ARCHIVE, 'w:gz') as file:
        file.add(folder, folder.name)
    monkeypatch.setattr(CIFAR10, 'url', (served / ARCHIVE).as_uri())
    monkeypatch.setattr(CIFAR10, 'tgz_md5', md5(served / ARCHIVE))
    for batches in ('train_list', 'test_list'):
        known = [[name, md5(folder / name)] for name, _ in getattr(CIFAR10, batches)]
        monkeypatch.setattr(CIFAR10, batches, known)
    return lambda root: len(ScaleCIFAR10(str(root), 'test')) == 40


@pytest.fixture
def mnist(served, monkeypatch):
    """As ``cifar10``."""
    expect_synthetic_mnist(monkeypatch)
    write_mnist(served)
    monkeypatch.setattr(MNIST, 'url_prefix', f'{served.as_uri()}/')
    for files in ('train_list', 'test_list'):
        known = [[name, md5(served / name)] for name, _ in getattr(MNIST, files)]
        monkeypatch.setattr(MNIST, files, known)
    return lambda root: len(ScaleMNIST(str(root), 'val')) == SIZES['val']


@pytest.fixture(params=['cifar10', 'mnist'])
def construct(request):
    return request.getfixturevalue(request.param)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def left_over(root):
    """What is no part of the data."""
    known = {ARCHIVE, CIFAR10.base_folder, 'mnist_scale', '.mmscale.lock'}
    known |= {name for name, _ in MNIST.train_list + MNIST.test_list}
    return [path for path in root.rglob('*') if path.relative_to(root).parts[0] not in known]


def fork(target, *args):
    process = FORK.Process(target=target, args=args, daemon=True)
    process.start()
    return process


def report(construct, root, start, results):
    start.wait()
    try:
        results.put(construct(root))
    except Exception as error:
        results.put(f'{type(error).__name__}: {error}')


@pytest.mark.parametrize('locks', [True, False])
def test_three_processes_at_once(construct, tmp_path, monkeypatch, locks):
    get = download.download_url

    def slow(url, *args, **kwargs):
        with open(tmp_path / 'asked', 'a', encoding='utf-8') as file:
            file.write(f'{url}\n')
        time.sleep(0.5)  # long enough for the others to have found nothing, too
        get(url, *args, **kwargs)

    def no_locks(*args, **kwargs):
        raise OSError('Function not implemented')

    monkeypatch.setattr(download, 'download_url', slow)
    if not locks:
        monkeypatch.setattr(scratch.FileLock, 'acquire', no_locks)
    root = tmp_path / 'root'
    start, results = FORK.Barrier(3), FORK.Queue()
    processes = [fork(report, construct, root, start, results) for _ in range(3)]
    assert [results.get(timeout=60) for _ in processes] == [True] * 3
    for process in processes:
        process.join()
    assert not left_over(root)
    asked = (tmp_path / 'asked').read_text(encoding='utf-8').split()
    assert not locks or len(asked) == len(set(asked))


def test_download_that_breaks_off(construct, served, tmp_path):
    root, whole = tmp_path / 'root', {path: path.read_bytes() for path in served.iterdir()}
    for path, content in whole.items():
        path.write_bytes(content[: len(content) // 2])
    with pytest.raises(RuntimeError, match='Downloading file:.* to .*root failed .* set data_root'):
        construct(root)
    assert not left_over(root)
    for path, content in whole.items():
        path.write_bytes(content)
    assert construct(root)
    assert not left_over(root)
    for path in root.iterdir():
        assert path.is_dir() or stat.S_IMODE(path.stat().st_mode) == 0o644


def half_download(url, folder, filename, md5):
    with open(f'{folder}/{filename}', 'wb') as file:
        file.write(b'half of it')


def half_extraction(archive, folder):
    with tarfile.open(archive) as file:
        file.extract(file.getmembers()[1], folder)


def half_write(file, **arrays):
    file.write(b'half of it')
    file.flush()


def run_until_stalled(construct, root, module, name, first, stalled):
    """Replace a function of a module by ``first``, after which nothing goes on."""

    def replaced(*args, **kwargs):
        first(*args, **kwargs)
        stalled.set()
        time.sleep(600)

    setattr(module, name, replaced)
    construct(root)


@pytest.mark.parametrize(
    'dataset, module, name, first',
    [
        ('cifar10', download, 'download_url', half_download),
        ('cifar10', download, 'extract_archive', half_extraction),
        ('cifar10', download, 'put', scratch.put),
        ('mnist', scratch.os, 'replace', lambda *args: None),
        ('mnist', np, 'savez', half_write),
    ],
)
def test_killed(request, tmp_path, dataset, module, name, first):
    """A process that waits meanwhile goes on, and finds or makes the whole."""
    construct, root = request.getfixturevalue(dataset), tmp_path / 'root'
    stalled, start, results = FORK.Event(), FORK.Barrier(1), FORK.Queue()
    process = fork(run_until_stalled, construct, root, module, name, first, stalled)
    assert stalled.wait(timeout=60)
    waiting = fork(report, construct, root, start, results)
    waiting.join(timeout=0.5)
    assert waiting.is_alive()
    os.kill(process.pid, signal.SIGKILL)
    assert results.get(timeout=60) is True
    process.join()
    waiting.join()
    assert not left_over(root)
    assert all(path.suffix == '.npz' for path in (root / 'mnist_scale').glob('[!.]*'))
