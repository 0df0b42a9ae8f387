"""What an agent sees, as pictures."""
