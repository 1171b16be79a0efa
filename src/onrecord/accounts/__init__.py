"""Who is asking: users, passwords, tokens."""
