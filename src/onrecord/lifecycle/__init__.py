"""Which version of each model answers: how versions come, are put in place and go."""
