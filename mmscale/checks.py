# Copyright (c) mmscale contributors.
"""Checks of arguments; each raises ``ValueError`` that names the argument and what it takes."""

from numbers import Integral

import numpy as np


def is_integer(value: object) -> bool:
    """Tell whether a value is an integer, of Python or NumPy, and no bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_count(name: str, value: int, smallest: int) -> None:
    """Raise ``ValueError`` unless ``value`` is an integer of at least ``smallest``."""
    if not is_integer(value) or value < smallest:
        raise ValueError(f'{name} must be an integer of at least {smallest}, got {value!r}')


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f'{name} must be one of {", ".join(map(repr, choices))}, got {value!r}')


def check_flag(name: str, value: bool) -> None:
    """Raise ``ValueError`` unless ``value`` is True or False: a string such as 'no' is true."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f'{name} must be True or False, got {value!r}')
