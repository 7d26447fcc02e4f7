# Copyright (c) mmscale contributors.
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmpretrain.datasets.utils import check_integrity, download_url, extract_archive

from .scratch import put, scratch_folder


def download(url: str, folder: Path, md5: str) -> None:
    """Download a file to ``folder`` by MMPretrain's functions, unless it exists already.

    The file appears only when it is complete and has the MD5. Any number of processes may do this
    at once, and any of them may be killed.

    Raises:
        RuntimeError: If the download fails for any reason.
    """
    with _explained(url, folder), scratch_folder(folder) as scratch:
        _download(url, folder, md5, scratch)


def download_folder(url: str, folder: Path, md5: str) -> None:
    """Download an archive to the parent of ``folder`` and extract ``folder``.

    This works as :func:`download`. An existing folder, maybe a user's own copy, does not change.
    """
    root = folder.parent
    with _explained(url, root), scratch_folder(root) as scratch:
        if folder.exists():
            return
        archive = _download(url, root, md5, scratch)
        extract_archive(str(archive), str(scratch))
        # Without file locks, another process may have made the folder in the meantime.
        with suppress(FileExistsError):
            put(scratch / folder.name, folder)


def _download(url: str, folder: Path, md5: str, scratch: Path) -> Path:
    path = folder / url.rsplit('/', 1)[-1]
    if not check_integrity(str(path), md5):
        download_url(url, str(scratch), filename=path.name, md5=md5)
        put(scratch / path.name, path)
    return path


@contextmanager
def _explained(url: str, folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise RuntimeError(
            f'Downloading {url} to {folder} failed ({type(error).__name__}: {error}). Put the file '
            'there by hand, or set data_root to a folder that has the data.'
        ) from error
