"""What is remembered: the database, its writer and its readers."""
