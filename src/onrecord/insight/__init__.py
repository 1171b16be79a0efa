"""What is learnt from the record."""
