"""One process learns: batches, losses, optimizer and loop."""
