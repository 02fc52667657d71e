"""How each API is asked a question of ours, and how its answer is read: one module each."""
