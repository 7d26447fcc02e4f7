# Copyright (c) mmscale contributors.
"""Set the memory allocator of a process that trains on a CPU."""

import ctypes
import os
import sys

from mmengine.device import get_device

# Parameters of mallopt(3), the GNU C library: M_MMAP_MAX, M_TRIM_THRESHOLD and M_TOP_PAD.
SETTINGS = {-4: 0, -1: -1, -2: 2**28}


def keep_freed_blocks() -> bool:
    """Make the GNU C library keep large freed blocks for the next allocations.

    By default, the library returns blocks above 32 MiB to the system at once. The system returns
    them page by page, cleared. For the maps of a training step this can take longer than the step.
    With the setting, the process keeps the largest amount of memory that it has used.

    Returns:
        bool: Whether the setting was made. It is not made with an accelerator, on other systems, or
        if the environment already has settings of the allocator (``MALLOC_...``).
    """
    has_settings = any(name.startswith('MALLOC_') for name in os.environ)
    if get_device() != 'cpu' or not sys.platform.startswith('linux') or has_settings:
        return False
    try:
        mallopt = ctypes.CDLL('libc.so.6').mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return all([mallopt(name, value) for name, value in SETTINGS.items()])
