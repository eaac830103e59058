"""Webhooks: signed, stored once, processed once."""
