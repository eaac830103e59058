"""Access tokens: the account that sends a request."""
