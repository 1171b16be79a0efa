"""Lets `python -m onrecord` be the `onrecord` command."""

from onrecord.cli import main

main()
