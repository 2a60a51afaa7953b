"""What a request would forget, and what is nearest to it and would be kept, before anything is trained."""
