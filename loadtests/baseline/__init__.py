"""What the graph is compared with: the service that a good engineer would write by hand."""
