"""Videos in, shards out; and checking videos before."""
