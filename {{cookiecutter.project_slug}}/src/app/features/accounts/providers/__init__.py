"""Log-in with other providers: OpenID Connect, and GitHub."""
