# Copyright (c) mmscale contributors.
from pathlib import Path

from mmpretrain.datasets.utils import download_url


def download(url: str, folder: Path, md5: str) -> Path:
    """Download a file with MMPretrain's means, so that it appears only when it is complete.

    Returns:
        Path: The file, of the same name, in ``folder``.

    Raises:
        RuntimeError: If it fails, whatever the cause.
    """
    name = url.rsplit('/', 1)[-1]
    try:
        download_url(url, str(folder), filename=name, md5=md5)
    except Exception as error:
        raise RuntimeError(
            f'Downloading {url} to {folder} failed ({type(error).__name__}: {error}). Put the file '
            'there by hand, or set data_root to a folder that has the data.'
        ) from error
    return folder / name
