"""Access tokens of an OpenID Connect provider."""
