"""The provider: models, rules and prices, tasks, and the HTTP client."""
