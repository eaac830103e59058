"""Accounts, log-in, and sessions with refresh tokens."""
