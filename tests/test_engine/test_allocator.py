# Copyright (c) mmscale contributors.
import os
import platform
import subprocess
import sys

import pytest

# Page faults of asking for 64 MiB, writing to all of it and freeing it, again and again.
COUNT = """
import resource, sys
import torch
from mmscale.engine.allocator import keep_freed_blocks
done = sys.argv[1] == 'keep' and keep_freed_blocks()
for _ in range(2):
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**24)
print(done, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str, **env) -> tuple[str, int]:
    known = {k: v for k, v in os.environ.items() if not k.startswith('MALLOC_')}
    known['CUDA_VISIBLE_DEVICES'] = ''  # with an accelerator it does nothing
    result = subprocess.run([sys.executable, '-c', COUNT, how], env={**known, **env},
                            capture_output=True, text=True, check=True)  # fmt: skip
    done, count = result.stdout.split()[-2:]
    return done, int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='of the GNU C library')
def test_a_block_that_was_freed_is_used_again():
    # The fewest of three runs: a kernel that is short of memory takes pages back, which adds some.
    done, kept = min((faults('keep') for _ in range(3)), key=lambda found: found[1])
    assert done == 'True'
    _, left_alone = faults('leave')
    # With pages of 4 KiB 163,840 of them, with huge pages 320.
    assert left_alone >= 320 and kept < left_alone / 10


def test_settings_of_the_environment_stay():
    assert faults('keep', MALLOC_ARENA_MAX='2')[0] == 'False'
