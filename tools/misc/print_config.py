# Copyright (c) mmscale contributors.
"""Prints a config with all its bases merged: ``python tools/misc/print_config.py CONFIG``."""

import argparse
import sys

from mmengine.config import Config, DictAction


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Print a config with all its bases merged')
    parser.add_argument('config', help='path of the config file')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='settings that override the config, as key=value',
    )
    return parser.parse_args()


def main():
    args = parse_args()
    try:
        # Without the config's imports, whose own output would mix with the config.
        cfg = Config.fromfile(args.config, import_custom_modules=False)
    except FileNotFoundError as error:
        sys.exit(f'error: {error}')
    cfg.merge_from_dict(args.cfg_options)
    print(cfg.pretty_text)


if __name__ == '__main__':
    main()
