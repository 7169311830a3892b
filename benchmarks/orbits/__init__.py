"""What independent keys leave a network to learn."""
