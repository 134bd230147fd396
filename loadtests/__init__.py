"""Load on the running service, over HTTP only."""
