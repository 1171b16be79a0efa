"""The `onrecord` command."""

from onrecord.cli.main import main

__all__ = ["main"]
