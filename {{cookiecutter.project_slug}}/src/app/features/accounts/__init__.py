"""Accounts: who they are, how they log in, and how long that lasts."""
