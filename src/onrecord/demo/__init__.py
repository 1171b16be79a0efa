"""A small real model to try onrecord with."""
