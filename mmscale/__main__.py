# Copyright (c) mmscale contributors.
"""Run the tools by name: ``mmscale train CONFIG`` or ``python -m mmscale train CONFIG``."""

import runpy
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
COMMANDS = {
    'train': 'train.py',
    'test': 'test.py',
    'equivariance': 'equivariance.py',
    'visualize scale-space': 'visualize_scale_space.py',
    'visualize equivariance': 'visualize_equivariance.py',
    'export': 'deployment/export_onnx.py',
    'flops': 'analysis_tools/get_flops.py',
}


def main() -> None:
    """Run the script of ``tools/`` that the first words of the command line name."""
    words = sys.argv[1:]
    name = next((name for name in COMMANDS if words[: len(name.split())] == name.split()), None)
    if name is None:
        print('usage: mmscale COMMAND ... (--help for its arguments), a COMMAND being')
        print('\n'.join(f'  mmscale {name}' for name in COMMANDS))
        sys.exit(0 if not words or words[0] in ('-h', '--help') else 2)
    sys.argv = [f'mmscale {name}', *words[len(name.split()) :]]
    # The tools lie beside the package in a checkout, and within the package in an installation.
    folders = (PACKAGE / '.mim' / 'tools', PACKAGE.parent / 'tools')
    tools = next(folder for folder in folders if (folder / 'train.py').is_file())
    runpy.run_path(str(tools / COMMANDS[name]), run_name='__main__')


if __name__ == '__main__':
    main()
