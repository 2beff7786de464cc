"""What PyModm and MongoEngine share: settings, clients, the base manager and migration assistant."""
