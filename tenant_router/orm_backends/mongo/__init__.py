"""What the managers for MongoDB share: settings, clients, the manager and the migration assistant."""
