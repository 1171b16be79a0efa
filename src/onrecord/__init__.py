"""onrecord: serve a tabular machine-learning model with every answer on the record."""

__version__ = "0.1.0"
