"""The main job on real digits, start to end."""
