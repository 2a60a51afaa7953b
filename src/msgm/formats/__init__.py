"""Model folders and files, read into a `ScoreModel` and written back."""
