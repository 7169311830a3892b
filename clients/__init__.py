"""What runs at a participant: its images, its keys, and the answers it gives the provider."""
