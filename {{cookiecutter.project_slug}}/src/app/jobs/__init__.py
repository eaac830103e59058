"""Background jobs, which worker processes run after a commit or on a schedule."""
