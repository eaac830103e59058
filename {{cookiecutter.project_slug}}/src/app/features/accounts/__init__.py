"""Accounts, their sessions with refresh tokens, and the mails that they send."""
