"""What a model makes of images that it is given to edit."""
