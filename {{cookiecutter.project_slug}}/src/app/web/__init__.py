"""HTTP: server, middleware, problem details, health and dependencies."""
