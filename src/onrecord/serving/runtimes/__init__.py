"""One module for each model family: rows in, outputs out."""
