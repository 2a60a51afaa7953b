"""What all experiments are made of: pieces of work, a pool, means over seeds, estimates."""
