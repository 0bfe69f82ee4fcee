"""Checks with real mail servers, which `make check-smtp` installs and runs; `pytest` alone collects nothing here."""
