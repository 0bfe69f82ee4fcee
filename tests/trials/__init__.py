"""Trials of the real thing: `friday` processes that are killed, starved and lied to, and what must hold afterwards."""
