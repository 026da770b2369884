"""Ray's machines: connect to them, count their room, compare them."""
