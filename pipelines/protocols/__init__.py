"""From lists of videos and a seed to a `Split`: what trains and what is scored."""
