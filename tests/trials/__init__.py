"""Trials: commands that measure and torment the real thing, beside the tests."""
