"""Proof that what was answered is on record, whatever happens to the server.

A load generator keeps every answer that arrived whole, a harness does harm, and the record is then
read directly: every answered call is there exactly once with the same bytes, and nothing is half
written. Each harness first has to catch a build that is broken on purpose. `python -m torture`
runs them; docs/durability.md tells what each of them shows.
"""
