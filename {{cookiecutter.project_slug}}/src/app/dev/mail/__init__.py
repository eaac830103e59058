"""Catch the mails of development in an SMTP server, and show them on a page."""
