"""What is asked, and what the model says."""
