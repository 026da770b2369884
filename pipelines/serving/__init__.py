"""The server: HTTP in front, a Ray Serve application of decoders and a model behind it, and a page."""
