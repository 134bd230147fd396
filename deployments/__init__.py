"""The stages of the graph: plain classes, and the thin Ray Serve deployments that carry them."""
