"""The Redis client and the read-through cache."""
