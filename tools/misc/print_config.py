# Copyright (c) mmscale contributors.
"""Prints a config with all its bases merged: ``python tools/misc/print_config.py CONFIG``."""

import argparse
import sys
from contextlib import redirect_stdout

# What packages print when they are imported would mix with the config.
with redirect_stdout(sys.stderr):
    from mmscale.engine import launch
    from mmscale.engine.errors import one_line_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Print a config with all its bases merged')
    parser.add_argument('config', help='path of the config file')
    launch.add_config_options(parser)
    return parser.parse_args()


@one_line_errors()
def main():
    args = parse_args()
    # Without the config's imports, for the same reason.
    cfg = launch.load_config(args.config, import_custom_modules=False)
    launch.merge_options(cfg, args.cfg_options)
    print(cfg.pretty_text)


if __name__ == '__main__':
    main()
