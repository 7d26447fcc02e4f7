# Copyright (c) mmscale contributors.
"""Memory of a process that trains on a CPU."""

import ctypes
import os
import sys

from mmengine.device import get_device

# Parameters of mallopt(3), the GNU C library: M_MMAP_MAX, M_TRIM_THRESHOLD and M_TOP_PAD.
SETTINGS = {-4: 0, -1: -1, -2: 2**28}


def keep_freed_blocks() -> bool:
    """Has the GNU C library keep the large blocks that are freed, for the next that is asked for.

    Left alone, it gives blocks above 32 MiB back to the system at once and gets them back page by
    page, each page cleared. The maps of a training step are of that kind, and getting them back can
    take longer than the step itself. The process then holds on to the largest amount of memory that
    it has used.

    Returns:
        bool: Whether it was done: not with an accelerator, not on other systems, nor where the
        environment has settings of the allocator (``MALLOC_...``) already.
    """
    has_settings = any(name.startswith('MALLOC_') for name in os.environ)
    if get_device() != 'cpu' or not sys.platform.startswith('linux') or has_settings:
        return False
    try:
        mallopt = ctypes.CDLL('libc.so.6').mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return all([mallopt(name, value) for name, value in SETTINGS.items()])
