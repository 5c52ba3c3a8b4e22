"""Suites, baselines and the report of a run."""
