# Copyright (c) mmscale contributors.
"""Studies: many trainings of many configs, what they gave, and its tables and pictures.

``tools/study.py`` runs them. Needs Optuna: ``pip install mmscale[studies]``.
"""
